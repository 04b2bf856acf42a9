"""What the examples of plugging in an algorithm share: what is trained on, what is tested on, and the table.

All train on the same tasks of the training part and are tested on the same frozen episodes of the test part, beside
agents that act at random. In games with instructions the user answers questions and volunteers nothing, and the table
also has scripted recommenders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

import coars_env
from coars_env import (
    Agent,
    AskingRecommender,
    CandidateRule,
    CoarsEnv,
    CoarsReward,
    EpisodeSet,
    FacetInstructions,
    FixedUser,
    GreedyRecommender,
    InstructedUser,
    MaskedEnv,
    NumericAgent,
    NumericEnv,
    RandomRecommender,
    Rules,
    Split,
)

Pair = tuple[Agent, Agent]
"""A recommender and a user."""
TRAINING_TASKS = 4000
RULES = Rules(repeats="forbidden", answer="best")
"""Of games with instructions; the paper's game has its own."""


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


@dataclass(frozen=True, kw_only=True)
class AskingConfig(PluginConfig):
    candidates: CandidateRule = "uniform"
    """How the negatives are drawn."""
    instructions: tuple[str, ...] = ()
    """Kinds of facets, such as genre and decade, of which users want one each; none for the paper's game."""
    question_cost: float = 0.1
    """What a question costs the recommender in training."""
    subset: Literal["test", "validation"] = "test"
    """Who is played afterwards: "validation" users, of leave_last_two, to choose settings on."""

    def question(self) -> "Question":
        split = "leave_last" if self.subset == "test" else "leave_last_two"
        return Question(
            coars_env.load_split(self.dataset, split, source=self.source),
            seed=self.seed,
            candidates=self.candidates,
            instructions=FacetInstructions(self.instructions) if self.instructions else None,
            question_cost=self.question_cost,
            subset=self.subset,
        )


class Question:
    """Tasks to train on and episodes to be tested on, both of one split: which candidate did the user take next?"""

    def __init__(
        self,
        split: Split,
        *,
        seed: int = 0,
        training_tasks: int = TRAINING_TASKS,
        candidates: CandidateRule = "uniform",
        instructions: FacetInstructions | None = None,
        question_cost: float = 0.0,
        subset: str = "test",
    ) -> None:
        self.split = split
        self.build = coars_env.builder(split, candidates, instructions=instructions)
        self.test = coars_env.freeze(self.build, subset)
        rng = np.random.default_rng(seed)
        tasks = coars_env.sample_train_tasks(self.build, training_tasks, rng, prefix="plugin")
        self._train = EpisodeSet("plugin", tuple(tasks), split.dataset.items, split.dataset.provenance)
        self._reward = CoarsReward(question_cost=question_cost)
        self.rules, self._features = Rules(), coars_env.item_features(split)
        self.partner: Agent = FixedUser()
        if instructions is not None:
            self.rules, self._features = RULES, kernel_features(split)
            self.partner = InstructedUser(self.test.items, volunteer=0.0)
        self.encoder = self.numeric().encoder

    def numeric(self) -> NumericEnv:
        """A fresh environment of the training tasks in numbers."""
        return NumericEnv(self._game(), self._features)

    def masked(self) -> MaskedEnv:
        """The same, with masks."""
        return MaskedEnv(self._game(), self._features)

    def _game(self) -> CoarsEnv:
        return CoarsEnv(self._train, reward=self._reward, rules=self.rules)

    def scripted(self) -> dict[str, Pair]:
        """Recommenders that go by `kernel_scorer`, with the partner."""
        scorer, items = coars_env.kernel_scorer(self.split), self.test.items
        return {
            "greedy": (GreedyRecommender(scorer), self.partner),
            "never asks": (AskingRecommender(scorer, items, asks=False), self.partner),
            "asks": (AskingRecommender(scorer, items), self.partner),
        }

    def at_random(self, seed: int = 0) -> dict[str, Pair]:
        """Agents that act at random, against a user that clicks whatever comes first and against each other; with
        instructions, against the partner.
        """
        if self.test.kinds:
            return {"random": (RandomRecommender(), self.partner)}
        rng = np.random.default_rng(seed)
        user = NumericAgent(lambda vector, mask: int(rng.choice(np.flatnonzero(mask))), self.encoder)
        return {
            "random, clicks": (RandomRecommender(), self.partner),
            "random, random": (RandomRecommender(), user),
        }

    def table(self, systems: Mapping[str, Pair]) -> str:
        """Hit@1 of the answer and both rewards on the test episodes, with 95 % intervals over users; with instructions,
        also of the first proposal, how many questions were asked, and scripted recommenders.
        """
        benchmark = coars_env.Benchmark((self.test,), rules=self.rules)
        metrics = {"Hit@1": coars_env.ANSWER_METRICS[self.rules.answer]}
        if self.test.kinds:
            metrics |= {"of the first proposal": "hit_first_proposal", "questions": "questions", "turns": "turns"}
            systems = {**self.scripted(), **systems}
        metrics |= {"reward of the recommender": "reward_recommender", "of the user": "reward_user"}
        played = [benchmark.play(name, recommender, user).scores() for name, (recommender, user) in systems.items()]
        rows = [
            (row.system, *(row.played[metric] for metric in metrics.values())) for row in coars_env.table_rows(played)
        ]
        provenance = self.test.provenance
        head = f"{self.test.name}: {len(self.test)} episodes, {provenance.source} data {provenance.origin}"
        return f"{head}\n\n{coars_env.markdown_table(('recommender, user', *metrics), rows)}"


def kernel_features(split: Split, *, size: int = 64) -> npt.NDArray[np.float32]:
    """What the training part of a split tells about each item, [I, size + 1]: vectors whose inner products come near
    the scores of `kernel_scorer`, either item first, and log popularity as in `item_features`.

    So the product of a candidate with the mean of a history comes near what the scripted recommenders go by.
    """
    scorer, items = coars_env.kernel_scorer(split), np.arange(split.dataset.num_items)
    scores = np.stack([scorer(np.array([item]), items) for item in items])
    values, vectors = np.linalg.eigh((scores + scores.T) / 2)
    vectors = vectors[:, -size:] * np.sqrt(np.maximum(values[-size:], 0))
    vectors /= max(np.abs(vectors).max(), 1.0)  # to [-1, 1]; the order of the products stays
    return np.concatenate([vectors.astype(np.float32), coars_env.item_features(split, size=0)], axis=1)
