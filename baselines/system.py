"""System, Resources: what can be fitted and compared, and what it is fitted with.

A system of your own is a subclass of `System` with `plays`, `fit` and an agent; see examples/own_system.py. Which
systems come with this package, and by which names, is the list `SYSTEMS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from coars_env import (
    ROLES,
    USER,
    Agent,
    ConfigError,
    FacetInstructions,
    FixedUser,
    Role,
    Rules,
    Split,
    UserTest,
    import_object,
)

if TYPE_CHECKING:
    from agents.models.language_model import LanguageModel
    from agents.models.usage import Usage
    from agents.players.memory import Embedder, Memory

UPDATES = 60
"""Of systems that train a language model; half of what `coars train` makes (our choice)."""
DIALOGUES = 192
"""Training dialogues of systems that learn in words: those of one update of CoARS (our choice)."""
FIXED_USER = "fixed"
"""Clicks whatever comes first, so that an episode is one proposal; see `coars_env.FixedUser`."""


@dataclass(frozen=True)
class Resources:
    """What a system may use in `fit`. Nothing is opened or loaded before it is asked for."""

    model: "LanguageModel | None" = None
    """Language model to talk to; None opens the one that `api` or `backbone` names, see `language_model`."""
    backbone: str = "pocket"
    """Language model to train, see `agents.models.backbones.load`."""
    instructions: FacetInstructions | None = None
    """Draws what users want in the game that is played; None in the paper's game."""
    rules: Rules = field(default_factory=Rules)
    """Rules of the game that is played."""
    updates: int = UPDATES
    """Of systems that train one."""
    dialogues: int = DIALOGUES
    """Training dialogues at most, of systems that learn in words."""
    folder: Path | None = None
    """A folder of the system's own, to be made on the first write. What is written there survives a restart; None keeps
    everything in memory."""
    api: Mapping[str, Any] | None = None
    """Settings of an `agents.models.api.ApiConfig`: the language model to talk to is behind that endpoint."""
    embedder: "Embedder | None" = None
    """Searches memories by embeddings; None by BM25."""

    def language_model(self, split: Split) -> "LanguageModel":
        """Open the language model to talk to.

        Raises:
            ConfigError: an extra is not installed, or the settings of the endpoint are out of range.
            BackboneError: the backbone is no usable language model.
        """
        if self.model is not None:
            return self.model
        if self.api is not None:
            from agents.models.api import ApiConfig, ApiModel

            cache = self.api.get("cache")
            return ApiModel(ApiConfig(**{**self.api, "cache": cache and Path(cache)}))
        from agents.models.backbones import load  # torch, for those who need it
        from agents.models.language_model import LocalModel

        return LocalModel(load(self.backbone, split, kinds=self.kinds), self.backbone)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of facets of the game; a pocket knows them as words."""
        return () if self.instructions is None else self.instructions.kinds

    @property
    def store(self) -> Path | None:
        """File for what is remembered in text; None keeps it in memory."""
        return None if self.folder is None else self.folder / "memory.sqlite"


class System:
    """Whatever learns from a split and then plays the recommender, the user, or both.

    A subclass sets `plays`, and its `fit` returns an object with the agents of these sides. If it also has a method
    `scores`, see `coars_env.Ranker`, it is asked for a full ranking.
    """

    plays: ClassVar[tuple[Role, ...]] = ()
    """The sides that it plays: (RECOMMENDER,), (USER,) or both."""
    recommender: Agent | None = None
    user: Agent | None = None
    num_parameters: int | None = None
    """Learnt numbers; None leaves the column empty."""
    learning: "Usage | None" = None
    """What `fit` asked of a language model; None for systems that ask none."""
    learning_curve: Sequence[float] = ()
    """Hit@1 of the first proposal in training by update; empty for systems that make no updates."""

    def __init__(self, recommender: Agent | None = None, user: Agent | None = None) -> None:
        self.recommender, self.user = recommender, user

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Learn from the training part of a split.

        Args:
            split: the data; nothing held out may be read.
            seed: of all chance.
            resources: language models, folder and budget.
        """
        raise NotImplementedError(f"{cls.__name__} has no `fit`")

    def agent(self, role: Role) -> Agent:
        """Return the agent of a side that it plays.

        Raises:
            ConfigError: it does not play that side, or `fit` made no agent for it.
        """
        if role not in self.plays:
            raise ConfigError(f"{type(self).__name__} does not play {role}, only {', '.join(self.plays) or 'no side'}.")
        found = self.user if role == USER else self.recommender
        if not isinstance(found, Agent):
            raise ConfigError(
                f"{type(self).__name__} plays {role}, but its fit returned {found!r:.100} as that agent. Pass one to "
                "System.__init__, or correct `plays`."
            )
        return found

    def prepare_user_test(self, split: Split, test: UserTest, *, seed: int) -> None:
        """Prepare the user for the questions of a test; called before each draw of it. Does nothing by default."""


class SavedSystem(System):
    """A system that can be saved as soon as it is fitted, so that a comparison that is stopped does not fit it again.

    A subclass has both methods.
    """

    def save(self, folder: Path) -> None:
        """Write what `load` reads; the folder does not exist yet."""
        raise NotImplementedError(f"{type(self).__name__} has no `save`")

    @classmethod
    def load(cls, folder: Path, split: Split) -> Self:
        """Read what was saved.

        Raises:
            CheckpointError: the folder holds no such system, or one of another split.
        """
        raise NotImplementedError(f"{cls.__name__} has no `load`")


class MemorySystem(System):
    """Two agents whose prompts hold what training has written down."""

    plays = ROLES

    def __init__(self, recommender: Agent, user: Agent, learning: "Usage", *, memory: "Memory") -> None:
        super().__init__(recommender, user)
        self.learning = learning
        self.memory = memory  # frozen


@runtime_checkable
class Metered(Protocol):
    """An agent that counts what its language model is asked."""

    usage: "Usage"


SYSTEMS = {
    "afl": "baselines.afl:Afl",
    "agentcf": "baselines.agentcf:AgentCF",
    "agentcf-basic": "baselines.agentcf:AgentCFBasic",
    "agentcf-rag": "baselines.agentcf:AgentCFRag",
    "asking": "baselines.asking:Asking",
    "bpr": "baselines.bpr:Bpr",
    "caser": "baselines.caser:Caser",
    "chain_of_thought": "baselines.chain_of_thought:ChainOfThought",
    "coars": "baselines.coars:Coars",
    "coars-no-distillation": "baselines.coars:CoarsWithoutDistillation",
    "coars-no-interaction": "baselines.coars:CoarsWithoutInteraction",
    "coars-paper": "baselines.coars:CoarsPaper",
    "coars-recommender": "baselines.coars:CoarsRecommenderAlone",
    "coars-user": "baselines.coars:CoarsUserAlone",
    "grpo": "baselines.grpo:Grpo",
    "grpo-judge": "baselines.grpo:GrpoJudge",
    "grpo-turn": "baselines.grpo:GrpoTurn",
    "gru4rec": "baselines.gru4rec:Gru4Rec",
    "i2agent": "baselines.i2agent:I2Agent",
    "instructed": "baselines.asking:Instructed",
    "item_knn": "baselines.item_knn:ItemKnn",
    "listening": "baselines.asking:Listening",
    "markov": "baselines.markov:Markov",
    "memory_stream": "baselines.memory_stream:MemoryStream",
    "popularity": "baselines.popularity:Popularity",
    "proxy": "baselines.sqn_sac:Proxy",
    "proxy-caser": "baselines.sqn_sac:ProxyCaser",
    "proxy-gru4rec": "baselines.sqn_sac:ProxyGru4Rec",
    "random": "baselines.random_agent:RandomAgent",
    "reflexion": "baselines.reflexion:Reflexion",
    "rejection_sampling": "baselines.rejection_sampling:RejectionSampling",
    "sac": "baselines.sqn_sac:Sac",
    "sac-caser": "baselines.sqn_sac:SacCaser",
    "sac-gru4rec": "baselines.sqn_sac:SacGru4Rec",
    "sasrec": "baselines.sasrec:SasRec",
    "sqn": "baselines.sqn_sac:Sqn",
    "sqn-caser": "baselines.sqn_sac:SqnCaser",
    "sqn-gru4rec": "baselines.sqn_sac:SqnGru4Rec",
    "supervised": "baselines.supervised:Supervised",
    "zero_shot": "baselines.zero_shot:ZeroShot",
}
"""Name -> path of a `System`. It is imported on use: popularity must not load torch for another."""


def system_path(name: str) -> str:
    """The path "module:Class" of a system; that of a class of your own is its own name.

    Raises:
        ConfigError: unknown name.
    """
    path = SYSTEMS.get(name, name)
    if ":" not in path:
        raise ConfigError(
            f"{name!r} is no system. Name one of {sorted(SYSTEMS)}, or a class of your own as module:Class."
        )
    return path


def load_system(name: str) -> type[System]:
    """Import a system by its name in `SYSTEMS`, or a class of your own by its path "module:Class".

    Raises:
        ConfigError: unknown name, it cannot be imported, or it is no class that can be fitted and play, see
            `check_system`.
    """
    path = system_path(name)
    if name in SYSTEMS:  # where an extra is missing, `coars` names it
        module, _, attribute = path.partition(":")
        found = getattr(import_module(module), attribute)
    else:
        found = import_object(path)
    check_system(found, name)
    kind: type[System] = found
    return kind


def load_user(name: str) -> type[System]:
    """Import who plays the user: "fixed", a system that plays it, or a class or an object of your own as module:Name.

    A class of your own that is no `System` is an `Agent` that is made without arguments.

    Raises:
        ConfigError: unknown name, it cannot be imported, or it does not play the user.
    """
    if name == FIXED_USER:
        return _agent_as_system(FixedUser, name)
    found = load_system(name) if name in SYSTEMS else import_object(system_path(name))
    if not (isinstance(found, type) and issubclass(found, System)):
        return _agent_as_system(found, name)
    check_system(found, name)
    if USER not in found.plays:
        raise ConfigError(f"{name} plays {', '.join(found.plays)} alone. Name a system that plays {USER}, or an agent.")
    return found


def _agent_as_system(found: Any, name: str) -> type[System]:
    """A system whose user is an agent, or is made by a class of agents.

    Raises:
        ConfigError: it has no `start` and `act`, or cannot be made without arguments.
    """
    if not (callable(getattr(found, "start", None)) and callable(getattr(found, "act", None))):
        raise ConfigError(f"{name} is no user: it has no start(seeds) and act(observations). See coars_env.Agent.")
    if isinstance(found, type):
        try:
            signature(found).bind()
        except TypeError as error:
            raise ConfigError(
                f"{name} cannot be made without arguments: {error}. Make it in the `fit` of a System with "
                f"plays = (USER,), which gets the split, and name that."
            ) from error

    class ScriptedUser(System):
        plays = (USER,)
        __module__ = found.__module__

        @classmethod
        def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
            return cls(user=found() if isinstance(found, type) else found)

    return ScriptedUser


def check_system(kind: object, name: str) -> None:
    """Refuse what cannot be fitted and played.

    Raises:
        ConfigError: it is no subclass of `System`, has no `fit`, or plays no side.
    """
    if not isinstance(kind, type):
        raise ConfigError(f"{name} is no class but {kind!r:.100}. Name a subclass of baselines.System.")
    missing = []
    if not issubclass(kind, System):
        missing.append("it does not inherit from baselines.System")
    fit = getattr(kind, "fit", None)
    if fit is None or getattr(fit, "__func__", fit) is System.fit.__func__:  # type: ignore[attr-defined]
        missing.append("it has no fit(cls, split, *, seed, resources)")
    plays = getattr(kind, "plays", ())
    if not plays or not set(plays) <= set(ROLES):
        missing.append(f"it plays no side: plays = {plays!r} instead of (RECOMMENDER,), (USER,) or both")
    if missing:
        raise ConfigError(f"{name} is no system: {'; '.join(missing)}. See baselines.System.")
