"""make: from the name of a dataset to an environment; `load_split` and `builder` are its steps, for one's own use."""

from pathlib import Path
from typing import Any, Literal

from coars_env.datasets import Source, load
from coars_env.env import MAX_TURNS, CoarsEnv
from coars_env.errors import ConfigError
from coars_env.rewards import Reward
from coars_env.tasks import (
    NUM_CANDIDATES,
    Split,
    SvdPeers,
    TaskBuilder,
    freeze,
    leave_last,
    llara,
    popularity_candidates,
    published,
    random_holdout,
    uniform_candidates,
)

SplitName = Literal["leave_last", "llara", "random_holdout", "published"]
CandidateRule = Literal["uniform", "popularity", "llara"]


def load_split(
    name: str,
    split: SplitName | None = None,
    *,
    source: Source = "auto",
    data_dir: str | Path | None = None,
    **options: Any,
) -> Split:
    """A dataset by name, divided. `options` go to the dataset's loader.

    Without a split the publisher's own is taken where there is one, else "leave_last", else, where rows have no order,
    "random_holdout".
    """
    splits = {"leave_last": leave_last, "llara": llara, "random_holdout": random_holdout, "published": published}
    if split is not None and split not in splits:
        raise ConfigError(f"Unknown split. Expected one of {', '.join(splits)}, found {split!r}. Name one of them.")
    dataset = load(name, source=source, data_dir=data_dir, **options)
    if split is None:
        split = "published" if dataset.parts else "random_holdout" if dataset.times == "none" else "leave_last"
    return splits[split](dataset)


def builder(split: Split, rule: CandidateRule = "uniform", *, num_candidates: int = NUM_CANDIDATES) -> TaskBuilder:
    """Candidates by rule, with the peer similarities of `SvdPeers`.

    "uniform" and "popularity" never offer an item of the user; "llara" is uniform and bars only target and history.
    """
    if rule == "popularity":
        return TaskBuilder(split, popularity_candidates(split), SvdPeers(split), num_candidates)
    if rule in ("uniform", "llara"):
        sampler = uniform_candidates(split.dataset.num_items)
        return TaskBuilder(split, sampler, SvdPeers(split), num_candidates, exclude_owned=rule == "uniform")
    raise ConfigError(
        f"Unknown candidate rule. Expected 'uniform', 'popularity' or 'llara', found {rule!r}. Name one of them."
    )


def make(
    name: str,
    *,
    split: SplitName | None = None,
    subset: Literal["train", "validation", "test"] = "test",
    candidates: CandidateRule = "uniform",
    draw: int = 0,
    num_candidates: int = NUM_CANDIDATES,
    max_turns: int = MAX_TURNS,
    reward: Reward | None = None,
    render_mode: str | None = None,
    source: Source = "auto",
    data_dir: str | Path | None = None,
    **options: Any,
) -> CoarsEnv:
    """An environment by the name of its dataset: `make("movielens")`, `make("synthetic", users=100)`.

    Args:
        name: see `list_datasets`.
        split: "leave_last" holds out each user's last item, "random_holdout" one drawn by seed, "llara" whole users;
            "published" is the publisher's. None takes the one that fits the data, see `load_split`.
        subset: which part is played.
        candidates: rule by which the negatives are drawn.
        draw: number of the candidate draw.
        num_candidates: K.
        max_turns: T.
        reward: rewards of both sides; CoARS's by default.
        render_mode: None, "ansi" or "human".
        source: "auto" takes real data and, where none can be had, warns and plays a synthetic world; "real" fails
            instead; "synthetic" never looks.
        data_dir: where the files lie; else `COARS_DATA`, else the user cache, else the official archive.
        options: go to the dataset's loader, for instance `variant="latest-small"`.

    Raises:
        CoarsError: unknown names, missing or damaged data, settings that contradict.
    """
    build = builder(
        load_split(name, split, source=source, data_dir=data_dir, **options), candidates, num_candidates=num_candidates
    )
    episodes = freeze(build, subset, rule=candidates, draw=draw)
    return CoarsEnv(episodes, max_turns=max_turns, reward=reward, render_mode=render_mode)
