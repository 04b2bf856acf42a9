"""Play every scripted recommender with every scripted user: the matrix of Hit@1, the meters, the cards of the users.

    python examples/cross_play.py --dataset synthetic

No download with --dataset synthetic, no GPU, no torch. A score belongs to a pair: compare within a column, never
across columns.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from coars_env import (
    METERS,
    Agent,
    CandidateRule,
    FixedRecommender,
    FixedUser,
    GreedyRecommender,
    OracleUser,
    RandomRecommender,
    ScorerUser,
    Split,
    SplitName,
    SvdPeers,
    builder,
    cross_play,
    freeze,
    item_counts,
    load_split,
    markdown_table,
    meter_report,
    popularity_scorer,
    svd_scorer,
    user_card,
    user_simulation,
    user_test,
)


@dataclass(frozen=True, kw_only=True)
class CrossPlayConfig:
    """What is played."""

    dataset: str = "movielens"
    """Name of the dataset."""
    split: SplitName = "leave_last"
    """Rule that says what is held out."""
    candidates: CandidateRule = "uniform"
    """Rule by which the negatives are drawn."""
    tasks: int = 1000
    """At most so many held-out users, drawn with a fixed seed."""
    seeds: int = 2
    """Number of seeds of sampling."""
    source: Literal["auto", "real", "synthetic"] = "auto"
    """"real" fails where there are no real data, in place of playing a synthetic world."""
    data_dir: Path | None = None
    """Where the files lie; else COARS_DATA, else the user cache."""


def report(config: CrossPlayConfig) -> str:
    """Play all pairs and lay the results out."""
    split = load_split(config.dataset, config.split, source=config.source, data_dir=config.data_dir)
    order = np.random.default_rng(0).permutation(len(split.test))[: config.tasks]
    split = replace(split, test=tuple(split.test[row] for row in sorted(order.tolist())))
    episodes = freeze(builder(split, config.candidates), "test")
    svd = svd_scorer(SvdPeers(split).directions)
    recommenders: dict[str, Agent] = {
        "random": RandomRecommender(),
        "first of the list": FixedRecommender(0),
        "popularity": GreedyRecommender(popularity_scorer(split)),
        "svd": GreedyRecommender(svd),
    }
    users: dict[str, Agent] = {
        "oracle": OracleUser(episodes),
        "errs in 20 %": OracleUser(episodes, flip=0.2),
        "accepts all": FixedUser(),
        "adversary": OracleUser(episodes, flip=1.0),
        "svd user": ScorerUser.fit(svd, episodes, accept=0.2),
        "picky svd user": ScorerUser.fit(svd, episodes, accept=0.02),
    }
    matrix = cross_play(recommenders, users, [episodes], seeds=range(config.seeds))
    meters = [
        meter_report(f"{recommender} x {user}", runs, episodes.items, item_counts(split))
        for (recommender, user), runs in matrix.runs.items()
    ]
    meter_rows = [(m.system, m.hit, *(f"{m.estimates[name].mean:.3f}" for name in METERS)) for m in meters]
    places = [f"- {name}: {m.positions}" for name, m in zip(recommenders, meters[:: len(users)], strict=True)]
    parts = [
        f"{episodes.name}: {len(episodes)} tasks, {config.seeds} seeds; {episodes.provenance.source} data "
        f"{episodes.provenance.origin}, episodes {episodes.sha256[:12]}.",
        *(f"## {metric}\n\n{matrix.to_markdown(metric)}" for metric in ("hit_final", "accepted", "turns")),
        f"## Meters\n\n{markdown_table(('pair', 'Hit@1 [95 %]', *METERS), meter_rows)}",
        "## Places of first proposals\n\n" + "\n".join(places),
        f"## Cards\n\n{cards(split, users)}",
    ]
    return "\n\n".join(parts)


def cards(split: Split, users: dict[str, Agent]) -> str:
    """The cards of the users that judge by a score, from AFL's test of user agents."""
    questions = user_test(split)
    judges = {name: user for name, user in users.items() if isinstance(user, ScorerUser)}
    return "\n".join(
        user_card(name, [[user_simulation(user, questions)]]).to_markdown() for name, user in judges.items()
    )


if __name__ == "__main__":
    print(report(tyro.cli(CrossPlayConfig)))
