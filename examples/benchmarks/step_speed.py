"""Where does the time of one CoARS step go on pocket, and what do the carried caches and the packed teacher save?

    python examples/benchmarks/step_speed.py
    python examples/benchmarks/step_speed.py --dialogues 8 --repeats 1 --items 200

Times the parts of one step of `agents.training.train`, and beside them the two ways they could have been done instead:
a rollout that reads the whole dialogue again at each turn, and a teacher that reads one padded row for each turn. All
take turns within one run; medians are printed, and medians of the ratios. The model is pocket's in size, with random
weights, and the world is invented, so it starts in seconds and says nothing about quality. Every dialogue has all its
turns.

How much of the machine that uses: the operations of matrix products and attention are counted by torch's own counter
while a step runs that is not timed, padding and masked places included; two for a multiplication and an addition. What
could be had is the product of two square matrices of 1,024 numbers a side, timed in each round. The share is the one
over the step's time and the other's rate.

Longer than 400 lines: the parts of a step, the two other ways and the operation count share one model and one world.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.pocket import END, PAD, PocketConfig, new_model, train_tokenizer
from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.training.credit import distilled_advantages, student_logprobs, teacher_logprobs
from agents.training.losses import coars_loss
from agents.training.samples import TrainingSample, collate, collate_teacher, sort_by_length, training_sample
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
    environment_info,
    load_split,
    markdown_table,
    play,
    sample_train_tasks,
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
    group_size: int = 1
    """How many dialogues play one task."""
    teacher: Literal["base", "live"] = "base"
    threads: int = 0
    """Threads of torch; 0 leaves its own choice."""
    out: Path | None = None
    """Folder for a page and its picture."""


class Carrying(LLMAgent):
    """An LLMAgent whose clicks count as stars, so that no dialogue ends early. It counts its own seconds."""

    seconds = 0.0

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        started = time.perf_counter()
        actions = super().act(observations)
        self.seconds += time.perf_counter() - started
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

    def play(self, kind: type[Carrying]) -> tuple[list[Dialogue], dict[Role, Carrying]]:
        dataset = self.split.dataset
        reward = CoarsReward()  # every turn is trained on
        dialogues = [Dialogue(t, dataset.items, max_turns=self.config.max_turns, reward=reward) for t in self.tasks]
        agents: dict[Role, Carrying] = {role: kind(self.policy, role, dataset.items) for role in ROLES}
        play(dialogues, agents[RECOMMENDER], agents[USER])
        return dialogues, agents

    def __post_init__(self) -> None:
        self.build = builder(self.split)
        self.draw()
        self.optimizers = {  # at a rate of 0, so that every round has the same weights
            role: torch.optim.AdamW(self.policy.parameters(role), lr=0.0, weight_decay=0.0) for role in ROLES
        }
        self.pad = self.policy.backbone.tokenizer.pad_token_id or 0
        self.device = self.policy.backbone.device

    def speaker(self, role: Role) -> Role | None:
        """Whose adapter the teacher reads with; None for the base."""
        return role if self.config.teacher == "live" else None

    def draw(self) -> None:
        """The same tasks each time."""
        groups, rng = self.config.dialogues // self.config.group_size, np.random.default_rng(0)
        drawn = sample_train_tasks(self.build, groups, rng, prefix="speed")
        self.tasks = [task for task in drawn for _ in range(self.config.group_size)]

    def write_samples(
        self, dialogues: Sequence[Dialogue], agents: Mapping[Role, Carrying]
    ) -> dict[Role, list[TrainingSample]]:
        """As `agents.training.train` joins tokens to rewards: sorted by length, for little padding."""
        provenance = self.split.dataset.provenance
        transcripts = [dialogue.transcript(provenance) for dialogue in dialogues]
        return {
            role: sort_by_length(
                [
                    training_sample(row, role, transcript, dialogue.terms, agent.items, self.policy.backbone)
                    for row, transcript, dialogue in zip(agent.rows, transcripts, dialogues, strict=True)
                ]
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
            found.append(self.policy.score(self.speaker(role), ids, places, allowed))
        return torch.cat(found)

    def learn(self, role: Role, samples: Sequence[TrainingSample]) -> tuple[dict[str, float], torch.Tensor]:
        """Seconds of the student's forward passes, of the teacher, with all turns of a dialogue in one row, of the
        backward passes with the loss, and of the optimizer; and what the teacher found, [N].
        """
        seconds = dict.fromkeys(LEARNING, 0.0)
        taught = []
        for part in self.parts(samples):
            times = [time.perf_counter()]
            batch, read = collate(part, self.pad, self.device), DynamicCache()
            logprobs = student_logprobs(self.policy, role, batch, read=read)
            times.append(time.perf_counter())
            if self.config.teacher == "base":  # as in agents.training.train, which reports the divergence from the base
                read = DynamicCache()
                with torch.no_grad():
                    student_logprobs(self.policy, None, batch, read=read)
            taught.append(teacher_logprobs(self.policy, self.speaker(role), part, read=read))
            times.append(time.perf_counter())
            advantages = distilled_advantages(taught[-1], batch.rollout_logprobs)
            episodes = self.config.dialogues
            coars_loss(logprobs, batch.rewards, advantages, batch.weights, lam=0.1, num_episodes=episodes).backward()
            times.append(time.perf_counter())
            for name, (start, end) in zip(LEARNING, pairwise(times), strict=False):
                seconds[name] += end - start
        started = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(role), 1.0)
        self.optimizers[role].step()
        self.optimizers[role].zero_grad()
        seconds["optimizer"] = time.perf_counter() - started
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


def attention(query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Operations of attention by the shapes of its arguments, [B, H, L, D] each: two products."""
    return 4 * query[0] * query[1] * query[2] * key[2] * query[3]


def attention_backward(_: object, query: Sequence[int], key: Sequence[int], *__: object, **___: object) -> int:
    """Five products, of which one makes the weights again."""
    return attention(query, key) * 5 // 2


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
"""What torch's counter does not know of attention on a CPU."""
PLAYING = ("tasks and peers", "rollout, recommender", "rollout, user", "environment", "samples and hindsight")
LEARNING = ("student forward", "teacher", "backward", "optimizer")
PARTS = (*PLAYING, *LEARNING)
REREADING, BY_TURN = "rollout, dialogue read again each turn", "teacher, one padded row a turn"
ROLLOUT, PRODUCT = "rollout", "product"


def measure(step: Step, repeats: int) -> tuple[dict[str, list[float]], list[str], float, int]:
    """Seconds of every way in every round, both sides together; what the ways agree on; operations and trained tokens
    of a step.
    """
    seconds: dict[str, list[float]] = {name: [] for name in (*PARTS, ROLLOUT, REREADING, BY_TURN, PRODUCT)}
    facts: list[str] = []
    operations, trained = 0.0, 0
    rollouts: dict[str, type[Carrying]] = {ROLLOUT: Carrying, REREADING: Rereading}
    square = torch.ones(1024, 1024)
    for number in range(repeats + 1):
        turned = 1 if number % 2 else -1  # who goes first changes from round to round
        played: dict[str, tuple[list[Dialogue], dict[Role, Carrying]]] = {}
        taught: dict[str, dict[Role, torch.Tensor]] = {}
        with timing(seconds["tasks and peers"]):
            step.draw()
        with timing(seconds[PRODUCT]):
            for _ in range(10):
                square @ square
        for name in list(rollouts)[::turned]:
            with timing(seconds[name]):
                played[name] = step.play(rollouts[name])
        own = [agent.seconds for agent in played[ROLLOUT][1].values()]
        for name, spent in zip(PLAYING[1:4], (*own, seconds[ROLLOUT][-1] - sum(own)), strict=True):
            seconds[name].append(spent)
        with timing(seconds["samples and hindsight"]):
            samples = step.write_samples(*played[ROLLOUT])
        for name in ("teacher", BY_TURN)[::turned]:
            if name == BY_TURN:
                with timing(seconds[name]):
                    taught[name] = {role: step.teach_by_turn(role, samples[role]) for role in ROLES}
            else:
                learnt = {role: step.learn(role, samples[role]) for role in ROLES}
                taught[name] = {role: found for role, (_, found) in learnt.items()}
                for part in LEARNING:
                    seconds[part].append(sum(spent[part] for spent, _ in learnt.values()))
        if number == 0:  # warms up
            facts = agreement(step, played, samples, taught)
            with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
                step.play(Carrying)
                for role in ROLES:
                    step.learn(role, samples[role])
            operations = float(counter.get_total_flops())
            trained = sum(len(found) for found in taught["teacher"].values())
            for values in seconds.values():
                values.clear()
    return seconds, facts, operations, trained


def agreement(
    step: Step,
    played: Mapping[str, tuple[list[Dialogue], dict[Role, Carrying]]],
    samples: Mapping[Role, Sequence[TrainingSample]],
    taught: Mapping[str, Mapping[Role, torch.Tensor]],
) -> list[str]:
    """Both rollouts must say the same, and both teachers find the same log-probabilities."""
    said = [[dialogue.turns for dialogue in dialogues] for dialogues, _ in played.values()]
    gap = max(float((taught["teacher"][role] - taught[BY_TURN][role]).abs().max()) for role in ROLES)
    rows = [row for role in ROLES for row in played[ROLLOUT][1][role].rows]
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


def report(
    config: SpeedConfig,
    step: Step,
    seconds: Mapping[str, Sequence[float]],
    facts: Sequence[str],
    operations: float,
    trained: int,
) -> str:
    """The table, under a line that says what was measured where."""
    total = np.sum([seconds[name] for name in PARTS], axis=0)  # [repeats]
    rows = [
        (name, f"{np.median(seconds[name]):.3f}", f"{np.median(np.divide(seconds[name], total)):.0%}", "")
        for name in PARTS
    ]
    rows += [("**the step**", f"{np.median(total):.3f}", "100%", "")]
    for name, part in ((REREADING, ROLLOUT), (BY_TURN, "teacher")):
        ratio = np.median(np.divide(seconds[name], seconds[part]))
        rows.append((name, f"{np.median(seconds[name]):.3f}", "", f"{ratio:.2f} x {part}"))
    around = environment_info()
    adapters = sum(p.numel() for role in ROLES for p in step.policy.parameters(role))
    base = sum(p.numel() for p in step.policy.backbone.model.parameters()) - adapters
    head = (
        f"{config.dialogues} dialogues of {config.max_turns} turns, {config.group_size} a task, both sides, teacher "
        f"{config.teacher}, {config.micro_batch} dialogues a pass; model of {base:,} parameters and {adapters:,} in "
        f"the adapters; {config.repeats} rounds; "
        f"{step.split.dataset.origin}; commit {around['commit']}, {around['machine']}, {torch.get_num_threads()} "
        f"threads, load {os.getloadavg()[0]:.1f} (others' work included), Python {around['python']}, "
        f"torch {around['versions']['torch']}, transformers {around['versions']['transformers']}."
    )
    table = markdown_table(("part", "median seconds", "share of the step", "median ratio"), rows)
    rate = 10 * 2 * 1024**3 / np.array(seconds[PRODUCT])  # [repeats] operations per second
    used = [
        f"tokens trained, those the sides chose themselves: {trained}, {np.median(trained / total):.0f} per second",
        f"matrix products and attention of a step: {operations / 1e9:.0f} billion operations; a product of matrices "
        f"makes {np.median(rate) / 1e9:.0f} billion per second; the step uses "
        f"{np.median(operations / total / rate):.0%} of that",
    ]
    return "\n\n".join([head, table, "\n".join(f"- {fact}" for fact in [*facts, *used])])


def draw(seconds: Mapping[str, Sequence[float]], path: Path) -> None:
    """One bar a part: its median, and a line from the least to the most."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    names = PARTS[::-1]
    middle = [float(np.median(seconds[name])) for name in names]
    spread = [[m - min(seconds[n]) for m, n in zip(middle, names, strict=True)]]
    spread += [[max(seconds[n]) - m for m, n in zip(middle, names, strict=True)]]
    axis.barh(names, middle, xerr=spread)
    axis.set_xlabel("seconds")
    axis.set_title("Where the time of one CoARS step goes", fontsize=10)
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    config = tyro.cli(SpeedConfig, description=__doc__)
    if config.threads:
        torch.set_num_threads(config.threads)
    split = load_split("synthetic", users=943, items=config.items, interactions=30_000)
    step = Step(config, split, Policy(pocket_like(split, PocketConfig())))
    seconds, facts, operations, trained = measure(step, config.repeats)
    told = report(config, step, seconds, facts, operations, trained)
    print(told)
    if config.out:
        config.out.mkdir(parents=True, exist_ok=True)
        name = f"step_speed_cpu_{date.today().isoformat()}"
        draw(seconds, config.out / f"{name}.png")
        (config.out / f"{name}.md").write_text(
            "# Where does the time of one CoARS step go?\n\n"
            f"Command: `python examples/benchmarks/{environment_info()['command']}`.\n\n"
            f"{told}\n\n![seconds of each part]({name}.png)\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
