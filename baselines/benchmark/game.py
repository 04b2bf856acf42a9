"""Game: what every system of a comparison learns from and plays, and the settings that cells must share."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from baselines.system import FIXED_USER, UPDATES, Resources
from coars_env import (
    USER,
    EpisodeSet,
    FacetInstructions,
    Role,
    Rules,
    Split,
    UserTest,
    afl_user_test,
    builder,
    user_test,
)


@dataclass(frozen=True, eq=False)
class Game:
    """What all systems learn from and play."""

    split: Split
    subset: Literal["validation", "test"]
    """The part that is played."""
    episodes: tuple[EpisodeSet, ...]
    """Its frozen tasks, one set for each candidate draw."""
    backbone: str = "pocket"
    """Language model of the systems that have one, see `agents.models.backbones.load`."""
    updates: int = UPDATES
    """Of the systems that train one."""
    user: str = FIXED_USER
    """Partner of the systems that play the recommender alone, see `baselines.system.load_user`."""
    afl_users: bool = False
    """Whether users are tested by AFL's own 60 of LastFM; `data_dir` holds their file."""
    data_dir: Path | None = None
    instructions: FacetInstructions | None = None
    """Draws what users want in training, as in the episodes; None in the paper's game."""
    rules: Rules = field(default_factory=Rules)
    """Rules of the game beside its length."""
    controls: bool = False
    """Whether every system is also played with the `coars_env.control_users`."""
    api: dict[str, Any] | None = None
    """Settings of an `agents.models.api.ApiConfig`: systems that only talk then talk to that model."""

    def user_tests(self) -> tuple[UserTest, ...]:
        """Freeze AFL's test of user agents, a draw for each of the episodes.

        The same peers speak as in the episodes; AFL's own users have none.
        """
        draws = range(len(self.episodes))
        if self.afl_users:
            return tuple(afl_user_test(self.split, data_dir=self.data_dir, draw=draw) for draw in draws)
        peers = builder(self.split).peers
        return tuple(user_test(self.split, self.subset, draw=draw, peers=peers) for draw in draws)

    def resources(self, folder: Path) -> Resources:
        """What a system may use that keeps its files in that folder."""
        return Resources(
            backbone=self.backbone,
            updates=self.updates,
            folder=folder,
            api=self.api,
            instructions=self.instructions,
            rules=self.rules,
        )

    def settings(self, plays: Collection[Role]) -> dict[str, str]:
        """What must be equal for two cells to be compared, digests cut short.

        Data, language model and budget, every draw, instructions, rules and controls; and the partner, for a system
        that does not play the user.
        """
        provenance = self.split.dataset.provenance
        talks = self.backbone if self.api is None else f"{self.api['model']} at {self.api['url']}"
        return {
            "language model": f"{talks}; trained: {self.backbone}, {self.updates} updates",
            "dataset": f"{provenance.source} data {provenance.origin} ({provenance.sha256[:12]})",
            "episodes": ", ".join(f"{draw.name} ({draw.sha256[:12]})" for draw in self.episodes),
            "instructions": f"instructions {self.instructions or 'none'}",
            "rules": str(self.rules),
            "controls": "controls" if self.controls else "no controls",
            **({} if USER in plays else {"user": f"user {self.user}"}),
        }
