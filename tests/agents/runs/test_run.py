"""Run folders: whatever stops a run, it goes on from its last checkpoint as if nothing had been."""

import contextlib
import io
import json
import multiprocessing
import re
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from agents.models.backbones.pocket import PocketConfig, load_pocket
from agents.models.policy import Policy
from agents.runs.checkpoint import ADAPTERS_FOLDER, CHECKPOINT, Checkpoint, Origin, alone_in, differences
from agents.runs.command import main, read_command
from agents.runs.config import AnyTrainConfig, TrainConfig, as_json, run_config
from agents.runs.evaluate import where_it_ran
from agents.runs.record import progress_text
from agents.runs.run import new_policy, run_training, train_once, train_seeds
from agents.training.coars import Coars, RewardConfig
from agents.training.peers import PeersConfig
from agents.training.update import new_optimizers
from coars_env import USER, CheckpointError, ConfigError, Split, TrainingError, atomic_path, load_split

STEPS = 5


def five_updates(settings: AnyTrainConfig, out: Path) -> AnyTrainConfig:
    """That change what is said, with a checkpoint after two, four and five of them."""
    recipe = Coars(steps=STEPS, episodes_per_step=6, max_turns=2, learning_rate_user=0.5, seed=4)
    return replace(settings, out=out, recipe=recipe, checkpoint_every=2)


@pytest.fixture
def settings(run_settings: AnyTrainConfig, tmp_path: Path) -> AnyTrainConfig:
    return five_updates(run_settings, tmp_path / "run")


class StopAt:
    """A logger that ends the run, as Ctrl-C would, when it is told of an update."""

    def __init__(self, step: int) -> None:
        self._step = step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self._step:
            raise KeyboardInterrupt

    def close(self) -> None: ...


def stop(settings: AnyTrainConfig, world: Split, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_training(settings, world, new_policy(settings, world), logger=StopAt(step))


def go_on(settings: AnyTrainConfig, world: Split) -> Path:
    return run_training(settings, world, new_policy(settings, world), resume=True)


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run computes: what is left out are times, places and environment_info."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    saved = Checkpoint.read(folder)
    adapters = sorted((folder / ADAPTERS_FOLDER).glob("*/adapter_model.safetensors"))
    assert len(adapters) == 2
    return {
        "adapters": [path.read_bytes() for path in adapters],
        "tensors": {name: (t.dtype, t.tolist()) for name, t in saved.tensors.items()},
        "groups": saved.groups,
        "metrics": repr([{k: v for k, v in row.items() if "second" not in k} for row in rows]),  # NaN equals NaN
        "transcripts": (folder / "transcripts" / "last_step.jsonl").read_bytes(),
        "dialogues": (folder / "dialogues.txt").read_bytes(),
    }


@pytest.fixture(scope="session")
def whole(run_settings: AnyTrainConfig, world: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of the run of `settings` that nobody stopped."""
    config = five_updates(run_settings, tmp_path_factory.mktemp("whole") / "run")
    return outcome(run_training(config, world, new_policy(config, world)))


@pytest.fixture(scope="session")
def stopped_run(run_settings: AnyTrainConfig, world: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped after four updates, before the checkpoint of the fourth."""
    config = five_updates(run_settings, tmp_path_factory.mktemp("stopped") / "run")
    stop(config, world, 3)
    return config.out


@pytest.fixture
def stopped(settings: AnyTrainConfig, stopped_run: Path) -> Path:
    """The same in the folder of `settings`."""
    return shutil.copytree(stopped_run, settings.out)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    settings: AnyTrainConfig, world: Split, whole: dict[str, Any], step: int
) -> None:
    """Update `step` was done and told, but its checkpoint, if it has one, was not written yet."""
    stop(settings, world, step)
    saved = Checkpoint.read(settings.out).step
    assert saved == step // 2 * 2
    assert not (settings.out / ADAPTERS_FOLDER).exists()
    assert outcome(go_on(settings, world)) == whole
    noted = json.loads((settings.out / "config.json").read_text()).get("resumed", [])
    assert [note["step"] for note in noted] == ([saved] if saved else [])


def test_a_run_that_was_stopped_after_its_last_update_only_writes_what_is_missing(
    settings: AnyTrainConfig, world: Split, whole: dict[str, Any]
) -> None:
    folder = run_training(settings, world, new_policy(settings, world))
    shutil.rmtree(folder / ADAPTERS_FOLDER)
    (folder / "curves.png").unlink()
    metrics = (folder / "metrics.jsonl").read_bytes()
    assert outcome(go_on(settings, world)) == whole
    assert (folder / "metrics.jsonl").read_bytes() == metrics  # times included: nothing was done again
    assert (folder / "curves.png").is_file()


def cut_off(path: Path) -> None:
    """Leave what a process leaves that is killed while it writes `path` by `atomic_path`."""
    with contextlib.suppress(KeyboardInterrupt), atomic_path(path) as part:
        part.write_text("{")
        shutil.copytree(part.parent, part.parent.with_name(f"{part.parent.name}x"))
        raise KeyboardInterrupt


def test_a_run_may_be_moved_and_what_was_half_written_is_never_read(
    settings: AnyTrainConfig, world: Split, whole: dict[str, Any], stopped: Path
) -> None:
    """Where a run goes on, and what it reports, are free."""
    settings = replace(settings, checkpoint_every=1, device="cpu")
    for name in (CHECKPOINT, "config.json", ADAPTERS_FOLDER, "transcripts/last_step.jsonl"):
        cut_off(settings.out / name)
    (settings.out / "served.part" / "user-1").mkdir(parents=True)
    (settings.out / ".mine").mkdir()
    (settings.out / ".config.json.swp").touch()
    with (settings.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "hit_fi')
    assert outcome(go_on(settings, world)) == whole
    left = {str(path.relative_to(settings.out)) for path in settings.out.rglob("*") if path.is_file()}
    assert {path.name for path in settings.out.iterdir() if path.is_dir()} == {ADAPTERS_FOLDER, ".mine", "transcripts"}
    assert {name for name in left if not name.startswith(ADAPTERS_FOLDER)} == {
        *(CHECKPOINT, "config.json", "curves.png", "dialogues.txt", "metrics.jsonl", "transcripts/last_step.jsonl"),
        ".config.json.swp",
    }


def test_a_checkpoint_holds_all_of_both_sides(settings: AnyTrainConfig, world: Split, stopped: Path) -> None:
    saved, policy = Checkpoint.read(settings.out), new_policy(settings, world)
    optimizers = new_optimizers(policy)
    assert saved.step == 2
    assert saved.origin.config["recipe"]["seed"] == 4
    assert saved.origin.data == world.dataset.digest
    origin = Origin(as_json(run_config(stopped, finished=False)), world.dataset.provenance.sha256, policy.base)
    saved.restore(policy, optimizers, origin)
    for role, optimizer in optimizers.items():
        state = optimizer.state_dict()["state"]
        assert len(state) == len(policy.parameters(role))
        assert all(float(moments["step"]) == 2 and moments["exp_avg_sq"].any() for moments in state.values())
        assert all(p.any() for p in policy.parameters(role))
    again = Checkpoint.of(policy, optimizers, 2, origin)
    assert again.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(tensor, saved.tensors[name]) for name, tensor in again.tensors.items())


# What must agree ------------------------------------------------------------------------------------------------------


def test_other_settings_are_refused_and_named(settings: AnyTrainConfig, world: Split, stopped: Path) -> None:
    other = replace(settings, recipe=replace(settings.recipe, steps=9, reward=RewardConfig(alpha=0.3)))
    with pytest.raises(
        CheckpointError,
        match=r"reward\.alpha 0\.1, recipe\.steps 5, found recipe\.reward\.alpha 0\.3, recipe\.steps 9\.",
    ):
        go_on(other, world)
    assert Checkpoint.read(settings.out).step == 2


def test_other_data_are_refused(settings: AnyTrainConfig, world: Split, stopped: Path) -> None:
    with pytest.raises(CheckpointError, match=r"goes on with its own data\. Expected digest .*, found "):
        go_on(settings, load_split("synthetic", users=24, items=80, interactions=401))


def test_another_base_is_refused(settings: AnyTrainConfig, world: Split, tmp_path: Path) -> None:
    """The folder of the base has the same name and another model in it."""
    shutil.copytree(settings.backbone, tmp_path / "base")
    settings = replace(settings, backbone=str(tmp_path / "base"))
    stop(settings, world, 3)
    shutil.rmtree(tmp_path / "base")
    load_pocket(world, PocketConfig(hidden=16, layers=1, heads=1, steps=3, batch=8), cache_dir=tmp_path / "other")
    (other,) = (tmp_path / "other").iterdir()
    other.rename(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"goes on with its own base model\. Expected digest .*, found "):
        go_on(settings, world)


def cut(raw: bytes) -> bytes:
    return raw[:-1]


def turned(raw: bytes) -> bytes:
    """One bit of the last tensor."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


def forged(raw: bytes) -> bytes:
    return raw.replace(b'\\"step\\": 2', b'\\"step\\": 3', 1)


@pytest.mark.parametrize("damage", [cut, turned, forged, lambda raw: b"", lambda raw: raw[:100]])
def test_a_damaged_checkpoint_is_refused(
    settings: AnyTrainConfig, world: Split, damage: Callable[[bytes], bytes], stopped: Path
) -> None:
    raw = (settings.out / CHECKPOINT).read_bytes()
    assert damage(raw) != raw
    (settings.out / CHECKPOINT).write_bytes(damage(raw))
    with pytest.raises(CheckpointError, match=r"A run goes on from a whole checkpoint\. Expected one in .*, found "):
        go_on(settings, world)


@pytest.mark.parametrize("lines", ["", '{"step": 0}\n', '{"step": 1}\n{"step": 0}\n', "[]\n[]\n", "{}\n{}\n", "x\n"])
def test_a_record_that_ends_before_the_checkpoint_is_refused(
    settings: AnyTrainConfig, world: Split, lines: str, stopped: Path
) -> None:
    (settings.out / "metrics.jsonl").write_text(lines)
    with pytest.raises(CheckpointError, match=r"does not hold the 2 updates before the checkpoint, but "):
        go_on(settings, world)


def test_checkpoints_are_counted_in_updates() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint_every must be at least 1, got 0\."):
        TrainConfig(checkpoint_every=0)


# What cannot go on ----------------------------------------------------------------------------------------------------


class Poison(StopAt):
    """A logger that breaks the policy when it is told of an update, as too large a step would."""

    def __init__(self, step: int, policy: Policy) -> None:
        super().__init__(-1)
        self._at, self._policy = step, policy

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self._at:
            for parameter in self._policy.parameters(USER):
                parameter.data.fill_(float("nan"))


def test_an_update_that_diverges_is_not_saved_and_names_the_last_good_checkpoint(
    settings: AnyTrainConfig, world: Split
) -> None:
    policy = new_policy(settings, world)
    with pytest.raises(TrainingError) as caught:
        run_training(settings, world, policy, logger=Poison(2, policy))
    assert str(caught.value).endswith(
        "Update 3 was not saved. The last good checkpoint, after 2 updates, is "
        f"{settings.out / CHECKPOINT}; `coars export` takes its adapters out."
    )
    assert all(tensor.isfinite().all() for tensor in Checkpoint.read(settings.out).tensors.values())
    assert len((settings.out / "metrics.jsonl").read_text().splitlines()) == 3


# Finished runs --------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_and_loses_nothing(
    settings: AnyTrainConfig, world: Split, whole: dict[str, Any]
) -> None:
    """No file may grow beyond a size that the first checkpoint, without moments, stays below, and the next does not."""

    class Fill(StopAt):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            if step == 0:
                size = (settings.out / CHECKPOINT).stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + size // 2, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(CheckpointError, match=r"could not be written after update 2: .*[Ff]ile too large"):
            run_training(settings, world, new_policy(settings, world), logger=Fill(9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Checkpoint.read(settings.out).step == 0
    assert outcome(go_on(settings, world)) == whole


def test_a_run_writes_down_its_peers_and_is_kept(
    run_settings: AnyTrainConfig, finished_run: Path, world: Split
) -> None:
    assert finished_run == run_settings.out.with_name("run-s3")
    settled = replace(run_settings, out=finished_run, peers=PeersConfig(source="svd", opinions=False))
    assert run_config(finished_run) == settled.with_seed(3)
    made = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    assert train_seeds(run_settings, world, [3]) == [finished_run]
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == made
    with pytest.raises(ConfigError, match=r"A finished run is kept\. Expected recipe\.reward\.alpha 0\.3 in .* 0\.1\."):
        train_seeds(
            replace(run_settings, recipe=replace(run_settings.recipe, reward=RewardConfig(alpha=0.3))), world, [3]
        )


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(
    run_settings: AnyTrainConfig, world: Split
) -> None:
    left = run_settings.out.with_name("run-s0")
    left.mkdir()
    cut_off(left / "config.json")
    (left / "metrics.jsonl").write_text("{}\n{}\n")
    (folder,) = train_seeds(run_settings, world, [0])
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert not list(folder.glob(".*"))


def test_two_cannot_train_in_one_folder(settings: AnyTrainConfig, world: Split, stopped: Path) -> None:
    config = replace(settings, out=stopped)
    with alone_in(stopped), pytest.raises(CheckpointError, match="another process that is training there"):
        run_training(config, world, new_policy(config, world), resume=True)
    run_training(config, world, new_policy(config, world), resume=True)
    assert not (stopped / ".lock").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(settings: AnyTrainConfig, world: Split) -> None:
    with pytest.raises(ConfigError, match="Expected a GPU that torch can use"):
        new_policy(replace(settings, device="cuda"), world)


def test_seeds_go_on_where_they_were_stopped(settings: AnyTrainConfig, world: Split, whole: dict[str, Any]) -> None:
    named = replace(settings, out=settings.out.with_name("run-s4"))
    stop(named, world, 3)
    assert [outcome(folder) for folder in train_seeds(settings, world, [4])] == [whole]
    told = "\n".join(where_it_ran("x", [named.out]))
    assert len(re.findall(r"Training took \d+\.\d minutes", told)) == 1


def test_a_run_of_a_version_without_recipes_is_refused(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "old")
    body = json.loads((finished_run / "config.json").read_text())
    del body["config"]["recipe"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match=r"do not fit the code \('recipe'\): another version of it wrote them"):
        run_config(tmp_path / "old")


def test_a_run_of_a_version_without_servers_wrote_its_replies_itself(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "old")
    body = json.loads((finished_run / "config.json").read_text())
    now = json.loads(json.dumps(body["config"]))
    assert body["config"].pop("server")["url"] is None
    (tmp_path / "old" / "config.json").write_text(json.dumps(body))
    assert run_config(tmp_path / "old") == replace(run_config(finished_run), out=tmp_path / "old")
    assert differences(body["config"], now) == {}  # so it may go on


def test_a_run_that_is_not_finished_is_not_evaluated(settings: AnyTrainConfig, world: Split, stopped: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not finished: .* Go on with it: coars train --resume "):
        run_config(settings.out)


# The command line -----------------------------------------------------------------------------------------------------


def test_a_resumed_command_has_the_settings_of_its_run(
    settings: AnyTrainConfig, world: Split, tmp_path: Path, stopped: Path
) -> None:
    shutil.move(settings.out, tmp_path / "moved")
    words = ["--resume", str(tmp_path / "moved")]
    config = read_command(words).config
    assert config == replace(settings, out=tmp_path / "moved", peers=PeersConfig(source="svd", opinions=False))
    assert read_command([*words, "--log", "trackio", "--recipe.steps", "9"]).config == replace(
        config, log="trackio", recipe=replace(config.recipe, steps=9)
    )
    assert read_command(["--recipe.steps", "9"]).config == TrainConfig(recipe=Coars(steps=9))
    assert read_command(["--recipe.steps", "9"]).resume is None


def test_the_command_goes_on_with_a_run_and_leaves_a_finished_one(
    settings: AnyTrainConfig, world: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`coars train` opens the world by its name, so this one has the size that a name stands for."""
    split = load_split("synthetic", source="synthetic")
    load_pocket(split, PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8), cache_dir=tmp_path / "pocket")
    (backbone,) = (tmp_path / "pocket").iterdir()
    words = ["--data.dataset", "synthetic", "--data.source", "synthetic", "--backbone", str(backbone), "--log", "none"]
    words += ["--recipe.steps", "1", "--recipe.episodes-per-step", "4", "--out", str(settings.out)]
    main(words)
    assert (settings.out / ADAPTERS_FOLDER).is_dir()
    shutil.rmtree(settings.out / ADAPTERS_FOLDER)
    with pytest.raises(ConfigError, match=r"Choose another --out, remove it, or go on with it by --resume\."):
        main(words)
    with pytest.raises(CheckpointError, match=r"Expected recipe\.seed 0, found recipe\.seed 1\."):
        main(["--resume", str(settings.out), "--recipe.seed", "1"])
    main(["--resume", str(settings.out)])
    assert (settings.out / ADAPTERS_FOLDER).is_dir()
    main(["--resume", str(settings.out)])
    assert "is finished" in " ".join(capsys.readouterr().out.split())


def test_a_run_keeps_its_recipe(settings: AnyTrainConfig, world: Split, stopped: Path) -> None:
    with pytest.raises(ConfigError, match=r"keeps its recipe Coars, but --recipe baselines\.grpo:GrpoRecipe was"):
        read_command(["--resume", str(settings.out), "--recipe", "baselines.grpo:GrpoRecipe"])
    same = ["--resume", str(settings.out), "--recipe", "agents.training.coars:Coars"]
    assert read_command(same).config == read_command(same[:2]).config


def test_a_recipe_that_cannot_be_built_leaves_no_folder(settings: AnyTrainConfig, world: Split) -> None:
    config = replace(settings, partner="coars_env:RandomRecommender")
    with pytest.raises(ConfigError, match='A partner plays the side that does not learn, but learners="both"'):
        run_training(config, world, new_policy(config, world))
    assert not config.out.exists()


def test_there_must_be_something_to_resume(settings: AnyTrainConfig, world: Split, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"A run folder holds config\.json"):
        read_command(["--resume", str(tmp_path)])
    stop(settings, world, 1)
    (settings.out / CHECKPOINT).unlink()
    with pytest.raises(CheckpointError, match=r"There is nothing to resume: .* does not exist"):
        read_command(["--resume", str(settings.out)])


def test_the_line_of_progress_fits_a_hundred_columns(settings: AnyTrainConfig, world: Split) -> None:
    rows = [
        {"hit_final": 0.25, "reward_recommender": -0.125, "reward_user": 0.0, "rec_surprise": 1.5, "user_surprise": 12}
        | {"rec_kl": 0.5, "user_kl": 0.0, "target_named": 0.01, "tokens_per_second": 1234.6},
    ] * 2
    line = progress_text(rows)
    assert line == "Hit@1 0.25, reward -0.12 0.00, entropy 1.50 12.00, KL 0.50 0.00, leak 0.01, 1235 tok/s"
    assert len("120/120 12:34 ") + len(line) <= 100
    del rows[0]["rec_kl"]
    assert "KL" not in progress_text(rows[:1])  # with a live teacher
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with pytest.raises(KeyboardInterrupt):
        run_training(settings, world, new_policy(settings, world), console=console, logger=StopAt(1))
    assert isinstance(console.file, io.StringIO)
    assert f"1/{STEPS} " in console.file.getvalue()
    assert "tok/s" in console.file.getvalue()


# Killed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_as_one_that_was_not(
    settings: AnyTrainConfig, world: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each life is a process of its own and ends by SIGKILL between its start and the time that a whole run takes. When
    one is quicker than that, the run is complete, is compared, and another begins.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lives = multiprocessing.get_context("forkserver")
    # imported once, and not by every life
    lives.set_forkserver_preload(["agents.runs.run", "matplotlib.figure", "matplotlib.backends.backend_agg"])
    settings = replace(settings, recipe=replace(settings.recipe, episodes_per_step=4), checkpoint_every=1)

    def life(folder: Path, seconds: float | None) -> int | None:
        process = lives.Process(target=train_once, args=(replace(settings, out=folder), world))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode

    assert life(settings.out / "warm", None) == 0
    started = time.perf_counter()
    assert life(settings.out / "whole", None) == 0
    longest, expected = time.perf_counter() - started, outcome(settings.out / "whole")
    rng, kills, runs = np.random.default_rng(0), 0, 0
    while kills < 20:
        code = life(settings.out / f"run{runs}", rng.uniform(0, longest))
        assert code in (0, -9)
        kills += code == -9
        if code == 0:
            assert outcome(settings.out / f"run{runs}") == expected
            runs += 1
    assert life(settings.out / f"run{runs}", None) == 0
    assert outcome(settings.out / f"run{runs}") == expected
