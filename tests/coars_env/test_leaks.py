"""What nobody may be able to tell: the target, from the numbers of the items, in any dataset, split and set of tasks.

A dataset that is listed is probed, its official files if `COARS_DATA` has them. Add its other forms to `FORMS`.
"""

import functools
import os
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest

from coars_env import (
    CandidateRule,
    ConfigError,
    Dataset,
    DatasetError,
    MissingDataError,
    SplitName,
    TaskBuilder,
    builder,
    freeze,
    leave_last,
    list_datasets,
    llara,
    load,
)
from coars_env.testing import check_dataset, check_ids

FORMS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in list_datasets()]
FORMS.append(("movielens", {"variant": "latest-small"}))
SPLITS = {"leave_last": leave_last, "llara": llara}


@functools.cache
def dataset(form: int) -> Dataset:
    name, options = FORMS[form]
    if "COARS_DATA" not in os.environ and name != "synthetic":
        pytest.skip("needs official files: set COARS_DATA to the folder that holds them")
    try:
        return load(name, source="auto" if name == "synthetic" else "real", **options)
    except MissingDataError as reason:
        pytest.skip(str(reason))


def tasks(form: int, split_name: str, rule: CandidateRule) -> TaskBuilder:
    """At most 1,000 of the held-out users, drawn by a fixed seed; few training users: peers are of no account here."""
    try:
        split = SPLITS[split_name](dataset(form))
    except (ConfigError, DatasetError) as reason:
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
    check_ids(freeze(tasks(form, split, rule), "test", rule=rule))


@pytest.mark.parametrize("form", [pytest.param(form, id=named(form)) for form in range(len(FORMS))])
def test_every_dataset_keeps_the_rules(form: int) -> None:
    check_dataset(dataset(form))
