"""CrossPlay: every recommender with every user on the same episodes. A score belongs to the pair, not to either."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coars_env.datasets.dataset import FloatArray
from coars_env.dialogue import MAX_TURNS
from coars_env.errors import ConfigError, expect
from coars_env.evaluation.intervals import Estimate, bootstrap_interval
from coars_env.evaluation.metrics import METRICS
from coars_env.evaluation.reports import Runs, evaluate, markdown_table, metric_values
from coars_env.partners.agent import Agent, check_plays
from coars_env.rules import Rules
from coars_env.scoring import TranscriptReward
from coars_env.tasks import EpisodeSet


@dataclass(frozen=True)
class CrossPlay:
    """The runs of all pairs. Example: `cross_play(recommenders, users, sets).to_markdown("hit_final")`."""

    runs: dict[tuple[str, str], Runs]
    """(recommender, user) -> runs[s][d][n], see `evaluate`."""

    def values(self, metric: str, *, reward: TranscriptReward | None = None) -> dict[tuple[str, str], FloatArray]:
        """Compute a metric of `METRICS` for each pair, shape [S, D, N]: `paired_difference` compares two pairs.

        The reward scores the dialogues, `CoarsReward()` by default, see `episode_metrics`.

        Raises:
            ConfigError: there is no such metric.
        """
        if metric not in METRICS:
            raise ConfigError(f"Expected one of the metrics {list(METRICS)}, found {metric!r}. Name one.")
        return {pair: metric_values(runs, reward=reward)[metric] for pair, runs in self.runs.items()}

    def estimates(self, metric: str, *, reward: TranscriptReward | None = None) -> dict[tuple[str, str], Estimate]:
        """Estimate its mean and interval over users and seeds for each pair, see `values`."""
        return {pair: bootstrap_interval(values) for pair, values in self.values(metric, reward=reward).items()}

    def to_markdown(self, metric: str = "hit_final", *, reward: TranscriptReward | None = None) -> str:
        """Return a table: one row a recommender, one column a user, each cell a mean with its 95 % interval."""
        estimates = self.estimates(metric, reward=reward)
        recommenders = dict.fromkeys(recommender for recommender, _ in estimates)
        users = dict.fromkeys(user for _, user in estimates)
        rows = [(name, *(estimates[name, user] for user in users)) for name in recommenders]
        return markdown_table((metric, *users), rows)


def cross_play(
    recommenders: Mapping[str, Agent],
    users: Mapping[str, Agent],
    episode_sets: Sequence[EpisodeSet],
    *,
    seeds: Sequence[int] = (0,),
    max_turns: int = MAX_TURNS,
    rules: Rules | None = None,
) -> CrossPlay:
    """Play every recommender with every user, by name, on every set (one per candidate draw) under every seed.

    Raises:
        CoarsError: as `evaluate`; or the agents have no names.
    """
    for kind, agents in (("recommender", recommenders), ("user", users)):
        rule = f"Each {kind} has a name in the table."
        expect(Mapping, agents, rule, f"Pass {{'its name': the {kind}}}.")
        for name, agent in agents.items():
            check_plays(agent, f"The {kind} {name!r}")
    return CrossPlay(
        {
            (recommender, user): evaluate(
                recommenders[recommender], users[user], episode_sets, seeds=seeds, max_turns=max_turns, rules=rules
            )
            for recommender in recommenders
            for user in users
        }
    )
