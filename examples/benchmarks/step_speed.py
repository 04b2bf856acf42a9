"""Where does the time of one CoARS step go on pocket, and what do the carried caches and the packed teacher save?

    python examples/benchmarks/step_speed.py
    python examples/benchmarks/step_speed.py --dialogues 8 --repeats 1 --items 200

Times the parts of one step of `agents.train`, and beside them the two ways they could have been done instead: a rollout
that reads the whole dialogue again at each turn, and a teacher that reads one padded row for each turn. All take turns
within one run; medians are printed, and medians of the ratios. The model is pocket's in size, with random weights, and
the world is invented, so it starts in seconds and says nothing about quality. Every dialogue has all its turns.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import tyro
from transformers import DynamicCache

from agents.backbones.backbone import Backbone
from agents.backbones.pocket import END, PAD, PocketConfig, new_model, train_tokenizer
from agents.credit import distilled_advantages, teacher_logprobs
from agents.llm_agent import LLMAgent
from agents.losses import coars_loss
from agents.policy import Policy
from agents.samples import TrainingSample, collate, collate_teacher, training_sample
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    CoarsReward,
    Dialogue,
    Observation,
    Role,
    Split,
    builder,
    load_split,
    markdown_table,
    play,
    sample_train_tasks,
    surroundings,
)


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """What is timed."""

    dialogues: int = 128
    """Dialogues of a step."""
    repeats: int = 5
    """Rounds, after one that is not counted; in each every way is timed once, in changing order."""
    micro_batch: int = 16
    """Dialogues per forward pass of teacher and student."""
    max_turns: int = 4
    items: int = 1682
    """Films of the invented world: with the fixed phrases they make the vocabulary."""
    threads: int = 0
    """Threads of torch; 0 leaves its own choice."""


class Carrying(LLMAgent):
    """An LLMAgent whose clicks count as stars, so that no dialogue ends early."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        actions = super().act(observations)
        star = ACTIONS.index("star")
        return {n: {**a, "action": min(a["action"], star)} if "action" in a else a for n, a in actions.items()}


class Rereading(Carrying):
    """The same without a cache that outlives a turn."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        self.forget()
        return super().act(observations)


@dataclass
class Step:
    """The parts of one CoARS step on fixed tasks and weights, each to be timed alone."""

    config: SpeedConfig
    split: Split
    policy: Policy

    def play(self, kind: type[Carrying]) -> tuple[list[Dialogue], dict[Role, LLMAgent]]:
        dataset = self.split.dataset
        reward = CoarsReward(exclude_positive_miss=frozenset())  # every turn is trained on
        dialogues = [Dialogue(t, dataset.items, max_turns=self.config.max_turns, reward=reward) for t in self.tasks]
        agents: dict[Role, LLMAgent] = {role: kind(self.policy, role, dataset.items) for role in ROLES}
        play(dialogues, agents[RECOMMENDER], agents[USER])
        return dialogues, agents

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.tasks = sample_train_tasks(builder(self.split), self.config.dialogues, rng, prefix="speed")
        self.pad = self.policy.backbone.tokenizer.pad_token_id or 0
        self.device = self.policy.backbone.device

    def write_samples(
        self, dialogues: Sequence[Dialogue], agents: Mapping[Role, LLMAgent]
    ) -> dict[Role, list[TrainingSample]]:
        """As `agents.train` joins tokens to rewards: sorted by length, for little padding."""
        provenance = self.split.dataset.provenance
        transcripts = [dialogue.transcript(provenance) for dialogue in dialogues]
        return {
            role: sorted(
                (
                    training_sample(row, role, transcript, dialogue.terms, agent.items, self.policy.backbone)
                    for row, transcript, dialogue in zip(agent.rows, transcripts, dialogues, strict=True)
                ),
                key=lambda sample: len(sample.token_ids),
            )
            for role, agent in agents.items()
        }

    def parts(self, samples: Sequence[TrainingSample]) -> list[Sequence[TrainingSample]]:
        size = self.config.micro_batch
        return [samples[first : first + size] for first in range(0, len(samples), size)]

    @torch.no_grad()
    def teach_by_turn(self, role: Role, samples: Sequence[TrainingSample]) -> torch.Tensor:
        """One padded row a turn: context, hindsight, reply. As many turns a pass as packed. [N], in the same order."""
        found = []
        for part in self.parts(samples):
            lines: list[list[int]] = []
            columns: list[list[int]] = []
            for sample in part:
                for turn in sample.turns:
                    lines.append(
                        [
                            *sample.token_ids[: turn.context_end],
                            *turn.hindsight,
                            *sample.token_ids[turn.context_end : turn.end],
                        ]
                    )
                    columns.append([column + len(turn.hindsight) for column in turn.columns])
            ids = torch.full((len(lines), max(map(len, lines))), self.pad)
            for row, line in enumerate(lines):
                ids[row, : len(line)] = torch.tensor(line)
            places = (
                torch.tensor([row for row, own in enumerate(columns) for _ in own]),
                torch.tensor([column for own in columns for column in own]),
            )
            allowed = [sample.allowed[c] for sample in part for turn in sample.turns for c in turn.columns]
            found.append(self.policy.score(role, ids, places, allowed))
        return torch.cat(found)

    def learn(self, role: Role, samples: Sequence[TrainingSample]) -> tuple[dict[str, float], torch.Tensor]:
        """Seconds of the student's forward passes, of the teacher, which goes on from what they read, with all turns of
        a dialogue in one row, and of the backward passes with the loss; and what the teacher found, [N].
        """
        seconds = dict.fromkeys(("student forward", "teacher", "student backward"), 0.0)
        taught = []
        for part in self.parts(samples):
            times = [time.perf_counter()]
            batch, read = collate(part, self.pad, self.device), DynamicCache()
            logprobs = self.policy.score(role, batch.token_ids, batch.places, batch.allowed, cache=read)
            times.append(time.perf_counter())
            taught.append(teacher_logprobs(self.policy, role, part, teacher="live", read=read))
            times.append(time.perf_counter())
            advantages = distilled_advantages(taught[-1], batch.rollout_logprobs)
            episodes = self.config.dialogues
            coars_loss(logprobs, batch.rewards, advantages, batch.weights, lam=0.1, num_episodes=episodes).backward()
            times.append(time.perf_counter())
            for name, (start, end) in zip(seconds, pairwise(times), strict=True):
                seconds[name] += end - start
        for parameter in self.policy.parameters(role):
            parameter.grad = None
        return seconds, torch.cat(taught)


def pocket_like(split: Split, config: PocketConfig) -> Backbone:
    """Pocket's tokenizer and size, with the weights it has before it learns."""
    tokenizer = train_tokenizer(split)
    pad, end = (tokenizer.get_vocab()[mark] for mark in (PAD, END))
    return Backbone(new_model(len(tokenizer), config, pad, end), tokenizer, list_separator="", max_reason_tokens=12)


@contextmanager
def timing(values: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    values.append(time.perf_counter() - started)


PARTS = ("rollout", "samples and hindsight", "student forward", "teacher", "student backward")
REREADING, BY_TURN = "rollout, dialogue read again each turn", "teacher, one padded row a turn"


def measure(step: Step, repeats: int) -> tuple[dict[str, list[float]], list[str]]:
    """Seconds of every way in every round, both sides together; and what the ways agree on."""
    seconds: dict[str, list[float]] = {name: [] for name in (*PARTS, REREADING, BY_TURN)}
    facts: list[str] = []
    rollouts: dict[str, type[Carrying]] = {"rollout": Carrying, REREADING: Rereading}
    for number in range(repeats + 1):
        turned = 1 if number % 2 else -1  # who goes first changes from round to round
        played: dict[str, tuple[list[Dialogue], dict[Role, LLMAgent]]] = {}
        taught: dict[str, dict[Role, torch.Tensor]] = {}
        for name in list(rollouts)[::turned]:
            with timing(seconds[name]):
                played[name] = step.play(rollouts[name])
        with timing(seconds["samples and hindsight"]):
            samples = step.write_samples(*played["rollout"])
        for name in ("teacher", BY_TURN)[::turned]:
            if name == BY_TURN:
                with timing(seconds[name]):
                    taught[name] = {role: step.teach_by_turn(role, samples[role]) for role in ROLES}
            else:
                learnt = {role: step.learn(role, samples[role]) for role in ROLES}
                taught[name] = {role: found for role, (_, found) in learnt.items()}
                for part in PARTS[2:]:
                    seconds[part].append(sum(spent[part] for spent, _ in learnt.values()))
        if number == 0:  # warms up
            facts = agreement(step, played, samples, taught)
            for values in seconds.values():
                values.clear()
    return seconds, facts


def agreement(
    step: Step,
    played: Mapping[str, tuple[list[Dialogue], dict[Role, LLMAgent]]],
    samples: Mapping[Role, Sequence[TrainingSample]],
    taught: Mapping[str, Mapping[Role, torch.Tensor]],
) -> list[str]:
    """Both rollouts must say the same, and both teachers find the same log-probabilities."""
    said = [[dialogue.turns for dialogue in dialogues] for dialogues, _ in played.values()]
    gap = max(float((taught["teacher"][role] - taught[BY_TURN][role]).abs().max()) for role in ROLES)
    rows = [row for role in ROLES for row in played["rollout"][1][role].rows]
    blocks = [collate_teacher(part, step.pad, step.device).token_ids for r in ROLES for part in step.parts(samples[r])]
    by_turn = sum(
        len(part) * step.config.max_turns * max(len(t.hindsight) + t.end for s in part for t in s.turns)
        for role in ROLES
        for part in step.parts(samples[role])
    )
    return [
        f"equal dialogues: {'yes' if said[0] == said[1] else 'no'}",
        f"largest difference of the teachers' log-probabilities: {gap:.1e} nats",
        f"mean tokens of a side's dialogue: {np.mean([len(row.token_ids) for row in rows]):.0f}, "
        f"chosen by the side itself: {np.mean([sum(row.sampled) for row in rows]):.0f}",
        f"tokens read by the teacher, padding included: {sum(ids.numel() for ids in blocks)} after what the "
        f"student read, {by_turn} by turn",
    ]


def report(config: SpeedConfig, step: Step, seconds: Mapping[str, Sequence[float]], facts: Sequence[str]) -> str:
    """The table, under a line that says what was measured where."""
    total = np.sum([seconds[name] for name in PARTS], axis=0)  # [repeats]
    rows = [
        (name, f"{np.median(seconds[name]):.3f}", f"{np.median(np.divide(seconds[name], total)):.0%}", "")
        for name in PARTS
    ]
    rows += [("**the step**", f"{np.median(total):.3f}", "100%", "")]
    for name, part in ((REREADING, "rollout"), (BY_TURN, "teacher")):
        ratio = np.median(np.divide(seconds[name], seconds[part]))
        rows.append((name, f"{np.median(seconds[name]):.3f}", "", f"{ratio:.2f} x {part}"))
    around = surroundings()
    adapters = sum(p.numel() for role in ROLES for p in step.policy.parameters(role))
    base = sum(p.numel() for p in step.policy.backbone.model.parameters()) - adapters
    head = (
        f"{config.dialogues} dialogues of {config.max_turns} turns, both sides, {config.micro_batch} dialogues "
        f"a pass; model of {base:,} parameters and {adapters:,} in the adapters; {config.repeats} rounds; "
        f"{step.split.dataset.origin}; commit {around['commit']}, {around['machine']}, {torch.get_num_threads()} "
        f"threads, load {os.getloadavg()[0]:.1f} (others' work included), Python {around['python']}, "
        f"torch {around['versions']['torch']}, transformers {around['versions']['transformers']}."
    )
    table = markdown_table(("part", "median seconds", "share of the step", "median ratio"), rows)
    return "\n\n".join([head, table, "\n".join(f"- {fact}" for fact in facts)])


def main() -> None:
    config = tyro.cli(SpeedConfig, description=__doc__)
    if config.threads:
        torch.set_num_threads(config.threads)
    split = load_split("synthetic", users=943, items=config.items, interactions=30_000)
    step = Step(config, split, Policy(pocket_like(split, PocketConfig())))
    print(report(config, step, *measure(step, config.repeats)))


if __name__ == "__main__":
    main()
