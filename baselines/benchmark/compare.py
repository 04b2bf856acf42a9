"""`coars compare`: systems and seeds on the same frozen episodes, one table with intervals and paired differences.

Every system under every seed is a cell, see `baselines.benchmark.cell`, played in a process of its own. What is
finished stays, so an interrupted comparison goes on where it stopped, and systems and seeds can be added to it. See
docs/compare.md.
"""

import json
import shlex
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import chain
from multiprocessing.connection import wait
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from baselines.benchmark.cell import Cell, plain
from baselines.benchmark.game import Game
from baselines.benchmark.page import to_csv, to_markdown
from baselines.benchmark.playing import Playing
from baselines.benchmark.plots import draw_cost, draw_curves, draw_forest, draw_hit_by_turn
from baselines.system import FIXED_USER, UPDATES, System, load_system, load_user, system_path
from coars_env import (
    AS_IT_IS,
    CandidateRule,
    ConfigError,
    FacetInstructions,
    Rules,
    Scores,
    ScoreTable,
    Source,
    SplitName,
    builder,
    environment_info,
    freeze,
    load_split,
)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Play systems on the same frozen episodes, and lay out how they differ."""

    dataset: str = "movielens"
    """Name of the dataset, or module:function, which returns a Dataset or a Split; also of the working directory."""
    variant: str | None = None
    """Version of it; None takes the dataset's first."""
    split: SplitName | None = None
    """Rule that says what is held out; None takes the one that fits the data."""
    subset: Literal["validation", "test"] = "test"
    """Held-out part that is played."""
    candidates: CandidateRule = "uniform"
    """Rule by which the negatives are drawn."""
    draws: int = 5
    """Number of candidate draws."""
    source: Source = "auto"
    """"real" fails where there are no real data, in place of playing a synthetic world."""
    data_dir: Path | None = None
    """Where the files lie; else COARS_DATA, else the user cache."""
    instructions: tuple[str, ...] = ()
    """Kinds of facets that users want and the two sides can talk about, such as genre decade; none in the paper's
    game."""
    most_facets: int = FacetInstructions.most
    """Facets of an instruction at most."""
    facet_noise: float = FacetInstructions.noise
    """Chance that a facet is drawn from another item than the target."""
    rules: Annotated[Rules, tyro.conf.arg(name="")] = field(default_factory=Rules)
    controls: bool = True
    """Whether every system is also played with users whose words are shuffled or missing, or who are shown another
    instruction; in games with instructions."""
    systems: tuple[str, ...] = ("random", "popularity", "markov", "item_knn")
    """Systems by name, or classes of your own as module:Class. The default ones need no extra."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of training, and of ties in play."""
    reference: str = "item_knn"
    """System that the others are compared with; it is played, too."""
    user: str = FIXED_USER
    """Who answers the systems that play the recommender alone: "fixed" clicks whatever comes first; a system that plays
    the user, by name; or an agent or a system of your own as module:Class."""
    backbone: str = "pocket"
    """Language model of the systems that talk to one or train one: "pocket", a folder or a name on the hub."""
    updates: int = UPDATES
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

    def kinds(self) -> dict[str, type[System]]:
        """Import all systems and the partner, and check what can be checked before anything is played.

        Raises:
            ConfigError: what is wrong with each of those that are refused.
        """
        kinds, errors = {}, []
        for name in self.played:
            try:
                kinds[name] = load_system(name)
            except ConfigError as error:
                errors.append(str(error))
        try:
            load_user(self.user)
        except ConfigError as error:
            errors.append(f"--user: {error}")
        if errors:
            raise ConfigError("\n".join(errors))
        return kinds

    def game(self) -> Game:
        """The data, divided, and the episodes, frozen.

        Raises:
            TaskError: nobody is held out.
        """
        variant = {} if self.variant is None else {"variant": self.variant}
        split = load_split(self.dataset, self.split, source=self.source, data_dir=self.data_dir, **variant)
        build = builder(split, self.candidates, instructions=self.facets)
        draws = tuple(freeze(build, self.subset, draw=draw) for draw in range(self.draws))
        return Game(
            build.split,
            self.subset,
            draws,
            self.backbone,
            self.updates,
            self.user,
            afl_users=self.afl_users,
            data_dir=self.data_dir,
            instructions=self.facets,
            rules=self.rules,
            controls=self.controls and self.facets is not None,
            api=self._endpoint(),
        )

    @property
    def facets(self) -> FacetInstructions | None:
        """What draws the instructions; None in the paper's game."""
        if not self.instructions:
            return None
        return FacetInstructions(self.instructions, most=self.most_facets, noise=self.facet_noise)

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
            "candidates": [self.candidates],
            **self._conversation(),
            "source": [None if source == "custom" else source],
            "draws": [self.draws],
            "systems": systems,
            "seeds": self.seeds,
            "reference": [self.reference],
            "user": [None if self.user == FIXED_USER else self.user],
            "backbone": [self.backbone],
            "updates": [self.updates],
            "afl-users": [] if self.afl_users else [None],
            "api": [self.api],
            "out": [out],
        }
        words = [(f"--{name}", *map(str, values)) for name, values in options.items() if values != [None]]
        return shlex.join(["coars", "compare", *chain.from_iterable(words)])

    def _conversation(self) -> dict[str, Sequence[object]]:
        """The options of the game of conversations, those that are not as by default."""
        plain = Rules()
        options: dict[str, tuple[object, object]] = {
            "most-facets": (self.most_facets, FacetInstructions.most),
            "facet-noise": (self.facet_noise, FacetInstructions.noise),
            "repeats": (self.rules.repeats, plain.repeats),
            "answer": (self.rules.answer, plain.answer),
        }
        switches = {"questions": (self.rules.questions, plain.questions), "controls": (self.controls, True)}
        return {
            "instructions": self.instructions or [None],
            **{name: [value] for name, (value, default) in options.items() if value != default},
            **{name if on else f"no-{name}": [] for name, (on, default) in switches.items() if on != default},
        }


def main(argv: Sequence[str]) -> None:
    """`coars compare`."""
    config = tyro.cli(CompareConfig, prog="coars compare", args=list(argv))
    config.kinds()  # before the data are read
    compare(config, config.game(), console=Console())


def compare(config: CompareConfig, game: Game, *, console: Console) -> ScoreTable:
    """Play what is missing, then write table.csv, table.md and pictures, and print the table.

    Raises:
        ConfigError: a system or the partner cannot be played, see `CompareConfig.kinds`; or the folder holds cells that
            were made with other data, episodes, partner or code.
    """
    kinds = config.kinds()
    cells = [Cell.of(config.out, name, seed) for name in config.played for seed in dict.fromkeys(config.seeds)]
    for cell in cells:
        cell.refuse_other_settings(game.settings(kinds[cell.system].plays))
    _play(cells, game, config, console)
    table = score_table(config, cells)
    without_picture = _write(config, game, table, cells)
    table.show(console)
    pictures = f", {without_picture}" if without_picture else " and forest.png"
    console.print(f"table.csv, table.md{pictures} in {config.out}")
    return table


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
    scores = cell.scores()
    return f"Hit@1 {scores.metrics[scores.hit].mean():.3f}"


def score_table(config: CompareConfig, cells: Sequence[Cell]) -> ScoreTable:
    """Lay out the cells of a comparison, all of them played: one row a system."""
    systems = []
    for name in config.played:
        found = [(cell.finished(), cell.scores()) for cell in cells if cell.system == name]
        joined = Scores.joined(name, [scores for finished, scores in found if finished])
        systems.append(replace(joined, notes=tuple(note for _, scores in found for note in scores.notes)))
    return ScoreTable.of(systems, config.reference)


def control_scores(config: CompareConfig, cells: Sequence[Cell]) -> dict[str, dict[str, Scores]]:
    """Join the seeds of each system, "as it is" and with each of its controls; empty where none was played."""
    found: dict[str, dict[str, Scores]] = {}
    for name in config.played:
        played = [cell for cell in cells if cell.system == name and cell.finished()]
        controls = [cell.controls() for cell in played]
        if any(controls):
            found[name] = {AS_IT_IS: Scores.joined(name, [cell.scores() for cell in played])}
            found[name] |= {one: Scores.joined(one, [part[one] for part in controls]) for one in controls[0]}
    return found


def _write(config: CompareConfig, game: Game, table: ScoreTable, cells: Sequence[Cell]) -> str | None:
    """Write the files; returns why there is no picture, None if there is one."""
    dataset = game.split.dataset
    provenance = dataset.provenance
    made = [cell.record()["made"] for cell in cells if cell.finished()] or [environment_info()]
    commands = {
        name: config.command([name], provenance.source, Path("runs") / f"again-{plain(name)}") for name in config.played
    }
    title = f"{dataset.name}, {game.split.name}, {game.subset}, {config.candidates} candidates"
    (config.out / "table.csv").write_text(to_csv(table, commands), encoding="utf-8")
    conversations = control_scores(config, cells)
    pictures, missing = _draw(table, cells, conversations, config.out, title)
    libraries = sorted({f"{name} {number}" for one in made for name, number in one["versions"].items()})
    head = (
        f"{provenance.source.upper()} data {provenance.origin} ({provenance.sha256[:12]}), {len(game.episodes[0])} "
        f"users, {len(game.episodes)} candidate draws, seeds {', '.join(map(str, config.seeds))}; {date.today()}.",
        f"Command: `{config.command(config.systems, provenance.source, config.out)}`, commit {_all(made, 'commit')}, "
        f"{_all(made, 'machine')}, one thread, Python {_all(made, 'python')}, {', '.join(libraries)}.",
    )
    clicks = "a user who clicks what comes first, so that turn 1 is all there is"
    page = to_markdown(
        table,
        title=title,
        head=head,
        partner=clicks if config.user == FIXED_USER else f"the user of `{config.user}`",
        controls=conversations,
        pictures=pictures,
        commands=commands,
        digests=[f"{draw.name}: `{draw.sha256[:12]}`" for draw in game.episodes],
    )
    (config.out / "table.md").write_text(page, encoding="utf-8")
    return missing


def _draw(
    table: ScoreTable,
    cells: Sequence[Cell],
    conversations: Mapping[str, Mapping[str, Scores]],
    out: Path,
    title: str,
) -> tuple[list[str], str | None]:
    """Draw what there is to draw; returns the names of the files, and why there are none."""
    paths = {name: out / f"{name}.png" for name in ("forest", "cost", "curves", "hit_by_turn")}
    for path in paths.values():
        path.unlink(missing_ok=True)  # of an earlier call with other systems
    assert table.reference is not None
    try:
        draw_forest(table.rows, table.reference, paths["forest"], title=title)
        draw_cost(table.rows, paths["cost"], title=title)
        draw_curves(_curves(cells), paths["curves"], title=title)
        draw_hit_by_turn(conversations, paths["hit_by_turn"], title=title)
    except ModuleNotFoundError as error:
        return [], f'no picture, since {error.name} is not installed: pip install "coars-env[llm]"'
    return [path.name for path in paths.values() if path.exists()], None


def _curves(cells: Sequence[Cell]) -> dict[str, list[npt.NDArray[np.float64]]]:
    """Hit@1 of the first proposal by update, [K] for each seed, of the systems that keep it."""
    found: dict[str, list[npt.NDArray[np.float64]]] = {}
    for cell in cells:
        if cell.finished() and (curve := cell.record().get("learning_curve")):
            found.setdefault(cell.system, []).append(np.array(curve))
    return found


def _all(made: Sequence[dict[str, Any]], what: str) -> str:
    """Cells of several commits or machines may stand in one table."""
    return " and ".join(sorted({one[what] for one in made}))
