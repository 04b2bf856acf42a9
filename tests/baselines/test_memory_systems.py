"""What holds for every system with a memory: it goes on where it stopped, learns from training alone, stays frozen."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from agents.models.backbones.pocket import PocketConfig, load_pocket, train_tokenizer
from agents.models.language_model import LocalModel, Request
from agents.models.prompts import REASON
from agents.models.usage import Usage
from agents.players.memory import Entry
from agents.players.text_system import BATCH, training_walks
from baselines.agentcf import AgentCF
from baselines.i2agent import INTEREST, INTEREST_TOKENS, I2Agent
from baselines.memory_stream import MemoryStream
from baselines.reflexion import Reflexion
from baselines.system import MemorySystem, Resources
from coars_env import (
    CheckpointError,
    Dialogue,
    Split,
    Transcript,
    builder,
    freeze,
    load_split,
    play,
    user_simulation,
    user_test,
)
from scripted import Scripted, Stopping, by_hash, text_of

EPISODES = 3 * (BATCH + 3)
"""Two batches, the second of three walks."""


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=40, items=60, interactions=800, source="synthetic")


@pytest.fixture(scope="module", params=(AgentCF, I2Agent, MemoryStream, Reflexion), ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


class Learnt(NamedTuple):
    system: MemorySystem
    model: Scripted
    calls: int
    """Of learning."""
    path: Path


@pytest.fixture(scope="module")
def learnt(kind: Any, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    model, path = Scripted(by_hash), tmp_path_factory.mktemp("memory")
    system = kind.fit(split, resources=Resources(model, dialogues=EPISODES, folder=path))
    return Learnt(system, model, len(model.asked), path)


def entries(system: MemorySystem) -> list[Entry]:
    return system.memory.entries()


def play_held_out(system: MemorySystem, split: Split, numbers: list[int]) -> list[str]:
    episodes = freeze(builder(split), "test")
    dialogues = [Dialogue(episodes.tasks[n], episodes.items) for n in numbers]
    play(dialogues, system.recommender, system.user, numbers=numbers)
    return [dialogue.transcript(episodes.provenance).to_json() for dialogue in dialogues]


def test_two_runs_of_one_seed_remember_the_same_and_the_held_out_part_changes_nothing(
    kind: Any, split: Split, learnt: Learnt
) -> None:
    assert len(entries(learnt.system)) > 20
    other = kind.fit(replace(split, test=(), validation=()), resources=Resources(Scripted(by_hash), dialogues=EPISODES))
    assert entries(other) == entries(learnt.system)


def test_another_seed_meets_other_users(kind: Any, split: Split) -> None:
    first, second = (kind.fit(split, seed=seed, resources=Resources(Scripted(by_hash), dialogues=9)) for seed in (0, 1))
    assert {entry.situation for entry in entries(first)} != {entry.situation for entry in entries(second)}


def test_all_that_learning_asked_is_counted(learnt: Learnt) -> None:
    assert learnt.calls > EPISODES
    assert learnt.system.learning == Usage(*(learnt.calls * x for x in (1, 10, 5, 0.5, 0.25)))


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    kind: Any, split: Split, learnt: Learnt, tmp_path: Path
) -> None:
    path = tmp_path
    for after in (1, 30):
        with pytest.raises(KeyboardInterrupt):
            kind.fit(split, resources=Resources(Stopping(by_hash, after), dialogues=EPISODES, folder=path))
    model = Scripted(by_hash)
    system = kind.fit(split, resources=Resources(model, dialogues=EPISODES, folder=path))
    assert (entries(system), system.learning) == (entries(learnt.system), learnt.system.learning)
    assert 0 < len(model.asked) < learnt.calls / 2  # the first batch was not played again


def test_a_finished_store_is_read_and_nothing_is_asked(kind: Any, split: Split, learnt: Learnt) -> None:
    model = Scripted(by_hash)
    system = kind.fit(split, resources=Resources(model, dialogues=EPISODES, folder=learnt.path))
    assert (entries(system), system.learning) == (entries(learnt.system), learnt.system.learning)
    assert model.asked == []
    assert play_held_out(system, split, [0, 1]) == play_held_out(learnt.system, split, [0, 1])


def test_a_store_of_other_data_or_another_seed_is_refused(kind: Any, split: Split, learnt: Learnt) -> None:
    model = Scripted(by_hash)
    other = load_split("synthetic", users=41, items=60, interactions=800, source="synthetic")
    with pytest.raises(CheckpointError, match=f"Expected data '{other.dataset.provenance.sha256}'"):
        kind.fit(other, resources=Resources(model, dialogues=EPISODES, folder=learnt.path))
    with pytest.raises(CheckpointError, match="Expected seed '1'"):
        kind.fit(split, seed=1, resources=Resources(model, dialogues=EPISODES, folder=learnt.path))


def test_nothing_is_written_after_fit(split: Split, learnt: Learnt) -> None:
    before = (learnt.path / "memory.sqlite").read_bytes(), entries(learnt.system)
    play_held_out(learnt.system, split, list(range(8)))
    assert ((learnt.path / "memory.sqlite").read_bytes(), entries(learnt.system)) == before


def test_what_is_remembered_is_told_to_held_out_users(split: Split, learnt: Learnt) -> None:
    known = {entry.text for entry in entries(learnt.system)}
    before = len(learnt.model.asked)
    play_held_out(learnt.system, split, list(range(8)))
    told = [any(f" {text}" in text_of(request) for text in known) for request in learnt.model.asked[before:]]
    assert sum(told) > 0.8 * len(told) > 0


def test_the_user_is_put_to_the_test_of_users(split: Split, learnt: Learnt) -> None:
    known, before = {entry.text for entry in entries(learnt.system)}, len(learnt.model.asked)
    found = user_simulation(learnt.system.user, user_test(split))
    assert {(one.cause, one.turns[0].answer.error) for one in found.transcripts} == {(None, None)}
    asked = learnt.model.asked[before:]
    assert len(asked) == len(found.transcripts)
    told = [any(f" {text}" in text_of(request) for text in known) for request in asked[::10]]
    assert sum(told) > 0.8 * len(told)


def test_a_dialogue_goes_alike_alone_and_in_a_batch(split: Split, learnt: Learnt) -> None:
    together = play_held_out(learnt.system, split, list(range(6)))
    assert together == [play_held_out(learnt.system, split, [number])[0] for number in range(6)]


def test_no_user_is_remembered_with_the_held_out_item(split: Split, learnt: Learnt) -> None:
    titles = [item.title for item in split.dataset.items]
    targets = {sequence.user: titles[sequence.items[-1]] for sequence in split.test}
    for entry in entries(learnt.system):
        whose, _, number = entry.key.partition(" ")
        if number and whose != "item":
            assert targets[int(number)] not in entry.situation.split("; ")


@pytest.fixture(scope="module")
def tokenizer(split: Split) -> Any:
    return train_tokenizer(split)


def test_all_prompts_fit_into_the_context_of_pocket(kind: Any, split: Split, tokenizer: Any) -> None:
    spoken = {REASON: 12, INTEREST.label: INTEREST_TOKENS}
    """Tokens of free text that is not cut by a memory; pocket's reasons have 12."""

    def longest(request: Request) -> str:
        lines = by_hash(request).split("\n")
        for n, asked in enumerate(request.fields):
            if asked.options is None:  # Cyrillic letters are two bytes, and two tokens, each
                lines[n] = asked.label + " " + ("ы" * (spoken.get(asked.label, 2000) // 2))
        return "\n".join(lines)

    model = Scripted(longest)
    system = kind.fit(split, resources=Resources(model, dialogues=60))
    play_held_out(system, split, list(range(20)))
    lengths = []
    for request in model.asked:
        pieces = [request.system, *(piece for message in request.messages for piece in message)]
        lengths.append(sum(len(tokenizer.encode(piece, add_special_tokens=False)) for piece in pieces))
    assert 500 < max(lengths) < 1900  # of 2,048


@pytest.fixture(scope="module")
def pocket(split: Split, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    config = PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8)
    return LocalModel(load_pocket(split, config, cache_dir=tmp_path_factory.mktemp("pocket")), "tiny")


def test_a_local_model_plays_and_learns_under_constraint(kind: Any, split: Split, pocket: LocalModel) -> None:
    system = kind.fit(split, resources=Resources(pocket, dialogues=6))
    assert entries(system)
    for line in play_held_out(system, split, [0, 1]):
        turns = Transcript.from_json(line).turns
        assert {(turn.error, turn.answer.error) for turn in turns} == {(None, None)}


# The walks ------------------------------------------------------------------------------------------------------------


def test_a_walk_goes_on_where_it_was(split: Split) -> None:
    batches = list(training_walks(builder(split), seed=0, episodes=EPISODES))
    assert [len(walks) for walks in batches] == [BATCH, 3]
    walks = [walk for walks in batches for walk in walks]
    assert len({walk[0].user for walk in walks}) == len(walks) == BATCH + 3
    sequences = {sequence.user: sequence.items for sequence in split.train}
    for walk in walks:
        cuts = [sequences[task.user].index(task.target) for task in walk]
        assert cuts == list(range(cuts[0], cuts[0] + len(walk)))
        assert len(walk) <= 3
        for task, cut in zip(walk, cuts, strict=True):
            assert task.history == sequences[task.user][max(0, cut - 10) : cut]


def test_users_come_again_once_all_have_been(split: Split) -> None:
    walks = [w for walks in training_walks(builder(split), seed=0, episodes=90, steps=1) for w in walks]
    counts = np.bincount([walk[0].user for walk in walks])
    assert (counts.min(), counts.max(), counts.sum()) == (2, 3, 90)


def test_without_episodes_nothing_is_learnt(kind: Any, split: Split) -> None:
    system = kind.fit(split, resources=Resources(Scripted(by_hash), dialogues=0))
    assert (entries(system), system.learning) == ([], Usage())
