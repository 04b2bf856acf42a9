"""Supervised: both agents trained on the choices of the logs; an upper control, not a rival.

It sees in training what the others have to find out. Reasons stay the agent's own; only the choice is replaced, see
`agents.players.demonstrator`. A one-turn prototype of it reached .446 on LLaRA's users.

    coars compare --systems supervised
"""

from dataclasses import dataclass

from agents.players.demonstrator import Demonstrator
from agents.training.recipe import CoTraining, Setting, Training
from baselines.trained_pair import TrainedPair
from coars_env import ConfigError, kept_terms


@dataclass(frozen=True, kw_only=True)
class SupervisedRecipe(CoTraining):
    """Raise the likelihood of the choices that the logs say are right."""

    def build(self, setting: Setting) -> Training:
        """Make the training.

        Raises:
            ConfigError: there is a server; it writes replies, not demonstrations.
        """
        if setting.server is not None:
            raise ConfigError("A server samples replies, but this recipe demonstrates them. Leave --server.url out.")
        items = setting.split.dataset.items
        players = self.players(
            setting, agent=lambda role: Demonstrator(setting.policy, role, items, opinions=setting.opinions)
        )
        return Training(players, kept_terms, self.optimisation())  # what is demonstrated is right


class Supervised(TrainedPair):
    """Fine-tuning on demonstrations."""

    recipe = SupervisedRecipe()
    kept = tuple(name for name in TrainedPair.kept if name != "hit_first")  # hits that it did not find itself
