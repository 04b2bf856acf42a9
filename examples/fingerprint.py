"""Digests of everything a refactoring must leave alone: frozen episodes, seeded dialogues, short trainings on pocket.

    python examples/fingerprint.py --out before.json      # on the old commit
    python examples/fingerprint.py --against before.json  # on the new one, on the same machine

Times, the metrics `excluded_*` and those in `LATER` are part of no digest. Episodes and dialogues have the same digests
everywhere; those of a training hold for one machine and one version of torch, since the last bits of a sum differ
between processors.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from agents.models.backbones.pocket import PocketConfig, load_pocket
from agents.models.policy import Policy
from agents.training.coars import Coars, RewardConfig
from agents.training.recipe import Recipe, Setting, Training, run_recipe
from agents.training.samples import group_mean
from agents.training.update import StepMetrics
from baselines.grpo import GrpoJudgeRecipe, GrpoRecipe, GrpoTurnRecipe
from baselines.rejection_sampling import RejectionSamplingRecipe
from baselines.supervised import SupervisedRecipe
from coars_env import (
    ROLES,
    CoarsReward,
    DatasetError,
    OracleUser,
    RandomRecommender,
    Split,
    Transcript,
    Turn,
    builder,
    freeze,
    load_split,
    rollout,
)

SPLITS: tuple[tuple[str, str | None, dict[str, object]], ...] = (
    ("movielens", "llara", {}),
    ("movielens", "leave_last", {}),
    ("movielens", "leave_last", {"variant": "latest-small"}),
    ("lastfm", None, {}),
    ("lastfm", None, {"variant": "afl"}),
    ("instruments", None, {}),
)
LATER = {
    *("hit_best", "hit_first_proposal", "turns_to_hit", "questions", "revealed", "true_reveals", "repeats_rejected"),
    *("facets_used", "facets_used_chance", "bits", "bits_target"),
}
"""Metrics that came after the first digests."""
WORLD = {"users": 60, "items": 100, "interactions": 1500}


@dataclass(frozen=True, kw_only=True)
class FingerprintConfig:
    """Write the digests of this commit, or compare them with those of another."""

    out: Path | None = None
    """File for the digests."""
    against: Path | None = None
    """File of digests to compare with."""


def digest(*parts: object) -> str:
    h = hashlib.sha256()
    for part in parts:
        h.update(part if isinstance(part, bytes) else repr(part).encode())
    return h.hexdigest()[:16]


def episodes() -> Iterator[tuple[str, str]]:
    """Every held-out set of the real data that are here, and of a synthetic world, by both rules."""
    splits = [("synthetic", load_split("synthetic", users=60, items=100, interactions=1500))]
    for name, split, options in SPLITS:
        try:
            splits.append((f"{name} {split} {options}", load_split(name, split, source="real", **options)))  # type: ignore[arg-type]
        except DatasetError:
            print(f"{name} is not here")
    for label, data in splits:
        for rule in ("uniform", "popularity", "llara"):
            for subset in ("test", "validation"):
                if not getattr(data, subset):
                    continue
                episodes = freeze(builder(data, rule), subset, draw=1)
                yield f"{label} {subset} {rule}", episodes.sha256


def said(transcript: Transcript) -> tuple[object, ...]:
    """What was said and paid, whatever the file format."""
    turns = [
        (t.proposal, t.rationale, *(x for a in t.answers for x in (a.action, a.strength, a.message)), *errors(t))
        for t in transcript.turns
    ]
    paid = tuple(tuple(rewards.values()) for rewards in transcript.rewards)
    return transcript.task.task_id, transcript.seed, transcript.ending, transcript.cause, turns, paid


def errors(turn: Turn) -> tuple[str | None, ...]:
    return turn.error, *(answer.error for answer in turn.answers)


def dialogues(split: Split) -> Iterator[tuple[str, str]]:
    tasks = freeze(builder(split), "test")
    user = OracleUser(tasks, flip=0.3)
    played = rollout(
        tasks, tasks.items, RandomRecommender(), user, provenance=tasks.provenance, reward=CoarsReward(), seed=3
    )
    yield "rollout of scripted agents", digest(*map(said, played))


BUDGET: dict[str, Any] = {"episodes_per_step": 24, "max_turns": 3, "learning_rate_user": 2e-3, "seed": 5}
PAPER = RewardConfig(exclude_positive_miss=("recommender", "user"))


@dataclass(frozen=True, kw_only=True)
class GrpoMean(GrpoTurnRecipe):
    """GRPO by turns that only subtracts the mean of the group."""

    def build(self, setting: Setting) -> Training:
        training = super().build(setting)
        return replace(training, optimisation=replace(training.optimisation, baseline=group_mean))


TRAININGS: dict[str, Recipe] = {
    "CoARS": Coars(steps=4, reward=PAPER, **BUDGET),
    "CoARS, recommender alone, written diagnosis": Coars(
        steps=4, reward=PAPER, learners="recommender", diagnosis="written", **BUDGET
    ),
    "CoARS, EMA teacher, batch baseline": Coars(steps=3, reward=PAPER, teacher="ema", baseline="batch", **BUDGET),
    "CoARS, live teacher, sign from reward": Coars(
        steps=2, reward=PAPER, teacher="live", credit="sign_from_reward", **BUDGET
    ),
    "GRPO, outcome": GrpoRecipe(steps=4, **BUDGET),
    "GRPO, turn": GrpoMean(steps=2, group_size=4, kl=0.0, **BUDGET),
    "GRPO, judge": GrpoJudgeRecipe(steps=2, **BUDGET),
    "rejection sampling": RejectionSamplingRecipe(steps=3, **BUDGET),
    "supervised": SupervisedRecipe(steps=3, **BUDGET),
}


def trainings(split: Split) -> Iterator[tuple[str, str]]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        size = PocketConfig(hidden=48, layers=2, heads=2, steps=40, batch=24)
        for name, recipe in TRAININGS.items():
            policy = Policy(load_pocket(split, size, cache_dir=Path(folder)), rank=4, alpha=8, seed=recipe.seed)
            rows: list[StepMetrics] = []
            last: list[Transcript] = []

            def keep(
                step: int,
                metrics: StepMetrics,
                transcripts: Sequence[Transcript],
                rows: list[StepMetrics] = rows,
                last: list[Transcript] = last,
            ) -> None:
                left_out = {k for k in metrics if "second" in k or k.startswith("excluded_")} | LATER
                rows.append({k: v for k, v in metrics.items() if k not in left_out})
                last[:] = transcripts

            setting = Setting(policy=policy, split=split)
            run_recipe(recipe, setting, builder(split, num_candidates=8), on_step=keep)
            adapters = [p.detach().numpy().tobytes() for role in ROLES for p in policy.parameters(role)]
            yield f"{name}: metrics", digest([sorted(row.items()) for row in rows])
            yield f"{name}: dialogues", digest(*map(said, last))
            yield f"{name}: adapters", digest(*adapters)


def main(config: FingerprintConfig) -> None:
    world = load_split("synthetic", **WORLD)  # type: ignore[arg-type]
    found = dict(episodes()) | dict(dialogues(world)) | dict(trainings(world))
    if config.out is not None:
        config.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if config.against is None:
        for name, value in found.items():
            print(f"{value[:16]}  {name}")
        return
    before = json.loads(config.against.read_text(encoding="utf-8"))
    differing = [name for name in before.keys() | found.keys() if before.get(name) != found.get(name)]
    print(f"{len(found) - len(differing)} of {len(found)} digests are equal")
    for name in sorted(differing):
        print(f"differs: {name}")
    raise SystemExit(bool(differing))


if __name__ == "__main__":
    main(tyro.cli(FingerprintConfig))
