"""Cell: one system under one seed, fitted and played in a process of its own; `baselines.benchmark.compare` has many
of them.

A cell's folder holds what it left behind:

    cell.json           written last: settings, cost, and the cause if it failed
    values.json         per user: Hit@1 of every draw, full-ranking figures, and counts of the test of its user
    transcripts-dN.jsonl, log.txt
    memory.sqlite       what a system with memory wrote while it learnt; see docs/memory.md
    trained/            the model as soon as it is trained, for systems with `save`; gone through once, never again
"""

import hashlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import PathFinder
from itertools import accumulate
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from baselines.system import UPDATES, Metered, Resources, SavedSystem, System, load_system
from coars_env import (
    RECOMMENDER,
    USER,
    Agent,
    CoarsError,
    ConfigError,
    EpisodeSet,
    FixedUser,
    GreedyRecommender,
    Ranker,
    Split,
    UserTest,
    afl_user_test,
    builder,
    environment_info,
    evaluate,
    full_ranking,
    metric_values,
    popularity_scorer,
    ranking_metrics,
    simulation_counts,
    user_simulation,
    user_test,
    write_transcripts,
)

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FloatArray = npt.NDArray[np.float64]
NO_MATTER = ("baselines.system", "baselines.benchmark.compare", "baselines.benchmark.tables")
"""Modules that change nothing for a cell that is there: the list of systems, and what lays cells out."""
KEPT = ("hit_final", "hit_first", "turns", "reward_recommender", "reward_user")
"""Metrics of the dialogues that a cell keeps."""


@dataclass(frozen=True, eq=False)
class Game:
    """What everybody learns from and plays."""

    split: Split
    subset: Literal["validation", "test"]
    """The part that is played."""
    episodes: tuple[EpisodeSet, ...]
    """Its frozen tasks, one set for each candidate draw."""
    backbone: str = "pocket"
    """Language model of the systems that have one, see `agents.models.backbones.load`."""
    updates: int = UPDATES
    """Of the systems that train one."""
    afl_users: bool = False
    """Whether users are tested by AFL's own 60 of LastFM; `data_dir` is where they lie."""
    data_dir: Path | None = None
    api: dict[str, Any] | None = None
    """Settings of an `agents.models.api.ApiConfig`: systems that only talk then talk to that model."""

    def user_tests(self) -> list[UserTest]:
        """AFL's test of user agents, a draw for each of the episodes. The same peers speak; none to AFL's own users."""
        if self.afl_users:
            return [afl_user_test(self.split, data_dir=self.data_dir, draw=n) for n in range(len(self.episodes))]
        peers = builder(self.split).peers
        return [user_test(self.split, self.subset, draw=draw, peers=peers) for draw in range(len(self.episodes))]

    def resources(self, folder: Path) -> Resources:
        """What a system may use that keeps its files in that folder."""
        return Resources(backbone=self.backbone, updates=self.updates, folder=folder, api=self.api)

    def settings(self) -> dict[str, str]:
        """What must be equal for two cells to be compared: data, language model and budget, and every draw, with
        digests cut short.
        """
        provenance = self.split.dataset.provenance
        talks = self.backbone if self.api is None else f"{self.api['model']} at {self.api['url']}"
        return {
            "language model": f"{talks}; trained: {self.backbone}, {self.updates} updates",
            "dataset": f"{provenance.source} data {provenance.origin} ({provenance.sha256[:12]})",
            "episodes": ", ".join(f"{draw.name} ({draw.sha256[:12]})" for draw in self.episodes),
        }


@dataclass(frozen=True)
class Cell:
    """A system under a seed, and the folder for what it leaves behind."""

    system: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.system}, seed {self.seed}"

    def finished(self) -> bool:
        """Whether it was played to its end and did not fail."""
        return (self.folder / "cell.json").exists() and self.record()["cause"] is None

    def record(self) -> dict[str, Any]:
        """What `cell.json` says of a cell that was played; "cause" is None unless it failed."""
        return _read(self.folder / "cell.json")

    def values(self) -> dict[str, FloatArray]:
        """Of a finished cell: "hit_final" [D, N], and [N] each of `ranking_metrics` if it ranks all items."""
        found = _read(self.folder / "values.json")
        return {name: np.array(values, dtype=np.float64) for name, values in found.items()}

    def refuse_other_settings(self, settings: dict[str, str]) -> None:
        """Nothing is redone or joined that was made otherwise. A failed cell is no result and will be played again.

        Raises:
            ConfigError: what lies there, finished or trained, was made with other data, episodes or code.
        """
        notes = [self.record()] if self.finished() else []
        notes += [_read(path) for path in self.folder.glob("trained/training.json")]
        for made in notes:
            pairs = [(wanted, made["settings"].get(what, "nothing of it")) for what, wanted in settings.items()]
            changed = [name for name, digest in made["code"].items() if _digest(name) != digest]
            if changed:
                pairs.append(("the code as it is now", f"other code of {', '.join(changed[:3])}"))
            for wanted, found in pairs:
                if wanted != found:
                    raise ConfigError(
                        f"What is compared must be made alike. Expected {wanted} in {self.folder}, found {found}. "
                        "Choose another --out, or remove that folder to have the cell made again."
                    )


class Playing:
    """A cell that a process of its own plays, with one thread; what becomes of it stands in `cell.json`."""

    def __init__(self, cell: Cell, game: Game) -> None:
        cell.folder.mkdir(parents=True, exist_ok=True)
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # of the processes to come
        self.cell, self._began = cell, time.perf_counter()
        self._process = get_context("spawn").Process(target=_work, args=(cell, game))
        self._process.start()
        self.sentinel = self._process.sentinel
        """Ready as soon as the process has ended, see `multiprocessing.connection.wait`."""

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._began

    def state(self) -> str:
        """The last line of what it printed."""
        log = self.cell.folder / "log.txt"
        lines = log.read_bytes()[-2000:].decode(errors="replace").split("\n") if log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def finish(self) -> None:
        """After the process has ended: note it if something ended it."""
        self._process.join()
        code = self._process.exitcode or 0
        if code:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}, see log.txt"
            note = {"system": self.cell.system, "seed": self.cell.seed, "cause": f"The process: {how}."}
            _write(self.cell.folder / "cell.json", note)

    def stop(self) -> None:
        """End the process, wherever it is."""
        self._process.kill()
        self._process.join()


def _work(cell: Cell, game: Game) -> None:
    """What the process does, as long as the one that started it lives."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(cell.folder / "log.txt", "ab", buffering=0) as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    logging.basicConfig()  # into that file
    logging.getLogger("coars_env").setLevel(logging.INFO)
    try:
        body = _play(cell, game)
    except Exception as error:
        traceback.print_exc()
        body = {"cause": str(error) if isinstance(error, CoarsError) else f"{type(error).__name__}: {error}"}
    _write(cell.folder / "cell.json", {"system": cell.system, "seed": cell.seed, **body})


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # nobody is left to be told


def _play(cell: Cell, game: Game) -> dict[str, Any]:
    """Fit or load, play, rank, and write all but the record, which is returned."""
    kind, made = load_system(cell.system), environment_info()
    code = _code(kind, {})  # as it is now, should somebody edit it meanwhile
    fitted, training = _fitted(cell, kind, game, code)
    recommender, user = players(fitted, game.split)
    before, began = _usage(recommender, user), time.perf_counter()
    (draws,) = runs = evaluate(recommender, user, game.episodes, seeds=(cell.seed,))
    seconds, usage = time.perf_counter() - began, _usage(recommender, user)
    for number, draw in enumerate(draws):
        write_transcripts(cell.folder / f"transcripts-d{number}.jsonl", draw)
    metrics = metric_values(runs)
    values = {name: metrics[name][0] for name in KEPT}  # [D, N]
    if USER in kind.plays:
        values |= _asked(fitted, user, game, cell.seed)
    if isinstance(fitted, Ranker):
        values |= ranking_metrics(full_ranking(fitted, game.split, game.subset))
    _write(cell.folder / "values.json", {name: array.tolist() for name, array in values.items()}, indent=None)
    return {
        "cause": None,
        "settings": game.settings(),
        "code": _code(kind, code),
        "made": made,
        "parameters": fitted.num_parameters,
        "training_seconds": training["seconds"],
        "memory_mb": max(training["memory_mb"], _peak_memory()),
        "failed_dialogues": int(metrics["failed"].sum()),
        "episodes": int(metrics["failed"].size),
        "episode_seconds": seconds,
        "episode_usage": {name: usage[name] - before[name] for name in usage},
        "learning_usage": {} if fitted.learning is None else asdict(fitted.learning),
        "learning_curve": list(fitted.learning_curve),
    }


def _asked(fitted: System, user: Agent, game: Game, seed: int) -> dict[str, FloatArray]:
    """Counts of the user test at each ratio, [U, C], mean over draws."""
    simulations = []
    for test in game.user_tests():
        fitted.prepare_user_test(game.split, test, seed=seed)
        simulations.append(user_simulation(user, test, seed=seed))
    return {f"user {ratio}": simulation_counts([simulations], ratio)[0] for ratio in simulations[0].test.ratios}


def _usage(*agents: Agent) -> dict[str, float]:
    """What language models have been asked so far, summed over the agents that count it; empty if none does."""
    spent = [asdict(agent.usage) for agent in agents if isinstance(agent, Metered)]
    return {name: sum(one[name] for one in spent) for name in (spent[0] if spent else ())}


def players(fitted: System, split: Split) -> tuple[Agent, Agent]:
    """Return the recommender and the user of a system, with a scripted agent for a side that it does not play.

    Raises:
        ConfigError: it lacks the agent of a side that it says it plays.
    """
    found = {RECOMMENDER: fitted.recommender, USER: fitted.user}
    for role in fitted.plays:
        if not isinstance(found[role], Agent):
            raise ConfigError(
                f"{type(fitted).__name__} plays {role}, but its fit returned {found[role]!r:.100} there instead of an "
                "agent. Pass the agent to System.__init__, or correct `plays`."
            )
    recommender = fitted.recommender if RECOMMENDER in fitted.plays else None
    user = fitted.user if USER in fitted.plays else None
    return recommender or GreedyRecommender(popularity_scorer(split)), user or FixedUser()


def _fitted(cell: Cell, kind: type[System], game: Game, code: dict[str, str]) -> tuple[System, dict[str, Any]]:
    """Fit the system, or load one that was saved; and what its training cost."""
    home = cell.folder / "trained"
    if home.exists() and issubclass(kind, SavedSystem):
        return kind.load(home / "model", game.split), _read(home / "training.json")
    began = time.process_time()
    fitted = kind.fit(game.split, seed=cell.seed, resources=game.resources(cell.folder))
    training = {"seconds": time.process_time() - began, "memory_mb": _peak_memory()}
    if isinstance(fitted, SavedSystem):
        with tempfile.TemporaryDirectory(dir=cell.folder, prefix=".trained.") as stage:
            fitted.save(Path(stage, "trained", "model"))
            note = {**training, "settings": game.settings(), "code": _code(kind, code)}
            _write(Path(stage, "trained", "training.json"), note)
            os.replace(Path(stage, "trained"), home)
    return fitted, training


def _peak_memory() -> float:
    """Highest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; getrusage tells there of the process that started this one, too
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _code(kind: type, known: dict[str, str]) -> dict[str, str]:
    """Digest of each module of this project, and of the system's own package, that this process has loaded.

    What is known already is not read again.
    """
    tops = {"agents", "baselines", "coars_env", kind.__module__.partition(".")[0]}
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] in tops)
    return {name: known.get(name) or _digest(name) for name in loaded if name not in NO_MATTER}


def _digest(module: str) -> str:
    """Of its source, which is not run; "missing" if there is none."""
    path: Sequence[str] | None = None
    spec = None
    for parent in accumulate(module.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(parent, path)
        path = spec.submodule_search_locations if spec else []
    if spec is None or spec.origin is None:
        return "missing"
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:12]


def _write(path: Path, body: dict[str, Any], *, indent: int | None = 1) -> None:
    """JSON, so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.part")
    whole.write_text(json.dumps(body, indent=indent) + "\n", encoding="utf-8")
    os.replace(whole, path)


def _read(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body
