"""`coars data`: the data sets this package reads; fetch them, check them, measure them, freeze episodes of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from coars_env.datasets import RELEASES, Dataset, Source, load
from coars_env.datasets.releases import Release, check_plain_digest, choose, find_folder, measure, measure_llara
from coars_env.datasets.tables import locate
from coars_env.errors import ConfigError, DatasetError, MissingDataError, whole_number
from coars_env.make import SplitName, builder, load_data, load_split
from coars_env.tasks import (
    NUM_CANDIDATES,
    CandidateRule,
    FacetInstructions,
    Split,
    facet_kinds,
    freeze,
    hold_out_groups,
    leave_last,
    published,
    random_holdout,
)

RANKS = (1, 20)
"""Ranks of the popularity figures of `coars data stats`."""


def main(argv: Sequence[str]) -> None:
    """`coars data`."""
    commands: dict[str, Callable[..., Any]] = {
        "list": List,
        "download": Download,
        "verify": Verify,
        "stats": Stats,
        "episodes": Episodes,
    }
    tyro.extras.subcommand_cli_from_dict(commands, prog="coars data", args=list(argv)).run()


@dataclass(frozen=True)
class List:
    """Show every version of every data set: its licence, its address, and where it lies on this machine."""

    data_dir: Path | None = None
    """Where to look; else COARS_DATA, else the user cache."""

    def run(self) -> None:
        for name, variant, release in _releases():
            folder = find_folder(release, self.data_dir)
            missing = [] if folder is None else [file for file in release.optional if locate(folder, file) is None]
            print(f"{name} --variant {variant}" + (" (default)" if variant == next(iter(RELEASES[name])) else ""))
            print(f"  found    {folder or 'no'}" + (f", without {', '.join(missing)}" if missing else ""))
            print(f"  address  {release.page}")
            print(f"  licence  {release.licence}")
        print("synthetic\n  invented on this machine, any size, free to use")


@dataclass(frozen=True)
class Download:
    """Fetch a data set from its publisher, check it, and put it where the others look for it."""

    name: tyro.conf.Positional[str]
    """Name of the data set, see `coars data list`."""
    variant: str | None = None
    """Version of it; None takes the default."""
    data_dir: Path | None = None
    """Where to put it; else the user cache."""
    url: str | None = None
    """Another address of the same archive, or of a folder with the same files."""
    verify: bool = True
    """Whether digests and sizes must be the published ones."""

    def run(self) -> None:
        variant, release = _release(self.name, self.variant)
        options: dict[str, Any] = {"variant": variant, "url": self.url, "verify": self.verify}
        dataset = load(self.name, source="real", data_dir=self.data_dir, **options)
        print(f"{dataset.name} in {find_folder(release, self.data_dir)}: {_origin(dataset)}")


@dataclass(frozen=True)
class Verify:
    """Compare what lies on this machine with the published digests and sizes."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of data sets; none means whatever is found."""
    data_dir: Path | None = None
    """Where to look; else COARS_DATA, else the user cache."""

    def run(self) -> None:
        for name in self.names:
            _release(name, None)
        wrong: list[str] = []
        for name in self.names or RELEASES:
            found = 0
            for variant, release in RELEASES[name].items():
                folder = find_folder(release, self.data_dir)
                if folder is not None:
                    found += 1
                    print(f"{name} --variant {variant} in {folder}")
                    lines = [*_digests(release, folder), *_figures(name, variant, release, self.data_dir)]
                    for fine, line in lines:
                        print(f"  {'ok     ' if fine else 'DIFFERS'}  {line}")
                    wrong += [f"{release.name}: {line}" for fine, line in lines if not fine]
            if not found:
                print(f"{name}: not found")
                if self.names:
                    raise MissingDataError(
                        f"Data must be at hand to be verified. Expected files of {name}, found none. "
                        f"Run `coars data download {name}`."
                    )
        if wrong:
            raise DatasetError(
                f"The data must be the published ones. Expected no difference, found {len(wrong)}, first {wrong[0]}. "
                "Fetch them again."
            )


def _digests(release: Release, folder: Path) -> list[tuple[bool, str]]:
    """For each file of known digest that is there or needed: whether it has it, and a line that says so."""
    lines = []
    for name, digest in release.digests.items():
        if name in release.optional and locate(folder, name) is None:
            continue
        try:
            check_plain_digest(folder, name, digest)
            lines.append((True, f"{name} has sha256 {digest}"))
        except DatasetError as error:
            lines.append((False, str(error)))
    return lines


def _figures(name: str, variant: str, release: Release, data_dir: Path | None) -> list[tuple[bool, str]]:
    if not release.figures:
        return [(True, "no sizes are published with enough digits to compare")]
    try:
        dataset = load(name, source="real", data_dir=data_dir, variant=variant, download=False, verify=False)
        found = measure(dataset)
        if not found.keys() >= release.figures.keys():
            found |= measure_llara(dataset)
    except DatasetError as error:
        return [(False, str(error))]
    return [
        (
            found[what] == expected,
            f"{expected:,} {what}" + ("" if found[what] == expected else f", found {found[what]:,}"),
        )
        for what, expected in release.figures.items()
    ]


@dataclass(frozen=True)
class Stats:
    """Print the shape of a data set: lengths of histories, and how far popularity alone goes."""

    name: tyro.conf.Positional[str]
    """Name of the data set, or module:function, which returns a Dataset or a Split; also of the working directory."""
    variant: str | None = None
    """Version of it; None takes the default."""
    min_rating: float | None = None
    """Leave out lower ratings."""
    source: Source = "real"
    """"auto" plays a synthetic world where no real data can be had."""
    data_dir: Path | None = None
    """Where the files lie; else COARS_DATA, else the user cache, else the publisher."""

    def run(self) -> None:
        data = load_data(self.name, source=self.source, data_dir=self.data_dir, **_options(self.variant))
        dataset = data.dataset if isinstance(data, Split) else data
        print(f"{dataset.name}: {_origin(dataset)}")
        for what, value in shape(dataset, min_rating=self.min_rating):
            print(f"  {what:<58} {value}")
        for kind, values, items in _facets(dataset):
            print(f"  {f'facets of kind {kind!r}':<58} {values:,}, of {_percent(items)} of the items")
        if isinstance(data, Split) or dataset.parts:
            split = data if isinstance(data, Split) else published(dataset)
            parts = ", ".join(f"{len(getattr(split, part)):,} {part}" for part in ("train", "validation", "test"))
            print(f"  {'users by its own split':<58} {parts}")


def _facets(dataset: Dataset) -> Iterator[tuple[str, int, float]]:
    """Each kind of facets, how many values it has, and the share of items that have one. "like" comes with a split."""
    for kind in facet_kinds(dataset.items):
        values = [item.values(kind) for item in dataset.items]
        yield kind, len({value for own in values for value in own}), sum(map(bool, values)) / len(values)


def shape(dataset: Dataset, *, min_rating: float | None = None) -> list[tuple[str, str]]:
    """Rows of the table of shapes: name and value.

    One item of each user is held out, the last, or where there are no times one at random; the rest is training.

    Raises:
        ConfigError: nobody has three items that are rated so.
    """
    kept = np.ones(len(dataset.users), dtype=np.bool_) if min_rating is None else dataset.ratings >= min_rating
    taken = np.bincount(dataset.item_indices[kept])
    lengths = np.bincount(dataset.users[kept])
    lengths = lengths[lengths > 0]
    timeless = dataset.times == "none"
    split = (random_holdout if timeless else leave_last)(dataset, min_rating=min_rating)
    if not split.test:
        rated = "" if min_rating is None else f" rated {min_rating:g} or more"
        raise ConfigError(
            f"There must be something to measure. Expected a user of three items or more{rated} in {dataset.name!r}, "
            "found none. Take lower ratings, or more data."
        )
    quantiles = np.percentile(lengths, [0, 5, 25, 50, 75, 90, 95, 99, 100]).astype(int)  # rounded down
    at_least = " / ".join(f"{(lengths >= n).sum():,}" for n in (5, 10, 20))
    return [
        ("users", f"{len(lengths):,}"),
        ("items taken", f"{(taken > 0).sum():,}"),
        ("interactions", f"{kept.sum():,}"),
        ("users with 5 / 10 / 20 interactions or more", at_least),
        ("length min / p5 / p25 / p50", " / ".join(f"{q:,}" for q in quantiles[:4])),
        ("length p75 / p90 / p95 / p99 / max", " / ".join(f"{q:,}" for q in quantiles[4:])),
        ("mean length", f"{lengths.mean():.1f}"),
        (
            "held out",
            f"one at random of {len(split.test):,} users" if timeless else f"last of {len(split.test):,} users",
        ),
        *_popularity(split),
        ("share of the 20 most popular items", _percent(np.sort(taken)[::-1][:20].sum() / kept.sum())),
    ]


def _popularity(split: Split) -> list[tuple[str, str]]:
    counts = np.bincount([item for s in split.train for item in s.items], minlength=split.dataset.num_items)
    place = np.empty(len(counts), dtype=np.int64)  # of each item, by popularity; ties by catalogue index
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    targets = np.array([s.items[-1] for s in split.test])
    ahead = [(place[list(s.items[:-1])] < place[s.items[-1]]).sum() for s in split.test]
    rank = place[targets] - np.array(ahead)  # among the items that are not in the user's training part
    rows = [
        ("held-out item is the most popular", (place[targets] == 0).mean()),
        ("held-out item is among the 20 most popular", (place[targets] < 20).mean()),
        *((f"full ranking by popularity, seen left out, Hit@{k}", (rank < k).mean()) for k in RANKS),
        ("held-out item never seen in training", (counts[targets] == 0).mean()),
    ]
    return [(what, _percent(share)) for what, share in rows]


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.001 else f"{share:.1%}"


@dataclass(frozen=True)
class Episodes:
    """Freeze episode sets, write them, and print the SHA-256 that names each."""

    name: tyro.conf.Positional[str]
    """Name of the data set, or module:function, which returns a Dataset or a Split; also of the working directory."""
    variant: str | None = None
    """Version of it; None takes the default."""
    split: SplitName | None = None
    """Rule that says what is held out; None takes the one that fits the data."""
    subset: Literal["train", "validation", "test"] = "test"
    """Part of the split."""
    candidates: tuple[CandidateRule, ...] = ("uniform",)
    """Rules by which the negatives are drawn."""
    draws: int = 1
    """Candidate draws of each rule."""
    num_candidates: int = NUM_CANDIDATES
    """Length of the lists."""
    num_users: int = 1
    """Users that decide together about an item that all took."""
    instructions: tuple[str, ...] = ()
    """Kinds of facets that users want, such as genre and decade; `coars data stats` shows those of a data set. None for
    the paper's game."""
    most_facets: int = 2
    """Most facets of an instruction."""
    facet_noise: float = 0.0
    """Chance that a facet is not the target's."""
    out: Path = Path("episodes")
    """Folder for the files; a set's name is its path in it."""
    source: Source = "real"
    """"auto" plays a synthetic world where no real data can be had."""
    data_dir: Path | None = None
    """Where the files lie; else COARS_DATA, else the user cache, else the publisher."""

    def run(self) -> None:
        whole_number("Something must be drawn.", "draws", self.draws, 1)
        whole_number("Something must be drawn by a rule.", "the number of --candidates", len(self.candidates), 1)
        options = _options(self.variant)
        split = load_split(self.name, self.split, source=self.source, data_dir=self.data_dir, **options)
        if self.num_users != 1:
            split = hold_out_groups(split, self.num_users)
        wishes = FacetInstructions(self.instructions, self.most_facets, self.facet_noise) if self.instructions else None
        for rule in self.candidates:
            build = builder(split, rule, num_candidates=self.num_candidates, instructions=wishes)
            for draw in range(self.draws):
                episodes = freeze(build, self.subset, draw=draw)
                path = self.out / f"{episodes.name}.jsonl"
                episodes.save(path)
                print(f"{episodes.sha256}  {path}  {len(episodes)} tasks")


def _releases() -> list[tuple[str, str, Release]]:
    return [(name, variant, release) for name in RELEASES for variant, release in RELEASES[name].items()]


def _release(name: str, variant: str | None) -> tuple[str, Release]:
    if name not in RELEASES:
        raise DatasetError(
            f"The data set must be one that is read from files. Expected one of {', '.join(RELEASES)}, found {name!r}. "
            "Choose one of these."
        )
    variant = next(iter(RELEASES[name])) if variant is None else variant
    return variant, choose(RELEASES[name], name, variant)


def _options(variant: str | None) -> dict[str, Any]:
    return {} if variant is None else {"variant": variant}


def _origin(dataset: Dataset) -> str:
    provenance = dataset.provenance
    return f"{provenance.source} data, {provenance.origin}, sha256 {provenance.sha256}"
