"""Tests of agents.training.peers: which peers a run takes."""

import dataclasses
from pathlib import Path

import pytest

from agents.sequential import load_sasrec, sasrec_folder
from agents.training.peers import PeersConfig, peers_of, sasrec_peers, settle
from coars_env import CheckpointError, Split, SvdPeers, load_split


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=12, items=40, interactions=240)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_auto_takes_sasrec_once_one_of_this_very_split_is_kept(split: Split, cache: Path) -> None:
    auto = PeersConfig()
    assert settle(auto, split).source == "svd"
    assert peers_of(auto, split) is SvdPeers
    kept = load_sasrec(split)
    assert settle(auto, split).source == "sasrec"
    assert peers_of(auto, split) is sasrec_peers
    other = dataclasses.replace(split, train=split.train[1:])
    assert settle(auto, other).source == "svd"
    again = load_sasrec(split)
    assert again.card == kept.card
    assert (again.user_vectors([(1, 2, 3)]) == kept.user_vectors([(1, 2, 3)])).all()


def test_the_peers_of_sasrec_are_told_apart_by_its_vectors(split: Split, cache: Path) -> None:
    peers = sasrec_peers(split)
    task = split.test[0]
    said = peers(task.user, task.items[-11:-1], tuple(range(20)))
    assert len(said.similarity) == 20
    assert said != SvdPeers(split)(task.user, task.items[-11:-1], tuple(range(20)))
    assert all(-1 <= q <= 1 for q in said.similarity)


def test_no_peers_are_no_peers(split: Split) -> None:
    assert peers_of(PeersConfig(source="none"), split)(split) is None


def test_a_damaged_sasrec_in_the_cache_is_named(split: Split, cache: Path) -> None:
    folder = sasrec_folder(split)
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match=str(folder)):
        peers_of(PeersConfig(), split)(split)
