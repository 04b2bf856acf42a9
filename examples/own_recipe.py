"""A recipe of one's own in one file: the recommender alone learns, opposite a scripted user, and thinks first.

    python examples/own_recipe.py                             # an invented world, about a minute
    python examples/own_recipe.py --dataset movielens         # real data
    PYTHONPATH=examples coars train --recipe own_recipe:ThinkingRecommender --data.dataset synthetic
    PYTHONPATH=examples coars train --recipe.learners recommender --partner own_recipe:picky_user

Any `Agent` may sit opposite a learner: a scripted one as here, a frozen policy, a model behind an API. Nothing is
explored or weighed for a side that does not learn.
"""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro

from agents.models.backbones import load
from agents.models.fields import Field, Text
from agents.models.policy import Policy
from agents.models.replies import RECOMMENDER_FORMAT, ReplyFormat
from agents.players.llm_agent import LLMAgent
from agents.training.learner import Learner, Optimisation
from agents.training.recipe import Setting, Training, run_recipe
from coars_env import (
    RECOMMENDER,
    USER,
    Agent,
    CoarsReward,
    EpisodeSet,
    FixedUser,
    ScorerUser,
    Split,
    SplitName,
    SvdPeers,
    builder,
    evaluate,
    freeze,
    load_split,
    sample_train_tasks,
    summarize,
    svd_scorer,
)

THOUGHT = Field("Thought", Text(min_tokens=2, max_tokens=6), hidden=True)
"""The user never reads it."""
FORMAT = ReplyFormat((THOUGHT, *RECOMMENDER_FORMAT.fields))


def picky_user(split: Split) -> Agent:
    """Make a user that accepts a tenth of all candidates, those nearest to its taste by an SVD of the training part."""
    tasks = sample_train_tasks(builder(split), 128, np.random.default_rng(0), prefix="threshold")
    return ScorerUser.fit(svd_scorer(SvdPeers(split).directions), tasks, accept=0.1)


@dataclass(frozen=True, kw_only=True)
class ThinkingRecommender:
    """Train a recommender that writes a hidden thought before its reason and its item."""

    steps: int = 40
    """Updates."""
    episodes_per_step: int = 192
    """Dialogues of an update."""
    seed: int = 0

    def build(self, setting: Setting) -> Training:
        """Make players, reward and optimisation."""
        recommender = Learner(agent=setting.agent(RECOMMENDER, reply_format=FORMAT), learning_rate=2e-3)
        return Training(
            players={RECOMMENDER: recommender, USER: setting.partner or picky_user(setting.split)},
            reward=CoarsReward(),
            optimisation=Optimisation(
                steps=self.steps, episodes_per_step=self.episodes_per_step, max_turns=2, seed=self.seed
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained on."""

    dataset: str = "synthetic"
    split: SplitName = "llara"
    subset: Literal["validation", "test"] = "validation"
    """Users that are played before and after; settings are chosen on validation users."""
    backbone: str = "pocket"
    recipe: ThinkingRecommender = ThinkingRecommender()


def hit_at_1(policy: Policy, episodes: EpisodeSet) -> str:
    """Return Hit@1 of the first proposal, greedy, with its interval."""
    agent = LLMAgent(policy, RECOMMENDER, episodes.items, temperature=0.0, reply_format=FORMAT)
    return str(summarize("recommender", evaluate(agent, FixedUser(), [episodes])).estimates["hit_first"])


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    split = load_split(options.dataset, options.split)
    build = builder(split)
    episodes = freeze(build, options.subset)
    policy = Policy(load(options.backbone, split), seed=options.recipe.seed)
    print(f"{split.dataset.provenance.source} data, {len(episodes)} {options.subset} users")
    print(f"Hit@1 before: {hit_at_1(policy, episodes)}", flush=True)
    started = time.perf_counter()
    run_recipe(
        options.recipe,
        Setting(policy=policy, split=split),
        build,
        on_step=lambda step, metrics, _: print(
            f"update {step + 1}: Hit@1 in training {metrics['hit_first']:.3f}", flush=True
        ),
    )
    print(f"Hit@1 after:  {hit_at_1(policy, episodes)}, {time.perf_counter() - started:.0f} s of training")


if __name__ == "__main__":
    main()
