"""`coars compare`: systems and seeds on the same frozen episodes, one table with intervals and paired differences.

Every system under every seed is a cell, see `baselines.benchmark.cell`, played in a process of its own. What is
finished stays, so an interrupted comparison goes on where it stopped, and systems and seeds can be added to it. See
docs/compare.md.
"""

import json
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from baselines.benchmark.cell import Cell, FloatArray, Game, Playing
from baselines.benchmark.plots import draw_cost, draw_curves, draw_forest
from baselines.benchmark.tables import (
    RANKING,
    SHOWN_OF_PLAY,
    Cost,
    Row,
    printed,
    to_csv,
    to_markdown,
    user_lines,
)
from baselines.system import system_path
from coars_env import (
    CandidateRule,
    ConfigError,
    Estimate,
    Source,
    SplitName,
    bootstrap_interval,
    builder,
    counted_difference,
    environment_info,
    freeze,
    holm,
    load_split,
    paired_difference,
    simulation_estimates,
)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Play systems on the same frozen episodes, and lay out how they differ."""

    dataset: str = "movielens"
    """Name of the dataset."""
    variant: str | None = None
    """Version of it; None takes the dataset's first."""
    split: SplitName | None = None
    """Rule that says what is held out; None takes the one that fits the data."""
    subset: Literal["validation", "test"] = "test"
    """Held-out part that is played."""
    rule: CandidateRule = "uniform"
    """Rule by which the negatives are drawn."""
    draws: int = 5
    """Number of candidate draws."""
    source: Source = "auto"
    """"real" fails where there are no real data, in place of playing a synthetic world."""
    data_dir: Path | None = None
    """Where the files lie; else COARS_DATA, else the user cache."""
    systems: tuple[str, ...] = ("random", "popularity", "markov", "item_knn")
    """Baselines by name, or classes of your own as module:Class. The default ones need no extra."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of training, and of ties in play."""
    reference: str = "item_knn"
    """System that the others are compared with; it is played, too."""
    backbone: str = "pocket"
    """Language model of the systems that talk to one or train one: "pocket", a folder or a name on the hub."""
    updates: int = 60
    """Of the systems that train a language model."""
    afl_users: bool = False
    """Whether users are tested by AFL's own 60 of LastFM, variant afl, in place of those of the split."""
    api: Path | None = None
    """JSON file with settings of an `agents.models.api.ApiConfig`, url and model among them. Systems that only talk
    then talk to that model; a budget is that of a cell, one system under one seed."""
    jobs: int = 1
    """Cells that are played at the same time, each on one thread. Above 1, seconds are those of a busy machine."""
    out: Path = Path("runs/compare")
    """Folder of cells, episodes, tables and picture. The same call again goes on with what is missing."""

    def __post_init__(self) -> None:
        for name in (*self.systems, self.reference):
            system_path(name)
        if self.draws < 1 or self.jobs < 1 or not self.seeds or min(self.seeds) < 0:
            raise ConfigError(
                f"Something must be played. Expected draws and jobs >= 1 and seeds that are >= 0, found {self.draws}, "
                f"{self.jobs} and {self.seeds}. Raise them."
            )

    def game(self) -> Game:
        """The data, divided, and the episodes, frozen.

        Raises:
            TaskError: nobody is held out.
        """
        variant = {} if self.variant is None else {"variant": self.variant}
        split = load_split(self.dataset, self.split, source=self.source, data_dir=self.data_dir, **variant)
        build = builder(split, self.rule)
        draws = tuple(freeze(build, self.subset, rule=self.rule, draw=draw) for draw in range(self.draws))
        return Game(
            split,
            self.subset,
            draws,
            self.backbone,
            self.updates,
            afl_users=self.afl_users,
            data_dir=self.data_dir,
            api=self._endpoint(),
        )

    def _endpoint(self) -> dict[str, Any] | None:
        if self.api is None:
            return None
        from agents.models.api import ApiConfig  # of an extra

        try:
            settings: dict[str, Any] = json.loads(self.api.read_text(encoding="utf-8"))
            ApiConfig(**settings)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                "An endpoint is described by a JSON object. Expected settings of ApiConfig, url and model among them, "
                f"in {self.api}, found {error}. See docs/api.md."
            ) from error
        return settings

    @property
    def played(self) -> tuple[str, ...]:
        """The systems, each once, the reference among them."""
        return tuple(dict.fromkeys((*self.systems, self.reference)))

    def command(self, systems: Sequence[str], source: str, out: Path) -> str:
        """The call that plays some of the systems in some folder, from data of this source."""
        options: dict[str, Sequence[object]] = {
            "dataset": [self.dataset],
            "variant": [self.variant],
            "split": [self.split],
            "subset": [self.subset],
            "rule": [self.rule],
            "source": [source],
            "draws": [self.draws],
            "systems": systems,
            "seeds": self.seeds,
            "reference": [self.reference],
            "backbone": [self.backbone],
            "updates": [self.updates],
            "afl-users": [] if self.afl_users else [None],
            "api": [self.api],
            "out": [out],
        }
        words = [(f"--{name}", *map(str, values)) for name, values in options.items() if values != [None]]
        return shlex.join(["coars", "compare", *chain.from_iterable(words)])


def _plain(system: str) -> str:
    """A name for files."""
    return system.replace(":", ".")


def main(argv: Sequence[str]) -> None:
    """`coars compare`."""
    config = tyro.cli(CompareConfig, prog="coars compare", args=list(argv))
    compare(config, config.game(), console=Console())


def compare(config: CompareConfig, game: Game, *, console: Console) -> list[Row]:
    """Play what is missing, then write table.csv, table.md and forest.png and print the table.

    Raises:
        ConfigError: the folder holds cells that were made with other data, episodes or code.
    """
    cells = [
        Cell(system, seed, config.out / "cells" / f"{_plain(system)}-s{seed}")
        for system in config.played
        for seed in dict.fromkeys(config.seeds)
    ]
    for cell in cells:
        cell.refuse_other_settings(game.settings())
    _play(cells, game, config, console)
    rows = table_rows(config, cells, game.split.dataset.provenance.source)
    without_picture = _write(config, game, rows, cells)
    _show(rows, config.reference, console)
    console.print(
        f"table.csv, table.md{', ' + without_picture if without_picture else ' and forest.png'} in {config.out}"
    )
    return rows


def _play(cells: Sequence[Cell], game: Game, config: CompareConfig, console: Console) -> None:
    """All cells that are not finished. The bar counts cells and guesses no time; what runs says how far it is."""
    waiting = deque(cell for cell in cells if not cell.finished())
    before = len(cells) - len(waiting)
    console.print(f"{len(cells)} cells, {before} of them finished before, in {config.out}")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    running: list[Playing] = []
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(cells), completed=before)
        try:
            while waiting or running:
                while waiting and len(running) < config.jobs:
                    running.append(Playing(waiting.popleft(), game))
                states = (f"{one.cell.name} {one.seconds:.0f} s {one.state()[-60:]}" for one in running)
                progress.update(bar, description="\n".join(states))
                ended = wait([one.sentinel for one in running], timeout=2)
                for one in [one for one in running if one.sentinel in ended]:
                    running.remove(one)
                    one.finish()
                    console.print(f"{one.cell.name}: {_told(one.cell)} ({one.seconds:.0f} s)", markup=False)
                    progress.advance(bar)
        finally:
            for one in running:  # this one was interrupted
                one.stop()
        progress.update(bar, description="all played")


def _told(cell: Cell) -> str:
    record = cell.record()
    if record["cause"] is not None:
        return f"failed. {record['cause']}"
    return f"Hit@1 {cell.values()['hit_final'].mean():.3f}"


def table_rows(config: CompareConfig, cells: Sequence[Cell], source: str) -> list[Row]:
    """One row a system, from the cells as they lie there.

    Args:
        config: which systems, and which of them is the reference.
        cells: of all of them, played.
        source: of the data, for the commands.
    """
    done = {name: [c for c in cells if c.system == name and c.finished()] for name in config.played}
    values = {name: [cell.values() for cell in own] for name, own in done.items() if own}
    hits = {name: np.stack([v["hit_final"] for v in own]) for name, own in values.items()}  # [S, D, N]
    others = [name for name in hits if name != config.reference and config.reference in hits]
    differences = {name: paired_difference(hits[name], hits[config.reference]) for name in others}
    users = {name: _user(own) for name, own in values.items()}
    leader = next((name for name, user in users.items() if user), None)
    adjusted = dict(zip(others, holm([differences[name].p_value for name in others]).tolist(), strict=True))
    return [
        Row(
            system=name,
            seeds=tuple(cell.seed for cell in done[name]),
            hit=bootstrap_interval(hits[name]) if name in hits else None,
            difference=differences.get(name),
            p_holm=adjusted.get(name, np.nan),
            ranking=_ranking(values.get(name, [])),
            cost=_cost([cell.record() for cell in done[name]]),
            played={kind: _mean(values.get(name, []), kind) for kind in SHOWN_OF_PLAY},
            user={ratio: simulation_estimates(counts) for ratio, counts in users.get(name, {}).items()},
            user_differences={
                ratio: counted_difference(counts, users[leader][ratio])
                for ratio, counts in users.get(name, {}).items()
                if leader is not None and name != leader
            },
            command=config.command([name], source, Path("runs") / f"again-{_plain(name)}"),
            notes=tuple(note for cell in cells if cell.system == name for note in _notes(cell)),
        )
        for name in config.played
    ]


def _ranking(values: Sequence[dict[str, FloatArray]]) -> dict[str, Estimate]:
    """Of the seeds of a system that ranks all items; empty for others."""
    names = [name for name in RANKING if all(name in seed for seed in values)] if values else []
    return {name: bootstrap_interval(np.stack([seed[name][None] for seed in values])) for name in names}


def _user(values: Sequence[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    """Counts of the user test by ratio, [S, U, C]; none where a system plays no user."""
    names = [name for name in values[0] if name.startswith("user ")]
    return {name.removeprefix("user "): np.stack([seed[name] for seed in values]) for name in names}


def _mean(values: Sequence[dict[str, FloatArray]], name: str) -> Estimate | None:
    """Of a metric of the dialogues; None where it was not kept."""
    kept = [seed[name] for seed in values if name in seed]
    return bootstrap_interval(np.stack(kept)) if kept and len(kept) == len(values) else None


def _cost(records: Sequence[dict[str, Any]]) -> Cost | None:
    """Over the seeds of a system: parameters of the first, mean seconds, highest memory; None if all failed."""
    if not records:
        return None
    seconds = float(np.mean([record["training_seconds"] for record in records]))
    episodes = sum(record.get("episodes", 0) for record in records)
    spent = [record.get("episode_usage", {}) for record in records]
    learnt = [record.get("learning_usage", {}) for record in records]
    return Cost(
        records[0]["parameters"],
        seconds,
        max(record["memory_mb"] for record in records),
        {name: sum(one[name] for one in spent) / episodes for name in spent[0]},
        sum(record.get("episode_seconds", 0.0) for record in records) / episodes if episodes else 0.0,
        {name: sum(one[name] for one in learnt) / len(learnt) for name in learnt[0]},
    )


def _notes(cell: Cell) -> Iterator[str]:
    record = cell.record()
    if record["cause"] is not None:
        yield f"seed {cell.seed}: {record['cause']}"
    elif record["failed_dialogues"]:
        yield f"seed {cell.seed}: {record['failed_dialogues']} dialogues broke and count as misses, see log.txt"


def _write(config: CompareConfig, game: Game, rows: Sequence[Row], cells: Sequence[Cell]) -> str | None:
    """The files; returns why there is no picture, None if there is one."""
    dataset = game.split.dataset
    provenance, made = (
        dataset.provenance,
        [cell.record()["made"] for cell in cells if cell.finished()] or [environment_info()],
    )
    title = f"{dataset.name}, {game.split.name}, {game.subset}, {config.rule} candidates"
    (config.out / "table.csv").write_text(to_csv(rows, config.reference), encoding="utf-8")
    try:
        draw_forest(rows, config.reference, config.out / "forest.png", title=title)
        draw_cost(rows, config.out / "cost.png", title=title)
        learnt = draw_curves(_curves(cells), config.out / "curves.png", title=title)
        missing = None
    except ModuleNotFoundError as error:
        learnt = False
        missing = f'no picture, since {error.name} is not installed: pip install "coars-env[llm]"'
    libraries = sorted({f"{name} {number}" for one in made for name, number in one["versions"].items()})
    head = (
        f"{provenance.source.upper()} data {provenance.origin} ({provenance.sha256[:12]}), {len(game.episodes[0])} "
        f"users, {len(game.episodes)} candidate draws, seeds {', '.join(map(str, config.seeds))}; {date.today()}.",
        f"Command: `{config.command(config.systems, provenance.source, config.out)}`, commit {_all(made, 'commit')}, "
        f"{_all(made, 'machine')}, one thread, Python {_all(made, 'python')}, {', '.join(libraries)}.",
    )
    page = to_markdown(
        rows,
        config.reference,
        title=title,
        head=head,
        pictures=[] if missing else ["forest.png", "cost.png", *(["curves.png"] if learnt else [])],
        digests=[f"{draw.name}: `{draw.sha256[:12]}`" for draw in game.episodes],
    )
    (config.out / "table.md").write_text(page, encoding="utf-8")
    return missing


def _curves(cells: Sequence[Cell]) -> dict[str, list[FloatArray]]:
    """Hit@1 of the first proposal by update, [K] for each seed, of the systems that keep it."""
    found: dict[str, list[FloatArray]] = {}
    for cell in cells:
        if cell.finished() and (curve := cell.record().get("learning_curve")):
            found.setdefault(cell.system, []).append(np.array(curve))
    return found


def _all(made: Sequence[dict[str, Any]], what: str) -> str:
    """Cells of several commits or machines may stand in one table."""
    return " and ".join(sorted({one[what] for one in made}))


def _show(rows: Sequence[Row], reference: str, console: Console) -> None:
    """The table in three parts that fit a terminal of 80 columns, and what failed."""
    lines = printed(rows, reference)
    columns = list(lines[0])
    for part in (columns[1:4], columns[4:6], columns[6:]):
        table = Table("system", *part)
        for line in lines:
            table.add_row(line["system"], *(line[column] for column in part))
        console.print(table)
    if asked := user_lines(rows):
        table = Table(*list(asked[0]))
        for line in asked:
            table.add_row(*line.values())
        console.print(table)
    for row in rows:
        for note in row.notes:
            console.print(f"{row.system}, {note}", markup=False, highlight=False)
