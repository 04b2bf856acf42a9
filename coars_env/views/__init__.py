"""make: from the name of a dataset to an environment; `load_split` and `builder` are its steps, for one's own use.

The other modules here are further views of the same game: in numbers, for one side, in turn order, as chat.
"""

from pathlib import Path
from typing import Any, Literal, overload

from coars_env.datasets import Source, load
from coars_env.env import MAX_TURNS, CoarsEnv
from coars_env.errors import ConfigError
from coars_env.partners import Agent, FixedUser, RandomRecommender
from coars_env.rewards import Reward
from coars_env.tasks import (
    NUM_CANDIDATES,
    PeersOf,
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
from coars_env.transcript import RECOMMENDER
from coars_env.views.numeric import item_features
from coars_env.views.numeric_env import MaskedEnv, NumericEnv
from coars_env.views.single import RoleName, SingleAgentEnv, find_role

SplitName = Literal["leave_last", "llara", "random_holdout", "published"]
CandidateRule = Literal["uniform", "popularity", "llara"]
View = Literal["text", "numeric", "masked"]


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


def builder(
    split: Split,
    rule: CandidateRule = "uniform",
    *,
    num_candidates: int = NUM_CANDIDATES,
    peers: PeersOf = SvdPeers,
) -> TaskBuilder:
    """Candidates by rule, with what peers say of them.

    "uniform" and "popularity" never offer an item of the user; "llara" is uniform and bars only target and history.

    Args:
        split: the data.
        rule: how the negatives are drawn.
        num_candidates: K.
        peers: makes the peers of the split; `lambda split: None` for a game without.
    """
    if rule == "popularity":
        return TaskBuilder(split, popularity_candidates(split), peers(split), num_candidates)
    if rule in ("uniform", "llara"):
        sampler = uniform_candidates(split.dataset.num_items)
        return TaskBuilder(split, sampler, peers(split), num_candidates, exclude_owned=rule == "uniform")
    raise ConfigError(
        f"Unknown candidate rule. Expected 'uniform', 'popularity' or 'llara', found {rule!r}. Name one of them."
    )


@overload
def make(name: str, *, view: Literal["text"] = "text", **options: Any) -> CoarsEnv: ...
@overload
def make(name: str, *, view: Literal["numeric"], **options: Any) -> NumericEnv: ...
@overload
def make(name: str, *, view: Literal["masked"], **options: Any) -> MaskedEnv: ...
def make(
    name: str,
    *,
    view: View = "text",
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
) -> CoarsEnv | NumericEnv:
    """An environment by the name of its dataset: `make("movielens")`, `make("synthetic", users=100)`.

    Args:
        name: see `list_datasets`.
        view: "text" makes a `CoarsEnv`; "numeric" and "masked" make a `NumericEnv` or `MaskedEnv` with the
            `item_features` of the split.
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
    kinds: dict[str, type[NumericEnv] | None] = {"text": None, "numeric": NumericEnv, "masked": MaskedEnv}
    if view not in kinds:
        raise ConfigError(f"Unknown view. Expected one of {list(kinds)}, found {view!r}. Name one of them.")
    data = load_split(name, split, source=source, data_dir=data_dir, **options)
    peers = SvdPeers(data)
    build = builder(data, candidates, num_candidates=num_candidates, peers=lambda _: peers)
    episodes = freeze(build, subset, rule=candidates, draw=draw)
    env = CoarsEnv(episodes, max_turns=max_turns, reward=reward, render_mode=render_mode)
    kind = kinds[view]
    if kind is None:
        return env
    return kind(env, item_features(data, directions=peers.directions))


def single_agent(
    game: str | NumericEnv, role: RoleName = "recommender", partner: Agent | None = None, **options: Any
) -> SingleAgentEnv:
    """One side of the game as a Gymnasium environment: `single_agent("movielens", role="user")`.

    Args:
        game: name of a dataset, or an environment in numbers, `make(..., view="numeric")`.
        role: the side to be played, "recommender" or "user".
        partner: plays the other side; by default the simplest there is: a user that clicks whatever comes first, or
            a recommender that proposes at random.
        options: go to `make`.

    Raises:
        CoarsError: as `make`; or no such role.
    """
    other: Agent = FixedUser() if find_role(role) == RECOMMENDER else RandomRecommender()
    env = make(game, view="numeric", **options) if isinstance(game, str) else game
    if not isinstance(env, NumericEnv):
        raise ConfigError(
            f"One side is played in numbers. Expected the name of a dataset or a NumericEnv, found {env!r}. Make it by "
            "make(..., view='numeric')."
        )
    return SingleAgentEnv(env, role, partner or other)
