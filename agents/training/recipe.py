"""Recipe: settings that make the objects `train` takes. A recipe is one readable file, here or anywhere.

`coars train --recipe NAME` finds a recipe by its name in the entry points `coars.recipes`, or as module:Class.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, runtime_checkable

from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.players.served import ServedAgent, Server
from agents.training.credit import SelfDistillation
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.learner import Learner, Optimisation, Players, agent_of, learners_of
from agents.training.samples import balance_hits
from agents.training.train import OnStep, train
from agents.training.update import Optimizers
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    Agent,
    ConfigError,
    Role,
    Rules,
    Split,
    TaskBuilder,
    TranscriptReward,
    import_object,
)

GROUP = "coars.recipes"
OPTIMISED = ("steps", "episodes_per_step", "max_turns", "rules", "discount", "max_grad_norm", "micro_batch", "seed")
"""Settings of `CoTraining` that are those of its `Optimisation`."""


@dataclass(frozen=True)
class Training:
    """What a recipe makes: who plays, what is earned, how many updates of what size. See `train`."""

    players: Players
    reward: TranscriptReward
    optimisation: Optimisation


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a recipe is given: a policy, the data, and what the command line adds."""

    policy: Policy
    split: Split
    opinions: bool = True
    """Whether a user's prompt holds what peers say."""
    server: Server | None = None
    """Samples the replies in place of the local decode loop."""
    partner: Agent | None = None
    """Plays the side that does not learn; its adapter does by default."""

    def agent(self, role: Role, **options: Any) -> LLMAgent:
        """Make an agent that plays with its adapter, here or on the server; `options` go to `LLMAgent`."""
        items, options = self.split.dataset.items, {"opinions": self.opinions, **options}
        if self.server is None:
            return LLMAgent(self.policy, role, items, **options)
        return ServedAgent(self.server, role, items, **options)


@runtime_checkable
class Recipe(Protocol):
    """A frozen dataclass of settings with a method that makes a `Training` of them.

    Every field becomes an option of `coars train`, and all are saved with a run: numbers, texts, literals, other such
    dataclasses.
    """

    @property
    def steps(self) -> int:
        """Number of updates."""
        ...

    @property
    def seed(self) -> int: ...

    def build(self, setting: Setting) -> Training:
        """Make players, reward and optimisation. Called once, before anything is trained."""
        ...


def no_credit(role: Role) -> SelfDistillation | None:
    """Learn from the reward alone."""
    return None


@dataclass(frozen=True, kw_only=True)
class CoTraining:
    """Settings that the recipes of this project share: both sides, or one of them, learn from the same dialogues."""

    steps: int = 120
    """Updates (our choice)."""
    episodes_per_step: int = 192
    """Dialogues of an update (our choice)."""
    max_turns: int = 4
    """T; AFL's value (our choice)."""
    rules: Rules = field(default_factory=Rules)
    """Rules of the game beside its length."""
    discount: float = 0.0
    """What a turn also earns of its side's next one, see `Optimisation`; CoARS: nothing."""
    learners: Literal["both", "recommender", "user"] = "both"
    """Whose adapter learns; CoARS: both. The other side plays as it is, or a partner plays it."""
    learning_rate_recommender: float = 2e-3
    """Of AdamW without decay: linear warm-up over 5 updates, then a cosine to a tenth (our choice). Models of billions
    of parameters want 1e-5."""
    learning_rate_user: float = 5e-4
    """The same for the user (our choice). At the recommender's rate its readiness to accept swings from end to end."""
    explored_share: float = 0.25
    """Share of the dialogues that are explored for a user that learns, see `Learner` (our choice)."""
    balance_user: bool = True
    """Weigh the user's turns so that hits and misses count the same in a batch (our choice). Otherwise the user first
    learns how often the recommender is right at present (accept everything, or nothing), and then explores no more."""
    temperature: float = 1.0
    """Of the rollout, full support (our choice)."""
    max_grad_norm: float = 1.0
    """Largest norm of an adapter's gradient (our choice)."""
    micro_batch: int = 16
    """Dialogues per forward pass of the update; changes memory, not the result."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0 in training, got {self.temperature}.")
        if not 0 <= self.explored_share < 1:
            raise ConfigError(f"explored_share must be in [0, 1), got {self.explored_share}.")
        self.optimisation()

    @property
    def learning_roles(self) -> tuple[Role, ...]:
        """The sides whose adapters learn."""
        return {"both": ROLES, "recommender": (RECOMMENDER,), "user": (USER,)}[self.learners]

    def optimisation(self, **changes: Any) -> Optimisation:
        """Make the optimisation of these settings; `changes` are fields of `Optimisation`."""
        return Optimisation(**{**{name: getattr(self, name) for name in OPTIMISED}, **changes})

    def players(
        self,
        setting: Setting,
        *,
        credit: Callable[[Role], SelfDistillation | None] = no_credit,
        agent: Callable[[Role], LLMAgent] | None = None,
    ) -> Players:
        """Make a learner of each side that learns; the partner, or the adapter as it is, plays the other side.

        Args:
            setting: policy, data and partner.
            credit: token credit of a side.
            agent: makes the agent of a side that learns; `setting.agent` by default.

        Raises:
            ConfigError: a partner, though both sides learn.
        """
        if setting.partner is not None and self.learners == "both":
            raise ConfigError(
                'A partner plays the side that does not learn, but learners="both". Set learners to "recommender" or '
                '"user".'
            )
        make = agent or (lambda role: setting.agent(role, temperature=self.temperature))
        rates = {RECOMMENDER: self.learning_rate_recommender, USER: self.learning_rate_user}
        return {
            role: Learner(
                agent=make(role),
                learning_rate=rates[role],
                credit=credit(role),
                weigh=balance_hits if role == USER and self.balance_user else None,
                explored_share=self.explored_share if role == USER else 0.0,
            )
            if role in self.learning_roles
            else setting.partner or setting.agent(role, temperature=self.temperature)
            for role in ROLES
        }


def build_training(recipe: Recipe, setting: Setting) -> Training:
    """Build a recipe and check what it made, before anything is trained.

    Raises:
        ConfigError: it made no `Training`, players that cannot be trained (see `learners_of`), or players without the
            partner of the setting.
    """
    name = f"{type(recipe).__module__}:{type(recipe).__qualname__}"
    if isinstance(recipe, type) or not isinstance(recipe, Recipe):
        raise ConfigError(f"{recipe!r:.200} is no recipe. Pass an object with steps, seed and build(setting).")
    if not isinstance(setting.split, Split):
        raise ConfigError(
            f"The split of a setting must be a Split, got {setting.split!r:.200}. Make one by load_split."
        )
    training = recipe.build(setting)
    if not isinstance(training, Training):
        raise ConfigError(f"{name}.build returned {training!r:.100}. It must return a Training.")
    learners_of(setting.policy, training.players)
    if setting.partner is not None and setting.partner not in training.players.values():
        raise ConfigError(
            f"{name} does not use setting.partner, so the partner {type(setting.partner).__name__} would never play. "
            "Leave it out, or use it in build."
        )
    return training


def greedy_players(recipe: Recipe, setting: Setting) -> dict[Role, Agent]:
    """Make the players of a recipe as they are evaluated: language models greedy, all others as they are."""
    found: dict[Role, Agent] = {}
    for role, player in build_training(recipe, setting).players.items():
        agent = agent_of(player)
        if isinstance(agent, LLMAgent):
            agent = LLMAgent(
                agent.policy,
                role,
                agent.items,
                temperature=0.0,
                opinions=agent.opinions,
                reply_format=agent.reply_format,
                notes=agent.notes,
            )
        found[role] = agent
    return found


def run_recipe(
    recipe: Recipe,
    setting: Setting,
    tasks: TaskBuilder,
    *,
    optimizers: Optimizers | None = None,
    first: int = 0,
    on_step: OnStep | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> None:
    """Build a recipe and `train` by it."""
    training = build_training(recipe, setting)
    train(
        setting.policy,
        tasks,
        training.players,
        reward=training.reward,
        optimisation=training.optimisation,
        optimizers=optimizers,
        first=first,
        on_step=on_step,
        processes=processes,
    )


def recipe_names() -> list[str]:
    """Return the names of the recipes that installed packages announce."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def find_recipe(name: str) -> type[Recipe]:
    """Return the class of a recipe by its name, or by module:Class, also from the working directory.

    Raises:
        ConfigError: no such recipe, or no recipe.
    """
    known = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    if name not in known and ":" not in name:
        raise ConfigError(
            f"There is no recipe {name!r}. Known recipes: {', '.join(sorted(known))}; or name module:Class."
        )
    found = import_object(known.get(name, name))
    if not isinstance(found, type) or not is_dataclass(found) or not hasattr(found, "build"):
        raise ConfigError(
            f"{name} is no recipe: a recipe is a dataclass with the fields steps and seed and a method build(setting). "
            "See agents.training.recipe.Recipe."
        )
    if required := [f.name for f in fields(found) if f.init and f.default is MISSING and f.default_factory is MISSING]:
        raise ConfigError(f"{name} is no recipe: {', '.join(required)} without a default. Give every field one.")
    recipe: Any = found()
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"{name} is no recipe: it needs the fields steps and seed. See agents.training.recipe.Recipe."
        )
    return type(recipe)
