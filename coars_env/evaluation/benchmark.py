"""Benchmark, Played: the frozen questions that every system answers, and what one system answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coars_env.errors import ConfigError, ShapeError, whole_number
from coars_env.evaluation.controls import control_users
from coars_env.evaluation.reports import evaluate, hit_by_turn, metric_values
from coars_env.evaluation.scores import Scores
from coars_env.evaluation.simulation import Simulation, user_simulation
from coars_env.evaluation.simulation_report import simulation_counts
from coars_env.evaluation.user_test import UserTest, user_test
from coars_env.make import builder
from coars_env.partners.agent import Agent
from coars_env.rules import Rules
from coars_env.tasks import CandidateRule, EpisodeSet, FacetInstructions, PeersOf, Split, SvdPeers, freeze
from coars_env.transcript import Transcript


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The frozen questions. Example: `Benchmark.of(split).play("popularity", recommender, FixedUser())`."""

    episodes: tuple[EpisodeSet, ...]
    """A set for each candidate draw."""
    user_tests: tuple[UserTest, ...] = ()
    """The test of users, a draw for each of the episode sets."""
    rules: Rules = field(default_factory=Rules)
    """Rules of the game beside its length."""

    @classmethod
    def of(
        cls,
        split: Split,
        subset: str = "test",
        *,
        draws: int = 5,
        candidates: CandidateRule = "uniform",
        peers: PeersOf = SvdPeers,
        instructions: FacetInstructions | None = None,
        rules: Rules | None = None,
    ) -> "Benchmark":
        """Freeze the questions of a held-out part. The same peers speak in the episodes and in the test of users.

        Args:
            split: the data.
            subset: "validation" or "test".
            draws: candidate draws; draw d has the same candidates in every run of every system.
            candidates: how the negatives are drawn.
            peers: say their opinion of what is proposed.
            instructions: draw what each user wants; None for the paper's game. The test of users has none.
            rules: of the game; None for the default ones.

        Raises:
            ConfigError: no draws, or no such part or rule.
            TaskError: the part has no users.
        """
        draws = whole_number("Candidates must be drawn.", "draws", draws, 1)
        build = builder(split, candidates, peers=peers, instructions=instructions)
        return cls(
            tuple(freeze(build, subset, draw=draw) for draw in range(draws)),
            tuple(user_test(split, subset, draw=draw, peers=build.peers) for draw in range(draws)),
            Rules() if rules is None else rules,
        )

    def play(self, name: str, recommender: Agent, user: Agent, *, seed: int = 0, ask_user: bool = False) -> "Played":
        """Play a pair of agents on every draw of the episodes.

        Args:
            name: of the pair, for tables.
            recommender: proposes.
            user: answers.
            seed: of sampling, and of ties.
            ask_user: also put the user to its test; a scripted user makes it meaningless.
        """
        runs = evaluate(recommender, user, self.episodes, seeds=(seed,), rules=self.rules)
        return Played(name, (seed,), runs, [self.ask(user, seed=seed)] if ask_user else [])

    def play_controls(self, recommender: Agent, user: Agent, *, seed: int = 0) -> "dict[str, Played]":
        """Play the pair again with each of the `control_users` in the place of the user, by the names of these.

        Raises:
            ConfigError: the episodes have no instructions, see `OtherInstruction`.
        """
        tasks = [task for draw in self.episodes for task in draw]
        return {
            name: Played(name, (seed,), evaluate(recommender, control, self.episodes, seeds=(seed,), rules=self.rules))
            for name, control in control_users(user, tasks).items()
        }

    def ask(
        self, user: Agent, *, seed: int = 0, prepare: Callable[[UserTest], None] = lambda test: None
    ) -> list[Simulation]:
        """Put a user to every draw of the test of users. `prepare` is called before each draw."""
        if not self.user_tests:
            raise ConfigError("The benchmark has no test of users. Make it by Benchmark.of, or pass user_tests.")
        answers = []
        for test in self.user_tests:
            prepare(test)
            answers.append(user_simulation(user, test, seed=seed))
        return answers


@dataclass(frozen=True, eq=False)
class Played:
    """What one system did on a benchmark under S seeds, message by message."""

    name: str
    seeds: tuple[int, ...]
    runs: Sequence[Sequence[Sequence[Transcript]]]
    """[S][D][N] dialogues."""
    simulations: Sequence[Sequence[Simulation]] = field(default_factory=list)
    """[S][D] answers to the test of users; empty for systems whose user was not asked."""

    def joined(self, *others: "Played") -> "Played":
        """The same system with more seeds.

        Raises:
            ShapeError: the user of some of them was not asked.
        """
        parts = (self, *others)
        if len({bool(part.simulations) for part in parts}) != 1:
            raise ShapeError(
                f"The user of {self.name} was asked under some seeds only. Ask it under all, or under none."
            )
        return Played(
            self.name,
            tuple(seed for part in parts for seed in part.seeds),
            [seed for part in parts for seed in part.runs],
            [seed for part in parts for seed in part.simulations],
        )

    def scores(self) -> Scores:
        """Every metric of `METRICS` and `hit_by_turn` of each dialogue, and the counts of the test of users."""
        ratios = self.simulations[0][0].test.ratios if self.simulations else ()
        metrics = metric_values(self.runs)  # checks the runs
        return Scores(
            name=self.name,
            seeds=self.seeds,
            metrics={**metrics, **hit_by_turn(self.runs)},
            answer=self.runs[0][0][0].rules.answer,
            users={ratio: simulation_counts(self.simulations, ratio) for ratio in ratios},
        )
