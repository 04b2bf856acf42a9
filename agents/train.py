"""Trained adapters and a record of the run: the CoARS loop, top to bottom.

Left out on purpose: importance ratios (each batch is used once, on the policy that made it), a reference KL (the paper
names none), a baseline and group normalisation (Eq. 11-12 have neither).
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import DynamicCache

from agents.backbones import load
from agents.checkpoint import ADAPTERS_FOLDER, new_run_folder, read_config, save_adapters, write_config
from agents.credit import (
    ClippedLogRatio,
    Credit,
    SignFromReward,
    TeacherKind,
    distilled_advantages,
    teacher_logprobs,
)
from agents.curves import draw_curves
from agents.llm_agent import LLMAgent
from agents.losses import policy_gradient
from agents.peers import PeersConfig, peers_of, settle
from agents.policy import Policy
from agents.samples import TrainingSample, balanced, collate, training_sample
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    CheckpointError,
    CoarsError,
    CoarsReward,
    ConfigError,
    Dialogue,
    Item,
    MirroredStage,
    Observation,
    Role,
    Source,
    Split,
    SplitName,
    TaskBuilder,
    Transcript,
    builder,
    dialogue_text,
    episode_metrics,
    load_split,
    play,
    sample_train_tasks,
    write_transcripts,
)

CreditKind = Literal["log_ratio", "sign_from_reward", "none"]


@dataclass(frozen=True, kw_only=True)
class CoarsConfig:
    """Settings of the algorithm. "published" is the paper's, "ours" fills a gap the paper leaves."""

    steps: int = 120
    """Updates of both adapters; ours."""
    episodes_per_step: int = 192
    """Dialogues an update, of distinct users; ours."""
    max_turns: int = 4
    """T; ours, AFL's value."""
    credit: CreditKind = "log_ratio"
    """What hindsight adds to a reward: "log_ratio", the paper's `ClippedLogRatio`; "sign_from_reward", RLSD's, see
    `SignFromReward`, which published lambda .5 and clip .2; "none", the reward alone."""
    lambda_recommender: float = 0.1
    """Weight of the token credit; published."""
    lambda_user: float = 0.1
    """Weight of the token credit; published."""
    clip: float = 1.0
    """Largest token credit; published."""
    trained: Literal["both", "recommender", "user"] = "both"
    """Whose adapter learns; published: both. The other plays as it is."""
    teacher: TeacherKind = "base"
    """Whose weights read the hindsight; ours. "base" stays able to use it and holds the messages to the language of the
    base; "live" is the nearest reading of "the same model", and under it the reasons decay; see docs/log.md."""
    learning_rate_recommender: float = 2e-3
    """AdamW without decay, linear warm-up over 5 steps, then to a tenth by a cosine; ours. Models of billions of
    parameters want 1e-5."""
    learning_rate_user: float = 5e-4
    """The same for the user; ours. At the recommender's rate its readiness to accept swings from end to end."""
    explored_share: float = 0.5
    """Share of the dialogues in which the item is drawn at random under the recommender's own words; ours. The user
    alone learns from them: a trained recommender soon proposes nothing but plausible items, and a user that hears no
    others cannot learn what to reject."""
    balance_user: bool = True
    """Weigh the user's turns so that hits and misses count alike in a batch; ours. Without it the user first learns how
    often the recommender is right at present (accept everything, or nothing), and then explores no more."""
    max_grad_norm: float = 1.0
    """Per adapter; ours."""
    temperature: float = 1.0
    """Of the rollout, full support; ours."""
    micro_batch: int = 16
    """Dialogues per forward pass of the update; changes memory, not the result."""
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.steps, self.episodes_per_step, self.micro_batch)
        if not 0 <= self.explored_share < 1 or min(counts) < 1 or self.temperature <= 0:
            raise ConfigError(
                "Training needs steps and dialogues of the trained recommender. Expected 0 <= explored_share < 1 and "
                f"steps, episodes_per_step, micro_batch >= 1 and temperature > 0, found {self}. Mend the settings."
            )

    def credit_of(self, role: Role) -> Credit | None:
        """What hindsight adds to the reward of a side's tokens; None for nothing."""
        lam = self.lambda_recommender if role == RECOMMENDER else self.lambda_user
        if self.credit == "none":
            return None
        return (ClippedLogRatio if self.credit == "log_ratio" else SignFromReward)(lam, self.clip)

    @property
    def learners(self) -> tuple[Role, ...]:
        """The sides whose adapters learn."""
        return {"both": ROLES, "recommender": (RECOMMENDER,), "user": (USER,)}[self.trained]


StepMetrics = dict[str, float]


def train(
    policy: Policy,
    build: TaskBuilder,
    config: CoarsConfig,
    *,
    reward: CoarsReward | None = None,
    opinions: bool = True,
    on_step: Callable[[int, StepMetrics, Sequence[Transcript]], None] | None = None,
) -> None:
    """Train both adapters of a policy from the same dialogues, in place.

    Args:
        policy: base and adapters.
        build: makes the training tasks; candidates are drawn anew for each.
        config: settings.
        reward: of both sides; CoARS's by default.
        opinions: whether the user is told what peers say.
        on_step: called after each update with its number, its metrics and the dialogues it learnt from.
    """
    reward = reward or CoarsReward()
    dataset = build.split.dataset
    recommender, user = (
        LLMAgent(policy, role, dataset.items, temperature=config.temperature, opinions=opinions) for role in ROLES
    )
    optimizers = {role: torch.optim.AdamW(policy.parameters(role), weight_decay=0.0) for role in ROLES}  # rate: below
    explored = round(config.explored_share * config.episodes_per_step)
    for step in range(config.steps):
        started = time.perf_counter()
        rng = np.random.default_rng([config.seed, 2, step])
        tasks = sample_train_tasks(build, config.episodes_per_step, rng, prefix=f"train-{step:05d}")
        dialogues = [Dialogue(task, dataset.items, max_turns=config.max_turns, reward=reward) for task in tasks]
        play(dialogues, Explorer(recommender, explored), user, seed=config.seed, first=step * len(tasks))
        transcripts = [d.transcript(dataset.provenance, seed=config.seed) for d in dialogues]
        samples = {
            RECOMMENDER: _samples(recommender, transcripts, dialogues, first=explored),
            USER: _samples(user, transcripts, dialogues),
        }
        for agent in (recommender, user):
            agent.forget()  # no cache outlives the weights it was made with
        if config.balance_user:
            samples[USER] = balanced(samples[USER])
        transcripts = transcripts[explored:]  # of the recommender as it is
        played = time.perf_counter()
        metrics = rollout_metrics(transcripts, reward)
        if all(t.ending == "failed" for t in transcripts):
            raise CoarsError(
                f"Training needs dialogues. Expected some of {len(transcripts)} to end, found that all failed: "
                f"{transcripts[0].cause}. Mend the agent."
            )
        for role in config.learners:
            ready = sorted(samples[role], key=lambda sample: len(sample.token_ids))  # little padding per pass
            num_episodes = len(transcripts) if role == RECOMMENDER else len(dialogues)
            rates = {RECOMMENDER: config.learning_rate_recommender, USER: config.learning_rate_user}
            rate = rates[role] * schedule(step, config.steps)
            metrics |= _update(policy, role, ready, optimizers[role], rate, num_episodes, config)
        metrics["seconds_rollout"] = played - started
        metrics["seconds"] = time.perf_counter() - started
        if on_step is not None:
            on_step(step, metrics, transcripts)


def schedule(step: int, steps: int, *, warmup: int = 5, floor: float = 0.1) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine from 1 to `floor`."""
    decay = floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
    return min(1.0, (step + 1) / warmup) * decay


class Explorer:
    """The recommender, but in the dialogues numbered below `explored` its item is replaced by a random candidate. The
    words stay its own, so nothing but the item tells the user which kind it hears.
    """

    def __init__(self, recommender: LLMAgent, explored: int) -> None:
        self._recommender, self._explored = recommender, explored

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._recommender.start(seeds)
        self._rngs = [np.random.default_rng([*seed, 1]) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        actions = self._recommender.act(observations)
        for number in [n for n in actions if n < self._explored]:
            item = int(self._rngs[number].integers(len(observations[number]["candidates"])))
            actions[number] = {**actions[number], "item": item}
        return actions


def _samples(
    agent: LLMAgent, transcripts: Sequence[Transcript], dialogues: Sequence[Dialogue], *, first: int = 0
) -> list[TrainingSample]:
    """What an agent's last batch teaches it, from dialogue `first` on, without failed ones and those with no turn to
    learn.
    """
    samples = [
        training_sample(row, agent.role, transcript, dialogue.terms, agent.items, agent.policy.backbone)
        for row, transcript, dialogue in list(zip(agent.rows, transcripts, dialogues, strict=True))[first:]
        if transcript.ending != "failed"
    ]
    return [sample for sample in samples if sample.turns]


def _update(
    policy: Policy,
    role: Role,
    samples: Sequence[TrainingSample],
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    num_episodes: int,
    config: CoarsConfig,
) -> StepMetrics:
    """One gradient step of one adapter. Metrics are named by the side."""
    credit = config.credit_of(role)
    pad = policy.backbone.tokenizer.pad_token_id or 0
    optimizer.zero_grad()
    kept: dict[str, list[torch.Tensor]] = {"credit": [], "logprob": [], "ratio": []}
    for first in range(0, len(samples), config.micro_batch):
        part = samples[first : first + config.micro_batch]
        batch = collate(part, pad, policy.backbone.device)
        read = DynamicCache()  # what the student reads, a live teacher need not read again
        logprobs = policy.score(
            role, batch.token_ids, batch.places, batch.allowed, temperature=config.temperature, cache=read
        )
        total, student = batch.rewards, batch.rollout_logprobs
        if credit is not None:
            with_hindsight = teacher_logprobs(
                policy, role, part, teacher=config.teacher, temperature=config.temperature, read=read
            )
            total = total + credit(total, with_hindsight, student)
            kept["credit"].append(distilled_advantages(with_hindsight, student, clip=config.clip))
        policy_gradient(logprobs, total, batch.weights, num_episodes=num_episodes).backward()
        kept["logprob"].append(batch.rollout_logprobs)
        kept["ratio"].append((logprobs.detach() - batch.rollout_logprobs).exp())
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    norm = nn.utils.clip_grad_norm_(policy.parameters(role), config.max_grad_norm)
    if not torch.isfinite(norm):
        raise CoarsError(
            f"Training diverged. Expected finite gradients of {role}, found norm {float(norm)}. Lower its "
            "learning rate."
        )
    optimizer.step()
    name = "rec" if role == RECOMMENDER else "user"
    tensors = {key: torch.cat(values) if values else torch.zeros(1) for key, values in kept.items()}
    return {
        f"{name}_credit": float(tensors["credit"].mean()),
        f"{name}_clipped": float((tensors["credit"].abs() >= config.clip).float().mean()),
        f"{name}_surprise": -float(tensors["logprob"].mean()),
        f"{name}_ratio_max": float(tensors["ratio"].max()),
        f"{name}_gradient": float(norm),
        f"{name}_tokens": float(len(tensors["logprob"])),
    }


def rollout_metrics(transcripts: Sequence[Transcript], reward: CoarsReward) -> StepMetrics:
    """Means over a batch of dialogues."""
    metrics = episode_metrics(transcripts, reward=reward)
    return {name: float(np.nanmean(values)) for name, values in metrics.items() if np.isfinite(values).any()}


# --- coars train ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which users are trained on and which are held out."""

    dataset: str = "movielens"
    """Name of a dataset, see `coars_env.list_datasets`."""
    split: SplitName | None = None
    """"leave_last" holds out each user's last item, "random_holdout" one at random, "llara" a tenth of the users,
    "published" what the publisher does. None takes the one that fits the data, "leave_last" for MovieLens."""
    source: Source = "auto"
    """"auto" takes real data and, where none can be had, warns and plays a synthetic world; "real" fails instead."""
    data_dir: Path | None = None
    """Where the files lie; else `COARS_DATA`, else the user cache, else the official archive."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Settings of `CoarsReward`."""

    alpha: float = 0.1
    """Weight of the peer term; published."""
    beta: float = 1 / 3
    """Spread of the stage sensitivity, see `MirroredStage`; ours."""
    exclude_positive_miss: Literal["both", "recommender", "user", "off"] = "recommender"
    """Who does not train on a miss the user liked. The rule is published, its scope is not. With "both" a user that
    accepts everything never meets a penalty, and that is what it learns; see docs/log.md."""

    def build(self) -> CoarsReward:
        scope = {"both": ROLES, "recommender": (RECOMMENDER,), "user": (USER,), "off": ()}[self.exclude_positive_miss]
        return CoarsReward(alpha=self.alpha, stage=MirroredStage(self.beta), exclude_positive_miss=frozenset(scope))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train both agents by CoARS and write a run folder: config.json, metrics.jsonl, curves.png, transcripts,
    dialogues.txt, adapters/recommender and adapters/user.
    """

    out: Path = Path("runs/coars")
    """New folder for the run."""
    backbone: str = "pocket"
    """"pocket" builds the local model; else a folder or a hub name such as Qwen/Qwen3-0.6B."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" takes a GPU if there is one."""
    lora_rank: int = 16
    """r; ours. alpha is twice as large."""
    data: DataConfig = field(default_factory=DataConfig)
    peers: PeersConfig = field(default_factory=PeersConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    coars: CoarsConfig = field(default_factory=CoarsConfig)


def open_split(data: DataConfig) -> Split:
    return load_split(data.dataset, data.split, source=data.source, data_dir=data.data_dir)


def new_policy(config: TrainConfig, split: Split) -> Policy:
    """Base and untrained adapters."""
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    backbone = load(config.backbone, split, device=device)
    return Policy(backbone, rank=config.lora_rank, alpha=2 * config.lora_rank, seed=config.coars.seed)


def run_training(config: TrainConfig, split: Split, policy: Policy, *, console: Console | None = None) -> Path:
    """Train and write the run folder. Metrics are on disk after every update. The configuration that is written names
    the peers that were used.
    """
    config = replace(config, peers=settle(config.peers, split))
    build = builder(split, peers=peers_of(config.peers, split))
    folder = new_run_folder(config.out)
    write_config(folder, config, split.dataset.provenance)
    rows: list[StepMetrics] = []
    last: list[Transcript] = []
    told = TextColumn("{task.fields[told]}")
    progress = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), told, console=console
    )
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file, progress:
        bar = progress.add_task("training", total=config.coars.steps, told="")

        def on_step(step: int, metrics: StepMetrics, transcripts: Sequence[Transcript]) -> None:
            rows.append(metrics)
            last[:] = transcripts
            file.write(json.dumps({"step": step, **metrics}) + "\n")
            file.flush()
            recent = {key: float(np.nanmean([row.get(key, np.nan) for row in rows[-10:]])) for key in metrics}
            text = f"Hit@1 {recent['hit_first']:.2f} -> {recent['hit_final']:.2f}, turns {recent['turns']:.1f}"
            rewards = f"rewards {recent['reward_recommender']:+.2f} {recent['reward_user']:+.2f}"
            progress.update(bar, advance=1, told=f"{text}, {rewards}")

        reward, opinions = config.reward.build(), config.peers.opinions
        train(policy, build, config.coars, reward=reward, opinions=opinions, on_step=on_step)
    save_adapters(policy, folder)
    provenance = split.dataset.provenance
    title = f"CoARS on {provenance.source} data: {provenance.origin}, {split.name}"
    draw_curves(rows, folder / "curves.png", title=title)
    write_transcripts(folder / "transcripts" / "last_step.jsonl", last)
    (folder / "dialogues.txt").write_text(told_dialogues(last[:8], split.dataset.items), encoding="utf-8")
    return folder


def run_config(folder: Path) -> TrainConfig:
    """The TrainConfig of a finished run."""
    saved = read_config(folder)
    try:
        data, peers, coars, reward = (saved.pop(name) for name in ("data", "peers", "coars", "reward"))
        data["data_dir"] = data["data_dir"] and Path(data["data_dir"])
        return TrainConfig(
            **{**saved, "out": folder},
            data=DataConfig(**data),
            peers=PeersConfig(**peers),
            coars=CoarsConfig(**coars),
            reward=RewardConfig(**reward),
        )
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"A run is read by the version that wrote it. Expected the settings of this one in {folder}, found other "
            f"ones ({error}). Train again, or use that version."
        ) from error


def train_seeds(config: TrainConfig, split: Split, seeds: Sequence[int]) -> list[Path]:
    """A finished run of each seed, in the folders `config.out` and "-s" and the seed. See `train_once`."""
    name = config.out.name
    return [
        train_once(
            replace(config, out=config.out.with_name(f"{name}-s{seed}"), coars=replace(config.coars, seed=seed)), split
        )
        for seed in seeds
    ]


def train_once(config: TrainConfig, split: Split) -> Path:
    """The folder of a finished run of this configuration; trains where there is none. What an interrupted run left is
    removed.

    Raises:
        ConfigError: the folder holds a finished run of another configuration.
    """
    folder = config.out
    if (folder / ADAPTERS_FOLDER).is_dir():
        if (found := run_config(folder)) != replace(config, peers=settle(config.peers, split)):
            raise ConfigError(
                f"A finished run is kept. Expected one of {config} in {folder}, found {found}. Name another folder, or "
                "remove it."
            )
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    run_training(config, split, new_policy(config, split))
    (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - started), encoding="utf-8")
    return folder


def told_dialogues(transcripts: Sequence[Transcript], items: Sequence[Item]) -> str:
    """Dialogues as a person reads them, with the item truly taken."""
    stories = []
    for transcript in transcripts:
        said = dialogue_text(transcript.task, transcript.turns, items, USER)
        truth = items[transcript.task.target].title
        stories.append(f"{said}\nTruly taken next: {truth}. Ended: {transcript.ending}.\n")
    return "\n".join(stories)


def main(argv: Sequence[str]) -> None:
    """`coars train`."""
    config = tyro.cli(TrainConfig, prog="coars train", description=TrainConfig.__doc__, args=list(argv))
    console = Console()
    split = open_split(config.data)
    console.print(f"peers: {settle(config.peers, split).source}")
    folder = run_training(config, split, new_policy(config, split), console=console)
    console.print(f"run written to {folder}; now: coars evaluate --runs {folder}")
