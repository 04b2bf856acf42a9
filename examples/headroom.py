"""How much can words bring? Scripted partners and bounds on MovieLens-100K, numpy only.

    python examples/headroom.py --out docs/results

A kernel over the last ten items is the prior. The bounds see part of what is true of the target and propose once; the
pairs talk: the recommender asks, or only listens, and the user answers truthfully, says nothing, or answers by the
instruction of another task. Settings are looked at on validation users of leave_last_two, figures are of all test users
of leave_last.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

import coars_env
from coars_env import (
    Agent,
    AskingRecommender,
    CandidateRule,
    EpisodeSet,
    Estimate,
    Facet,
    FacetInstructions,
    FixedUser,
    InstructedUser,
    Instruction,
    Item,
    Rules,
    Scorer,
    ShuffledUser,
    SilentUser,
    Split,
    Task,
    Transcript,
    UserSequence,
    bootstrap_interval,
    markdown_table,
)

KINDS = ("genre", "decade")
RULES = Rules(repeats="forbidden", answer="best")
CANDIDATES: tuple[CandidateRule, ...] = ("uniform", "popularity", "confusable")
TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is played."""

    draws: int = 5
    max_turns: int = 4
    out: Path | None = None
    """Folder for a page."""


def told(task: Task, item: Item) -> dict[str, tuple[Facet, ...]]:
    """What each bound knows of the target. The genre is the one that the user of the task wants."""
    wish = task.instruction.facets if task.instruction else ()
    genre = tuple(facet for facet in wish if facet.kind == "genre")
    decade = tuple(facet for facet in wish if facet.kind == "decade")
    every = tuple(Facet("genre", value) for value in item.genres)
    return {
        "last 10 items": (),
        "+ one genre": genre,
        "+ its decade": decade,
        "+ one genre and the decade": genre + decade,
        "+ all genres and the decade": every + decade,
    }


BOUNDS = tuple(told(Task("", 0, (), (0,), 0), Item("")))
START, FULL = BOUNDS[0], BOUNDS[3]


def knowing(episodes: EpisodeSet, bound: str) -> EpisodeSet:
    """The same tasks, whose instruction is what a bound knows."""
    facets = [told(task, episodes.items[task.target])[bound] for task in episodes]
    tasks = (replace(t, instruction=Instruction(f, KINDS)) for t, f in zip(episodes, facets, strict=True))
    return replace(episodes, tasks=tuple(tasks))


def played(
    episodes: EpisodeSet, recommender: AskingRecommender, user: Agent, turns: int, seed: int = 0
) -> list[Transcript]:
    options = {"provenance": episodes.provenance, "rules": RULES, "max_turns": turns, "seed": seed}
    return coars_env.rollout(episodes, episodes.items, recommender, user, **options)


def first_hit(transcript: Transcript) -> bool:
    """Whether the first proposal is right, after however many questions."""
    proposals = [turn.proposal for turn in transcript.turns if turn.proposal is not None]
    return proposals[:1] == [transcript.task.target]


MEASURES: dict[str, Callable[[Transcript], float]] = {
    "first proposal": first_hit,
    "answer": lambda t: t.best_item == t.task.target,
    "last proposal": lambda t: t.final_item == t.task.target,
    "questions": lambda t: sum(turn.question is not None for turn in t.turns),
    "turns": lambda t: len(t.turns),
}
COUNTS = ("questions", "turns")
Talks = dict[tuple[str, CandidateRule], list[list[Transcript]]]
"""Dialogues of a pair on the candidates of a rule, by draw."""
ASKS = "asks, InstructedUser"
CONTROLS = (ASKS, "asks, SilentUser", "asks, ShuffledUser")


def pairs(scorer: Scorer, episodes: EpisodeSet) -> Iterator[tuple[str, AskingRecommender, Agent]]:
    items = episodes.items
    asks, listens = AskingRecommender(scorer, items), AskingRecommender(scorer, items, asks=False)
    yield ASKS, asks, InstructedUser(items)
    yield CONTROLS[1], asks, SilentUser(items)
    yield CONTROLS[2], asks, ShuffledUser(items, episodes)
    yield "asks, ShuffledUser that also judges by the other task", asks, ShuffledUser(items, episodes, whole=True)
    yield "never asks, InstructedUser", listens, InstructedUser(items)
    yield "never asks, InstructedUser that volunteers nothing", listens, InstructedUser(items, volunteer=0)
    sees = AskingRecommender(scorer, items, shown=episodes)
    yield "sees the instruction, InstructedUser", sees, InstructedUser(items)


def by_file_id(split: Split) -> Split:
    """The same users, items of the same second in ascending order of the ids in the file: the target is the highest."""
    data, order = split.dataset, np.array([int(key) for key in split.dataset.item_ids])
    parts: list[tuple[UserSequence, ...]] = []
    for part, held_out in ((split.train, 1), (split.test, 0)):
        sequences = []
        for user in (sequence.user for sequence in part):
            rows = data.rows(user)
            taken = data.item_indices[rows][np.lexsort((order[data.item_indices[rows]], data.timestamps[rows]))]
            sequences.append(UserSequence(user, tuple(taken[: len(taken) - held_out].tolist())))
        parts.append(tuple(sequences))
    return replace(split, train=parts[0], test=parts[1])


def sets(split: Split, candidates: CandidateRule, subset: str, draws: int) -> list[EpisodeSet]:
    """Without peers, which nobody here listens to."""
    build = coars_env.builder(split, candidates, peers=lambda _: None, instructions=FacetInstructions(KINDS))
    return [coars_env.freeze(build, subset, draw=draw) for draw in range(draws)]


def table(rows: Sequence[tuple[str, ...]]) -> str:
    return markdown_table(rows[0], rows[1:])


def estimate(runs: Sequence[Sequence[Transcript]], measure: str) -> Estimate:
    return bootstrap_interval([[float(MEASURES[measure](t)) for t in run] for run in runs])


def bounds(scorer: Scorer, draws: Sequence[EpisodeSet]) -> dict[str, Estimate]:
    found = {}
    for bound in BOUNDS:
        known = [knowing(episodes, bound) for episodes in draws]
        runs = [played(e, AskingRecommender(scorer, e.items, shown=e), FixedUser(), 1) for e in known]
        found[bound] = estimate(runs, "first proposal")
    return found


def bounds_table(corner: str, known: dict[CandidateRule, dict[str, Estimate]]) -> list[tuple[str, ...]]:
    return [(corner, *CANDIDATES), *((bound, *(str(known[rule][bound]) for rule in CANDIDATES)) for bound in BOUNDS)]


def validation_rows(split: Split, max_turns: int) -> list[tuple[str, ...]]:
    """By temperature, log probability of the target and answer of the pair; by `volunteer`, answers of two pairs."""
    scorer, rows = coars_env.kernel_scorer(split), [("validation users", *CANDIDATES)]
    draws = {rule: sets(split, rule, "validation", 1)[0] for rule in CANDIDATES}
    for temperature in TEMPERATURES:
        cells = []
        for episodes in draws.values():
            asker = AskingRecommender(scorer, episodes.items, temperature=temperature)
            chances = [asker.prior([t.history], t.candidates)[t.candidates.index(t.target)] for t in episodes]
            answer = estimate([played(episodes, asker, InstructedUser(episodes.items), max_turns)], "answer")
            cells.append(f"{np.log(chances).mean():.3f}, {answer.mean:.3f}")
        rows.append((f"temperature {temperature}", *cells))
    for volunteer in (0.0, 0.5, 1.0):
        cells = []
        for episodes in draws.values():
            user = InstructedUser(episodes.items, volunteer=volunteer)
            pair = [AskingRecommender(scorer, episodes.items, asks=asks) for asks in (True, False)]
            answers = [estimate([played(episodes, agent, user, max_turns)], "answer").mean for agent in pair]
            cells.append(", ".join(f"{answer:.3f}" for answer in answers))
        rows.append((f"volunteer {volunteer}", *cells))
    return rows


def share_rows(known: dict[CandidateRule, dict[str, Estimate]], talks: Talks) -> list[tuple[str, ...]]:
    rows = [(f'share of the way from "{START}" to "{FULL[2:]}"', *CANDIDATES)]
    for measure in ("first proposal", "answer"):
        found = [estimate(talks[ASKS, rule], measure).mean for rule in CANDIDATES]
        ways = [(known[rule][START].mean, known[rule][FULL].mean) for rule in CANDIDATES]
        shares = (f"{(x - low) / (high - low):.2f}" for x, (low, high) in zip(found, ways, strict=True))
        rows.append((f"{ASKS}: {measure}", *shares))
    return rows


def talk_rows(talks: Talks) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("pair", "candidates", *MEASURES)]
    for (name, rule), runs in talks.items():
        found = {measure: estimate(runs, measure) for measure in MEASURES}
        cells = (f"{e.mean:.2f}" if measure in COUNTS else str(e) for measure, e in found.items())
        rows.append((name, rule, *cells))
    return rows


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    split = coars_env.load_split("movielens", "leave_last", source="real")
    scorer, ordered = coars_env.kernel_scorer(split), by_file_id(split)
    draws = {rule: sets(split, rule, "test", options.draws) for rule in CANDIDATES}
    known = {rule: bounds(scorer, draws[rule]) for rule in CANDIDATES}
    talks: Talks = {}
    for draw in range(options.draws):
        for rule in CANDIDATES:
            for name, recommender, user in pairs(scorer, draws[rule][draw]):
                run = played(draws[rule][draw], recommender, user, options.max_turns, seed=draw)
                talks.setdefault((name, rule), []).append(run)
    rows = bounds_table("what the recommender knows", known)
    for name in CONTROLS:
        answers = (str(estimate(talks[name, rule], "answer")) for rule in CANDIDATES)
        rows.append((f"{name}, T = {options.max_turns}", *answers))
    later = coars_env.kernel_scorer(ordered)
    tied = {rule: bounds(later, sets(ordered, rule, "test", options.draws)) for rule in CANDIDATES}
    around, origin = coars_env.environment_info(), split.dataset.provenance
    page = PAGE.format(
        command=f"`python examples/{around['command']}`, commit {around['commit']}, {around['machine']}",
        data=f"{origin.origin} ({origin.sha256[:12]}), leave_last, all {len(split.test)} test users",
        draws=options.draws,
        temperature=AskingRecommender(scorer, split.dataset.items).temperature,
        headroom=table(rows),
        shares=table(share_rows(known, talks)),
        talks=table(talk_rows(talks)),
        validation=table(
            validation_rows(coars_env.load_split("movielens", "leave_last_two", source="real"), options.max_turns)
        ),
        ties=table(bounds_table("ties by file id", tied)),
    )
    print(page)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "headroom_movielens.md").write_text(page, encoding="utf-8")


PAGE = """# Headroom: what words can bring on MovieLens-100K

Command: {command}. REAL data {data}, {draws} candidate draws of 20 (seed 0; agents of draw d have seed d), 95 %
intervals over users. No language model: the prior is `kernel_scorer`, the bounds are `AskingRecommender(shown=...)`,
and users want one genre and the decade of their target. Rules: repeats forbidden; the answer is the accepted proposal,
else the one accepted most strongly.

{headroom}

{shares}

The first proposal is what questions alone bring: no answer to a proposal has been heard then. The answer also gains
from a user that judges by its instruction, which a silent one does, too: compare the pairs.

{talks}

## Settings, chosen on validation users

Of leave_last_two, one draw; test users were not looked at. By temperature: mean log probability of the target in the
prior, and answer of the asking pair. Chosen is {temperature:g}. By `volunteer`: answer of the pair that asks, and of
the pair that never asks; it is a trait of the user and not tuned.

{validation}

## Items of the same second

44 % of the targets share their second with the item before. Such items keep the order of the file, above and everywhere
in coars-env. In ascending order of their ids in the file the target is the highest id of its second, and less is known:

{ties}
"""


if __name__ == "__main__":
    main()
