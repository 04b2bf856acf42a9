"""Data sets by name: `load("movielens")`. Whoever has data of their own registers a loader under a new name."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from coars_env.datasets import instruments, lastfm, movielens
from coars_env.datasets.dataset import Dataset, Facet, Item, Part, Provenance
from coars_env.datasets.instruments import load_instruments
from coars_env.datasets.interactions import from_interactions
from coars_env.datasets.lastfm import load_lastfm
from coars_env.datasets.movielens import load_movielens
from coars_env.datasets.releases import Release, choose
from coars_env.datasets.synthetic import synthetic_world
from coars_env.errors import CoarsWarning, ConfigError, DatasetError, MissingDataError, expect

__all__ = [
    "RELEASES",
    "Dataset",
    "Facet",
    "Item",
    "Loader",
    "Provenance",
    "Source",
    "call_loader",
    "from_interactions",
    "list_datasets",
    "load",
    "register",
]

Source = Literal["auto", "real", "synthetic"]
Loader = Callable[..., Dataset]
"""Called with the options of `load` by keyword; one that has a parameter `data_dir` gets that too."""


class _Entry(NamedTuple):
    loader: Loader | None
    """Reads the data; None for data that are only ever invented."""
    stand_in: Loader | None
    """Invents data of the same shape from the same options; None where nothing can stand in."""


RELEASES: Mapping[str, Mapping[str, Release]] = {
    "instruments": instruments.RELEASES,
    "lastfm": lastfm.RELEASES,
    "movielens": movielens.RELEASES,
}
"""Published versions by data set and variant."""


def _like(dataset: str, label: str, default: str) -> Loader:
    """An invented world in place of each release of a data set."""

    def stand_in(variant: str = default, **_: Any) -> Dataset:
        users, items, interactions = choose(RELEASES[dataset], label, variant).shape
        return synthetic_world(users=users, items=items, interactions=interactions)

    return stand_in


def _like_lastfm(variant: str = "hetrec", **_: Any) -> Dataset:
    """Without times, as the real one, so that the same splits are for it."""
    world = _like("lastfm", "LastFM", "hetrec")(variant)
    names: tuple[Part, ...] = ("train", "validation", "test")
    parts = [name for name in names for _ in range(lastfm.RELEASES["afl"].figures[f"users of {name}"])]
    return replace(world, times="none", parts=tuple(parts) if variant == "afl" else None)


_ENTRIES = {
    "instruments": _Entry(load_instruments, _like("instruments", "instruments", "lcrec")),
    "lastfm": _Entry(load_lastfm, _like_lastfm),
    "movielens": _Entry(load_movielens, _like("movielens", "MovieLens", "100k")),
    "synthetic": _Entry(None, synthetic_world),
}


def register(name: str, loader: Loader) -> None:
    """Make a dataset known by name, for `load` and for the command line.

    Example: `register("books", lambda: my_dataset)`, then `load("books")`.

    Raises:
        DatasetError: if the name is taken.
        ConfigError: the name is no text, or the loader no function.
    """
    expect(str, name, "A dataset has a name.", "Pass a text.")
    expect(Callable, loader, "A loader is a function that returns a Dataset.", "Pass `lambda: my_dataset`.")
    if name in _ENTRIES:
        raise DatasetError(
            f"Each dataset has its own name. Expected a name other than {', '.join(list_datasets())}, found {name!r}. "
            "Choose another."
        )
    _ENTRIES[name] = _Entry(loader, None)


def list_datasets() -> list[str]:
    """Names that `load` knows, sorted."""
    return sorted(_ENTRIES)


def load(name: str, *, source: Source = "auto", data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """A dataset by name.

    Args:
        name: see `list_datasets`. "movielens" takes `variant` ("100k", "1m", "latest-small"), `download`, `verify` and
            `url`, see `load_movielens`; so do "lastfm" ("hetrec", "afl") and "instruments" ("lcrec", "2014", "2018",
            "2023", "2023-reviews"); "synthetic" takes `users`, `items`, `interactions` and `seed`.
        source: "auto" reads the real data, fetching them if need be, and where none can be had warns and returns an
            invented world of the same shape; "real" raises instead; "synthetic" invents without looking. A publisher
            that gave no answer is not asked again for a minute.
        data_dir: where the files lie or shall be put; else `COARS_DATA`, else the cache folder.
        options: go to the loader.

    Raises:
        DatasetError: unknown name; damaged data, whatever the source: they are never replaced in silence.
        MissingDataError: no data can be had and nothing may stand in.
        ConfigError: unknown source or option, or data of a kind that does not exist.
    """
    if name not in list(_ENTRIES):
        raise DatasetError(
            f"The dataset must be known. Expected one of {', '.join(list_datasets())}, found {name!r}. "
            "Choose one of these, or add yours with coars_env.datasets.register."
        )
    if source not in ("auto", "real", "synthetic"):
        raise ConfigError(
            f"The source of data must be known. Expected auto, real or synthetic, found {source!r}. "
            "Choose one of these."
        )
    entry = _ENTRIES[name]
    if source == "synthetic" or entry.loader is None:
        return _invent(name, entry, source, options)
    try:
        return _read(name, entry.loader, data_dir, options)
    except MissingDataError as reason:
        if source == "real" or entry.stand_in is None:
            raise
        warnings.warn(
            f"No real data for {name!r}: an INVENTED world of the same shape stands in, and results on it say nothing "
            f"about real users. Pass source='real' to forbid this, source='synthetic' to want it. Reason: {reason}",
            CoarsWarning,
            stacklevel=2,
        )
        return entry.stand_in(**options)


def _invent(name: str, entry: _Entry, source: Source, options: dict[str, Any]) -> Dataset:
    if entry.stand_in is None or source == "real":
        kind = "synthetic" if source == "synthetic" else "real"
        raise ConfigError(
            f"The source must fit the dataset. Expected another source than {kind!r} for {name!r}, of which there are "
            f"no {kind} data, found {source!r}. Leave source='auto'."
        )
    _check_options(name, entry.loader or entry.stand_in, options)
    return entry.stand_in(**options)


def _read(name: str, loader: Loader, data_dir: str | Path | None, options: dict[str, Any]) -> Dataset:
    dataset: Dataset = call_loader(name, loader, data_dir, options)
    expect(Dataset, dataset, f"The loader of {name!r} returns its data.", "Correct the loader.")
    return dataset


def call_loader(name: str, loader: Callable[..., Any], data_dir: str | Path | None, options: dict[str, Any]) -> Any:
    """Call a loader with options that it knows, and with `data_dir` if it has that parameter.

    Raises:
        ConfigError: an option that it does not know.
    """
    _check_options(name, loader, options)
    takes_folder = "data_dir" in inspect.signature(loader).parameters
    return loader(**options, **({"data_dir": data_dir} if takes_folder else {}))


def _check_options(name: str, loader: Loader, options: dict[str, Any]) -> None:
    parameters = inspect.signature(loader).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [option for option in parameters if option != "data_dir"]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"An option must be known to its dataset. Expected for {name!r} any of {', '.join(known) or 'none'}, "
                f"found {option!r}. Correct or drop it."
            )
