"""TrainedPair: two adapters trained by a recipe, as a system that can be compared.

A system is a subclass that names its recipe. Training goes through a run folder, as `coars train` does, so it has
checkpoints and goes on where it was stopped.
"""

import contextlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from agents.models.backbones import load
from agents.models.policy import Policy
from agents.runs.checkpoint import ADAPTERS_FOLDER, is_finished
from agents.runs.config import AnyTrainConfig, DataConfig, TrainConfig, with_settings
from agents.runs.record import read_metrics
from agents.runs.run import new_policy, open_backbone, run_training
from agents.training.coars import Coars
from agents.training.peers import PeersConfig
from agents.training.recipe import Recipe, Setting, greedy_players
from baselines.system import Resources, SavedSystem
from coars_env import RECOMMENDER, ROLES, USER, CheckpointError, Split

_log = logging.getLogger("coars_env")


class Log:
    """A logger that reports each update to the log of the cell."""

    def __init__(self, updates: int) -> None:
        self._updates = updates

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        _log.info("update %d of %d, Hit@1 %.2f", step + 1, self._updates, metrics["hit_first"])

    def close(self) -> None: ...


class TrainedPair(SavedSystem):
    """Both sides of a trained policy, greedy."""

    plays = ROLES
    recipe: ClassVar[Recipe] = Coars()
    """What is trained and how, but for seed and number of updates."""
    kept: ClassVar[tuple[str, ...]] = ("hit_first", "reward_recommender", "reward_user", "turns", "seconds")
    """Metrics of an update that are kept; see docs/methods.md."""

    def __init__(
        self,
        policy: Policy,
        split: Split,
        backbone: str,
        history: dict[str, list[float]],
        *,
        kinds: Sequence[str] = (),
    ) -> None:
        """See `fit`, or `load`.

        Args:
            policy: trained.
            split: its data.
            backbone: name of its base.
            history: metrics of every update.
            kinds: of facets that the base knows as words.
        """
        players = greedy_players(self.recipe, Setting(policy=policy, split=split))
        super().__init__(*(players[role] for role in ROLES))
        self._policy, self._backbone, self._kinds, self.history = policy, backbone, tuple(kinds), history
        self.learning_curve = history.get("hit_first", [])
        self.num_parameters = sum(p.numel() for role in (RECOMMENDER, USER) for p in policy.parameters(role))

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Train on the training part, with candidates drawn uniformly and peers by an SVD, in the game that is played.

        Args:
            split: the data.
            seed: of the adapters' start and of all chance of the training.
            resources: name of the base, number of updates of both adapters, instructions and rules of the game, and the
                folder of the run, from which training that was stopped goes on.
        """
        backbone, updates, wishes = resources.backbone, resources.updates, resources.instructions
        data = DataConfig()
        if wishes is not None:
            data = DataConfig(instructions=wishes.kinds, most_facets=wishes.most, facet_noise=wishes.noise)
        rules = {"rules": resources.rules} if hasattr(cls.recipe, "rules") else {}
        with contextlib.ExitStack() as held:
            folder = resources.folder or Path(held.enter_context(tempfile.TemporaryDirectory()))
            config: AnyTrainConfig = TrainConfig(
                out=folder / "run",
                backbone=backbone,
                log="none",
                data=data,
                peers=PeersConfig(source="svd"),
                recipe=with_settings(cls.recipe, seed=seed, steps=updates, **rules),
            )
            policy = new_policy(config, split)
            if is_finished(config.out):
                policy = Policy.load(open_backbone(config, split), config.out / ADAPTERS_FOLDER)
            else:
                run_training(config, split, policy, resume=True, logger=Log(updates))
            rows = read_metrics(config.out, updates)
            history = {name: [row[name] for row in rows] for name in cls.kept}
            return cls(policy, split, backbone, history, kinds=resources.kinds)

    def save(self, folder: Path) -> None:
        """Adapters, the name of their base and the kinds of facets that it knows, and how they were learnt."""
        self._policy.save(folder / ADAPTERS_FOLDER)
        base = {"name": self._backbone, "kinds": self._kinds}
        (folder / "backbone.json").write_text(json.dumps(base), encoding="utf-8")
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
            name, kinds = backbone["name"], backbone["kinds"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(
                "A pair of agents is read from where it was saved. Expected adapters, backbone.json and history.json "
                f"in {folder}, found {error!r}. Train it again."
            ) from error
        policy = Policy.load(load(name, split, kinds=kinds), folder / ADAPTERS_FOLDER)
        return cls(policy, split, name, history, kinds=kinds)
