"""Training in several processes: what they do together is what one does alone, and they stay alike."""

import multiprocessing
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.checkpoint import CHECKPOINT, Checkpoint, Origin
from agents.policy import Policy
from agents.run import TrainConfig, main, new_policy, run_training
from agents.samples import TrainingSample
from agents.team import ALONE, Team
from agents.train import CoarsConfig, StepMetrics, new_optimizers, train
from coars_env import RECOMMENDER, ROLES, USER, ConfigError, Split, TaskBuilder, TrainingError

Work = Callable[[Team], Any]


def in_team(size: int, work: Work, folder: Path) -> list[Any]:
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
        team = Team.launched("cpu")
        try:
            found = work(team)
        except Exception as error:
            found = error
        (folder / f"{index}.pickle").write_bytes(pickle.dumps(found))
        team.leave()

    processes = [multiprocessing.get_context("fork").Process(target=one, args=(index,)) for index in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        process.kill()  # nothing where it has ended; one that waits for ever has no exit code of 0
        process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return [pickle.loads((folder / f"{index}.pickle").read_bytes()) for index in range(size)]


def learnt(policy: Policy, build: TaskBuilder, team: Team, **settings: Any) -> dict[str, Any]:
    """Metrics without times and dialogues of each update; adapters and optimizers after the last."""
    rows: list[tuple[StepMetrics, list[str]]] = []
    optimizers = new_optimizers(policy)
    train(
        policy,
        build,
        CoarsConfig(**{"steps": 2, "episodes_per_step": 12, "max_turns": 3, "micro_batch": 4, **settings}),
        optimizers=optimizers,
        on_step=lambda step, metrics, transcripts: rows.append(
            ({k: v for k, v in metrics.items() if "second" not in k}, [t.to_json() for t in transcripts])
        ),
        team=team,
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
        (2, "pocket", {"group_size": 4, "baseline": "group", "explored_share": 0.4, "teacher": "live"}),
        (3, "pocket", {"episodes_per_step": 4, "steps": 1, "trained": "user", "baseline": "batch"}),  # 2, 1 and 1
        pytest.param(2, "qwen3", {"group_size": 2}, marks=pytest.mark.slow),
    ],
    ids=["plain", "groups", "uneven", "qwen3"],
)
def test_several_processes_make_the_update_of_one(
    lab: Any, build: TaskBuilder, tmp_path: Path, size: int, kind: str, settings: dict[str, Any]
) -> None:
    """The same dialogues, and the same update but for the order in which numbers are added; theirs are equal to the
    bit.
    """
    lab.folder(kind)
    alone = learnt(lab.policy(kind, scale=0.1), build, ALONE, **settings)
    together = in_team(size, lambda team: learnt(lab.policy(kind, scale=0.1), build, team, **settings), tmp_path)
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

    def work(team: Team) -> Any:
        policy = lab.policy(scale=0.1)
        if not team.is_main:
            policy.parameters(USER)[0].register_hook(lambda gradient: gradient * torch.nan)
        learnt(policy, build, team)

    errors = in_team(2, work, tmp_path)
    assert [type(error) for error in errors] == [TrainingError] * 2
    assert str(errors[0]) == str(errors[1])
    assert "Expected a finite loss of user_0 with finite gradients, found loss" in str(errors[0])


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launch_that_splits_the_model_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=rf"each holds the whole base\. .*found ACCELERATE_USE_{name}=true\."):
        Team.launched("cpu")


# A run folder -----------------------------------------------------------------------------------------------------------


class StopAt:
    """A logger that ends the run, as Ctrl-C would, when it is told of an update."""

    def __init__(self, step: int) -> None:
        self._step = step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self._step:
            raise KeyboardInterrupt

    def close(self) -> None: ...


def layout(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def settings(run_settings: TrainConfig) -> TrainConfig:
    """In the folder `run` of wherever the process is."""
    coars = CoarsConfig(steps=3, episodes_per_step=6, max_turns=2, learning_rate_user=0.5, seed=4)
    return replace(run_settings, out=Path("run"), coars=coars, checkpoint_every=1)


def test_the_main_process_alone_writes_and_all_go_on_from_what_it_wrote(
    settings: TrainConfig, world: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process is in a folder of its own, so nothing can be read but what the main one tells."""

    def work(resume: bool) -> Work:
        def run(team: Team) -> Any:
            (tmp_path / str(team.index)).mkdir(exist_ok=True)
            os.chdir(tmp_path / str(team.index))
            policy = new_policy(settings, world)
            run_training(settings, world, policy, resume=resume, team=team)
            return [p.detach().numpy().copy() for role in ROLES for p in policy.parameters(role)]

        return run

    first = in_team(2, work(resume=False), tmp_path)
    assert pickle.dumps(first[0]) == pickle.dumps(first[1])
    assert layout(tmp_path / "1") == set()
    run_training(replace(settings, out=tmp_path / "alone"), world, new_policy(settings, world))
    assert layout(tmp_path / "0" / "run") == layout(tmp_path / "alone")
    refused = in_team(2, work(resume=False), tmp_path)
    assert [type(error) for error in refused] == [ConfigError] * 2
    assert "A run is never overwritten" in str(refused[1])
