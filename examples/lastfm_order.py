"""Does the order of AFL's LastFM files explain its published figures? Trains on that order and tests on it.

    python examples/lastfm_order.py --out docs/results

In AFL's files the artists of every user ascend by an id of HetRec 2011, the target among them: the "next" artist is the
one of the highest id. coars-env shuffles the rest by seed (docs/datasets.md). Here the order is put back, in training
and in histories alike, by the ids of HetRec; users, candidates and draws are those of

    coars compare --dataset lastfm --variant afl --candidates llara

The rule "lowest id above the last one" reads nothing but those ids. It is no recommender, and no agent can play it.
"""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import tyro

import coars_env
from baselines import load_system
from coars_env import EpisodeSet, FixedUser, Split, Transcript, UserSequence

PUBLISHED = {"sasrec": ".2869", "gru4rec": ".2787", "caser": ".2705"}
"""AFL's Table 4, base model; arXiv:2410.20027."""


@dataclass(frozen=True, kw_only=True)
class OrderConfig:
    """What is trained."""

    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 5
    out: Path | None = None
    """Folder for a page."""


def artist_ids(split: Split) -> list[int]:
    """HetRec's id of each artist of the catalogue, found by name; AFL's table has lost the quotes."""
    listens = coars_env.load("lastfm", source="real")
    ids = {item.title.replace('"', ""): int(key) for item, key in zip(listens.items, listens.item_ids, strict=True)}
    return [ids[item.title.replace('"', "")] for item in split.dataset.items]


def as_shipped(split: Split, ids: list[int]) -> Split:
    """The same users with their items in ascending order of the ids."""

    def ascending(sequences: tuple[UserSequence, ...], held_out: int) -> tuple[UserSequence, ...]:
        parts = [(s, len(s.items) - held_out) for s in sequences]
        return tuple(
            replace(s, items=(*sorted(s.items[:cut], key=ids.__getitem__), *s.items[cut:])) for s, cut in parts
        )

    return replace(
        split,
        train=ascending(split.train, 0),
        validation=ascending(split.validation, 1),
        test=ascending(split.test, 1),
    )


def rule_hits(draws: list[EpisodeSet], ids: list[int]) -> float:
    """Hit@1 of "lowest id above the last one"."""
    hits = []
    for task in (task for draw in draws for task in draw.tasks):
        last = max(ids[item] for item in task.history)
        above = {ids[c] - last: c for c in task.candidates if ids[c] > last}
        hits.append(bool(above) and above[min(above)] == task.target)
    return float(np.mean(hits))


def main() -> None:
    config = tyro.cli(OrderConfig, description=__doc__)
    split = coars_env.load_split("lastfm", "published", variant="afl", source="real")
    ids = artist_ids(split)
    shipped = as_shipped(split, ids)
    build = coars_env.builder(shipped, "llara")
    draws = [coars_env.freeze(build, "test", draw=draw) for draw in range(config.draws)]
    runs: dict[str, list[list[list[Transcript]]]] = {}
    for name in ("item_knn", *PUBLISHED):
        fitted = {seed: load_system(name).fit(shipped, seed=seed).agent(coars_env.RECOMMENDER) for seed in config.seeds}
        runs[name] = [coars_env.evaluate(agent, FixedUser(), draws, seeds=(seed,))[0] for seed, agent in fitted.items()]
    rows = [
        (name, str(coars_env.summarize(name, of).estimates["hit_final"]), PUBLISHED.get(name, ""))
        for name, of in runs.items()
    ]
    rows.append(("lowest id above the last one", f"{rule_hits(draws, ids):.3f}", ""))
    table = coars_env.markdown_table(("system", "Hit@1, AFL's order [95 %]", "published"), rows)
    print(table)
    if config.out is not None:
        around = coars_env.environment_info()
        page = (
            "# LastFM of AFL: what do sequences that ascend by artist id give away?\n\n"
            f"Command: `python examples/{around['command']}`, commit {around['commit']}, {around['machine']}, Python "
            f"{around['python']}. REAL data {split.dataset.provenance.origin}, {len(shipped.test)} test users, LLaRA's "
            f"candidates, {config.draws} draws, {len(config.seeds)} seeds, intervals over users and seeds. Histories "
            f"and training sequences in the order of AFL's files.\n\n{table}\n"
        )
        config.out.mkdir(parents=True, exist_ok=True)
        name = f"lastfm_order_cpu_{date.today().isoformat()}.md"
        (config.out / name).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
