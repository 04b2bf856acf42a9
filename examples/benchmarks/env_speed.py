"""How many steps a second, alone and many at once, beside Gymnasium's SyncVectorEnv of the same game?

    python examples/benchmarks/env_speed.py
    python examples/benchmarks/env_speed.py --repeats 1 --seconds 0.1 --dialogues 8 --source synthetic
    python examples/benchmarks/env_speed.py --out docs/results

One half-turn of one game counts as two agent-steps, one for each side. Actions are drawn beforehand, and episodes begin
anew as they end. All ways take turns within one run; medians are printed, and medians of the ratios. Time is the
processor time of this process, which has one thread, so that other programs disturb it less.

Then dialogues in words: of a rollout by an untrained model of pocket's size, in which every dialogue has all its turns,
the share of the time that passes outside the agents. Last, what `import coars_env` takes in a process of its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.pocket import END, PAD, PocketConfig, new_model, train_tokenizer
from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    CoarsEnv,
    CoarsReward,
    NumericEnv,
    Observation,
    Source,
    Split,
    VectorDialogueEnv,
    VectorNumericEnv,
    builder,
    environment_info,
    freeze,
    item_features,
    load_split,
    markdown_table,
    play,
    single_agent,
)

DRAWN = 256
"""Sets of actions drawn beforehand, used again and again."""


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """What is timed."""

    source: Source = "auto"
    """Of MovieLens 100K: "synthetic" needs no files."""
    repeats: int = 7
    """Rounds, after one that is not counted; in each every way is timed once, in changing order."""
    seconds: float = 0.5
    """For each way and round."""
    dialogues: int = 128
    """Dialogues of the rollout in words."""
    out: Path | None = None
    """Folder for a page with the results."""


Way = Callable[[float], float]
"""Plays for about so many seconds; agent-steps a second."""


def timed(step: Callable[[Any], object], actions: Sequence[Any], agent_steps: int, seconds: float) -> float:
    """Agent-steps a second, if each call makes so many."""
    stream, calls, start = cycle(actions), 0, time.process_time()
    while time.process_time() - start < seconds:
        for action in islice(stream, 16):
            step(action)
        calls += 16
    return calls * agent_steps / (time.process_time() - start)


def single_way(game: NumericEnv) -> Way:
    rng = np.random.default_rng(0)
    actions = [dict(zip(ROLES, acts, strict=True)) for acts in rng.integers(20, size=(DRAWN, 2)).tolist()]
    game.reset(seed=0)

    def step(acts: dict[str, int]) -> None:
        if game.step(acts)[2][USER]:
            game.reset()

    return lambda seconds: timed(step, actions, 2, seconds)


def vector_way(game: NumericEnv, num_envs: int) -> Way:
    env, rng = VectorNumericEnv(game, num_envs), np.random.default_rng(0)
    actions = [dict(zip(ROLES, rng.integers(20, size=(2, num_envs)), strict=True)) for _ in range(DRAWN)]
    env.reset(seed=0)
    return lambda seconds: timed(env.step, actions, 2 * num_envs, seconds)


def gymnasium_way(game: NumericEnv, num_envs: int) -> Way:
    """Each step of a single-agent view is two half-turns, its own and its partner's, so it counts four."""
    env = gymnasium.vector.SyncVectorEnv([lambda: single_agent(game_like(game))] * num_envs)
    actions = list(np.random.default_rng(0).integers(20, size=(DRAWN, num_envs)))
    env.reset(seed=0)
    return lambda seconds: timed(env.step, actions, 4 * num_envs, seconds)


def game_like(game: NumericEnv) -> NumericEnv:
    """Another environment of the same game."""
    again = NumericEnv(CoarsEnv(game.env.episodes), np.zeros((len(game.env.episodes.items), 1), np.float32))
    again.encoder = game.encoder
    again.observation_spaces = game.observation_spaces
    return again


class Timed:
    """A pocket agent whose clicks count as stars, so that no dialogue ends early, and the time it takes."""

    def __init__(self, agent: LLMAgent) -> None:
        self._agent = agent
        self.seconds = 0.0

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        started = time.process_time()
        self._agent.start(seeds)
        self.seconds += time.process_time() - started

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        started, star = time.process_time(), ACTIONS.index("star")
        actions = self._agent.act(observations)
        actions = {n: {**a, "action": min(a["action"], star)} if "action" in a else a for n, a in actions.items()}
        self.seconds += time.process_time() - started
        return actions


def pocket_like(split: Split) -> Policy:
    """Pocket's tokenizer and size, with the weights it has before it learns."""
    tokenizer = train_tokenizer(split)
    pad, end = (tokenizer.get_vocab()[mark] for mark in (PAD, END))
    model = new_model(len(tokenizer), PocketConfig(), pad, end)
    return Policy(Backbone(model, tokenizer, list_separator="", max_reason_tokens=12))


def shares(env: VectorDialogueEnv, policy: Policy, number: int) -> dict[str, float]:
    """What part of a rollout passes outside the agents: in `VectorDialogueEnv`, and in `play`."""
    found = {}
    for way in ("VectorDialogueEnv", "play"):
        agents = {role: Timed(LLMAgent(policy, role, env.episodes.items)) for role in ROLES}
        env.reset(seed=number)
        started = time.process_time()
        if way == "play":
            play(env.dialogues, agents[RECOMMENDER], agents[USER])
        else:
            for side, role in enumerate(ROLES):
                agents[role].start([(number, side, n, 1) for n in range(env.num_envs)])
            observations, _ = env.reset(seed=number)
            while observations:
                observations, *_ = env.step(agents[env.speaker].act(observations))
        whole = time.process_time() - started
        found[way] = 1 - sum(agent.seconds for agent in agents.values()) / whole
    return found


def import_seconds() -> float:
    """Processor time of `import coars_env` in a fresh process."""
    code = "import time; start = time.process_time(); import coars_env; print(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def report(
    config: SpeedConfig,
    game: NumericEnv,
    speeds: Mapping[str, list[float]],
    words: list[dict[str, float]],
    imports: list[float],
) -> str:
    single = np.array(next(iter(speeds.values())))
    rows = [
        (name, f"{np.median(values):,.0f}", f"{np.median(np.array(values) / single):.1f}")
        for name, values in speeds.items()
    ]
    around = environment_info()
    head = (
        f"Episodes {game.env.episodes.name} of {game.env.episodes.provenance.origin}, observations of "
        f"{game.encoder.size} numbers; {config.repeats} rounds of {config.seconds} s; commit {around['commit']}, "
        f"{around['machine']}, one thread, load {os.getloadavg()[0]:.1f} (others' work included), Python "
        f"{around['python']}, numpy {np.__version__}, gymnasium {gymnasium.__version__}."
    )
    table = markdown_table(("way", "agent-steps a second", "times the single environment"), rows)
    text = "; ".join(f"in {way} {np.median([one[way] for one in words]):.2%}" for way in ("VectorDialogueEnv", "play"))
    tail = (
        f"Of a pocket rollout of {config.dialogues} dialogues in words, this share passes outside the agents: {text}."
    )
    light = f"`import coars_env` takes {np.median(imports):.2f} s."
    return "\n\n".join([head, table, tail, light])


def main() -> None:
    config = tyro.cli(SpeedConfig, description=__doc__)
    torch.set_num_threads(1)
    split = load_split("movielens", source=config.source)
    episodes = freeze(builder(split), "test")
    game = NumericEnv(CoarsEnv(episodes), item_features(split))
    ways: dict[str, Way] = {
        "one environment in a loop": single_way(game),
        **{f"make_vec, {n} games": vector_way(game, n) for n in (1, 64, 1024)},
        **{f"gymnasium's SyncVectorEnv, {n} games": gymnasium_way(game, n) for n in (1, 64)},
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(config.repeats + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:  # who goes first changes from round to round
            speeds[name].append(ways[name](config.seconds))
    policy = pocket_like(split)
    dialogues = VectorDialogueEnv(CoarsEnv(episodes, reward=CoarsReward()), config.dialogues)
    words = [shares(dialogues, policy, number) for number in range(config.repeats + 1)]
    speeds = {name: values[1:] for name, values in speeds.items()}  # the first round warms up
    found = report(config, game, speeds, words[1:], [import_seconds() for _ in range(config.repeats)])
    print(found)
    if config.out:
        page = config.out / f"env_speed_cpu_{date.today().isoformat()}.md"
        command = "`python examples/benchmarks/env_speed.py --out docs/results`"
        page.write_text(f"# How fast is the environment?\n\nCommand: {command}\n\n{found}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
