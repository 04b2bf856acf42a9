"""What nobody may be able to tell: the target, from the numbers of the items, in any dataset, split and set of tasks.

A dataset that is listed is probed, its official files if `COARS_DATA` has them. Add its other forms to `FORMS`.
"""

import functools
import os
from collections import defaultdict
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest

from coars_env import (
    CandidateRule,
    Dataset,
    MissingDataError,
    SplitName,
    SvdPeers,
    TaskBuilder,
    TaskError,
    builder,
    freeze,
    list_datasets,
    load,
    load_split,
    random_holdout,
)
from coars_env.testing import check_dataset, check_ids, id_probe

FORMS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in list_datasets()]
FORMS += [("movielens", {"variant": "latest-small"}), ("lastfm", {"variant": "afl"})]


@functools.cache
def dataset(form: int) -> Dataset:
    name, options = FORMS[form]
    if "COARS_DATA" not in os.environ and name != "synthetic":
        pytest.skip("needs official files: set COARS_DATA to the folder that holds them")
    try:
        return load(name, source="auto" if name == "synthetic" else "real", **options)
    except MissingDataError as reason:
        pytest.skip(str(reason))


def tasks(form: int, split_name: SplitName, rule: CandidateRule) -> TaskBuilder:
    """At most 1,000 of the held-out users, drawn by a fixed seed; few training users: peers are of no account here."""
    try:
        split = load_split(dataset(form), split_name)
    except TaskError as reason:
        pytest.skip(f"this dataset is not divided so: {reason}")
    order = np.random.default_rng(3).permutation(len(split.test))[:1000]
    part = replace(split, test=tuple(split.test[row] for row in sorted(order.tolist())), train=split.train[:200])
    return replace(builder(part, rule), peers=None)


def named(form: int) -> str:
    return "-".join([FORMS[form][0], *map(str, FORMS[form][1].values())])


@pytest.mark.parametrize(
    ("form", "split", "rule"),
    [
        pytest.param(form, split, rule, id=f"{named(form)}-{split}-{rule}")
        for form, split, rule in product(range(len(FORMS)), get_args(SplitName), get_args(CandidateRule))
    ],
)
def test_numbers_tell_nothing_about_the_target(form: int, split: SplitName, rule: CandidateRule) -> None:
    check_ids(freeze(tasks(form, split, rule), "test"))


@pytest.mark.parametrize("form", [pytest.param(form, id=named(form)) for form in range(len(FORMS))])
def test_every_dataset_keeps_the_rules(form: int) -> None:
    check_dataset(dataset(form))


@pytest.mark.parametrize("split_name", get_args(SplitName))
@pytest.mark.parametrize("form", [pytest.param(form, id=named(form)) for form in range(len(FORMS))])
def test_opinions_are_of_others_and_of_what_they_took_in_training(form: int, split_name: str) -> None:
    """Each is a stretch of another user's training sequence, and the same where nothing is held out at all."""
    build = tasks(form, split_name, "uniform")
    split = replace(build.split, test=build.split.test[:100])
    owners = defaultdict(set)
    for sequence in split.train:
        for n, item in enumerate(sequence.items):
            owners[sequence.items[max(0, n - 2) : n], item].add(sequence.user)
    blind = replace(split, test=(), validation=(), owned={})
    told = freeze(replace(build, split=split, peers=SvdPeers(blind)), "test")
    heard = 0
    for task in told:
        for item in task.candidates:
            opinions = task.opinions_of(item)
            heard += len(opinions)
            assert all(owners[opinion.items, item] - {task.user} for opinion in opinions)
    assert heard > 100
    assert told.tasks == freeze(replace(build, split=split, peers=SvdPeers(split)), "test").tasks


def test_by_the_ids_of_the_files_the_same_rules_find_the_target() -> None:
    """LastFM with its catalogue in the order of its file: what the seeded permutation is there for."""
    data = dataset(FORMS.index(("lastfm", {})))
    by_file = np.argsort([int(item_id) for item_id in data.item_ids])
    number = np.argsort(by_file)
    raw = replace(
        data,
        items=tuple(data.items[i] for i in by_file),
        item_ids=tuple(data.item_ids[i] for i in by_file),
        item_indices=number[data.item_indices],
    )
    split = random_holdout(raw)
    build = replace(builder(replace(split, test=split.test[:600], train=split.train[:200])), peers=None)
    assert max(id_probe(freeze(build, "test")).values()) > 0.3
