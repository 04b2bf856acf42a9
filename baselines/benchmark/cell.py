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
from inspect import signature
from itertools import accumulate
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from baselines.system import load_baseline
from coars_env import (
    Agent,
    CoarsError,
    ConfigError,
    EpisodeSet,
    FixedUser,
    Split,
    UserTest,
    afl_user_test,
    builder,
    environment_info,
    evaluate,
    full_ranking,
    metric_values,
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
    updates: int = 60
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
    kind, made = load_baseline(cell.system), environment_info()
    code = _code(kind, {})  # as it is now, should somebody edit it meanwhile
    fitted, training = _fitted(cell, kind, game, code)
    recommender, user = players(fitted)
    before, began = _usage(recommender, user), time.perf_counter()
    (draws,) = runs = evaluate(recommender, user, game.episodes, seeds=(cell.seed,))
    seconds, usage = time.perf_counter() - began, _usage(recommender, user)
    for number, draw in enumerate(draws):
        write_transcripts(cell.folder / f"transcripts-d{number}.jsonl", draw)
    metrics = metric_values(runs)
    values = {name: metrics[name][0] for name in KEPT}  # [D, N]
    if user is not recommender and hasattr(fitted, "user"):
        values |= _asked(fitted, game, cell.seed)
    if hasattr(fitted, "scores"):
        values |= ranking_metrics(full_ranking(fitted, game.split, game.subset))
    _write(cell.folder / "values.json", {name: array.tolist() for name, array in values.items()}, indent=None)
    return {
        "cause": None,
        "settings": game.settings(),
        "code": _code(kind, code),
        "made": made,
        "parameters": getattr(fitted, "num_parameters", None),
        "training_seconds": training["seconds"],
        "memory_mb": max(training["memory_mb"], _peak_memory()),
        "failed_dialogues": int(metrics["failed"].sum()),
        "episodes": int(metrics["failed"].size),
        "episode_seconds": seconds,
        "episode_usage": {name: usage[name] - before[name] for name in usage},
        "learning_usage": asdict(fitted.learning) if hasattr(fitted, "learning") else {},
    }


def _asked(fitted: Any, game: Game, seed: int) -> dict[str, FloatArray]:
    """Counts of the user test at each ratio, [U, C], mean over draws."""
    simulations = []
    for test in game.user_tests():
        if hasattr(fitted, "play_first"):
            fitted.play_first(game.split, test, seed=seed)
        simulations.append(user_simulation(fitted.user, test, seed=seed))
    return {f"user {ratio}": simulation_counts([simulations], ratio)[0] for ratio in simulations[0].test.ratios}


def _usage(*agents: Agent) -> dict[str, float]:
    """What language models have been asked so far, summed over the agents that have one."""
    spent = [asdict(agent.usage) for agent in agents if hasattr(agent, "usage")]
    return {name: sum(one[name] for one in spent) for name in (spent[0] if spent else ())}


def players(fitted: Any) -> tuple[Agent, Agent]:
    """The recommender and the user of a system; one that is itself the recommender meets a user that clicks what comes
    first.
    """
    return (fitted.recommender, fitted.user) if hasattr(fitted, "user") else (fitted, FixedUser())


def _fitted(cell: Cell, kind: Any, game: Game, code: dict[str, str]) -> tuple[Any, dict[str, Any]]:
    """The system, and what its training cost; a trained one is loaded."""
    home = cell.folder / "trained"
    if home.exists():
        return kind.load(home / "model", game.split), _read(home / "training.json")
    began = time.process_time()
    fitted = kind.fit(game.split, seed=cell.seed, **_means(kind, game, cell.folder))
    training = {"seconds": time.process_time() - began, "memory_mb": _peak_memory()}
    if hasattr(fitted, "save"):
        with tempfile.TemporaryDirectory(dir=cell.folder, prefix=".trained.") as stage:
            fitted.save(Path(stage, "trained", "model"))
            note = {**training, "settings": game.settings(), "code": _code(kind, code)}
            _write(Path(stage, "trained", "training.json"), note)
            os.replace(Path(stage, "trained"), home)
    return fitted, training


def _means(kind: Any, game: Game, folder: Path) -> dict[str, Any]:
    """What the system's `fit` asks for of these: `model`, a language model to talk to; `store`, a path for what it
    remembers, from which it goes on; `backbone`, the name of a model to train, and `updates`.
    """
    asked, found = signature(kind.fit).parameters, dict[str, Any]()
    if "model" in asked and game.api is not None:
        from agents.models.api import ApiConfig, ApiModel

        cache = game.api.get("cache")
        found["model"] = ApiModel(ApiConfig(**{**game.api, "cache": cache and Path(cache)}))
    elif "model" in asked:
        from agents.models.backbones import load  # torch, for those who need it
        from agents.models.language_model import LocalModel

        found["model"] = LocalModel(load(game.backbone, game.split), game.backbone)
    if "store" in asked:
        found["store"] = folder / "memory.sqlite"
    return found | {name: getattr(game, name) for name in ("backbone", "updates") if name in asked}


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
