"""pocket is made from the training part alone, alike on every machine, and no demonstration shows a skilful choice."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.demonstrations import Demonstrator, RowKind
from agents.models.backbones.knowledge import NEXT, NO, YES, Mark, fit_statement, next_statement
from agents.models.backbones.pocket import (
    Halves,
    PocketConfig,
    Rows,
    _build,
    ahead,
    batches,
    buckets,
    content_hash,
    load_pocket,
    open_pocket,
    text_loss,
    train_tokenizer,
)
from agents.models.forms import FieldForms
from agents.models.prompts import (
    ACTION,
    ACTION_TEXTS,
    ASK_DIAGNOSIS,
    ASK_USER,
    CANDIDATES,
    ITEM,
    PEER,
    PEER_AFTER,
    PHRASES,
    REASON,
    RECOMMENDED,
    TAKEN_NEXT,
    opinion_of_peer,
    score_texts,
)
from agents.models.replies import RECOMMENDER_FORMAT
from agents.players.llm_agent import Row, read_context
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    USER,
    BackboneError,
    Dataset,
    Dialogue,
    Facet,
    Item,
    Split,
    SvdPeers,
    Task,
    UserSequence,
    leave_last,
)
from coars_env.testing import toy_dataset

SMALL = PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8, sequence_length=6)


# Tokens ---------------------------------------------------------------------------------------------------------------

AWKWARD = (
    "Alien",
    "Aliens",
    "Alien 3",
    "M",
    "M*A*S*H",
    "七人の侍",
    "Amélie  (2001)",
    "Item: The Film",
    "9 1/2 Weeks",
    "{{ x }}",
)


def with_items(split: Split, items: tuple[Item, ...]) -> Split:
    return dataclasses.replace(split, dataset=dataclasses.replace(split.dataset, items=items))


@pytest.fixture(scope="module")
def awkward(split: Split) -> Split:
    """The first titles each begin another or hold what the wording holds; two are equal."""
    items = list(split.dataset.items)
    for n, title in enumerate((*AWKWARD, "Alien")):
        items[n] = Item(title, ("Drama",), 1979)
    return with_items(split, tuple(items))


def test_each_title_and_each_fixed_text_is_one_token(awkward: Split) -> None:
    tokenizer = train_tokenizer(awkward)
    scores = [text for action in range(len(ACTIONS)) for text in score_texts(action)]
    for text in (*(" " + item.title for item in awkward.dataset.items), *PHRASES, *ACTION_TEXTS, *scores):
        tokens = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert len(tokens) == 1, text
        assert tokenizer.decode(tokens) == text


texts = st.lists(st.text() | st.sampled_from([" " + title for title in AWKWARD] + ["<|end|>", "Item:", "\n"]))


def test_text_survives_the_tokenizer(awkward: Split) -> None:
    tokenizer = train_tokenizer(awkward)

    @given(texts.map("".join))
    @example("<|user|> Aliens\nItem: Alien 3s")
    def survives(text: str) -> None:
        text = text.encode(errors="replace").decode()
        tokens = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert set(tokenizer.all_special_ids).isdisjoint(tokens)
        assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == text

    survives()


# What it is made from -------------------------------------------------------------------------------------------------


def some_rows(split: Split, backbone: Backbone) -> Any:
    return list(islice(batches(split, backbone, SMALL), 4))


def without_last_items(dataset: Dataset) -> Dataset:
    """Another item at the end of every user's sequence, one that the user has not taken."""
    items = dataset.item_indices.copy()
    for user in range(dataset.num_users):
        taken = set(dataset.sequence(user).tolist())
        items[dataset.rows(user).stop - 1] = next(i for i in range(dataset.num_items) if i not in taken)
    return dataclasses.replace(dataset, item_indices=items)


def test_what_is_held_out_changes_neither_the_hash_nor_a_training_row(lab: Any, split: Split) -> None:
    backbone = lab.backbone()
    alone = dataclasses.replace(split, test=(), validation=(), owned={})
    other = leave_last(without_last_items(split.dataset))
    assert other.test != split.test
    for changed in (alone, other):
        assert content_hash(changed, SMALL) == content_hash(split, SMALL)
        assert some_rows(changed, backbone) == some_rows(split, backbone)


CONTENT_HASH = "be3fe3dfbb4aa9a1a8938a7617317204963e2a9d17c5a29a1add922ca4865bf5"


def test_models_in_caches_stay_valid(split: Split) -> None:
    """The hash of version 12. It may change together with `POCKET_VERSION` and `POCKET_PHRASES` alone."""
    config = PocketConfig(hidden=32, layers=2, heads=2, steps=3, batch=16, sequence_length=12)
    assert content_hash(split, config) == CONTENT_HASH


ANOTHER_PHRASE = """
from agents.models import prompts

prompts.PHRASES += ("\\nThink first.",)
prompts.RECOMMENDED = "Try:"
from agents.models.backbones.pocket import PocketConfig, content_hash, train_tokenizer
from coars_env import load_split

split = load_split("synthetic", users=40, items=60, interactions=1200)
config = PocketConfig(hidden=32, layers=2, heads=2, steps=3, batch=16, sequence_length=12)
print(content_hash(split, config), len(train_tokenizer(split)))
"""


def test_another_phrase_changes_neither_the_hash_nor_the_tokenizer(split: Split) -> None:
    ran = subprocess.run([sys.executable, "-c", ANOTHER_PHRASE], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [CONTENT_HASH, str(len(train_tokenizer(split)))]


def test_one_training_item_changes_the_hash_and_the_rows(lab: Any, split: Split) -> None:
    first = split.train[0]
    other = next(i for i in range(split.dataset.num_items) if i not in first.items)
    train = tuple(UserSequence(s.user, (*s.items[:-1], other) if s is first else s.items) for s in split.train)
    changed = dataclasses.replace(split, train=train)
    assert content_hash(changed, SMALL) != content_hash(split, SMALL)
    whole = dataclasses.replace(SMALL, sequence_length=1000, batch=200)
    backbone = lab.backbone()
    assert list(islice(batches(changed, backbone, whole), 4)) != list(islice(batches(split, backbone, whole), 4))


ALPHABET = tuple(Item(letter) for letter in "ABCDEFGHIJ")
ABCDEF = UserSequence(0, (0, 1, 2, 3, 4, 5))


def test_what_came_next_is_said_of_the_training_sequence() -> None:
    heard, listed = Counter[bool](), Counter[str | None]()
    for seed in range(200):
        said = next_statement(ABCDEF, ALPHABET, np.random.default_rng(seed))
        opening = said[1 : said.index("\n")]
        place = opening.index(CANDIDATES) if CANDIDATES in opening else len(opening)
        listed.update("".join(opening[place + 1 :]).split() or [None])
        history = "".join(opening[:place]).strip().replace(" ", "")
        following, end = said[said.index(NEXT) + 1 :]
        before = "ABCDEF"[: "ABCDEF".index(following.strip())]
        assert end == "\n"
        assert history
        assert history == "".join(letter for letter in before if letter in history)
        heard.update(letter in history for letter in before)
    assert 0.75 < heard[True] / heard.total() < 0.85  # some are left out
    without = listed.pop(None)
    assert 40 < without < 80
    assert set(listed.values()) == {200 - without}  # all items alike


def test_what_fits_is_what_the_training_user_took() -> None:
    answers: Counter[tuple[str, str]] = Counter()
    for seed in range(200):
        said = fit_statement(ABCDEF, ALPHABET, np.random.default_rng(seed))
        asked = [said[n + 1].strip() for n, piece in enumerate(said) if piece == RECOMMENDED]
        told = [said[n + 1] for n, piece in enumerate(said) if piece == ACTION]
        assert len(asked) == len(told) == 4
        answers.update(zip(asked, told, strict=True))
        assert not set(said) & {*ACTION_TEXTS, ITEM, CANDIDATES}  # not a word of what such an item deserves
    assert {item for item, answer in answers if answer == YES} == set("ABCDEF")
    assert {item for item, answer in answers if answer == NO} == set("GHIJ")


def test_half_of_the_questions_tell_what_the_peers_of_the_user_say(split: Split) -> None:
    items, peers = split.dataset.items, SvdPeers(split)
    place = {" " + item.title: number for number, item in enumerate(items)}
    heard: Counter[bool] = Counter()
    for seed in range(40):
        user = split.train[seed % 5]
        said = fit_statement(user, items, np.random.default_rng(seed), peers)
        history = [place[piece] for piece in said[1 : said.index("\n")]]
        for start in (n for n, piece in enumerate(said) if piece == RECOMMENDED):
            line, item = said[start : said.index("\n", start)], place[said[start + 1]]
            task = Task("", 0, (), (item,), item, opinions=peers(user.user, history, (item,)).opinions)
            opinions = [piece for opinion in task.opinions_of(item) for piece in opinion_of_peer(opinion, items)]
            if opinions:
                told = any(piece in PEER + PEER_AFTER for piece in line)
                assert not told or list(line[-len(opinions) :]) == opinions
                heard[told] += 1
    assert 0.4 < heard[True] / heard.total() < 0.6


def test_what_another_process_has_built_meanwhile_stays(split: Split, tmp_path: Path) -> None:
    load_pocket(split, SMALL, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    _build(split, SMALL, folder)
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_items_and_settings_are_part_of_the_hash(split: Split) -> None:
    hashes = {content_hash(split, dataclasses.replace(SMALL, **{name: 4})) for name in ("hidden", "steps", "seed")}
    item = split.dataset.items[0]
    renamed = with_items(split, (dataclasses.replace(item, title="Other"), *split.dataset.items[1:]))
    assert len({content_hash(split, SMALL), content_hash(renamed, SMALL), *hashes}) == 5


BUILD = """
import pathlib, sys
import torch
from agents.models.backbones.pocket import PocketConfig, content_hash, load_pocket
from coars_env import load_split
torch.set_num_threads(1)
split = load_split("synthetic", users=40, items=60, interactions=1200)
config = PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8, sequence_length=6)
load_pocket(split, config, cache_dir=pathlib.Path(sys.argv[1]))
print("hash", content_hash(split, config))
"""


def test_two_processes_build_the_same_model_to_the_byte(split: Split, root: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    load_pocket(split, SMALL, cache_dir=here)
    ran = subprocess.run(
        [sys.executable, "-c", BUILD, str(there)],
        env={**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == f"hash {content_hash(split, SMALL)}"
    (first,), (second,) = here.iterdir(), there.iterdir()
    assert first.name == second.name
    names = {path.name for path in first.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "pocket.json"} <= names
    assert names == {path.name for path in second.iterdir()}
    assert [name for name in sorted(names) if (first / name).read_bytes() != (second / name).read_bytes()] == []


# Demonstrations -------------------------------------------------------------------------------------------------------


def chi_square(counts: Counter[int], kinds: int) -> float:
    expected = sum(counts.values()) / kinds
    return sum((counts[kind] - expected) ** 2 / expected for kind in range(kinds))


def chosen(
    backbone: Backbone, split: Split, n: int, *, kind: RowKind, role: str
) -> list[tuple[list[int], list[int], int]]:
    """Read off the tokens of rows of that role: history, candidates and the item of the last reply; of the user every
    action, with neither.
    """
    items = {backbone.encode(" " + item.title)[0]: index for index, item in enumerate(split.dataset.items)}
    actions = {backbone.encode(text)[0]: action for action, text in enumerate(ACTION_TEXTS)}
    (opening,), (item_label,) = backbone.encode(CANDIDATES), backbone.encode(ITEM)
    demonstrator = Demonstrator(split, backbone, np.random.default_rng(5))
    found = []
    while len(found) < n:
        tokens, learnt = demonstrator.row(kind)
        assert len(tokens) == len(learnt)
        if (opening in tokens) != (role == RECOMMENDER):
            continue
        if role == USER:
            own = [token for token, mine in zip(tokens, learnt, strict=True) if mine]
            found += [([], [], actions[token]) for token in own if token in actions]
            continue
        start = tokens.index(opening)
        history = [items[t] for t in tokens[:start] if t in items]
        candidates = [items[t] for t in tokens[start + 1 : start + 21]]
        last = len(tokens) - 1 - tokens[::-1].index(item_label)
        assert learnt[last + 1]
        found.append((history, candidates, items[tokens[last + 1]]))
    return found


@pytest.mark.parametrize("kind", ["plain", "guided"])
def test_a_demonstrated_item_is_any_candidate_whatever_the_history(lab: Any, split: Split, kind: RowKind) -> None:
    rows = chosen(lab.backbone(), split, 800, kind=kind, role=RECOMMENDER)
    assert all(len(set(candidates)) == 20 and item in candidates for _, candidates, item in rows)
    assert chi_square(Counter(candidates.index(item) for _, candidates, item in rows), 20) < 43.8  # 999 in 1000
    assert chi_square(Counter(item for *_, item in rows), split.dataset.num_items) < 98.3  # 59 degrees, 999 in 1000
    # the chosen one resembles the history no more than the average candidate does
    genres = [set(item.genres) for item in split.dataset.items]
    more = []
    for history, candidates, item in rows:
        seen = set().union(*(genres[i] for i in history))
        alike = {candidate: len(genres[candidate] & seen) for candidate in candidates}
        more.append(alike[item] - sum(alike.values()) / len(alike))
    assert abs(np.mean(more)) < 4 * np.std(more) / math.sqrt(len(more))


def test_a_demonstrated_answer_is_any_action(lab: Any, split: Split) -> None:
    rows = chosen(lab.backbone(), split, 400, kind="plain", role=USER)
    assert chi_square(Counter(action for *_, action in rows), 4) < 16.3  # 3 degrees, 999 in 1000


def opinions_and_answers(backbone: Backbone, split: Split, n: int) -> list[tuple[list[int], list[int], int]]:
    """Read off the tokens of the user's rows: levels and items that peers name in each turn, and the action."""
    items = {backbone.encode(" " + item.title)[0]: index for index, item in enumerate(split.dataset.items)}
    actions = {backbone.encode(text)[0]: action for action, text in enumerate(ACTION_TEXTS)}
    levels = {backbone.encode(texts[level])[0]: level for texts in (PEER, PEER_AFTER) for level in range(3)}
    (opening,), (asked,), (replied,) = (backbone.encode(text) for text in (CANDIDATES, RECOMMENDED, ASK_USER))
    demonstrator = Demonstrator(split, backbone, np.random.default_rng(6))
    found: list[tuple[list[int], list[int], int]] = []
    while len(found) < n:
        tokens, _ = demonstrator.row("plain")
        if opening in tokens:
            continue
        for turn in "".join(chr(token) for token in tokens).split(chr(asked))[1:]:
            told, _, said = turn.partition(chr(replied))
            heard = [ord(token) for token in told]
            first = next((n for n, token in enumerate(heard) if token in levels), len(heard))
            assert backbone.decode(heard[first:]).count("peer") == sum(token in levels for token in heard)
            named = [items[token] for token in heard[first:] if token in items]
            action = next(actions[ord(token)] for token in said if ord(token) in actions)
            found.append(([levels[token] for token in heard if token in levels], named, action))
    return found


def test_what_demonstrated_peers_say_means_nothing(lab: Any, split: Split) -> None:
    turns = opinions_and_answers(lab.backbone(), split, 1500)
    assert chi_square(Counter(len(levels) for levels, _, _ in turns), 4) < 16.3  # none to three; 3 degrees, 999 in 1000
    assert chi_square(Counter(level for levels, _, _ in turns for level in levels), 3) < 13.8
    assert chi_square(Counter(item for _, named, _ in turns for item in named), split.dataset.num_items) < 98.3
    # the answer does not hang on the nearest peer's level, nor on whether there is one
    table = np.zeros((4, len(ACTIONS)))
    for levels, _, action in turns:
        table[levels[0] if levels else 3, action] += 1
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 27.9  # 9 degrees, 999 in 1000


def test_a_guided_reply_agrees_with_its_hindsight_and_is_all_that_is_learnt(lab: Any, split: Split) -> None:
    backbone = lab.backbone()
    demonstrator = Demonstrator(split, backbone, np.random.default_rng(0))
    (taken_next,), (reason,) = backbone.encode(TAKEN_NEXT), backbone.encode(REASON)
    hits: Counter[bool] = Counter()
    for _ in range(200):
        tokens, learnt = demonstrator.row("guided")
        assert tokens.count(taken_next) == 1
        first = learnt.index(True)
        assert all(learnt[first:])
        assert tokens[first] == reason
        assert tokens[first - 1] == backbone.header[-1]
        said, told = backbone.decode(tokens[first:]), backbone.decode(tokens[tokens.index(taken_next) : first])
        target = told.removeprefix(TAKEN_NEXT).partition("." + "\n")[0]
        if ITEM in said:
            assert said.endswith(f"{ITEM}{target}\n")
        else:
            hit = "\nAccepting is right." in told
            assert hit == any(action in said for action in (" star", " click"))
            assert hit != ("\nRejecting is right." in told)
            hits[hit] += 1
    assert min(hits[True], hits[False]) > 20


def test_a_diagnosis_speaks_for_the_item_taken_next_and_is_all_that_is_learnt(lab: Any, split: Split) -> None:
    backbone = lab.backbone()
    demonstrator = Demonstrator(split, backbone, np.random.default_rng(0))
    (taken_next,), (ask,) = backbone.encode(TAKEN_NEXT), backbone.encode(ASK_DIAGNOSIS)
    said = []
    for _ in range(60):
        tokens, learnt = demonstrator.row("diagnosis")
        first = learnt.index(True)
        assert all(learnt[first:])
        assert tokens[first - 2 : first] == [ask, *backbone.header]
        target = tokens[tokens.index(taken_next) + 1]
        if len(tokens) > first + 1:  # it shares a genre with something of the history
            assert tokens[first] == target
            said.append(backbone.decode(tokens[first:]))
    assert len(said) > 20
    assert all(" shares" in text and " with" in text and text.endswith("\n") for text in said)


def test_a_plain_row_could_have_been_written_by_the_agents(lab: Any, split: Split) -> None:
    """The same tokens in the same places: prompts, header, replies."""
    backbone, items = lab.backbone(), split.dataset.items
    backbone.max_reason_tokens = 12
    index = {backbone.encode(" " + item.title)[0]: n for n, item in enumerate(items)}
    (opening,), (item_label,) = backbone.encode(CANDIDATES), backbone.encode(ITEM)
    demonstrator = Demonstrator(split, backbone, np.random.default_rng(1))
    seen = 0
    while seen < 20:
        tokens, learnt = demonstrator.row("plain")
        if opening not in tokens:
            continue
        seen += 1
        start = tokens.index(opening)
        history = tuple(index[t] for t in tokens[:start] if t in index)
        candidates = tuple(index[t] for t in tokens[start + 1 : start + 21])
        dialogue = Dialogue(Task("", 0, history, candidates, candidates[0]), items)
        row = Row()
        read_context(row, backbone, RECOMMENDER, dialogue.observe(RECOMMENDER), items)
        assert tokens[: len(row.token_ids)] == row.token_ids
        form = FieldForms(backbone).start(RECOMMENDER_FORMAT.bind(dialogue.observe(RECOMMENDER), items))
        while not form.finished:
            token = tokens[len(row.token_ids) + len(form.completion.token_ids)]
            allowed = form.allowed()
            assert allowed is None or token in allowed
            form.push(token, 0.0)
        row.write(form)
        assert tokens[: len(row.token_ids)] == row.token_ids
        start, end = row.replies[0]
        assert learnt[:end] == [column >= start for column in range(end)]
        assert row.token_ids[row.token_ids.index(item_label) + 1] in {
            backbone.encode(" " + items[i].title)[0] for i in candidates
        }


def test_a_small_catalogue_is_demonstrated_with_fewer_candidates_or_refused(lab: Any, split: Split) -> None:
    few = with_items(split, tuple(Item(f"T{n % 15}") for n in range(60)))
    (opening,) = lab.backbone().encode(CANDIDATES)
    demonstrator = Demonstrator(few, lab.backbone(), np.random.default_rng(0))
    assert any(opening in demonstrator.row("plain")[0] for _ in range(20))
    with pytest.raises(BackboneError, match="Expected 12 titles or more and a training sequence of three items"):
        Demonstrator(leave_last(toy_dataset()), lab.backbone(), np.random.default_rng(0))


# Training and files ---------------------------------------------------------------------------------------------------


def test_a_step_in_halves_has_the_gradient_of_the_whole(lab: Any) -> None:
    model = open_pocket(lab.folder("pocket")).model.requires_grad_(True)
    rng = np.random.default_rng(0)
    ids = [rng.integers(1, 40, size=n).tolist() for n in (5, 30, 12, 9, 20, 7, 4, 16, 11, 25, 8, 6, 13, 3)]
    rows: Rows = (ids, [[True] * len(line) for line in ids])
    threads = torch.get_num_threads()
    with Halves(model, 0) as halves:
        loss = halves.backward(rows)
        found = [parameter.grad.clone() for parameter in model.parameters()]
        assert halves.backward(rows) == loss
    assert all(torch.equal(p.grad, before) for p, before in zip(model.parameters(), found, strict=True))
    assert torch.get_num_threads() == threads
    whole = text_loss(model, rows, 0) / sum(len(line) - 1 for line in ids)
    assert loss == pytest.approx(float(whole.detach()), rel=1e-5)
    for mine, theirs in zip(found, torch.autograd.grad(whole, list(model.parameters())), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_rows_made_ahead_are_the_same_rows() -> None:
    stream: Iterator[Rows] = (([[n]], [[True]]) for n in count())
    with ahead(stream) as rows:
        assert [next(rows)[0][0][0] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_the_loss_counts_learnt_tokens_alone(bigrams: Backbone) -> None:
    """<|assistant|> a b, and c newline: the table gives b after a 1/2, newline after c 1/2, a after the header 1/2."""
    rows = [[3, 5, 6], [7, 4]], [[False, False, True], [True, True]]
    assert text_loss(bigrams.model, rows, 0).item() == pytest.approx(2 * math.log(2), abs=1e-5)
    rows[1][0][1] = True
    assert text_loss(bigrams.model, rows, 0).item() == pytest.approx(3 * math.log(2), abs=1e-5)


def test_a_choice_is_learnt_among_its_options_alone(bigrams: Backbone) -> None:
    """After a the table gives newline 1/4, a 1/8, b 1/2, c 1/8: of a, b and c, b has 2/3, and of b and c c has 1/5."""
    marks: list[list[Mark]] = [[False, False, (5, 6, 7)], [False, (6, 7), False]]
    rows: Rows = [[3, 5, 6], [5, 7, 4]], marks
    assert text_loss(bigrams.model, rows, 0).item() == pytest.approx(math.log(3 / 2) + math.log(5), abs=1e-5)
    rows[1][1][2] = True
    assert text_loss(bigrams.model, rows, 0).item() == pytest.approx(
        math.log(3 / 2) + math.log(5) + math.log(2), abs=1e-5
    )


def test_kinds_of_facets_change_the_name_of_a_model_and_their_values_do(split: Split) -> None:
    kinds = dataclasses.replace(SMALL, kinds=("genre",))
    names = {
        content_hash(split, config) for config in (SMALL, kinds, dataclasses.replace(SMALL, kinds=("genre", "tag")))
    }
    assert len(names) == 3
    first, *others = split.dataset.items
    tagged = with_items(split, (dataclasses.replace(first, facets=(Facet("tag", "snow"),)), *others))
    assert content_hash(tagged, kinds) == content_hash(split, kinds)
    both = dataclasses.replace(SMALL, kinds=("genre", "tag"))
    assert content_hash(tagged, both) != content_hash(split, both)


def test_a_model_with_kinds_is_found_again(split: Split, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, kinds=("genre", "decade"))
    load_pocket(split, config, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "pocket.json").read_text())["config"]["kinds"] == ["genre", "decade"]
    backbone = load_pocket(split, config, cache_dir=tmp_path)
    assert len(backbone.encode(" Which genre?")) == 1
    assert list(tmp_path.iterdir()) == [folder]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=60))
def test_buckets_hold_every_row_once_by_length_and_no_more_tokens_than_asked(lengths: list[int]) -> None:
    rows = [[n] * length for n, length in enumerate(lengths)], [[True] * length for length in lengths]
    parts = list(buckets(rows, 80))
    assert sorted(row[0] for ids, _ in parts for row in ids) == list(range(len(lengths)))
    assert [len(row) for ids, _ in parts for row in ids] == sorted(lengths)
    assert all([len(row) for row in ids] == [len(row) for row in marks] for ids, marks in parts)
    assert all(len(ids) == 1 or len(ids) * max(map(len, ids)) <= 80 for ids, _ in parts)
    for (ids, _), (after, _) in itertools.pairwise(parts):  # no group could have taken one row more
        assert (len(ids) + 1) * len(after[0]) > 80


def test_a_built_model_is_opened_again_and_not_built_twice(split: Split, tmp_path: Path) -> None:
    state = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    first = load_pocket(split, SMALL, cache_dir=tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]
    (folder,) = tmp_path.iterdir()
    assert folder.name == content_hash(split, SMALL)[:16]
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    second = load_pocket(split, SMALL, cache_dir=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.trained_on == split.dataset.provenance
    card = json.loads((folder / "pocket.json").read_text())
    assert card["content_hash"] == content_hash(split, SMALL)
    assert card["parameters"] == sum(p.numel() for p in second.model.parameters())
    load_pocket(split, dataclasses.replace(SMALL, seed=1), cache_dir=tmp_path)
    weights = {hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert len(weights) == 2


def test_opening_is_silent(lab: Any, capfd: pytest.CaptureFixture[str]) -> None:
    folder = lab.folder("pocket")
    capfd.readouterr()
    open_pocket(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["pocket.json", "model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_folder_is_refused(lab: Any, tmp_path: Path, name: str) -> None:
    for path in lab.folder("pocket").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[: 100 if path.name == name else None])
    with pytest.raises(BackboneError, match="Delete the folder: it is built again"):
        open_pocket(tmp_path)
