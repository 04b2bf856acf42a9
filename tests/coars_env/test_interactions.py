import datetime
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coars_env import (
    CoarsEnv,
    CoarsError,
    DatasetError,
    Item,
    builder,
    facet_kinds,
    freeze,
    from_interactions,
    leave_last,
    load_split,
    published,
    random_holdout,
    register,
)
from coars_env.datasets.dataset import MAX_TITLE_LENGTH, clean_title

NAN = float("nan")
FILMS = {
    "item_id": ["a", "b", "c", 7],
    "title": ["Amélie", "Heat", "七人の侍 🎬", "لورنس العرب"],
    "genres": [["Comedy", "Romance"], "Crime|Thriller", None, NAN],
    "year": [2001, 1995.0, None, NAN],
}
RATINGS = {
    "user_id": ["ann", "bob", "ann", "ann", "bob"],
    "item_id": ["b", "a", "a", 7, "b"],
    "rating": [4, 5, 3.5, 1, 2],
    "timestamp": [30, 5, 20, 10, 5],
}


class Frame:
    """What pandas and polars have in common: `columns`, and a column by its name."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Iterator[Any]:
        return iter(self._columns[name])


def changed(table: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {name: values for name, values in {**table, **columns}.items() if values is not None}


def test_a_table_becomes_a_dataset() -> None:
    dataset = from_interactions(RATINGS, FILMS, name="films", licence="mine")
    known = dict(zip(dataset.item_ids, dataset.items, strict=True))
    assert known == {
        "a": Item("Amélie", ("Comedy", "Romance"), 2001),
        "b": Item("Heat", ("Crime", "Thriller"), 1995),
        "c": Item("七人の侍 🎬"),  # nobody took it: it can still be offered
        "7": Item("لورنس العرب"),
    }
    assert dataset.user_ids == ("ann", "bob")
    assert [[dataset.item_ids[i] for i in dataset.sequence(user)] for user in (0, 1)] == [["7", "a", "b"], ["a", "b"]]
    assert dataset.ratings.tolist() == [1, 3.5, 4, 5, 2]
    assert (dataset.name, dataset.licence, dataset.times) == ("films", "mine", "seconds")
    assert (dataset.provenance.source, dataset.provenance.origin) == ("custom", "films")
    assert [s.user for s in leave_last(dataset).test] == [0]  # bob has two items, too few to hold one out


def test_columns_named_by_the_caller_are_facets() -> None:
    films = {**FILMS, "studio": ["UGC|TF1", None, NAN, ["Toho", "Toho"]], "reels": [3, 4.0, None, 5]}
    dataset = from_interactions(RATINGS, films, facets=("studio", "reels"))
    known = dict(zip(dataset.item_ids, dataset.items, strict=True))
    assert {n: known[n].values("studio") for n in known} == {"a": ("UGC", "TF1"), "b": (), "c": (), "7": ("Toho",)}
    assert {n: known[n].values("reels") for n in known} == {"a": ("3",), "b": ("4",), "c": (), "7": ("5",)}
    assert facet_kinds(dataset.items) == ("genre", "decade", "reels", "studio")
    assert dataset.digest == from_interactions(RATINGS, FILMS).digest
    arrays = {**FILMS, "studio": [np.array(["UGC", "TF1"]), *[np.array([])] * 3]}
    assert from_interactions(RATINGS, arrays, facets=["studio"]).items != from_interactions(RATINGS, FILMS).items


@pytest.mark.parametrize("facets", ["studio", ("genre",), ("like",), ("a: b",), (3,), ("studio", "studio")])
def test_columns_that_can_be_no_facets_are_refused(facets: Any) -> None:
    with pytest.raises(DatasetError, match=r"Facets are columns of items\. Expected a list of different words"):
        from_interactions(RATINGS, FILMS, facets=facets)


def test_a_column_of_facets_must_be_there() -> None:
    with pytest.raises(DatasetError, match=r"Expected item_id and title and studio, found item_id, title, genres"):
        from_interactions(RATINGS, FILMS, facets=("studio",))


def test_any_object_with_columns_is_a_table() -> None:
    expected = from_interactions(RATINGS, FILMS)
    assert from_interactions(Frame(RATINGS), Frame(FILMS)).digest == expected.digest
    arrays = {name: np.array(values) for name, values in changed(RATINGS, item_id=["b", "a", "a", "7", "b"]).items()}
    assert from_interactions(arrays, FILMS).digest == expected.digest


@pytest.mark.parametrize("kind", ["object", "inferred", "categorical"])
def test_frames_of_pandas_are_read(kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    ratings, films = pandas.DataFrame(RATINGS), pandas.DataFrame(FILMS)
    if kind != "inferred":
        ratings["user_id"] = ratings["user_id"].astype("category" if kind == "categorical" else object)
    ratings.index = [9, 9, 3, 2, 1]  # labels of rows mean nothing
    ratings["timestamp"] = pandas.to_datetime(ratings["timestamp"], unit="s")
    assert from_interactions(ratings, films).digest == from_interactions(RATINGS, FILMS).digest
    ratings["rating"] = pandas.array([4, None, 3, 1, 2], dtype="Int64")
    with pytest.raises(DatasetError, match=r"interactions, row 1, rating: A number is needed.*found <NA>"):
        from_interactions(ratings, films)
    ratings = ratings.drop(columns="rating")
    ratings.loc[9, "timestamp"] = pandas.NaT
    with pytest.raises(DatasetError, match=r"interactions, row 0, timestamp: A number is needed.*found NaT"):
        from_interactions(ratings, films)
    with pytest.raises(DatasetError, match=r"must hold data"):
        from_interactions(ratings.iloc[:0], films)


def test_days_without_a_time_are_midnight() -> None:
    days = [datetime.date(1970, 1, 2), "1970-01-03", "1970-01-01", datetime.date(1970, 1, 4), "1970-01-05"]
    dataset = from_interactions(changed(RATINGS, timestamp=days), FILMS)
    assert sorted((dataset.timestamps / 86_400).tolist()) == [0, 1, 2, 3, 4]


def test_no_table_library_is_imported() -> None:
    before = "pandas" in sys.modules
    from_interactions(RATINGS, FILMS)
    assert ("pandas" in sys.modules) is before


@pytest.mark.parametrize(
    "times",
    [
        [datetime.datetime(1970, 1, 1, 0, 0, second) for second in (30, 5, 20, 10, 5)],
        [
            datetime.datetime(1970, 1, 1, 1, 0, s, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
            for s in (30, 5, 20, 10, 5)
        ],
        np.array([30, 5, 20, 10, 5], dtype="datetime64[s]").astype("datetime64[ns]"),
        [np.datetime64(s, "s") for s in (30, 5, 20, 10, 5)],
        [f"1970-01-01T00:00:{s:02}Z" for s in (30, 5, 20, 10, 5)],
        [f"1970-01-01 00:00:{s:02}" for s in (30, 5, 20, 10, 5)],
        [30.25, 5.5, 20.125, 10.0, 5.5],
    ],
    ids=["naive", "zoned", "numpy", "list of numpy's", "text", "text without zone", "fractions"],
)
def test_dates_become_seconds(times: Any) -> None:
    dataset = from_interactions(changed(RATINGS, timestamp=times), FILMS)
    assert dataset.timestamps.tolist() == [10, 20, 30, 5, 5]


def test_within_a_second_fractions_decide() -> None:
    ratings = {"user_id": [1, 1, 1], "item_id": list("abc"), "timestamp": [5.9, 5.1, 5.5]}
    dataset = from_interactions(ratings, FILMS)
    assert [dataset.item_ids[i] for i in dataset.sequence(0)] == ["b", "c", "a"]


def test_without_times_the_rows_are_no_sequence() -> None:
    ratings = {"user_id": ["ann"] * 4, "item_id": ["a", "b", "c", "7"]}
    dataset = from_interactions(ratings, FILMS)
    assert (dataset.times, dataset.ratings.tolist()) == ("none", [1, 1, 1, 1])
    register("own-timeless", lambda: dataset)
    assert load_split("own-timeless").name == "random_holdout"
    assert {s.items[-1] for seed in range(40) for s in random_holdout(dataset, seed=seed).test} == {0, 1, 2, 3}


def test_repeated_rows_count_once() -> None:
    ratings = {"user_id": [1] * 6, "item_id": [*"abcab", 7], "timestamp": [1, 2, 3, 4, 4, 5]}
    dataset = from_interactions(ratings, FILMS)
    assert len(dataset.users) == 6
    assert [[dataset.item_ids[i] for i in s.items] for s in leave_last(dataset).test] == [["a", "b", "c", "7"]]


def test_ids_are_compared_as_text_and_whole_floats_as_numbers() -> None:
    films = {"item_id": [7, 8], "title": ["A", "B"]}
    dataset = from_interactions({"user_id": [1.0, 1, "1"], "item_id": ["7", 8.0, 7]}, films)
    assert dataset.user_ids == ("1",)
    assert sorted(dataset.item_ids[i] for i in dataset.item_indices) == ["7", "7", "8"]


@pytest.mark.parametrize(
    ("ratings", "films", "message"),
    [
        (
            {"item_id": ["b", "a", "a", "x", "b"]},
            {},
            r"interactions, row 3, item_id: An item that is taken must be listed",
        ),
        (
            {"user_id": ["ann", None, "ann", "ann", "bob"]},
            {},
            r"row 1, user_id: An id must not be empty\. .* found None",
        ),
        ({"user_id": ["ann", "bob", NAN, "ann", "bob"]}, {}, r"row 2, user_id: An id must not be empty\. .* found nan"),
        ({"user_id": ["ann", "bob", " ", "ann", "bob"]}, {}, r"row 2, user_id: An id must not be empty"),
        ({"user_id": ["ann", "bob", ["x"], "ann", "bob"]}, {}, r"row 2, user_id: An id must be a text or a number"),
        ({"rating": [4, NAN, 3, 1, 2]}, {}, r"row 1, rating: A number is needed\. .* found nan\. Fill it, or drop"),
        ({"rating": [4, 5, 3, "good", 2]}, {}, r"row 3, rating: A number is needed\. .* found 'good'"),
        ({"rating": [4, 5, 3, float("inf"), 2]}, {}, r"row 3, rating: A number is needed\. .* found inf"),
        ({"timestamp": [4, 5, 3, None, 2]}, {}, r"row 3, timestamp: A number is needed\. .* found None"),
        ({"timestamp": ["soon"] * 5}, {}, r"row 0, timestamp: A number is needed"),
        ({"timestamp": ["2020-13-01"] * 5}, {}, r"row 0, timestamp: A number is needed"),
        ({"rating": [4, 5]}, {}, r"columns of interactions must be equally long\. .*'rating': 2"),
        (
            {"user_id": None},
            {},
            r"table of interactions must have its columns\. Expected user_id and item_id, found item_id",
        ),
        ({name: [] for name in RATINGS}, {}, r"table of interactions must hold data\. Expected at least one row"),
        ({}, {name: [] for name in FILMS}, r"table of items must hold data"),
        ({}, {"title": None}, r"table of items must have its columns\. Expected item_id and title"),
        ({}, {"item_id": ["a", "b", "c", "a"]}, r"items, row 3, item_id: An item is listed once\. .* found 'a'"),
        (
            {},
            {"title": ["A", "B", NAN, "D"]},
            r"items, row 2, title: An item needs a title\. .* found nan\. Give it one",
        ),
        ({}, {"title": ["A", "B", "C", "\x00\n\u202e"]}, r"items, row 3, title: An item needs a title"),
        ({}, {"year": [2001, "old", None, 1999]}, r"items, row 1, year: A number is needed\. .* found 'old'"),
    ],
)
def test_what_cannot_be_is_named_by_table_row_and_remedy(
    ratings: dict[str, Any], films: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        from_interactions(changed(RATINGS, **ratings), changed(FILMS, **films))


def test_all_kinds_of_faults_are_listed_at_once() -> None:
    ratings = {
        "user_id": ["ann", None, "ann", "", "bob"],
        "item_id": ["b", "x", "y", 7, ["a"]],
        "rating": [4, "good", 3, 1, NAN],
        "timestamp": [1, 2, None, 4, 5],
        "fold": ["train", "dev", "test", "train", "dev"],
    }
    films = {"item_id": ["a", "b", "a", 7], "title": ["A", None, "C", "D"], "year": [1, 2, 3, "old"]}
    with pytest.raises(DatasetError, match=r"^The tables have 10 kinds of faults:") as caught:
        from_interactions(ratings, films, split="fold")
    lines = str(caught.value).splitlines()[1:]
    assert [line.partition(":")[0] for line in lines] == [
        "items, row 2, item_id",
        "interactions, row 1, user_id",
        "interactions, row 2, timestamp",
        "items, row 1, title",
        "items, row 3, year",
        "interactions, row 4, item_id",
        "interactions, row 1, item_id",
        "interactions, row 1, rating",
        "interactions, row 1, fold",
        "interactions, row 2, fold",
    ]
    assert lines[1].endswith("Fill it, or drop the row. The same in 1 more rows: 3.")
    assert lines[6].endswith("Add the item, or drop its interactions. The same in 1 more rows: 2.")
    assert "names parts. Expected train, validation or test, found 'dev'. Rename" in lines[8]
    assert "Expected one part per user, found user 'ann' in 'train' and 'test'. Put each user in one" in lines[9]


def test_long_lists_of_rows_are_cut() -> None:
    ratings = {"user_id": ["ann"] * 8, "item_id": ["a"] * 8, "rating": [NAN] * 8}
    with pytest.raises(DatasetError, match=r"^interactions, row 0, rating: .* in 7 more rows: 1, 2, 3, 4, 5, \.\.\."):
        from_interactions(ratings, FILMS)


# A split in the table -------------------------------------------------------------------------------------------------


def test_a_column_divides_the_users() -> None:
    ratings = {
        "user_id": ["ann", "bob", "cem", "ann", "bob", "cem", "ann"],
        "item_id": ["b", "a", "c", "a", "b", 7, "c"],
        "timestamp": [1, 2, 3, 4, 5, 6, 7],
        "fold": ["train", "validation", "test", "train", "validation", "test", "train"],
    }
    dataset = from_interactions(ratings, FILMS, name="folds", split="fold")
    assert dataset.parts == ("train", "validation", "test")
    split = published(dataset)
    assert [[s.user for s in part] for part in (split.train, split.validation, split.test)] == [[0], [1], [2]]
    assert dataset.item_ids[split.test[0].items[-1]] == "7"
    assert dataset.digest == from_interactions(changed(ratings, fold=None), FILMS).digest
    register("own-folds", lambda: dataset)
    assert load_split("own-folds").name == "published"


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (
            ["train", "dev", "train", "train", "held out"],
            r"row 1, fold: The split column 'fold' names parts\. .*found 'dev', 'held out'\. .*in 1 more rows: 4",
        ),
        (["train", None, "train", "train", NAN], r"found None, nan\. Rename the values"),
        (["train", ["test"], "train", "train", 1], r"found \['test'\], 1\. Rename the values"),
        (["train", "test", "train", "test", "test"], r"user 'ann' in 'train' and 'test'\. Put each user in one part"),
        ([str(n) for n in range(5)], r"found '0', '1', '2', '3', '4'\. "),
        (None, r"Expected user_id and item_id and fold, found user_id, item_id, rating, timestamp\. Rename"),
    ],
)
def test_a_column_that_does_not_divide_users_is_refused(fold: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        from_interactions(changed(RATINGS, fold=fold), FILMS, split="fold")


@pytest.mark.parametrize("table", [None, [1, 2], "films.csv", 7])
def test_something_else_than_a_table_is_refused(table: Any) -> None:
    with pytest.raises(DatasetError, match=r"Expected user_id and item_id, found none in"):
        from_interactions(table, FILMS)


@pytest.mark.parametrize("column", [3, "abcdef"])
def test_a_column_is_a_list_of_values(column: Any) -> None:
    with pytest.raises(
        DatasetError, match=r"A column of interactions is a list of values\. Expected one in 'user_id', f"
    ):
        from_interactions(changed(RATINGS, user_id=column), FILMS)


def test_a_column_has_its_name_for_itself() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(RATINGS)
    with pytest.raises(DatasetError, match=r"Expected one in 'user_id', found 2 of that name"):
        from_interactions(pd.concat([frame, frame], axis=1), FILMS)


@pytest.mark.parametrize("name", ["", "my films", "a/b", "films\n", "..", ".films", "-films", None, 3])
def test_a_name_goes_into_paths_and_is_plain(name: Any) -> None:
    with pytest.raises(DatasetError, match=r"A dataset needs a plain name"):
        from_interactions(RATINGS, FILMS, name=name)


# Titles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("  The\tThird\nMan \x07", "The Third Man"),
        ("Ame\u0301lie", "Amélie"),
        ("لورنس العرب", "لورنس العرب"),
        ("👩\u200d🚀 & 🎬", "👩\u200d🚀 & 🎬"),
        ("Heat\u202e (5991)\u2066", "Heat (5991)"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("line\u2028 end\u2029", "line end"),
    ],
)
def test_titles_are_cleaned_and_kept(raw: str, shown: str) -> None:
    assert clean_title(raw) == shown


@settings(max_examples=40)
@given(st.text(max_size=300))
def test_a_clean_title_is_a_line_and_stays_as_it_is(raw: str) -> None:
    title = clean_title(raw)
    assert len(title) <= MAX_TITLE_LENGTH
    assert len(title.splitlines()) <= 1
    assert title.encode().decode() == title == title.strip() == unicodedata.normalize("NFC", title)


def test_endless_titles_are_cut_and_an_episode_of_them_can_be_played() -> None:
    films = {"item_id": list(range(30)), "title": [f"{n} " + "x" * 10**6 for n in range(30)]}
    ratings = {"user_id": [n % 2 for n in range(8)], "item_id": list(range(8)), "timestamp": list(range(8))}
    dataset = from_interactions(ratings, films)
    assert {len(item.title) for item in dataset.items} == {MAX_TITLE_LENGTH}
    env = CoarsEnv(freeze(builder(leave_last(dataset)), "test"))
    observations, _ = env.reset(seed=0)
    assert all(env.observation_space(role).contains(observations[role]) for role in env.agents)
    assert len(observations["recommender_0"]["text"]) < 7_000


ANYTHING = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.just(["a"]))
COLUMN = st.lists(ANYTHING, max_size=4)


@given(
    st.dictionaries(st.sampled_from(["user_id", "item_id", "rating", "timestamp"]), COLUMN),
    st.dictionaries(st.sampled_from(["item_id", "title", "genres", "year"]), COLUMN),
)
def test_any_columns_are_a_dataset_or_an_error_of_ours(ratings: dict[str, Any], films: dict[str, Any]) -> None:
    try:
        dataset = from_interactions(ratings, films)
    except CoarsError as error:
        assert "Expected" in str(error)  # noqa: PT017
    else:
        assert len(dataset.users) == len(ratings["user_id"])
        assert len(dataset.digest) == 64
