"""What the examples of plugging in an algorithm share: what is trained on, what is tested on, and the table.

All train on the same tasks of the training part and are tested on the same frozen episodes of the test part, beside
agents that act at random.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import coars_env
from coars_env import Agent, EpisodeSet, FixedUser, MaskedEnv, NumericAgent, NumericEnv, RandomRecommender, Split

Pair = tuple[Agent, Agent]
"""A recommender and a user."""
TRAINING_TASKS = 4000


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    dataset: str = "movielens"
    """Name of the dataset."""
    source: coars_env.Source = "auto"
    """"real" fails where there are no real data, in place of playing a synthetic world."""
    steps: int = 20_000
    """Steps of the environment to train on."""
    seed: int = 0
    """Seed of the tasks, the network and whatever is drawn in training."""

    def question(self) -> "Question":
        return Question(coars_env.load_split(self.dataset, source=self.source), seed=self.seed)


class Question:
    """Tasks to train on and episodes to be tested on, both of one split: which candidate did the user take next?"""

    def __init__(self, split: Split, *, seed: int = 0, training_tasks: int = TRAINING_TASKS) -> None:
        self.split = split
        build = coars_env.builder(split)
        self.test = coars_env.freeze(build, "test")
        rng = np.random.default_rng(seed)
        tasks = coars_env.sample_train_tasks(build, training_tasks, rng, prefix="plugin")
        self._train = EpisodeSet("plugin", tuple(tasks), split.dataset.items, split.dataset.provenance)
        self._features = coars_env.item_features(split)
        self.encoder = self.numeric().encoder

    def numeric(self) -> NumericEnv:
        """A fresh environment of the training tasks in numbers."""
        return NumericEnv(coars_env.CoarsEnv(self._train), self._features)

    def masked(self) -> MaskedEnv:
        """The same, with masks."""
        return MaskedEnv(coars_env.CoarsEnv(self._train), self._features)

    def at_random(self, seed: int = 0) -> dict[str, Pair]:
        """Agents that act at random, against a user that clicks whatever comes first and against each other."""
        rng = np.random.default_rng(seed)
        user = NumericAgent(lambda vector, mask: int(rng.choice(np.flatnonzero(mask))), self.encoder)
        return {
            "random, clicks": (RandomRecommender(), FixedUser()),
            "random, random": (RandomRecommender(), user),
        }

    def table(self, systems: Mapping[str, Pair]) -> str:
        """Hit@1 of the last proposal and both rewards on the test episodes, with 95 % intervals over users."""
        benchmark = coars_env.Benchmark((self.test,))
        played = [benchmark.play(name, recommender, user).scores() for name, (recommender, user) in systems.items()]
        metrics = ("hit_final", "reward_recommender", "reward_user")
        rows = [(row.system, *(row.played[metric] for metric in metrics)) for row in coars_env.table_rows(played)]
        provenance = self.test.provenance
        head = f"{self.test.name}: {len(self.test)} episodes, {provenance.source} data {provenance.origin}"
        columns = ("recommender, user", "Hit@1", "reward of the recommender", "of the user")
        return f"{head}\n\n{coars_env.markdown_table(columns, rows)}"
