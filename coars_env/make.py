"""Make environments from a dataset, by name or as an object; `load_split` and `builder` are the steps on the way."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

from coars_env.datasets import Dataset, Source, call_loader, load
from coars_env.dialogue import MAX_TURNS
from coars_env.env import CoarsEnv
from coars_env.errors import ConfigError, expect, whole_number
from coars_env.imports import import_object
from coars_env.partners import Agent, FixedUser, RandomRecommender
from coars_env.rewards import Reward
from coars_env.rules import Rules
from coars_env.tasks import (
    NUM_CANDIDATES,
    AnySampler,
    CandidateRule,
    EpisodeSet,
    FacetInstructions,
    PeersOf,
    Split,
    SvdPeers,
    TaskBuilder,
    VectorPeers,
    freeze,
    hold_out_groups,
    leave_last,
    llara,
    published,
    random_holdout,
    sampler_of,
    with_likes,
)
from coars_env.transcript import RECOMMENDER, find_role
from coars_env.vector.dialogue import VectorDialogueEnv
from coars_env.vector.numeric import VectorNumericEnv
from coars_env.vector.single import SingleAgentVectorEnv
from coars_env.views.numeric import Floats, item_features
from coars_env.views.numeric_env import MaskedEnv, NumericEnv
from coars_env.views.single import RoleName, SingleAgentEnv

SplitName = Literal["leave_last", "leave_last_two", "llara", "random_holdout", "published"]
Subset = Literal["train", "validation", "test"]
View = Literal["text", "numeric", "masked"]
Data = str | Dataset | Split | EpisodeSet
"""What an environment is made of: the name of a dataset or `module:function`, or an object."""


def load_data(
    name: str, *, source: Source | None = None, data_dir: str | Path | None = None, **options: Any
) -> Dataset | Split:
    """Load a dataset by name, or call a function of one's own.

    Args:
        name: see `list_datasets`; or `module:function`, which returns a `Dataset` or a `Split`. Such a module may lie
            in the working directory.
        source: see `coars_env.load`; of one's own data there is no synthetic copy.
        data_dir: see `coars_env.load`; passed on to a function that has this parameter.
        options: go to the dataset's loader, or to the function.

    Raises:
        DatasetError: no such dataset; its files are missing or damaged.
        ConfigError: the function cannot be imported or returns something else, or does not know an option.
    """
    if not isinstance(name, str) or ":" not in name:
        return load(name, source=source or "auto", data_dir=data_dir, **options)
    function = import_object(name)
    if isinstance(function, Dataset | Split) or not callable(function):
        raise ConfigError(f"{name!r} must name a function, got {function!r:.200}. Name one that returns the data.")
    if source == "synthetic":
        raise ConfigError(f"{name!r} has no synthetic copy, got source='synthetic'. Leave the source out.")
    data = call_loader(name, function, data_dir, options)
    if not isinstance(data, Dataset | Split):
        raise ConfigError(f"{name!r} must return a Dataset or a Split, got {data!r:.200}. Correct the function.")
    return data


def load_split(
    data: str | Dataset,
    split: SplitName | None = None,
    *,
    source: Source | None = None,
    data_dir: str | Path | None = None,
    **options: Any,
) -> Split:
    """Divide a dataset, by name or as an object.

    Without a split the one that comes with the data is taken where there is one, else "leave_last", else, where rows
    have no order, "random_holdout".

    Args:
        data: a dataset, or its name, see `load_data`.
        split: "leave_last" holds out each user's last item; "leave_last_two" also the one before, for validation;
            "random_holdout" one drawn by seed; "llara" whole users; "published" what the data say.
        source: see `coars_env.load`.
        data_dir: see `coars_env.load`.
        options: go to the dataset's loader.

    Raises:
        DatasetError: no such dataset; its files are missing or damaged.
        TaskError: a split that the data do not have.
        ConfigError: no such split, an option that the loader does not know, options of loading beside an object, or a
            split of data that are divided already.
    """
    splits: dict[str, Callable[[Dataset], Split]] = {
        "leave_last": leave_last,
        "leave_last_two": partial(leave_last, validation=True),
        "llara": llara,
        "random_holdout": random_holdout,
        "published": published,
    }
    if split is not None and split not in list(splits):
        raise ConfigError(f"Unknown split. Expected one of {', '.join(splits)}, found {split!r}. Name one of them.")
    if isinstance(data, Dataset):
        _refuse("a Dataset", source=source, data_dir=data_dir, **options)
        dataset: Dataset | Split = data
    else:
        dataset = load_data(data, source=source, data_dir=data_dir, **options)
    if isinstance(dataset, Split):
        _refuse(f"the Split of {data!r}", split=split)
        return dataset
    if split is None:
        split = "published" if dataset.parts else "random_holdout" if dataset.times == "none" else "leave_last"
    return splits[split](dataset)


def _refuse(beside: str, /, **options: object) -> None:
    """Refuse options that mean nothing beside what was passed; None is one that was not given."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)} cannot be given beside {beside}. Leave it out, or pass None.")


def builder(
    split: Split,
    candidates: CandidateRule | AnySampler = "uniform",
    *,
    num_candidates: int = NUM_CANDIDATES,
    peers: PeersOf = SvdPeers,
    instructions: FacetInstructions | None = None,
) -> TaskBuilder:
    """Candidates by the name of a rule or by a sampler of one's own, with what peers say of them.

    No item of the user is offered; but "llara", uniform otherwise, bars only target and history. "confusable" is about
    the kinds of the instructions, else about genre and decade, else, where items have neither, about "like".

    Args:
        split: the data.
        candidates: how the negatives are drawn.
        num_candidates: K.
        peers: makes the peers of the split; `lambda split: None` for a game without.
        instructions: draws what the user of each task wants; None for the paper's game. For kinds with "like" the
            builder has a copy of the split whose items know it, see `with_likes`: `builder(...).split.dataset.items`.

    Raises:
        ConfigError: there is no such rule, it is no sampler, there are fewer than two candidates, what makes peers is
            no function, or the instructions are of kinds that the data lack.
        TaskError: nobody is trained on.
    """
    expect(Split, split, "Tasks are cut from a split.", "`load_split` makes one.")
    if isinstance(peers, VectorPeers) or not callable(peers):
        raise ConfigError(
            f"Peers are made from the split. Expected a function of it, such as SvdPeers, found {peers!r:.200}. Pass "
            "`lambda split: my_peers` for peers that are there already."
        )
    if instructions is not None:
        expect(FacetInstructions, instructions, "Instructions are drawn by a rule.", "Pass one, or None.")
        if "like" in instructions.kinds:
            split = with_likes(split)
    if not isinstance(candidates, str):
        return TaskBuilder(split, candidates, peers(split), num_candidates, instructions=instructions)
    sampler = sampler_of(candidates, split, None if instructions is None else instructions.kinds)
    barred = candidates != "llara"
    build = TaskBuilder(split, sampler, peers(split), num_candidates, barred, instructions)
    object.__setattr__(build, "candidates", candidates)
    return build


@overload
def make(data: Data, *, view: Literal["text"] = "text", **options: Any) -> CoarsEnv: ...
@overload
def make(data: Data, *, view: Literal["numeric"], **options: Any) -> NumericEnv: ...
@overload
def make(data: Data, *, view: Literal["masked"], **options: Any) -> MaskedEnv: ...
def make(
    data: Data,
    *,
    view: View = "text",
    split: SplitName | None = None,
    subset: Subset | None = None,
    candidates: CandidateRule | AnySampler | None = None,
    draw: int | None = None,
    num_candidates: int | None = None,
    num_users: int | None = None,
    instructions: FacetInstructions | None = None,
    features: Floats | None = None,
    max_turns: int = MAX_TURNS,
    reward: Reward | None = None,
    rules: Rules | None = None,
    render_mode: str | None = None,
    source: Source | None = None,
    data_dir: str | Path | None = None,
    **options: Any,
) -> CoarsEnv | NumericEnv:
    """Make an environment: `make("movielens")`, `make("synthetic", users=100)`, `make(dataset)`, `make(episodes)`.

    An option that means nothing for what is passed is refused: `split`, `source`, `data_dir` and loader options beside
    a `Split`; beside an `EpisodeSet` also what its tasks have settled, `subset`, `candidates`, `draw`,
    `num_candidates`, `num_users` and `instructions`.

    Args:
        data: name of a dataset, see `list_datasets`; `module:function`, see `load_data`; a `Dataset`, a `Split` or an
            `EpisodeSet`.
        view: "text" makes a `CoarsEnv`; "numeric" and "masked" make a `NumericEnv` or `MaskedEnv`.
        split: how a dataset is divided, see `load_split`; None takes the split that fits the data.
        subset: which part is played; None takes "test".
        candidates: by what the negatives are drawn: the name of a rule, or a sampler or `TopCandidates` of one's own,
            see `builder`; None takes "uniform". Sets of a sampler of one's own have "custom" in their name.
        draw: number of the candidate draw; None takes 0.
        num_candidates: K; None takes `NUM_CANDIDATES`.
        num_users: how many decide together about an item that all took, see `hold_out_groups`; None takes 1.
        instructions: draws what each user wants, which the recommender does not see and may ask for; None for the
            paper's game.
        features: what the numeric views show of each item, [I, F] in [-1, 1]; None takes the `item_features` of the
            split. An `EpisodeSet` has no training part, so its numeric views need `features`.
        max_turns: T.
        reward: rewards of both sides; CoARS's by default.
        rules: what may be proposed again, and which proposal is the answer; see `Rules`.
        render_mode: None, "ansi" or "human".
        source: "auto", the default, takes real data and, where none can be had, warns and plays a synthetic world;
            "real" fails instead; "synthetic" never looks.
        data_dir: where the files lie; else `COARS_DATA`, else the user cache, else the official archive.
        options: go to the dataset's loader, for instance `variant="latest-small"`.

    Raises:
        CoarsError: unknown names, missing or damaged data, settings that contradict.
    """
    kinds: dict[str, type[NumericEnv] | None] = {"text": None, "numeric": NumericEnv, "masked": MaskedEnv}
    if view not in list(kinds):
        raise ConfigError(f"Unknown view. Expected one of {list(kinds)}, found {view!r}. Name one of them.")
    kind = kinds[view]
    if kind is None:
        _refuse("view='text'", features=features)
    loading = {"split": split, "source": source, "data_dir": data_dir, **options}
    drawing: dict[str, Any] = {"subset": subset, "candidates": candidates, "draw": draw}
    drawing |= {"num_candidates": num_candidates, "instructions": instructions}
    if isinstance(data, EpisodeSet):
        _refuse("an EpisodeSet", **loading, **drawing, num_users=num_users)
        if kind is not None and features is None:
            raise ConfigError(
                "the numeric views of an EpisodeSet need features, got none. Pass features=item_features(split) of the "
                "split that the episodes were made from."
            )
        episodes = data
    else:
        if isinstance(data, Split):
            _refuse("a Split", **loading)
        data = _grouped(data if isinstance(data, Split) else load_split(data, **loading), num_users)
        peers = SvdPeers(data)
        episodes = _frozen(data, peers, **drawing)
        if kind is not None and features is None:
            features = item_features(data, directions=peers.directions)
    env = CoarsEnv(episodes, max_turns=max_turns, reward=reward, rules=rules, render_mode=render_mode)
    return env if kind is None or features is None else kind(env, features)


def _grouped(split: Split, num_users: int | None) -> Split:
    groups = whole_number("Somebody must be recommended to.", "num_users", 1 if num_users is None else num_users, 1)
    return split if groups == 1 else hold_out_groups(split, groups)


def _frozen(
    split: Split,
    peers: SvdPeers,
    *,
    subset: Subset | None,
    candidates: CandidateRule | AnySampler | None,
    draw: int | None,
    num_candidates: int | None,
    instructions: FacetInstructions | None,
) -> EpisodeSet:
    """The episodes of a part, as the options of `make` ask."""
    build = builder(
        split,
        "uniform" if candidates is None else candidates,
        num_candidates=NUM_CANDIDATES if num_candidates is None else num_candidates,
        peers=lambda _: peers,
        instructions=instructions,
    )
    return freeze(build, "test" if subset is None else subset, draw=0 if draw is None else draw)


@overload
def make_vec(
    data: Data, num_envs: int, *, view: Literal["numeric"] = "numeric", role: None = None, **options: Any
) -> VectorNumericEnv: ...
@overload
def make_vec(
    data: Data, num_envs: int, *, view: Literal["text"], role: None = None, **options: Any
) -> VectorDialogueEnv: ...
@overload
def make_vec(
    data: Data,
    num_envs: int,
    *,
    view: Literal["numeric"] = "numeric",
    role: RoleName,
    partner: Agent | None = None,
    **options: Any,
) -> SingleAgentVectorEnv: ...
def make_vec(
    data: Data,
    num_envs: int,
    *,
    view: Literal["numeric", "text"] = "numeric",
    role: RoleName | None = None,
    partner: Agent | None = None,
    **options: Any,
) -> VectorNumericEnv | VectorDialogueEnv | SingleAgentVectorEnv:
    """Make many games at once: `make_vec("movielens", num_envs=1024)`.

    Args:
        data: see `make`.
        num_envs: N, how many games.
        view: "numeric" for arrays, "text" for dialogues in words.
        role: None to play both sides; else the side to be played, in numbers, as a Gymnasium `VectorEnv`.
        partner: plays the other side, see `single_agent`.
        options: go to `make`.

    Raises:
        CoarsError: as `make`; or a partner without a role, or a role in words.
    """
    if view not in ("numeric", "text"):
        raise ConfigError(f"Unknown view. Expected 'numeric' or 'text', found {view!r}. Name one of them.")
    if role is not None:
        if view == "text":
            _refuse("view='text'", role=role)
        partner = _default_partner(role) if partner is None else partner
        return SingleAgentVectorEnv(make(data, view="numeric", **options), num_envs, role, partner)
    _refuse("both sides; name the role to be played", partner=partner)
    if view == "text":
        return VectorDialogueEnv(make(data, view="text", **options), num_envs)
    return VectorNumericEnv(make(data, view="numeric", **options), num_envs)


def single_agent(
    game: Data | NumericEnv, role: RoleName = "recommender", partner: Agent | None = None, **options: Any
) -> SingleAgentEnv:
    """Make one side of the game a Gymnasium environment: `single_agent("movielens", role="user")`.

    Args:
        game: what `make` takes, or an environment in numbers, `make(..., view="numeric")`.
        role: the side to be played, "recommender" or "user".
        partner: plays the other side; by default the simplest there is: a user that clicks whatever comes first, or
            a recommender that proposes at random.
        options: go to `make`.

    Raises:
        CoarsError: as `make`; no such role, a partner that is no agent, or options where there is nothing to make.
    """
    partner = _default_partner(role) if partner is None else partner
    made = isinstance(game, str | Dataset | Split | EpisodeSet)
    if "view" in options or (options and not made):
        raise ConfigError(
            "Options go to `make`, and one side is always played in numbers. Expected no view, and "
            f"none at all beside an environment, found {options} beside {game!r:.200}. Drop them."
        )
    env = make(game, view="numeric", **options) if isinstance(game, str | Dataset | Split | EpisodeSet) else game
    return SingleAgentEnv(env, role, partner)


def _default_partner(role: RoleName) -> Agent:
    return FixedUser() if find_role(role) == RECOMMENDER else RandomRecommender()
