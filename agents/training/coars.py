"""Coars: CoARS, arXiv:2604.10029. Coupled interaction rewards, and token credit from hindsight.

Reconstructed from the abstract and public summaries; docs/methods.md says what is published and what is our choice.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from agents.models.policy import ADAPTERS
from agents.training.credit import (
    AveragedTeacher,
    BaseTeacher,
    ClippedLogRatio,
    LiveTeacher,
    SelfDistillation,
    SignFromReward,
    Teacher,
)
from agents.training.recipe import CoTraining, Setting, Training
from agents.training.samples import Baseline, batch_mean, group_mean, group_normalized
from coars_env import (
    RECOMMENDER,
    ROLES,
    CoarsReward,
    ConfigError,
    LinearStage,
    MirroredStage,
    Role,
    StageSensitivity,
    constant_stage,
)

Side = Literal["recommender", "user"]


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Settings of `CoarsReward`."""

    alpha: float = 0.1
    """Weight of the peer term; published."""
    stage: Literal["mirrored", "constant", "decreasing", "increasing"] = "mirrored"
    """Weight of a turn by its place in the dialogue (our choice). "mirrored" pays early hits more and charges late
    misses more (`MirroredStage`), "decreasing" and "increasing" weigh hits and misses the same (`LinearStage`)."""
    beta: float = 1 / 3
    """Spread of the stage sensitivity (our choice)."""
    exclude_positive_miss: tuple[Side, ...] = ()
    """Sides that do not train on a miss the user liked, see `CoarsReward`."""
    question_cost: float = 0.0
    """What a question costs the recommender (our choice)."""

    def __post_init__(self) -> None:
        scope: object = self.exclude_positive_miss
        if not isinstance(scope, tuple) or not set(scope) <= set(get_args(Side)):
            raise ConfigError(
                f"exclude_positive_miss must be a tuple of some of {get_args(Side)}, got {scope!r}. Name the sides "
                "that do not train on a miss the user liked."
            )

    def build(self) -> CoarsReward:
        """Make the reward."""
        scope = frozenset(role for role in ROLES if ADAPTERS[role] in self.exclude_positive_miss)
        stages: dict[str, StageSensitivity] = {
            "mirrored": MirroredStage(self.beta),
            "constant": constant_stage,
            "decreasing": LinearStage(self.beta),
            "increasing": LinearStage(-self.beta),
        }
        return CoarsReward(
            alpha=self.alpha,
            stage=stages[self.stage],
            exclude_positive_miss=scope,
            question_cost=self.question_cost,
        )


BASELINES: dict[str, Baseline | None] = {
    "none": None,
    "group": group_mean,
    "group_normalized": group_normalized,
    "batch": batch_mean,
}


@dataclass(frozen=True, kw_only=True)
class Coars(CoTraining):
    """Train both agents by CoARS."""

    reward: RewardConfig = field(default_factory=RewardConfig)
    group_size: int = 1
    """Dialogues of one task, see `Optimisation`."""
    baseline: Literal["none", "group", "group_normalized", "batch"] = "none"
    """What is subtracted from each reward; published: nothing."""
    credit: Literal["log_ratio", "sign_from_reward", "none"] = "log_ratio"
    """What hindsight adds to a reward: "log_ratio", the paper's `ClippedLogRatio`; "sign_from_reward", RLSD's
    `SignFromReward`, published with lambda .5 and clip .2; or nothing."""
    lambda_recommender: float = 0.1
    """Weight of the token credit; published."""
    lambda_user: float = 0.1
    """Weight of the token credit; published."""
    clip: float = 1.0
    """Largest token credit; published."""
    teacher: Literal["base", "live", "ema"] = "base"
    """Whose weights read the hindsight: `BaseTeacher`, `LiveTeacher` or `AveragedTeacher` (our choice)."""
    teacher_rate: float = 0.05
    """Of the running average; SDPO's (arXiv:2601.20802)."""
    diagnosis: Literal["template", "written"] = "template"
    """Who writes the last part of d_t: a template that compares genres, or the base."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.teacher_rate <= 1:
            raise ConfigError(f"teacher_rate must be in (0, 1], got {self.teacher_rate}.")
        self.optimisation(group_size=self.group_size, baseline=BASELINES[self.baseline])

    def credit_of(self, role: Role) -> SelfDistillation | None:
        """Make the token credit of a side."""
        if self.credit == "none":
            return None
        lam = self.lambda_recommender if role == RECOMMENDER else self.lambda_user
        teachers: dict[str, Teacher] = {
            "base": BaseTeacher(),
            "live": LiveTeacher(),
            "ema": AveragedTeacher(self.teacher_rate),
        }
        return SelfDistillation(
            credit=(ClippedLogRatio if self.credit == "log_ratio" else SignFromReward)(lam, self.clip),
            teacher=teachers[self.teacher],
            written_diagnosis=self.diagnosis == "written",
        )

    def build(self, setting: Setting) -> Training:
        return Training(
            self.players(setting, credit=self.credit_of),
            self.reward.build(),
            self.optimisation(group_size=self.group_size, baseline=BASELINES[self.baseline]),
        )
