"""Groups that decide together: scripted recommenders and users on MovieLens, numpy only.

    python examples/groups.py --num-users 3 --out docs/results

Every recommender plays twice: with the histories of all users, and with that of the first alone, on the same
candidates. Then users that judge by their own history answer, and a proposal ends the dialogue if all click it. Last,
each user wants one facet of the item, genre or decade, which the recommender may ask for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

import coars_env
from baselines import load_system
from coars_env import (
    RECOMMENDER,
    Agent,
    AskingRecommender,
    CandidateRule,
    EpisodeSet,
    FacetInstructions,
    FixedUser,
    InstructedUser,
    OracleUser,
    Rules,
    Scorer,
    ScorerUser,
    SilentUser,
    Source,
    Split,
    SvdPeers,
    TaskError,
    Transcript,
)

RULES = Rules(repeats="forbidden", answer="best")
SIZES = (2, 3, 4, 5, 8, 10, 20, 30)
MEASURES: dict[str, Callable[[Transcript], float]] = {
    "first proposal": lambda t: next((s.proposal for s in t.turns if s.question is None), None) == t.task.target,
    "last proposal": lambda t: t.final_item == t.task.target,
    "best proposal": lambda t: t.best_item == t.task.target,
    "all clicked": lambda t: t.ending == "accepted",
    "turns": lambda t: len(t.turns),
    "reward of the recommender": lambda t: float(np.mean([paid[RECOMMENDER] for paid in t.rewards])),
    "questions": lambda t: sum(turn.question is not None for turn in t.turns),
    "facets heard": lambda t: len({answer.reveal for turn in t.turns for answer in turn.answers if answer.reveal}),
    "of the users": lambda t: float(np.mean([[paid[a] for a in paid if a != RECOMMENDER] for paid in t.rewards])),
}
PLAY_MEASURES = [name for name in MEASURES if name not in ("questions", "facets heard")]
TALK_MEASURES = ["first proposal", "best proposal", "all clicked", "turns", "questions", "facets heard"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is played."""

    dataset: str = "movielens"
    num_users: int = 3
    candidates: CandidateRule = "uniform"
    draws: int = 5
    source: Source = "real"
    out: Path | None = None
    """Folder for a page."""


def alone(episodes: EpisodeSet) -> EpisodeSet:
    """The same candidates for the first user of each group alone."""
    return replace(episodes, tasks=tuple(task.for_user(0) for task in episodes))


def measure(runs: list[list[list[Transcript]]], name: str) -> np.ndarray:
    return np.array([[[MEASURES[name](one) for one in draw] for draw in seed] for seed in runs], dtype=np.float64)


def knowing(recommenders: dict[str, Agent], draws: list[EpisodeSet]) -> str:
    """Hit@1 of the first proposal with all histories and with one."""
    rows = []
    for name, agent in recommenders.items():
        group, one = (
            measure(coars_env.evaluate(agent, FixedUser(), sets), "first proposal")
            for sets in (draws, [alone(draw) for draw in draws])
        )
        estimates = [coars_env.bootstrap_interval(hits) for hits in (group, one)]
        rows.append((name, *estimates, coars_env.paired_difference(group, one)))
    return coars_env.markdown_table(("recommender", "all histories", "the first user's", "difference"), rows)


def deciding(recommenders: dict[str, Agent], users: dict[str, Agent], draws: list[EpisodeSet]) -> str:
    """What becomes of the dialogues."""
    rows = []
    for recommender, agent in recommenders.items():
        for user, partner in users.items():
            runs = coars_env.evaluate(agent, partner, draws, rules=RULES)
            cells = [coars_env.bootstrap_interval(measure(runs, name)) for name in PLAY_MEASURES]
            rows.append((recommender, user, *(f"{c.mean:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells)))
    return coars_env.markdown_table(("recommender", "users", *PLAY_MEASURES), rows)


def talking(scorer: Scorer, draws: list[EpisodeSet]) -> str:
    """Games in which each user wants a facet of its own: all of them, and the first alone."""
    items, rows = draws[0].items, []
    asks, listens = AskingRecommender(scorer, items), AskingRecommender(scorer, items, asks=False)
    for who, sets in (("all users", draws), ("the first user", [alone(draw) for draw in draws])):
        for name, recommender, user in (
            ("asks, users say what they want", asks, InstructedUser(items)),
            ("never asks, users say what they want", listens, InstructedUser(items)),
            ("never asks, users say nothing", listens, SilentUser(items)),
        ):
            runs = coars_env.evaluate(recommender, user, sets, rules=RULES)
            cells = [coars_env.bootstrap_interval(measure(runs, measured)) for measured in TALK_MEASURES]
            rows.append((who, name, *(f"{c.mean:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells)))
    return coars_env.markdown_table(("who decides", "pair", *TALK_MEASURES), rows)


def sizes(split: Split) -> str:
    """How many groups of each size the log offers."""
    rows = []
    for size in SIZES:
        try:
            rows.append((size, len(coars_env.hold_out_groups(split, size).groups("test"))))
        except TaskError:
            rows.append((size, 0))
    return coars_env.markdown_table(("users", "groups"), rows)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    single = coars_env.load_split(options.dataset, "leave_last", source=options.source)
    split = coars_env.hold_out_groups(single, options.num_users)
    build = coars_env.builder(split, options.candidates)
    draws = [coars_env.freeze(build, "test", draw=draw) for draw in range(options.draws)]
    wishes = coars_env.builder(split, options.candidates, instructions=FacetInstructions(("genre", "decade"), most=1))
    wishing = [coars_env.freeze(wishes, "test", draw=draw) for draw in range(options.draws)]
    svd, kernel = coars_env.svd_scorer(SvdPeers(split).directions), coars_env.kernel_scorer(split)
    recommenders: dict[str, Agent] = {
        "random": load_system("random").fit(split).agent(RECOMMENDER),
        "popularity": coars_env.GreedyRecommender(coars_env.popularity_scorer(split)),
        "item-kNN": load_system("item_knn").fit(split).agent(RECOMMENDER),
        "svd": coars_env.GreedyRecommender(svd),
        "kernel": coars_env.GreedyRecommender(kernel),
    }
    users: dict[str, Agent] = {
        "click all": FixedUser(),
        "svd, each by its own history": ScorerUser.fit(svd, (task for draw in draws for task in draw), accept=0.2),
        "know the target, err in 20 %": OracleUser((task for draw in draws for task in draw), flip=0.2),
    }
    text = "\n\n".join(
        [
            f"{len(draws[0])} groups of {options.num_users} users, {options.candidates} candidates, {options.draws} "
            f"draws, {split.dataset.provenance.source} data {split.dataset.provenance.origin}; intervals: 95 %, over "
            "groups.",
            f"## How many groups there are\n\n{sizes(single)}",
            f"## Hit@1 of the first proposal\n\n{knowing(recommenders, draws)}",
            f"## Dialogues of at most 4 turns; no rejected film is proposed again\n\n"
            f"{deciding(recommenders, users, draws)}",
            f"## Each user wants one facet; the prior is the kernel's\n\n{talking(kernel, wishing)}",
        ]
    )
    print(text)
    if options.out is not None:
        around = coars_env.environment_info()
        head = f"Command: `python examples/{around['command']}`, commit {around['commit']}, {around['machine']}."
        options.out.mkdir(parents=True, exist_ok=True)
        name = f"groups_{options.dataset}_{options.num_users}_{options.candidates}.md"
        (options.out / name).write_text(f"# Groups that decide together\n\n{head} {text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
