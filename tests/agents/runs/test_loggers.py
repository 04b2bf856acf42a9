"""Where the metrics of a run go: TensorBoard here; the others need the network or an account, and are tried by hand."""

from dataclasses import replace
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.runs.config import TrainConfig
from agents.runs.loggers import Nowhere, TensorBoard, open_logger
from agents.runs.run import new_policy, run_training
from coars_env import Split


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: step and value by the name of the metric."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_updates_that_are_told_again_are_shown_once(tmp_path: Path) -> None:
    """A run is killed after four updates, without being closed, and goes on from its second."""
    killed = TensorBoard(tmp_path, 0)
    for step in range(4):
        killed.log(step, {"hit_final": step / 4, "turns": 2.0})
    resumed = TensorBoard(tmp_path, 2)
    for step in range(2, 5):
        resumed.log(step, {"hit_final": step / 4})
    resumed.close()
    killed.close()
    found = shown(tmp_path)
    assert found["hit_final"] == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]


def test_a_run_tells_tensorboard_all_that_metrics_jsonl_has(
    run_settings: TrainConfig, world: Split, tmp_path: Path
) -> None:
    config = replace(run_settings, out=tmp_path / "run", log="tensorboard")
    found = shown(run_training(config, world, new_policy(config, world)))
    assert {"hit_final", "rec_surprise", "user_kl", "target_named", "tokens_per_second"} <= found.keys()
    assert all([step for step, _ in told] == [0] for told in found.values())


def test_a_name_stands_for_a_logger(tmp_path: Path) -> None:
    assert isinstance(open_logger("none", tmp_path, {}), Nowhere)
    assert not any(tmp_path.iterdir())
    logger = open_logger("tensorboard", tmp_path, {}, first=3)
    logger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
