"""Training in several processes: what they do together is what one does alone, and they stay alike."""

import json
import multiprocessing
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

from agents.models.backbones.backbone import layers
from agents.models.backbones.pocket import PocketConfig, load_pocket
from agents.models.policy import Policy
from agents.players.judge import Judge
from agents.runs.checkpoint import ADAPTERS_FOLDER, Checkpoint, Origin
from agents.runs.config import TrainConfig
from agents.runs.run import new_policy, open_backbone, run_training
from agents.training.coars import Coars
from agents.training.credit import student_logprobs
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.recipe import Setting, Training, run_recipe
from agents.training.samples import collate
from agents.training.sharding import pad_to_world_size, shard
from agents.training.update import StepMetrics, new_optimizers
from coars_env import ROLES, USER, BackboneError, ConfigError, Split, TaskBuilder, TrainingError, load_split

Work = Callable[[ProcessGroup], Any]


@dataclass(frozen=True, kw_only=True)
class JudgedRecipe(Coars):
    """CoARS by the grades of the base, with a divergence in the loss."""

    def build(self, setting: Setting) -> Training:
        training = super().build(setting)
        judge = Judge(setting.policy, setting.split.dataset.items)
        return Training(training.players, judge, replace(training.optimisation, kl=0.1))


IDLE: dict[str, Any] = {
    **{"episodes_per_step": 2, "max_turns": 1, "explored_share": 0.0},  # of three processes one has nothing at all
    **{"kind": JudgedRecipe, "diagnosis": "written", "teacher": "ema"},
}


def in_team(size: int, work: Work, folder: Path, *, shards: bool = False) -> list[Any]:
    """What `work` returns, or the error it raises, in each of some processes. They are forked from this one, so nothing
    is loaded again.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(index: int) -> None:
        place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
        os.environ.update(ACCELERATE_USE_FSDP=str(shards).lower(), FSDP_CPU_RAM_EFFICIENT_LOADING="true")
        processes = ProcessGroup.launched("cpu")
        try:
            found = work(processes)
        except Exception as error:
            found = error
        (folder / f"{index}.pickle").write_bytes(pickle.dumps(found))
        processes.destroy()

    processes = [multiprocessing.get_context("fork").Process(target=one, args=(index,)) for index in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        process.kill()  # nothing where it has ended; one that waits for ever has no exit code of 0
        process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return [pickle.loads((folder / f"{index}.pickle").read_bytes()) for index in range(size)]


def learnt(
    policy: Policy, build: TaskBuilder, processes: ProcessGroup, *, kind: type[Coars] = Coars, **settings: Any
) -> dict[str, Any]:
    """Metrics without times and dialogues of each update; adapters and optimizers after the last."""
    if processes.sharded:
        shard(policy, "cpu", processes)
    rows: list[tuple[StepMetrics, list[str]]] = []
    optimizers = new_optimizers(policy)
    run_recipe(
        kind(**{"steps": 2, "episodes_per_step": 12, "max_turns": 3, "micro_batch": 4, **settings}),
        Setting(policy=policy, split=build.split),
        build,
        optimizers=optimizers,
        on_step=lambda step, metrics, transcripts: rows.append(
            ({k: v for k, v in metrics.items() if "second" not in k}, [t.to_json() for t in transcripts])
        ),
        processes=processes,
    )
    saved = Checkpoint.of(policy, optimizers, len(rows), Origin({}, "", ""))
    return {
        "metrics": [metrics for metrics, _ in rows],
        "dialogues": [told for _, told in rows],
        "tensors": {name: tensor.numpy().copy() for name, tensor in saved.tensors.items()},
    }


def same(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return pickle.dumps(mine) == pickle.dumps(theirs)


@pytest.mark.parametrize(
    ("size", "kind", "settings"),
    [
        (2, "pocket", {}),
        (2, "pocket", {"group_size": 4, "baseline": "group", "explored_share": 0.4, "diagnosis": "written"}),
        (3, "pocket", {"episodes_per_step": 4, "steps": 1, "learners": "user", "baseline": "batch"}),  # 2, 1 and 1
        (3, "pocket", IDLE),
        pytest.param(2, "qwen3", {"group_size": 2}, marks=pytest.mark.slow),
    ],
    ids=["plain", "groups", "uneven", "idle", "qwen3"],
)
@pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])
def test_several_processes_make_the_update_of_one(
    lab: Any, build: TaskBuilder, tmp_path: Path, size: int, kind: str, settings: dict[str, Any], shards: bool
) -> None:
    """The same dialogues, and the same update but for the order in which numbers are added; theirs are equal to the
    bit.
    """
    lab.folder(kind)
    alone = learnt(lab.policy(kind, scale=0.1), build, SINGLE_PROCESS, **settings)
    together = in_team(
        size,
        lambda processes: learnt(lab.policy(kind, scale=0.1), build, processes, **settings),
        tmp_path,
        shards=shards,
    )
    assert all(pickle.dumps(one) == pickle.dumps(together[0]) for one in together)
    found = together[0]
    assert found["dialogues"] == alone["dialogues"]
    for mine, theirs in zip(found["metrics"], alone["metrics"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-7, nan_ok=True)
    assert found["tensors"].keys() == alone["tensors"].keys()
    for kind in sorted({name.rpartition("/")[0] for name in alone["tensors"]}):  # user/adapter, user/exp_avg, ...
        mine, theirs = (
            np.concatenate([tensor.ravel() for name, tensor in one["tensors"].items() if name.startswith(kind + "/")])
            for one in (found, alone)
        )
        bound = 1e-6 if kind.endswith("adapter") else 3e-6  # moments hold the bare sum, which begins at 0
        assert np.linalg.norm(mine - theirs) <= bound * np.linalg.norm(theirs), kind


def test_what_goes_wrong_in_one_process_stops_all_with_the_same_words(
    lab: Any, build: TaskBuilder, tmp_path: Path
) -> None:
    lab.folder("pocket")

    def work(processes: ProcessGroup) -> Any:
        policy = lab.policy(scale=0.1)
        if not processes.is_main:
            policy.parameters(USER)[0].register_hook(lambda gradient: gradient * torch.nan)
        learnt(policy, build, processes)

    errors = in_team(2, work, tmp_path)
    assert [type(error) for error in errors] == [TrainingError] * 2
    assert str(errors[0]) == str(errors[1])
    assert "Training diverged: the loss of user_0 is" in str(errors[0])


@pytest.mark.parametrize(
    ("variable", "found"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("FSDP_OFFLOAD_PARAMS", "true"),
        ("FSDP_SHARDING_STRATEGY", "HYBRID_SHARD"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false"),
    ],
)
def test_a_launch_that_splits_the_model_in_another_way_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, found: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(variable, found)
    expected = rf"{variable}={found} is not supported.* Expected {variable}=[a-z_]+\. Launch with"
    with pytest.raises(ConfigError, match=expected):
        ProcessGroup.launched("cpu")


# A base in pieces -----------------------------------------------------------------------------------------------------


def test_each_process_holds_its_piece_of_every_layer(lab: Any, build: TaskBuilder, tmp_path: Path) -> None:
    """Also after an update. Whole are what stands outside of the layers, and the adapters in them."""
    lab.folder("qwen3")

    def held(policy: Policy) -> dict[str, int]:
        """Numbers of each tensor that this process has."""
        own = {n: p.to_local() if isinstance(p, DTensor) else p for n, p in policy.backbone.model.named_parameters()}
        return {name: tensor.numel() for name, tensor in own.items()}

    def work(processes: ProcessGroup) -> dict[str, int]:
        policy = lab.policy("qwen3")
        learnt(policy, build, processes, steps=1, episodes_per_step=2)
        return held(policy)

    whole, pieces = held(lab.policy("qwen3")), in_team(2, work, tmp_path, shards=True)
    for name, number in whole.items():
        share = number / 2 if ".layers." in name and "lora_" not in name else number  # here all sizes are even
        assert [piece[name] for piece in pieces] == [share, share], name


def test_what_evens_the_passes_teaches_nothing(lab: Any) -> None:
    policy = lab.policy()
    samples = [replace(sample, opening=0) for sample in lab.play(policy, 4).samples(USER)]
    *given, added = pad_to_world_size(samples[:3], ProcessGroup(world_size=2, sharded=True))
    assert given == samples[:3]
    assert pad_to_world_size(samples, ProcessGroup(world_size=2, sharded=True)) == samples
    logprobs = student_logprobs(policy, USER, collate([added], 0, policy.backbone.device))
    assert logprobs.shape == (0,)
    logprobs.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in policy.parameters(USER))


def test_a_base_that_cannot_be_sharded_is_refused(lab: Any, run_settings: TrainConfig, world: Split) -> None:
    with pytest.raises(ConfigError, match=r"Expected no bits with --use_fsdp, found 8\."):
        open_backbone(replace(run_settings, bits=8), world, ProcessGroup(world_size=2, sharded=True))
    model = lab.backbone().model
    assert len(layers(model)) == 2
    model.config.num_hidden_layers = 3
    with pytest.raises(BackboneError, match=r"Expected a list of 3 modules in .*, found none\."):
        layers(model)


# A run folder ---------------------------------------------------------------------------------------------------------


class StopAt:
    """A logger that ends the run, as a full disk would, when it is told of an update."""

    def __init__(self, step: int) -> None:
        self._step = step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self._step:
            raise OSError("the disk is full")

    def close(self) -> None: ...


def computed(folder: Path) -> tuple[list[dict[str, Any]], Checkpoint]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows], Checkpoint.read(folder)


def layout(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])
def test_the_main_process_alone_writes_and_all_go_on_from_what_it_wrote(
    run_settings: TrainConfig, finished_run: Path, world: Split, tmp_path: Path, shards: bool
) -> None:
    """Each process stands in a folder of its own, so another finds nothing but what the main one tells it."""
    recipe = Coars(steps=3, episodes_per_step=6, max_turns=2, learning_rate_user=0.5, seed=4)
    settings = replace(run_settings, recipe=recipe, checkpoint_every=1)

    def work(name: str, *, stop: int = 9, resume: bool = False) -> Work:
        def run(processes: ProcessGroup) -> Any:
            place = tmp_path / str(processes.rank)
            place.mkdir(exist_ok=True)
            os.chdir(place)
            policy = new_policy(settings, world, processes)
            assert shards == any(isinstance(p, DTensor) for p in policy.backbone.model.parameters())
            config = replace(settings, out=Path(name))
            run_training(config, world, policy, resume=resume, logger=StopAt(stop), processes=processes)
            return [p.detach().numpy().copy() for role in ROLES for p in policy.parameters(role)]

        return run

    def both(work: Work) -> list[Any]:
        return in_team(2, work, tmp_path, shards=shards)

    whole = both(work("whole"))
    assert pickle.dumps(whole[0]) == pickle.dumps(whole[1])
    stopped = both(work("stopped", stop=1))
    assert "the disk is full" in str(stopped[0])
    assert isinstance(stopped[1], RuntimeError)  # the main process is gone
    assert pickle.dumps(both(work("stopped", resume=True))) == pickle.dumps(whole)
    assert list((tmp_path / "1").iterdir()) == []
    assert layout(tmp_path / "0" / "whole") == layout(tmp_path / "0" / "stopped") == layout(finished_run)
    metrics, saved = computed(tmp_path / "0" / "whole")
    metrics_again, saved_again = computed(tmp_path / "0" / "stopped")
    assert repr(metrics_again) == repr(metrics)
    assert len(metrics) == 3
    assert all(torch.equal(saved_again.tensors[name], tensor) for name, tensor in saved.tensors.items())
    note = json.loads((tmp_path / "0" / "stopped" / "config.json").read_text())
    assert (note["processes"], [(r["step"], r["processes"]) for r in note["resumed"]]) == (2, [(1, 2)])
    refused = both(work("whole"))
    assert [type(error) for error in refused] == [ConfigError] * 2
    assert "A run is never overwritten" in str(refused[1])


@pytest.mark.slow
def test_accelerate_launches_the_command(tmp_path: Path, root: Path) -> None:
    """Two processes train and go on as one command; where training fails, the launch ends, and says why."""
    split = load_split("synthetic", source="synthetic")  # opened by its name, it has the size the name stands for
    load_pocket(split, PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8), cache_dir=tmp_path / "pocket")
    (backbone,) = (tmp_path / "pocket").iterdir()

    def launch(*words: str, way: str = "--multi_gpu") -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "accelerate.commands.launch", way, "--num_processes", "2"]
        launcher += ["--main_process_port", "0", "-m", "coars_env.cli", "train"]
        return subprocess.run([*launcher, *words], capture_output=True, text=True, cwd=root, timeout=900)

    world = ["--data.dataset", "synthetic", "--data.source", "synthetic", "--backbone", str(backbone), "--log", "none"]
    size = ["--device", "cpu", "--recipe.steps", "2", "--recipe.episodes-per-step", "6", "--recipe.max-turns", "2"]
    run = tmp_path / "run"
    ran = launch(*world, *size, "--checkpoint-every", "1", "--out", str(run))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("run written to") == 1
    assert json.loads((run / "config.json").read_text())["processes"] == 2
    ran = launch(*world, *size, "--out", str(tmp_path / "sharded"), way="--use_fsdp")
    assert ran.returncode == 0, ran.stderr
    whole, sharded = Checkpoint.read(run).tensors, Checkpoint.read(tmp_path / "sharded").tensors
    for name, tensor in whole.items():
        assert torch.linalg.vector_norm(sharded[name] - tensor) <= 1e-5 * torch.linalg.vector_norm(tensor), name
    shutil.rmtree(run / ADAPTERS_FOLDER)
    ran = launch("--resume", str(run), way="--use_fsdp")
    assert ran.returncode == 0, ran.stderr
    assert (run / ADAPTERS_FOLDER).is_dir()
    ran = launch(*world, *size, "--recipe.learning-rate-user", "1e30", "--out", str(tmp_path / "failed"))
    assert ran.returncode == 1
    assert "coars train: All 4 dialogues of update 1 failed: " in ran.stderr
    assert Checkpoint.read(tmp_path / "failed").step == 0
