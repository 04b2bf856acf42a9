import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest

from coars_env import datasets
from coars_env.datasets.dataset import Dataset, Item, item_permutation
from coars_env.errors import CoarsWarning, ConfigError, DatasetError, MissingDataError


def two_users() -> Dataset:
    """Ann saw films 2, 0, 1 and liked the first two; Bob saw film 1."""
    return Dataset(
        name="toy",
        items=(Item("A"), Item("B"), Item("C")),
        item_ids=("a", "b", "c"),
        user_ids=("ann", "bob"),
        users=np.array([0, 0, 0, 1]),
        item_indices=np.array([2, 0, 1, 1]),
        ratings=np.array([5.0, 3.0, 1.0, 4.0]),
        timestamps=np.array([10, 20, 20, 5]),
        source="custom",
        origin="by hand",
    )


def test_a_sequence_is_the_users_items_oldest_first() -> None:
    dataset = two_users()
    assert dataset.sequence(0).tolist() == [2, 0, 1]
    assert dataset.sequence(0, min_rating=3).tolist() == [2, 0]
    assert dataset.sequence(1).tolist() == [1]
    assert (dataset.num_users, dataset.num_items) == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": np.ones(3)}, "Expected 4 rows in 'ratings', found 3"),
        ({"source_rows": np.arange(5)}, "Expected 4 rows in 'source_rows', found 5"),
        ({"item_ids": ("a", "b")}, "Expected 3 ids, found 2"),
        ({"item_indices": np.array([2, 0, 3, 1])}, r"Expected indices 0\.\.2, found 0\.\.3"),
        ({"users": np.array([0, 0, 0, 2])}, r"Expected indices 0\.\.1, found 0\.\.2"),
        ({"timestamps": np.array([10, 30, 20, 5])}, "must be sorted by user and then by time"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        dataclasses.replace(two_users(), **change)  # type: ignore[arg-type]


def test_the_digest_changes_with_any_value_and_only_then() -> None:
    dataset = two_users()
    assert dataset.digest == two_users().digest == dataset.provenance.sha256
    later = dataclasses.replace(dataset, timestamps=np.array([10, 20, 21, 5]))
    renamed = dataclasses.replace(dataset, items=(Item("A"), Item("B"), Item("D")))
    assert len({dataset.digest, later.digest, renamed.digest}) == 3


def test_the_order_of_the_catalogue_is_the_same_permutation_every_time() -> None:
    order = item_permutation(1682)
    assert sorted(order.tolist()) == list(range(1682))
    assert np.array_equal(order, item_permutation(1682))
    assert order.tolist() != list(range(1682))


def test_known_names_are_listed_and_unknown_ones_refused_with_that_list() -> None:
    assert {"movielens", "synthetic"} <= set(datasets.list_datasets())
    with pytest.raises(DatasetError, match=r"Expected one of .*movielens.*synthetic.*, found 'movielenz'"):
        datasets.load("movielenz")


def test_a_registered_loader_is_found_by_name_and_gets_its_options() -> None:
    def loader(*, users: int, data_dir: Path | None = None) -> Dataset:
        assert data_dir == Path("here")
        assert users == 2
        return two_users()

    datasets.register("toy-by-name", loader)
    assert datasets.load("toy-by-name", data_dir=Path("here"), users=2).name == "toy"
    with pytest.raises(DatasetError, match=r"found 'toy-by-name'. Choose another"):
        datasets.register("toy-by-name", loader)
    with pytest.raises(ConfigError, match="there are no synthetic data"):
        datasets.load("toy-by-name", source="synthetic", users=2)


def test_a_loader_without_options_is_enough_and_nothing_stands_in_for_it() -> None:
    def empty_handed() -> Dataset:
        raise MissingDataError("not here")

    datasets.register("empty-handed", empty_handed)
    with pytest.raises(MissingDataError, match="not here"):
        datasets.load("empty-handed", data_dir="anywhere")


def test_auto_warns_and_invents_where_no_real_data_can_be_had(tmp_path: Path) -> None:
    with pytest.warns(CoarsWarning, match=r"INVENTED world.*u\.data and u\.item.*set COARS_DATA"):
        dataset = datasets.load("movielens", data_dir=tmp_path, download=False)
    assert dataset.provenance.source == "synthetic"
    assert (dataset.num_users, dataset.num_items, len(dataset.users)) == (943, 1682, 100_000)


def test_real_raises_the_address_and_the_remedy_instead(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"files\.grouplens\.org/.*/ml-100k\.zip.*COARS_DATA.*data_dir"):
        datasets.load("movielens", source="real", data_dir=tmp_path, download=False)


@pytest.mark.parametrize("source", ["auto", "real"])
def test_damaged_data_are_never_replaced_by_invented_ones(tmp_path: Path, source: datasets.Source) -> None:
    (tmp_path / "u.data").write_text("1\t1\t5\t100\n")
    with pytest.raises(DatasetError, match=r"needs all its files. Expected u\.item"):
        datasets.load("movielens", source=source, data_dir=tmp_path, verify=False)


def test_synthetic_never_looks_for_files(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stand_in = datasets.load("movielens", source="synthetic", data_dir=tmp_path, variant="latest-small")
        invented = datasets.load("synthetic", data_dir=tmp_path, users=5, items=20, interactions=50)
    assert (stand_in.num_users, stand_in.num_items) == (610, 9724)
    assert invented.num_users == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("movielens", {"varient": "1m"}, "Expected for 'movielens' any of variant.*, found 'varient'"),
        ("movielens", {"source": "synthetic", "seed": 1}, "found 'seed'"),
        ("synthetic", {"user": 3}, "Expected for 'synthetic' any of users, .*, found 'user'"),
        ("synthetic", {"source": "real"}, "there are no real data"),
        ("movielens", {"source": "reel"}, "Expected auto, real or synthetic, found 'reel'"),
    ],
)
def test_settings_that_do_not_exist_or_contradict_are_refused(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        datasets.load(name, **options)  # type: ignore[arg-type]


def test_an_unknown_variant_is_refused_for_real_and_for_synthetic_data() -> None:
    for source in ("real", "synthetic"):
        with pytest.raises(DatasetError, match="Expected one of 100k, 1m, latest-small, found '20m'"):
            datasets.load("movielens", source=source, variant="20m")
