"""UserTest, Simulation: AFL's test of a user agent (arXiv:2410.20027, 4.1.2). Would this user take this item?"""

import hashlib
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from coars_env.datasets.dataset import FloatArray, Item, Provenance
from coars_env.datasets.lastfm import read_afl_users
from coars_env.env import MAX_TURNS, Dialogue, checked_seed
from coars_env.errors import CoarsError, ConfigError, ShapeError, TaskError, expect, whole_number
from coars_env.evaluation.calibration import calibration_counts, calibration_statistics
from coars_env.evaluation.intervals import Difference, Estimate, difference, interval, own_rng, ratio_or_nan
from coars_env.evaluation.reports import markdown_table
from coars_env.partners.agent import Agent, check_plays
from coars_env.rollout import agent_seed
from coars_env.tasks import HISTORY_LENGTH, Split, Task, UserSequence, VectorPeers
from coars_env.transcript import ACTIONS, ROLES, STRENGTH_EDGES, USER, Transcript

_STREAM = 0xAF1
"""Keeps the generator of a user apart from those of the tasks, which are seeded by (seed, draw, row) too."""
RESERVED = 10
RESERVED_RATIOS = {"1:1": (10, 10), "1:3": (5, 15), "1:9": (2, 18)}
HELD_OUT_RATIOS = {"1:1": (1, 1), "1:3": (1, 3), "1:9": (1, 9)}
COUNT_COLUMNS = 12
"""Columns of `Simulation.counts` before those of the calibration."""


@dataclass(frozen=True)
class UserItems:
    """What one user is asked. Example: `UserItems(user=7, history=(4, 2), positives=(5,), negatives=(1, 0, 3))`."""

    user: int
    history: tuple[int, ...]
    positives: tuple[int, ...]
    """Items the user took after the history, in that order."""
    negatives: tuple[int, ...]
    """Items the user never took."""
    opinions: tuple[int, ...] = ()
    """What peers say of each of the `questions`, as in `Task.opinions`."""

    @property
    def questions(self) -> tuple[int, ...]:
        """Positives, then negatives."""
        return (*self.positives, *self.negatives)


@dataclass(frozen=True, eq=False)
class UserTest:
    """AFL's test of a user agent (arXiv:2410.20027, 4.1.2): would this user take this item? See `user_test`."""

    name: str
    users: tuple[UserItems, ...]
    ratios: dict[str, tuple[int, int]]
    """Name -> how many positives and how many negatives of each user, each the first of its list."""
    skipped: int
    """Users with too few interactions."""
    items: tuple[Item, ...]
    provenance: Provenance

    @property
    def sha256(self) -> str:
        """Hex digest of the questions; independent of machine and process."""
        body = {
            "name": self.name,
            "provenance": asdict(self.provenance),
            "users": [asdict(user) for user in self.users],
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def tasks(self) -> list[Task]:
        """One task per question, user by user. Its target is the item in question where that is a positive, and the
        first positive where it is not: "hit" then says whether yes is right.
        """
        return [
            Task(
                f"{self.name}-{row:04d}-{number:02d}",
                user.user,
                user.history,
                user.questions,
                item if item in user.positives else user.positives[0],
                opinions=user.opinions,
            )
            for row, user in enumerate(self.users)
            for number, item in enumerate(user.questions)
        ]


def user_test(
    split: Split, subset: str = "test", *, draw: int = 0, seed: int = 0, peers: VectorPeers | None = None
) -> UserTest:
    """The questions of a held-out part, the same for every agent.

    Users without training text (LLaRA's split) follow AFL: the last 10 items are reserved, the history is the last 10
    before them, positives are the first 10, 5 or 2 of the reserved, negatives 10, 15 or 18 random items the user never
    took. Users without an item before the reserved ones are skipped.

    Where the users' earlier items are training text (`leave_last`) reserved ones would have been trained on. There, in
    our adaptation, the held-out item is the only positive, with 1, 3 or 9 negatives.

    Ratios share questions, so each question is asked once: 28 or 10 a user. The generator of a user is seeded by seed,
    draw and row. No negative has the title of an item of the user.

    Args:
        split: the data.
        subset: "validation" or "test".
        draw: number of the draw of negatives.
        seed: seed of the family of draws.
        peers: say their opinion of every item in question, as in the game; pass those of its tasks,
            `builder(...).peers`. None leaves opinions out.

    Raises:
        TaskError: nobody is in that part, all have too few interactions, or there are too few items to ask about.
        ConfigError: there is no such part, or a number is negative or none.
    """
    expect(Split, split, "Users are taken from a split.", "`load_split` makes one.")
    if subset not in ("test", "validation"):
        raise ConfigError(f"Users are tested on a held-out part. Expected 'test' or 'validation', found {subset!r}.")
    if peers is not None:
        expect(VectorPeers, peers, "Opinions are those of peers.", "Pass `builder(split).peers`, or None.")
    part = split.part(subset)
    draw = whole_number("Draws and seeds are counted from 0.", "draw", draw, 0)
    seed = whole_number("Draws and seeds are counted from 0.", "seed", seed, 0)
    trained = {sequence.user for sequence in split.train}
    seen = any(sequence.user in trained for sequence in part)
    reserved, ratios = (1, HELD_OUT_RATIOS) if seen else (RESERVED, RESERVED_RATIOS)
    num_negatives = max(negatives for _, negatives in ratios.values())
    asked = [
        _user_items(split, sequence, reserved, num_negatives, np.random.default_rng([seed, draw, row, _STREAM]))
        for row, sequence in enumerate(part)
    ]
    users = [user for user in asked if user.history and user.positives]
    if not users:
        raise TaskError(
            f"Somebody must be asked. Expected a user with an item before the last {reserved} in {subset!r} of "
            f"{split!r}, found none: all {len(part)} have too few interactions. Use longer histories."
        )
    if peers is not None:
        said = peers.batch([(user.user, user.history, user.questions) for user in users])
        users = [replace(user, opinions=own.opinions) for user, own in zip(users, said, strict=True)]
    return UserTest(
        name=f"{split.dataset.name}/{split.name}/{subset}/user-simulation/d{draw}",
        users=tuple(users),
        ratios=ratios,
        skipped=len(part) - len(users),
        items=split.dataset.items,
        provenance=split.dataset.provenance,
    )


def afl_user_test(split: Split, *, data_dir: str | Path | None = None, draw: int = 0, seed: int = 0) -> UserTest:
    """AFL's test with its own 60 users of LastFM, by the same rules: the last ten of a user's list are reserved, the
    history is what stands before them, and negatives are none of the user's artists. See `read_afl_users`.

    They are no users of the split, so no peers speak. All of them own the artists of a test row of the split, and most
    share half of theirs or more with a training row.

    Args:
        split: of LastFM, variant "afl".
        data_dir: where the file lies, see `load_lastfm`.
        draw: number of the draw of negatives.
        seed: seed of the family of draws.

    Raises:
        ConfigError: the split is of other data, or a number is negative or none.
        DatasetError: the file is missing or damaged.
    """
    expect(Split, split, "Users are tested on a split.", "`load_split` makes one.")
    place_of = {name: place for place, name in enumerate(split.dataset.item_ids)}
    draw = whole_number("Draws and seeds are counted from 0.", "draw", draw, 0)
    seed = whole_number("Draws and seeds are counted from 0.", "seed", seed, 0)
    rows = read_afl_users(data_dir=data_dir)
    if split.dataset.name != "lastfm-afl" or not all(artist in place_of for _, owned in rows for artist in owned):
        raise ConfigError(
            f"AFL's users are of AFL's LastFM. Expected a split of lastfm-afl, found one of {split.dataset.name!r}. "
            'Pass load_split("lastfm", variant="afl").'
        )
    users = []
    for number, (shown, full) in enumerate(rows):
        items, owned = tuple(place_of[artist] for artist in shown), {place_of[artist] for artist in full}
        negatives = _negatives(split.dataset.items, owned, 18, np.random.default_rng([seed, draw, number, _STREAM]))
        cut = len(items) - RESERVED
        users.append(UserItems(number, items[max(0, cut - HISTORY_LENGTH) : cut], items[cut:], negatives))
    return UserTest(
        name=f"{split.dataset.name}/afl-users/user-simulation/d{draw}",
        users=tuple(users),
        ratios=RESERVED_RATIOS,
        skipped=0,
        items=split.dataset.items,
        provenance=split.dataset.provenance,
    )


def _user_items(
    split: Split, sequence: UserSequence, reserved: int, num_negatives: int, rng: np.random.Generator
) -> UserItems:
    owned = split.owned[sequence.user] | set(sequence.items)
    negatives = _negatives(split.dataset.items, owned, num_negatives, rng)
    cut = max(0, len(sequence.items) - reserved)
    history = sequence.items[max(0, cut - HISTORY_LENGTH) : cut]
    positives = tuple(item for item in dict.fromkeys(sequence.items[cut:]) if item not in history)
    return UserItems(sequence.user, history, positives, negatives)


def _negatives(
    items: Sequence[Item], owned: AbstractSet[int], wanted: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """Items that are not owned, nor have the title of one, in random order."""
    titles = {items[item].title for item in owned}
    negatives: list[int] = []
    for item in rng.permutation(len(items)).tolist():
        if len(negatives) == wanted:
            break
        if item not in owned and items[item].title not in titles:
            titles.add(items[item].title)
            negatives.append(item)
    if len(negatives) < wanted:
        raise TaskError(
            f"There must be enough items the user never took. Expected {wanted}, found {len(negatives)}. "
            "Test users on a larger catalogue."
        )
    return tuple(negatives)


@dataclass(frozen=True, eq=False)
class Simulation:
    """A test and the answers to it: one transcript per question, in the order of `UserTest.tasks`."""

    test: UserTest
    transcripts: tuple[Transcript, ...]

    def counts(self, ratio: str) -> FloatArray:
        """What `SIMULATION_METRICS` are made of, per user: shape [U, C].

        Columns: true positives, false positives, false negatives, true negatives, yes, unusable, then value and
        "is defined" of the user's own precision, recall and AUC; then those of `calibration_counts`. An unusable answer
        is counted as wrong, as AFL does, and left out of calibration.

        Raises:
            ConfigError: the test has no such ratio.
        """
        if ratio not in self.test.ratios:
            raise ConfigError(f"Expected one of the ratios {sorted(self.test.ratios)}, found {ratio!r}. Name one.")
        num_positives, num_negatives = self.test.ratios[ratio]
        rows, first = [], 0
        for user in self.test.users:
            answers = [_answer(transcript) for transcript in self.transcripts[first : first + len(user.questions)]]
            first += len(user.questions)
            asked = answers[: len(user.positives)][:num_positives], answers[len(user.positives) :][:num_negatives]
            rows.append(_count(*asked))
        return np.array(rows)


def _answer(transcript: Transcript) -> float:
    """Acceptance strength; NaN if there is no usable answer."""
    strength = transcript.turns[0].strength if transcript.turns else None
    return np.nan if strength is None else strength


def _count(positives: list[float], negatives: list[float]) -> list[float]:
    yes = STRENGTH_EDGES[ACTIONS.index("star")]
    right, wrong = np.nan_to_num(positives, nan=0.0), np.nan_to_num(negatives, nan=1.0)  # unusable: counted as wrong
    tp, fp = int((right >= yes).sum()), int((wrong >= yes).sum())
    fn, tn = len(right) - tp, len(wrong) - fp
    both = np.array([*positives, *negatives])
    auc = float((np.sign(right[:, None] - wrong).mean() + 1) / 2)
    precision = tp / (tp + fp) if tp + fp else 0.0
    own = [precision, float(tp + fp > 0), tp / len(right), 1.0, auc, 1.0]
    counts = [tp, fp, fn, tn, float((both >= yes).sum()), float(np.isnan(both).sum()), *own]
    return [*counts, *calibration_counts(positives, negatives)]


SIMULATION_METRICS = {
    "precision": "P = TP / (TP + FP), pooled over users; NaN if nothing was accepted",
    "recall": "R = TP / (TP + FN), pooled",
    "f1": "2 P R / (P + R) = 2 TP / (2 TP + FP + FN), pooled; 0 if nothing was accepted",
    "precision_per_user": "mean over the users who accepted something of their own P",
    "recall_per_user": "mean over users of their own R",
    "f1_per_user": "2 P R / (P + R) of these two means, as AFL; 0 if both are 0",
    "accuracy": "(TP + TN) / all",
    "auc": "mean over users of the chance that a positive gets a higher strength than a negative, ties one half",
    "acceptance": "share of all questions answered by star or click",
    "unusable": "share of all questions without a usable answer",
    "false_accept": "FP / (FP + TN), pooled: share of the items never taken that were accepted",
    "false_reject": "FN / (TP + FN) = 1 - R, pooled: share of the items taken that were not accepted",
    "brier": "mean of (strength - taken)^2 over the usable answers; .25 for a constant strength of one half",
    "ece": "expected calibration error: the gap between mean strength and share taken, averaged over the answers of "
    "ten bins of equal width. Needs answers in every bin to mean something, and rises with the noise of few",
}
"""Each metric of the user-simulation test, all in [0, 1]. Yes is a star or click."""


def _simulation_statistics(sums: FloatArray) -> FloatArray:
    """[..., C], see `Simulation.counts`, -> [..., M] in the order of `SIMULATION_METRICS`."""
    tp, fp, fn, tn, yes, unusable = (sums[..., k] for k in range(6))
    p, r, auc = (ratio_or_nan(sums[..., k], sums[..., k + 1]) for k in (6, 8, 10))
    total, p_or_0 = tp + fp + fn + tn, np.nan_to_num(p)
    f1_per_user = np.nan_to_num(ratio_or_nan(2 * p_or_0 * r, p_or_0 + r))
    f1 = ratio_or_nan(2 * tp, 2 * tp + fp + fn)
    pooled = [ratio_or_nan(tp, tp + fp), ratio_or_nan(tp, tp + fn), f1]
    shares = [ratio_or_nan(yes, total), ratio_or_nan(unusable, total)]
    wrong = [ratio_or_nan(fp, fp + tn), ratio_or_nan(fn, tp + fn)]
    calibration = np.moveaxis(calibration_statistics(sums[..., COUNT_COLUMNS:]), -1, 0)
    columns = [*pooled, p, r, f1_per_user, ratio_or_nan(tp + tn, total), auc, *shares, *wrong, *calibration]
    return np.stack(columns, axis=-1)


SimulationRuns = Sequence[Sequence[Simulation]]
"""runs[s][d]: the answers of the agent of seed s to draw d of the test."""


@dataclass(frozen=True)
class SimulationReport:
    """What one user agent answered. Example: `report.estimates["1:3"]["f1"].mean`."""

    system: str
    provenance: Provenance
    test: str
    """Name of the test, draw 0."""
    sha256: str
    """Digest of its questions."""
    seeds: int
    draws: int
    users: int
    skipped: int
    """Users with too few interactions to be asked."""
    estimates: dict[str, dict[str, Estimate]]
    """Ratio -> name in `SIMULATION_METRICS` -> mean and interval."""

    def to_markdown(self) -> str:
        """One row per metric, one column per ratio, under a line that says what was measured."""
        head = (
            f"**{self.system}**: {self.users} users ({self.skipped} skipped), {self.draws} draws, {self.seeds} seeds, "
            f"{self.test} ({self.sha256[:12]}); {self.provenance.source} data {self.provenance.origin} "
            f"({self.provenance.sha256[:12]})."
        )
        rows = [(name, *(str(column[name]) for column in self.estimates.values())) for name in SIMULATION_METRICS]
        return f"{head}\n\n{markdown_table(('metric', *self.estimates), rows)}\n"


def simulation_report(
    system: str,
    runs: SimulationRuns,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> SimulationReport:
    """Means over seeds with intervals: users and seeds are resampled, see `bootstrap_interval`.

    Raises:
        ShapeError: the runs do not answer the same tests, or there are none.
    """
    test, rng = tests_of(runs)[0], own_rng(rng)
    estimates = {
        ratio: simulation_estimates(simulation_counts(runs, ratio), level=level, resamples=resamples, rng=rng)
        for ratio in test.ratios
    }
    return SimulationReport(
        system=system,
        provenance=test.provenance,
        test=test.name,
        sha256=test.sha256,
        seeds=len(runs),
        draws=len(runs[0]),
        users=len(test.users),
        skipped=test.skipped,
        estimates=estimates,
    )


def simulation_estimates(
    counts: FloatArray,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> dict[str, Estimate]:
    """Each of `SIMULATION_METRICS` with its interval, from the counts at one ratio that `simulation_counts` makes,
    [S, U, C].
    """
    bounds = interval([counts], _simulation_statistics, level=level, resamples=resamples, rng=own_rng(rng))
    columns = zip(SIMULATION_METRICS, *(bound.tolist() for bound in bounds), strict=True)
    return {name: Estimate(*rest) for name, *rest in columns}


def simulation_difference(
    a: SimulationRuns,
    b: SimulationRuns,
    ratio: str,
    metric: str = "f1",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 10_000,
    rng: np.random.Generator | None = None,
) -> Difference:
    """a minus b in one metric on the same test, see `paired_difference`; a and b swap places in random users.

    Raises:
        ShapeError: the two did not answer the same questions.
        ConfigError: there is no such ratio or metric.
    """
    tests, others = tests_of(a), tests_of(b)
    if [test.sha256 for test in tests] != [test.sha256 for test in others]:
        raise ShapeError(
            f"A paired difference needs the same questions. Expected {[test.name for test in tests]} with equal "
            f"digests, found {[test.name for test in others]}. Put one test to both agents."
        )
    return counted_difference(
        simulation_counts(a, ratio),
        simulation_counts(b, ratio),
        metric,
        level=level,
        resamples=resamples,
        permutations=permutations,
        rng=rng,
    )


def counted_difference(
    a: FloatArray,
    b: FloatArray,
    metric: str = "f1",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 10_000,
    rng: np.random.Generator | None = None,
) -> Difference:
    """`simulation_difference` of counts that were kept, of one test at one ratio. [S, U, C] each.

    Raises:
        ConfigError: there is no such metric.
    """
    if metric not in SIMULATION_METRICS:
        raise ConfigError(f"Expected one of the metrics {list(SIMULATION_METRICS)}, found {metric!r}. Name one.")
    column = list(SIMULATION_METRICS).index(metric)

    def statistic(sums: FloatArray) -> FloatArray:
        return _simulation_statistics(sums)[..., [column]]

    return difference(a, b, statistic, level=level, resamples=resamples, permutations=permutations, rng=rng)


def simulation_counts(runs: SimulationRuns, ratio: str) -> FloatArray:
    """`Simulation.counts` averaged over draws, [S, U, C]."""
    tests_of(runs)
    counts = np.array([[simulation.counts(ratio) for simulation in seed] for seed in runs], dtype=np.float64)
    return np.asarray(counts.mean(1))


def tests_of(runs: SimulationRuns) -> list[UserTest]:
    """The test of each draw, the same for all seeds.

    Raises:
        ShapeError: they differ, there are none, or the runs are nested otherwise.
    """
    try:
        names = {tuple(simulation.test.sha256 for simulation in seed) for seed in runs}
        users = {tuple(user.user for user in simulation.test.users) for seed in runs for simulation in seed}
    except (AttributeError, TypeError) as reason:
        raise ShapeError(
            f"Runs are lists of lists. Expected the answers to each draw of the test as runs[seed][draw], found "
            f"{runs!r:.200}. Pass [[simulation]] for one."
        ) from reason
    if len(names) != 1 or len(users) != 1:
        raise ShapeError(
            "All runs must answer the same tests. Expected one list of draws over one list of users, found "
            f"{len(names)} and {len(users)}. Put the same tests to the agents of all seeds."
        )
    return [simulation.test for simulation in runs[0]]


def user_simulation(
    agent: Agent, test: UserTest, *, seed: int = 0, max_turns: int = MAX_TURNS, batch_size: int = 256
) -> Simulation:
    """Put each item to the user agent as the recommender's proposal of turn 1 for one answer, see `neutral_rationale`.

    `max_turns` is the horizon the agent is told of; the recorded episodes have one turn. A batch in which the agent
    raises is recorded as failed.

    Raises:
        CoarsError: settings that cannot be, what is no agent, or what an agent raises as such.
    """
    check_plays(agent, "The user")
    expect(UserTest, test, "The questions are those of a test.", "`user_test(split)` makes one.")
    seed, batch_size = checked_seed(seed), whole_number("A batch holds dialogues.", "batch_size", batch_size, 1)
    tasks, transcripts = test.tasks(), []
    positions = [position for user in test.users for position in range(len(user.questions))]
    for first in range(0, len(tasks), batch_size):
        batch = [Dialogue(task, test.items, max_turns=max_turns) for task in tasks[first : first + batch_size]]
        for position, dialogue in zip(positions[first:], batch, strict=False):
            dialogue.recommend(position, neutral_rationale(dialogue.task, test.items))
        cause = _ask(agent, batch, seed, first)
        for dialogue in batch:
            if dialogue.speaker == USER:
                dialogue.fail(cause or "")
            turns, ending = tuple(dialogue.turns), dialogue.ending or "max_turns"
            transcripts.append(
                Transcript(dialogue.task, 1, turns, ending, dialogue.cause, provenance=test.provenance, seed=seed)
            )
    return Simulation(test, tuple(transcripts))


def neutral_rationale(task: Task, items: Sequence[Item]) -> str:
    """The reason under which every question is put, whatever its item: the latest of the history is named.

    AFL's questions name an item and no reason. In this game a proposal comes with one, and an agent that never met a
    bare proposal would be tested on its form rather than its taste; ours.
    """
    return f"It goes well with {items[task.history[-1]].title}." if task.history else "It is one of the list."


def _ask(agent: Agent, dialogues: Sequence[Dialogue], seed: int, first: int) -> str | None:
    """Let the user agent answer where it can; the cause if it broke."""
    agent.start([agent_seed(seed, ROLES.index(USER), first + n) for n in range(len(dialogues))])
    try:
        actions = agent.act({n: dialogue.observe(dialogue.speaker) for n, dialogue in enumerate(dialogues)})
        for n, dialogue in enumerate(dialogues):
            dialogue.act(actions[n])
    except CoarsError:
        raise
    except Exception as error:  # a defect of the agent is data, whatever it is
        return f"{USER}: {error!r}"
    return None
