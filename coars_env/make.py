"""Make environments from the name of a dataset; `load_split` and `builder` are the steps on the way."""

from pathlib import Path
from typing import Any, Literal, get_args, overload

from coars_env.datasets import Source, load
from coars_env.dialogue import MAX_TURNS
from coars_env.env import CoarsEnv
from coars_env.errors import ConfigError, expect
from coars_env.partners import Agent, FixedUser, RandomRecommender
from coars_env.rewards import Reward
from coars_env.tasks import (
    NUM_CANDIDATES,
    CandidateSampler,
    PeersOf,
    Split,
    SvdPeers,
    TaskBuilder,
    TopCandidates,
    VectorPeers,
    freeze,
    leave_last,
    llara,
    popularity_candidates,
    published,
    random_holdout,
    uniform_candidates,
)
from coars_env.transcript import RECOMMENDER, find_role
from coars_env.vector import VectorDialogueEnv, VectorNumericEnv
from coars_env.views.numeric import item_features
from coars_env.views.numeric_env import MaskedEnv, NumericEnv
from coars_env.views.single import RoleName, SingleAgentEnv

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

    Raises:
        DatasetError: no such dataset; its files are missing or damaged.
        TaskError: a split that the data do not have.
        ConfigError: no such split, or an option that the loader does not know.
    """
    splits = {"leave_last": leave_last, "llara": llara, "random_holdout": random_holdout, "published": published}
    if split is not None and split not in list(splits):
        raise ConfigError(f"Unknown split. Expected one of {', '.join(splits)}, found {split!r}. Name one of them.")
    dataset = load(name, source=source, data_dir=data_dir, **options)
    if split is None:
        split = "published" if dataset.parts else "random_holdout" if dataset.times == "none" else "leave_last"
    return splits[split](dataset)


def builder(
    split: Split,
    candidates: CandidateRule | CandidateSampler | TopCandidates = "uniform",
    *,
    num_candidates: int = NUM_CANDIDATES,
    peers: PeersOf = SvdPeers,
) -> TaskBuilder:
    """Candidates by the name of a rule or by a sampler of one's own, with what peers say of them.

    No item of the user is offered; but "llara", uniform otherwise, bars only target and history.

    Args:
        split: the data.
        candidates: how the negatives are drawn.
        num_candidates: K.
        peers: makes the peers of the split; `lambda split: None` for a game without.

    Raises:
        ConfigError: there is no such rule, it is no sampler, there are fewer than two candidates, or what makes peers
            is no function.
        TaskError: nobody is trained on.
    """
    expect(Split, split, "Tasks are cut from a split.", "`load_split` makes one.")
    if isinstance(peers, VectorPeers) or not callable(peers):
        raise ConfigError(
            f"Peers are made from the split. Expected a function of it, such as SvdPeers, found {peers!r:.200}. Pass "
            "`lambda split: my_peers` for peers that are there already."
        )
    if isinstance(candidates, str):
        if candidates not in get_args(CandidateRule):
            raise ConfigError(
                f"Unknown candidate rule. Expected 'uniform', 'popularity' or 'llara', found {candidates!r}. Name one "
                "of them, or pass a sampler."
            )
        popular = candidates == "popularity"
        sampler = popularity_candidates(split) if popular else uniform_candidates(split.dataset.num_items)
        return TaskBuilder(split, sampler, peers(split), num_candidates, exclude_owned=candidates != "llara")
    return TaskBuilder(split, candidates, peers(split), num_candidates)


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
    candidates: CandidateRule | CandidateSampler | TopCandidates = "uniform",
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
        candidates: by what the negatives are drawn: the name of a rule, or a sampler or `TopCandidates` of one's own,
            see `builder`. Sets of the latter have "custom" in their name; their digests tell them apart.
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
    if view not in list(kinds):
        raise ConfigError(f"Unknown view. Expected one of {list(kinds)}, found {view!r}. Name one of them.")
    if "rule" in options:
        raise ConfigError(
            "The rule by which candidates are drawn is the argument `candidates`. Expected "
            f"candidates={options['rule']!r}, found rule={options['rule']!r}. Rename it."
        )
    data = load_split(name, split, source=source, data_dir=data_dir, **options)
    peers = SvdPeers(data)
    build = builder(data, candidates, num_candidates=num_candidates, peers=lambda _: peers)
    episodes = freeze(build, subset, rule=candidates if isinstance(candidates, str) else "custom", draw=draw)
    env = CoarsEnv(episodes, max_turns=max_turns, reward=reward, render_mode=render_mode)
    kind = kinds[view]
    if kind is None:
        return env
    return kind(env, item_features(data, directions=peers.directions))


@overload
def make_vec(name: str, num_envs: int, *, view: Literal["numeric"] = "numeric", **options: Any) -> VectorNumericEnv: ...
@overload
def make_vec(name: str, num_envs: int, *, view: Literal["text"], **options: Any) -> VectorDialogueEnv: ...
def make_vec(
    name: str, num_envs: int, *, view: Literal["numeric", "text"] = "numeric", **options: Any
) -> VectorNumericEnv | VectorDialogueEnv:
    """Many games of one dataset at once: `make_vec("movielens", num_envs=1024)`.

    Args:
        name: see `list_datasets`.
        num_envs: N, how many games.
        view: "numeric" for arrays, "text" for dialogues in words.
        options: go to `make`.

    Raises:
        CoarsError: as `make`.
    """
    if view == "text":
        return VectorDialogueEnv(make(name, view="text", **options), num_envs)
    if view == "numeric":
        return VectorNumericEnv(make(name, view="numeric", **options), num_envs)
    raise ConfigError(f"Unknown view. Expected 'numeric' or 'text', found {view!r}. Name one of them.")


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
        CoarsError: as `make`; no such role, a partner that is no agent, or options where there is nothing to make.
    """
    other: Agent = FixedUser() if find_role(role) == RECOMMENDER else RandomRecommender()
    if "view" in options or (options and not isinstance(game, str)):
        raise ConfigError(
            "Options go to `make` beside the name of a dataset, and one side is always played in numbers. Expected no "
            f"view, and none at all beside an environment, found {options} beside {game!r}. Drop them."
        )
    env = make(game, view="numeric", **options) if isinstance(game, str) else game
    return SingleAgentEnv(env, role, other if partner is None else partner)
