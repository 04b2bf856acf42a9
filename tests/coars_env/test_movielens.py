import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from coars_env import datasets
from coars_env.datasets.dataset import item_permutation
from coars_env.datasets.movielens import display_title, load_movielens, title_year
from coars_env.errors import CoarsError, DatasetError, MissingDataError

# Four films and two users in the format of ml-100k. User 7 rated 30 and 10 in the same second, 30 first in the file;
# 20 was rated earlier although it stands last.
RATINGS = "7\t30\t4\t200\n2\t10\t5\t50\n7\t10\t3\t200\n7\t20\t1\t100\n"
FILMS = {
    10: ("Affair to Remember, An (1957)", "Drama Romance"),
    20: ("Misérables, Les (1995) ", "Drama"),
    30: ("unknown", "unknown"),
    40: ("Land Before Time III, The (1995) (V)", "Animation Children's"),
}
GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def film_row(number: int, title: str, genres: str) -> str:
    flags = "|".join("1" if genre in genres.split() else "0" for genre in GENRES)
    return f"{number}|{title}|01-Jan-1995||http://example.org|{flags}\n"


ITEMS = "".join(film_row(number, *film) for number, film in FILMS.items())


def write_100k(folder: Path, *, ratings: str = RATINGS, items: str = ITEMS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "u.data").write_bytes(ratings.encode("latin-1"))
    (folder / "u.item").write_bytes(items.encode("latin-1"))
    return folder


def write_latest(folder: Path, ratings: str, movies: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.csv").write_bytes(ratings.encode())
    (folder / "movies.csv").write_bytes(movies.encode())
    return folder


MOVIES = "movieId,title,genres\n" + "".join(f"{n},Film {n} (199{n}),Drama\n" for n in range(1, 7))
"""Six films, for six tags each of which two users may give to five films."""


def tags_of(dataset: datasets.Dataset) -> dict[str, tuple[str, ...]]:
    return {n: item.values("tag") for n, item in zip(dataset.item_ids, dataset.items, strict=True)}


def real_root() -> Path:
    root = os.environ.get("COARS_DATA")
    if not root or not (Path(root) / "movielens" / "ml-100k").is_dir():
        pytest.skip("COARS_DATA holds no movielens/ml-100k")
    return Path(root)


def test_ties_in_time_keep_the_order_of_the_file(tmp_path: Path) -> None:
    dataset = load_movielens(data_dir=write_100k(tmp_path), verify=False)
    assert dataset.user_ids == ("2", "7")
    assert [dataset.item_ids[item] for item in dataset.sequence(1)] == ["20", "30", "10"]
    assert dataset.ratings.tolist() == [5, 1, 4, 3]
    assert dataset.timestamps.tolist() == [50, 100, 200, 200]
    assert dataset.source_rows is not None
    assert dataset.source_rows.tolist() == [1, 3, 0, 2]


def test_the_catalogue_is_all_listed_films_in_the_order_of_the_permutation(tmp_path: Path) -> None:
    dataset = load_movielens(data_dir=write_100k(tmp_path), verify=False)
    assert dataset.item_ids == tuple(("10", "20", "30", "40")[place] for place in item_permutation(4))
    films = dict(zip(dataset.item_ids, dataset.items, strict=True))
    assert films["10"] == datasets.Item("An Affair to Remember (1957)", ("Drama", "Romance"), 1957)
    assert films["20"] == datasets.Item("Les Misérables (1995)", ("Drama",), 1995)
    assert films["30"] == datasets.Item("unknown", (), None)
    assert films["40"] == datasets.Item("The Land Before Time III (1995) (V)", ("Animation", "Children's"), 1995)


def test_tags_of_two_users_and_five_films_are_facets(tmp_path: Path) -> None:
    folder = write_latest(tmp_path, "userId,movieId,rating,timestamp\n1,1,4.0,10\n2,2,4.0,10\n", MOVIES)
    plain = load_movielens("latest-small", data_dir=folder, verify=False)
    assert set(tags_of(plain).values()) == {()}
    given = [(user, film, "Funny ") for user, film in ((1, 1), (2, 2), (1, 3), (1, 4), (1, 5))]
    given += [(2, film, "funny") for film in (1, 2)]  # again, by another user
    given += [(1, film, "in queue") for film in range(1, 7)]  # of one user
    given += [(user, film, "dark") for user in (1, 2) for film in range(1, 5)]  # of four films
    given += [(user, film, '"Sad, ""old"""') for user in (1, 3) for film in range(2, 7)]
    rows = "".join(f"{user},{film},{tag},0\r\n" for user, film, tag in given)
    (folder / "tags.csv").write_bytes(f"userId,movieId,tag,timestamp\r\n{rows}".encode())
    dataset = load_movielens("latest-small", data_dir=folder, verify=False)
    both, sad = ("funny", 'sad, "old"'), ('sad, "old"',)
    assert tags_of(dataset) == {"1": ("funny",), "2": both, "3": both, "4": both, "5": both, "6": sad}
    assert dataset.provenance == plain.provenance
    (folder / "tags.csv").write_bytes(b"userId,movieId,tag,timestamp\r\n1,99,dark,0\r\n")
    with pytest.raises(DatasetError, match=r"tags\.csv, row 2: a tagged item must be listed\. .* found 99"):
        load_movielens("latest-small", data_dir=folder, verify=False)


def test_unverified_files_say_so_in_their_provenance(tmp_path: Path) -> None:
    dataset = load_movielens(data_dir=write_100k(tmp_path), verify=False)
    assert dataset.name == "movielens-100k"
    assert dataset.provenance == datasets.Provenance("real", "ml-100k, not verified", dataset.digest)
    assert "no redistribution" in dataset.licence


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Affair to Remember, An (1957)", "An Affair to Remember (1957)"),
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Enfer, L' (1994)", "L'Enfer (1994)"),
        ("Horseman on the Roof, The (Hussard sur le toit, Le) (1995)", None),
        ("Hate (Haine, La) (1995)", "Hate (La Haine) (1995)"),
        ("Gamers, The: Dorkness Rising (2008)", "The Gamers: Dorkness Rising (2008)"),
        ("Two Friends (1986) ", "Two Friends (1986)"),
        ("Paris, Texas (1984)", "Paris, Texas (1984)"),
        ("Bye Bye, Love (1995)", "Bye Bye, Love (1995)"),
        ("Die Hard (1988)", "Die Hard (1988)"),
        ("unknown", "unknown"),
    ],
)
def test_trailing_articles_move_to_the_front(raw: str, shown: str | None) -> None:
    assert display_title(raw) == (shown or "The Horseman on the Roof (Le Hussard sur le toit) (1995)")


@pytest.mark.parametrize(
    ("title", "year"),
    [("Jaws (1975)", 1975), ("Toy (1995) (V)", 1995), ("2001 (x) (1968)", 1968), ("Series (2006-2007)", None)],
)
def test_the_year_is_the_last_number_of_four_digits_in_brackets(title: str, year: int | None) -> None:
    assert title_year(title) == year


@pytest.mark.parametrize("inside", ["movielens/ml-100k", "ml-100k", "."])
def test_every_layout_of_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    write_100k(tmp_path / inside)
    assert len(load_movielens(data_dir=tmp_path, verify=False).users) == 4
    monkeypatch.setenv("COARS_DATA", str(tmp_path))
    assert len(load_movielens(verify=False, download=False).users) == 4


def test_a_given_folder_goes_before_the_environment_and_that_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, rows in (("given", 1), ("environment", 2), ("cache/coars", 3)):
        write_100k(tmp_path / place, ratings="".join(RATINGS.splitlines(keepends=True)[:rows]))
    monkeypatch.setenv("COARS_DATA", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(load_movielens(data_dir=tmp_path / "given", verify=False).users) == 1
    assert len(load_movielens(verify=False).users) == 2
    monkeypatch.setenv("COARS_DATA", str(tmp_path / "nothing here"))
    assert len(load_movielens(verify=False).users) == 3


def test_gzipped_files_are_read_alike(tmp_path: Path) -> None:
    plain, zipped = write_100k(tmp_path / "plain"), write_100k(tmp_path / "zipped")
    for name in ("u.data", "u.item"):
        (zipped / f"{name}.gz").write_bytes(gzip.compress((zipped / name).read_bytes()))
        (zipped / name).unlink()
    assert load_movielens(data_dir=zipped, verify=False).digest == load_movielens(data_dir=plain, verify=False).digest


def test_the_format_of_latest_small_is_read(tmp_path: Path) -> None:
    write_latest(
        tmp_path,
        "userId,movieId,rating,timestamp\r\n1,5,0.5,10\r\n1,6,5.0,9\r\n",
        'movieId,title,genres\r\n5,"American President, The (1995)",Comedy|Drama\r\n'
        '6,"One, ""Two"" (2001) ",(no genres listed)\r\n',
    )
    dataset = load_movielens("latest-small", data_dir=tmp_path, verify=False)
    films = dict(zip(dataset.item_ids, dataset.items, strict=True))
    assert films["5"] == datasets.Item("The American President (1995)", ("Comedy", "Drama"), 1995)
    assert films["6"] == datasets.Item('One, "Two" (2001)', (), 2001)
    assert dataset.ratings.tolist() == [5.0, 0.5]


def test_the_format_of_ml_1m_is_read(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::5::978300760\n1::1::3::978300760\n")
    (tmp_path / "movies.dat").write_bytes(
        "1::Amélie (2001)::Comedy|Romance\n2::Alien (1979)::Horror\n".encode("latin-1")
    )
    dataset = load_movielens("1m", data_dir=tmp_path, verify=False)
    assert [dataset.items[item].title for item in dataset.sequence(0)] == ["Alien (1979)", "Amélie (2001)"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7\t40\t4\n", "row 5: a row must be whole. Expected 4 columns, found 3"),
        ("7\t40\t4\t300\t\n", "Expected 4 columns, found 5"),
        ("\n7\t40\t4\t300\n", "row 5: a row must be whole. Expected 4 columns, found 1"),
        ("seven\t40\t4\t300\n", "row 5: a row of ratings holds numbers.*'seven'"),
        ("7\t40\tfour\t300\n", "holds numbers.*'four'"),
        ("7\t40\t4\t-1\n", "holds numbers.*'-1'"),
        ("7\t40\t4\t99999999999999999999\n", "holds numbers"),
        ("7\t40\t6\t300\n", "row 5: a rating must be on the scale. Expected 1 to 5 in steps of 1, found 6"),
        ("7\t40\t0\t300\n", "found 0"),
        ("7\t40\t2.5\t300\n", "found 2.5"),
        ("7\t40\tnan\t300\n", "found nan"),
        ("7\t40\tinf\t300\n", "found inf"),
        ("7\t50\t4\t300\n", r"row 5: a rated item must be listed. Expected an id of u\.item, found 50"),
        ("7\t30\t5\t300\n", "row 5: a user rates an item once.*user 7 and item 30 already in .*row 1"),
    ],
)
def test_a_bad_rating_is_named_by_file_row_expected_found_and_remedy(tmp_path: Path, row: str, message: str) -> None:
    write_100k(tmp_path, ratings=RATINGS + row)
    with pytest.raises(DatasetError, match=rf"u\.data.*{message}.*Replace the file"):
        load_movielens(data_dir=tmp_path, verify=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("50|Cut short\n", "row 5: a row must be whole. Expected 24 columns, found 2"),
        (film_row(50, "Odd", "").replace("|0|", "|2|", 1), "row 5: genre flags are 0 or 1"),
        (film_row(10, "Again (1990)", "Drama"), "row 5: an item is listed once. Expected a new id, found 10"),
        ("x" + film_row(50, "Odd", "Drama"), "row 5: an item id must be a number.*'x50'"),
        ("9" * 5000 + film_row(50, "Odd", "Drama"), "an item id must be a number"),
    ],
)
def test_a_bad_film_is_named_likewise(tmp_path: Path, row: str, message: str) -> None:
    write_100k(tmp_path, items=ITEMS + row)
    with pytest.raises(DatasetError, match=rf"u\.item.*{message}.*Replace the file"):
        load_movielens(data_dir=tmp_path, verify=False)


@pytest.mark.parametrize("empty", ["ratings", "items"])
@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_is_refused(tmp_path: Path, empty: str, text: str) -> None:
    write_100k(tmp_path, **{empty: text})
    with pytest.raises(DatasetError, match=r"must hold data\. Expected at least one row, found none"):
        load_movielens(data_dir=tmp_path, verify=False)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    write_100k(tmp_path)
    (tmp_path / "u.item").write_text(ITEMS, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"u\.item must be latin-1. Expected latin-1, found UTF-8"):
        load_movielens(data_dir=tmp_path, verify=False)
    folder = write_latest(tmp_path / "small", "userId,movieId,rating,timestamp\n1,5,3.0,1\n", "")
    (folder / "movies.csv").write_bytes("movieId,title,genres\n5,Amélie (2001),Comedy\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"movies\.csv must be UTF-8.*found byte 25 in row 2"):
        load_movielens("latest-small", data_dir=folder, verify=False)


def test_a_table_without_its_header_or_with_open_quotes_is_refused(tmp_path: Path) -> None:
    ratings, movies = "userId,movieId,rating,timestamp\n1,5,3.0,1\n", "movieId,title,genres\n5,A,Drama\n"
    write_latest(tmp_path, "1,5,3.0,1\n", movies)
    with pytest.raises(DatasetError, match=r"ratings\.csv must begin with its header.*found 1,5,3\.0,1"):
        load_movielens("latest-small", data_dir=tmp_path, verify=False)
    write_latest(tmp_path, ratings, movies + '6,"' + "x" * 200_000)
    with pytest.raises(DatasetError, match="row 3: a row must be CSV"):
        load_movielens("latest-small", data_dir=tmp_path, verify=False)


@pytest.mark.parametrize("kept", [0, 5, 30, -1])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, kept: int) -> None:
    write_100k(tmp_path)
    (tmp_path / "u.data").unlink()
    (tmp_path / "u.data.gz").write_bytes(gzip.compress(RATINGS.encode())[:kept])
    with pytest.raises(DatasetError, match=r"u\.data\.gz must (be readable|hold data)"):
        load_movielens(data_dir=tmp_path, verify=False)


def test_a_missing_file_of_two_is_an_error_and_no_reason_to_download(tmp_path: Path) -> None:
    write_100k(tmp_path)
    (tmp_path / "u.item").unlink()
    with pytest.raises(DatasetError, match=r"needs all its files. Expected u\.item or u\.item\.gz in") as caught:
        load_movielens(data_dir=tmp_path)
    assert not isinstance(caught.value, MissingDataError)


def test_a_set_that_is_not_the_published_one_is_refused_unless_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"Expected 100000 interactions, found 4. Replace.*verify=False"):
        load_movielens(data_dir=write_100k(tmp_path))


def test_any_damage_to_a_file_is_an_error_of_ours_or_still_a_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("u.data", "u.item"):
        for _ in range(150):
            write_100k(tmp_path)
            data = bytearray((tmp_path / name).read_bytes())
            for place in rng.integers(len(data), size=3):
                data[place] = rng.integers(256)
            (tmp_path / name).write_bytes(data[: rng.integers(len(data) + 1)])
            try:
                load_movielens(data_dir=tmp_path, verify=False)
            except CoarsError as error:
                assert "Expected" in str(error)  # noqa: PT017


def archive_of(folder: Path, path: Path, inside: str = "ml-100k") -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("u.data", "u.item"):
            archive.write(folder / name, f"{inside}/{name}")
    return path.as_uri()


def test_a_download_is_unpacked_where_the_files_are_looked_for(tmp_path: Path) -> None:
    url = archive_of(write_100k(tmp_path / "made"), tmp_path / "mirror.zip")
    (tmp_path / "data" / "movielens" / "ml-100k").mkdir(parents=True)
    (tmp_path / "data" / "movielens" / "ml-100k" / "README").write_text("no ratings yet")
    fetched = load_movielens(data_dir=tmp_path / "data", url=url, verify=False)
    assert os.listdir(tmp_path / "data" / "movielens") == ["ml-100k"]
    again = load_movielens(data_dir=tmp_path / "data", download=False, verify=False)
    assert fetched.digest == again.digest


def test_an_archive_with_another_digest_or_without_the_files_leaves_nothing_behind(tmp_path: Path) -> None:
    made = write_100k(tmp_path / "made")
    with pytest.raises(DatasetError, match=r"Expected md5 0e33842e24a9c977be4e0107933c0723 .*verify=False"):
        load_movielens(data_dir=tmp_path / "a", url=archive_of(made, tmp_path / "other.zip"))
    assert not (tmp_path / "a").exists()
    with pytest.raises(DatasetError, match=r"must hold the release. Expected ml-100k/u\.data"):
        load_movielens(data_dir=tmp_path / "b", url=archive_of(made, tmp_path / "odd.zip", "ml"), verify=False)
    assert not (tmp_path / "b").exists()


def test_a_failed_download_names_the_address_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"ml-100k\.zip and set COARS_DATA.*The download failed.*gone\.zip"):
        load_movielens(data_dir=tmp_path, url=(tmp_path / "gone.zip").as_uri())
    (tmp_path / "file").write_text("in the way")
    url = archive_of(write_100k(tmp_path / "made"), tmp_path / "mirror.zip")
    with pytest.raises(MissingDataError, match="Nothing could be stored in"):
        load_movielens(data_dir=tmp_path / "file", url=url, verify=False)


def test_ml_100k_has_the_published_figures() -> None:
    dataset = load_movielens(data_dir=real_root(), download=False)
    liked = dataset.ratings >= 3
    assert (dataset.num_users, dataset.num_items, len(dataset.users)) == (943, 1682, 100_000)
    assert np.bincount(dataset.ratings.astype(int)).tolist() == [0, 6_110, 11_370, 27_145, 34_174, 21_201]
    assert (liked.sum(), len(np.unique(dataset.item_indices[liked]))) == (82_520, 1_574)
    assert dataset.provenance.origin == "ml-100k"
    titles = [item.title for item in dataset.items]
    assert len(titles) - len(set(titles)) == 18  # as many titles occur twice
    assert [item.title for item in dataset.items if item.year is None] == ["unknown"]
    assert "An Affair to Remember (1957)" in titles
    assert not any(title != title.strip() for title in titles)


def test_ml_latest_small_has_the_published_figures() -> None:
    dataset = load_movielens("latest-small", data_dir=real_root(), download=False)
    assert (dataset.num_users, dataset.num_items, len(dataset.users)) == (610, 9_742, 100_836)
    assert len(np.unique(dataset.item_indices)) == 9_724
    assert {rating % 0.5 for rating in dataset.ratings} == {0.0}


def test_a_truncated_copy_of_ml_100k_is_noticed_by_its_figures(tmp_path: Path) -> None:
    real = real_root() / "movielens" / "ml-100k"
    rows = gzip.decompress((real / "u.data.gz").read_bytes()).splitlines(keepends=True)
    (tmp_path / "u.data").write_bytes(b"".join(rows[:73_211]))
    (tmp_path / "u.item").write_bytes((real / "u.item").read_bytes())
    with pytest.raises(DatasetError, match="Expected 100000 interactions, found 73211"):
        load_movielens(data_dir=tmp_path)
    worse = b"".join(rows).replace(b"196\t242\t3\t", b"196\t242\t1\t")
    (tmp_path / "u.data").write_bytes(worse)
    with pytest.raises(DatasetError, match="Expected 6110 ratings of 1, found 6111"):
        load_movielens(data_dir=tmp_path)


def test_ml_latest_small_is_downloaded_and_its_members_checked(tmp_path: Path) -> None:
    real = real_root() / "movielens" / "ml-latest-small"
    for name, end in (("good", b""), ("bad", b" ")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for member in ("ratings.csv", "movies.csv"):
                content = gzip.decompress((real / f"{member}.gz").read_bytes())
                archive.writestr(f"ml-latest-small/{member}", content + end)
    good, bad = ((tmp_path / f"{name}.zip").as_uri() for name in ("good", "bad"))
    with pytest.raises(DatasetError, match=r"Expected sha256 aa289ca.*ratings\.csv, found "):
        load_movielens("latest-small", data_dir=tmp_path / "data", url=bad)
    assert len(load_movielens("latest-small", data_dir=tmp_path / "data", url=good).users) == 100_836


def test_real_tags_are_frequent_and_leave_the_digest_alone() -> None:
    dataset = load_movielens("latest-small", data_dir=real_root(), download=False)
    tags = [values for values in tags_of(dataset).values() if values]
    assert (len(tags), len({tag for values in tags for tag in values})) == (646, 128)
    assert dataset.digest == "4fb2a5b7c507b56c9e1d3ddd2da8408bf1fa57740d1b201c6589d411aedcac29"
