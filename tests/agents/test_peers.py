"""Which peers a run has: by name, written down with it, and taken again when it is evaluated."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agents.backbones import load
from agents.backbones.pocket import PocketConfig, load_pocket
from agents.checkpoint import ADAPTERS_FOLDER
from agents.evaluate import Bench, bench, score_policy, score_runs, score_untrained
from agents.peers import PeersConfig, peers_of, sasrec_peers, settle
from agents.policy import Policy
from agents.sequential import load_sasrec, sasrec_folder
from agents.train import CoarsConfig, RewardConfig, TrainConfig, run_config, train, train_seeds
from coars_env import (
    CheckpointError,
    ConfigError,
    Split,
    SvdPeers,
    TaskBuilder,
    Transcript,
    builder,
    freeze,
    load_split,
)


@pytest.fixture(scope="module")
def world() -> Split:
    """Large enough for lists of twenty."""
    return load_split("synthetic", users=24, items=80, interactions=400)


@pytest.fixture(scope="module")
def backbone(world: Split, tmp_path_factory: pytest.TempPathFactory) -> str:
    cache = tmp_path_factory.mktemp("pocket")
    load_pocket(world, PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8), cache_dir=cache)
    (folder,) = cache.iterdir()
    return str(folder)


def test_peers_are_found_by_name_and_auto_says_which_it_took(world: Split) -> None:
    svd, none, auto = (
        freeze(builder(world, peers=peers_of(PeersConfig(source=source), world)), "test", rule="uniform")
        for source in ("svd", "none", "auto")
    )
    assert svd.sha256 == auto.sha256 == freeze(builder(world), "test", rule="uniform").sha256
    assert not any(task.opinions or task.peer_similarity for task in none)
    assert settle(PeersConfig(opinions=False), world) == PeersConfig(source="svd", opinions=False)
    assert settle(PeersConfig(source="none"), world) == PeersConfig(source="none")


def test_the_same_peers_speak_in_the_episodes_and_in_the_test_of_users(world: Split) -> None:
    questions = bench(world, draws=1)
    (test,) = questions.user_tests
    peers = SvdPeers(world)
    assert [user.opinions for user in test.users] == [
        peers(user.user, user.history, user.questions).opinions for user in test.users
    ]
    silent = bench(world, draws=1, peers=lambda split: None)
    assert not any(task.opinions for task in (*silent.episodes[0], *silent.user_tests[0].tasks()))


@dataclass(frozen=True)
class Silent:
    """Peers who count in q and say nothing."""

    peers: SvdPeers

    def batch(self, asked: Sequence[Any]) -> list[Any]:
        return [said._replace(opinions=()) for said in self.peers.batch(asked)]


def test_what_is_kept_out_of_the_prompt_still_counts_in_the_reward(lab: Any, build: TaskBuilder) -> None:
    """Training with deaf ears is, to the bit, training in a game whose peers are silent."""
    runs: list[Any] = []
    for peers, opinions in ((build.peers, False), (Silent(build.peers), True), (build.peers, True)):

        def keep(step: int, metrics: dict[str, float], transcripts: Sequence[Transcript]) -> None:
            runs.append([[t.turns for t in transcripts], [t.rewards for t in transcripts], metrics["user_gradient"]])

        silent: Any = replace(build, peers=peers)
        settings = CoarsConfig(steps=1, episodes_per_step=8, max_turns=2)
        train(lab.policy(), silent, settings, opinions=opinions, on_step=keep)
    assert runs[0] == runs[1]
    assert runs[0][2] != runs[2][2]


@pytest.fixture(scope="module")
def config(backbone: str, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """So high a rate that one update changes what is said."""
    coars = CoarsConfig(steps=1, episodes_per_step=8, max_turns=2, learning_rate_user=5.0)
    out = tmp_path_factory.mktemp("runs") / "run"
    return TrainConfig(out=out, backbone=backbone, lora_rank=2, peers=PeersConfig(opinions=False), coars=coars)


@pytest.fixture(scope="module")
def folder(config: TrainConfig, world: Split) -> Path:
    """Of a finished run whose user heard no opinions."""
    (folder,) = train_seeds(config, world, [3])
    return folder


def test_a_run_writes_down_its_peers_and_is_kept(config: TrainConfig, folder: Path, world: Split) -> None:
    assert folder == config.out.with_name("run-s3")
    settled = replace(config, out=folder, peers=PeersConfig(source="svd", opinions=False))
    assert run_config(folder) == replace(settled, coars=replace(config.coars, seed=3))
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert train_seeds(config, world, [3]) == [folder]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == made
    with pytest.raises(ConfigError, match=r"A finished run is kept\. Expected one of .*alpha=0\.3.*found .*alpha=0\.1"):
        train_seeds(replace(config, reward=RewardConfig(alpha=0.3)), world, [3])


def test_what_an_interrupted_run_left_is_removed(config: TrainConfig, world: Split) -> None:
    left = config.out.with_name("run-s0") / "metrics.jsonl"
    left.parent.mkdir()
    left.write_text("{}\n{}\n")
    (folder,) = train_seeds(config, world, [0])
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_run_is_scored_as_it_was_trained(config: TrainConfig, folder: Path, world: Split) -> None:
    (test,) = bench(world, draws=1).user_tests
    questions = Bench((), (replace(test, users=test.users[:4]),))
    policy = Policy.load(load(config.backbone, world), folder / ADAPTERS_FOLDER)
    deaf, hearing = (
        score_policy(policy, world, questions, name="", opinions=opinions).simulations[0][0].transcripts
        for opinions in (False, True)
    )
    assert score_runs([folder], world, questions, name="").simulations[0][0].transcripts == deaf
    assert [t.turns for t in deaf] != [t.turns for t in hearing]
    before = score_untrained(config, world, questions, name="").simulations[0][0].transcripts
    assert [t.turns for t in before] != [t.turns for t in deaf]


def test_a_run_of_a_version_without_peers_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    body = json.loads((folder / "config.json").read_text())
    del body["config"]["peers"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match=r"A run is read by the version that wrote it\..*'peers'"):
        run_config(tmp_path / "old")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_auto_takes_sasrec_once_one_of_this_very_split_is_kept(world: Split, cache: Path) -> None:
    auto = PeersConfig()
    assert settle(auto, world).source == "svd"
    assert peers_of(auto, world) is SvdPeers
    kept = load_sasrec(world)
    assert settle(auto, world).source == "sasrec"
    assert peers_of(auto, world) is sasrec_peers
    other = replace(world, train=world.train[1:])
    assert settle(auto, other).source == "svd"
    again = load_sasrec(world)
    assert again.card == kept.card
    assert (again.user_vectors([(1, 2, 3)]) == kept.user_vectors([(1, 2, 3)])).all()


def test_the_peers_of_sasrec_are_told_apart_by_its_vectors(world: Split, cache: Path) -> None:
    peers = sasrec_peers(world)
    task = world.test[0]
    said = peers(task.user, task.items[-11:-1], tuple(range(20)))
    assert len(said.similarity) == 20
    assert said != SvdPeers(world)(task.user, task.items[-11:-1], tuple(range(20)))
    assert all(-1 <= q <= 1 for q in said.similarity)


def test_no_peers_are_no_peers(world: Split) -> None:
    assert peers_of(PeersConfig(source="none"), world)(world) is None


def test_a_damaged_sasrec_in_the_cache_is_named(world: Split, cache: Path) -> None:
    folder = sasrec_folder(world)
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match=str(folder)):
        peers_of(PeersConfig(), world)(world)
