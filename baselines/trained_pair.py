"""TrainedPair: two adapters trained by `train` under one configuration, as a system that can be compared.

A system is a subclass that names its settings; nothing here is a second trainer.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from agents.models.backbones import load
from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.runs.checkpoint import ADAPTERS_FOLDER
from agents.runs.run import RewardConfig
from agents.training.train import CoarsConfig, StepMetrics, train
from baselines.system import Resources, SavedSystem
from coars_env import RECOMMENDER, ROLES, USER, CheckpointError, Split, Transcript, builder

_log = logging.getLogger("coars_env")

KEPT = ("hit_first", "reward_recommender", "reward_user", "turns", "seconds")
"""Metrics of an update that are kept; see docs/methods.md."""


class TrainedPair(SavedSystem):
    """Both sides of a trained policy, greedy."""

    plays = ROLES
    recommender: LLMAgent
    user: LLMAgent
    settings: ClassVar[CoarsConfig] = CoarsConfig()
    """Of the training, but for its seed and its number of updates."""

    def __init__(self, policy: Policy, split: Split, backbone: str, history: dict[str, list[float]]) -> None:
        """See `fit`, or `load`.

        Args:
            policy: trained.
            split: its data.
            backbone: name of its base.
            history: metrics of every update.
        """
        super().__init__(
            *(LLMAgent(policy, role, split.dataset.items, temperature=0.0) for role in (RECOMMENDER, USER))
        )
        self._policy, self._backbone, self.history = policy, backbone, history
        self.learning_curve = history.get("hit_first", [])
        self.num_parameters = sum(p.numel() for role in (RECOMMENDER, USER) for p in policy.parameters(role))

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Train on the training part, with candidates drawn uniformly and peers by an SVD.

        Args:
            split: the data.
            seed: of the adapters' start and of all chance of the training.
            resources: name of the base, and number of updates of both adapters.
        """
        backbone, updates = resources.backbone, resources.updates
        policy = Policy(load(backbone, split), seed=seed)
        config = replace(cls.settings, seed=seed, steps=updates)
        rows: list[StepMetrics] = []

        def keep(step: int, metrics: StepMetrics, _: Sequence[Transcript]) -> None:
            rows.append(metrics)
            _log.info("update %d of %d, Hit@1 %.2f", step + 1, updates, metrics["hit_first"])

        train(policy, builder(split), config, reward=RewardConfig().build(), on_step=keep)
        shown = {"hit_first"} if config.paid_by == "demonstration" else set()  # hits that it did not find itself
        return cls(policy, split, backbone, {name: [row[name] for row in rows] for name in KEPT if name not in shown})

    def save(self, folder: Path) -> None:
        """Adapters, the name of their base, and how they were learnt."""
        self._policy.save(folder / ADAPTERS_FOLDER)
        (folder / "backbone.json").write_text(json.dumps(self._backbone), encoding="utf-8")
        (folder / "history.json").write_text(json.dumps(self.history), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, split: Split) -> Self:
        """A saved pair.

        Raises:
            CheckpointError: the folder does not hold one, or one of another base.
        """
        try:
            backbone, history = (
                json.loads((folder / name).read_text(encoding="utf-8")) for name in ("backbone.json", "history.json")
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(
                "A pair of agents is read from where it was saved. Expected adapters, backbone.json and history.json "
                f"in {folder}, found {error!r}. Train it again."
            ) from error
        return cls(Policy.load(load(backbone, split), folder / ADAPTERS_FOLDER), split, backbone, history)
