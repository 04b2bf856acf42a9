"""Playing: a cell that is fitted and played in a process of its own."""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from baselines.benchmark.cell import Cell, code_digests, read_json, write_json
from baselines.benchmark.game import Game
from baselines.system import Metered, SavedSystem, System, load_system, load_user
from coars_env import (
    RECOMMENDER,
    USER,
    Agent,
    Benchmark,
    CoarsError,
    ConfigError,
    Cost,
    GreedyRecommender,
    Ranker,
    Scores,
    atomic_path,
    environment_info,
    full_ranking,
    popularity_scorer,
    ranking_metrics,
    write_transcripts,
)

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
KEPT = (
    *("hit_final", "hit_best", "hit_first", "hit_first_proposal", "turns", "reward_recommender", "reward_user"),
    *("questions", "revealed", "true_reveals", "repeats_rejected"),
)
"""Metrics of the dialogues that a cell keeps."""


class Playing:
    """A cell that a process of its own plays, with one thread; its outcome is in `cell.json`."""

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
            write_json(self.cell.folder / "cell.json", note)

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
    write_json(cell.folder / "cell.json", {"system": cell.system, "seed": cell.seed, **body})


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # there is no comparison left to play for


def _play(cell: Cell, game: Game) -> dict[str, Any]:
    """Fit or load, play, rank, and write all but the record, which is returned."""
    kind, made = load_system(cell.system), environment_info()
    partner = load_user(game.user) if USER not in kind.plays else None
    owners = [owner for owner in (kind, partner) if owner is not None]
    code = code_digests(owners, {})  # as it is now, should it be edited meanwhile
    settings = game.settings(kind.plays)

    def fitted(which: type[System], folder: Path) -> tuple[System, dict[str, Any]]:
        return _fitted(which, cell.seed, game, folder, {"settings": settings, "code": code_digests(owners, code)})

    system, training = fitted(kind, cell.folder)
    other = None if partner is None else fitted(partner, cell.folder / "user")[0]
    recommender, user = players(system, other, game)
    before, began = spent((recommender, user)), time.perf_counter()
    benchmark = Benchmark(game.episodes, rules=game.rules)
    played = benchmark.play(cell.system, recommender, user, seed=cell.seed)
    seconds, usage = time.perf_counter() - began, spent((recommender, user))
    for number, draw in enumerate(played.runs[0]):
        write_transcripts(cell.folder / f"transcripts-d{number}.jsonl", draw)
    if USER in kind.plays:
        answers = Benchmark((), game.user_tests()).ask(
            user,
            seed=cell.seed,
            prepare=lambda test: system.prepare_user_test(game.split, test, seed=cell.seed),
        )
        played = replace(played, simulations=[answers])
    scores = played.scores()
    failed = scores.metrics["failed"]
    ranking = ranking_metrics(full_ranking(system, game.split, game.subset)) if isinstance(system, Ranker) else {}
    kept = replace(_kept(scores), ranking={name: values[None] for name, values in ranking.items()})
    write_json(cell.folder / "scores.json", kept.to_dict(), indent=None)
    if game.controls:
        others = benchmark.play_controls(recommender, user, seed=cell.seed)
        figures = {name: _kept(one.scores()).to_dict() for name, one in others.items()}
        write_json(cell.folder / "controls.json", figures, indent=None)
    cost = Cost(
        parameters=system.num_parameters,
        training_seconds=training["seconds"],
        memory_mb=max(training["memory_mb"], _peak_memory()),
        episodes=int(failed.size),
        episode_seconds=seconds,
        usage={name: usage[name] - before[name] for name in usage},
        learning={} if system.learning is None else asdict(system.learning),
    )
    return {
        "cause": None,
        "settings": settings,
        "code": code_digests(owners, code),
        "made": made,
        "cost": asdict(cost),
        "failed_dialogues": int(failed.sum()),
        "learning_curve": list(system.learning_curve),
    }


def _kept(scores: Scores) -> Scores:
    return scores.kept((*KEPT, *scores.by_turn()))


def spent(agents: Iterable[Agent]) -> dict[str, float]:
    """What language models have been asked so far, summed over the agents that count it; empty if none does."""
    counted = [asdict(agent.usage) for agent in agents if isinstance(agent, Metered)]
    return {name: sum(one[name] for one in counted) for name in (counted[0] if counted else ())}


def players(system: System, partner: System | None, game: Game) -> tuple[Agent, Agent]:
    """Return the recommender and the user that play.

    Args:
        system: plays one side or both.
        partner: plays the user if the system does not.
        game: of its split the most popular candidate is proposed if the system does not play the recommender.

    Raises:
        ConfigError: a system lacks the agent of a side that it plays.
    """
    user = (system if partner is None else partner).agent(USER)
    if RECOMMENDER not in system.plays:
        return GreedyRecommender(popularity_scorer(game.split)), user
    return system.agent(RECOMMENDER), user


def _fitted(
    kind: type[System], seed: int, game: Game, folder: Path, note: dict[str, Any]
) -> tuple[System, dict[str, Any]]:
    """Fit a system that keeps its files in a folder, or load the one that is saved there; and what training cost."""
    home = folder / "trained"
    if home.exists() and issubclass(kind, SavedSystem):
        return kind.load(home / "model", game.split), read_json(home / "training.json")
    began = time.process_time()
    fitted = kind.fit(game.split, seed=seed, resources=game.resources(folder))
    if not isinstance(fitted, System):
        raise ConfigError(f"{kind.__name__}.fit returned {fitted!r:.100}. It must return a {kind.__name__}.")
    training = {"seconds": time.process_time() - began, "memory_mb": _peak_memory()}
    if isinstance(fitted, SavedSystem):
        with atomic_path(home) as part:
            fitted.save(part / "model")
            write_json(part / "training.json", {**training, **note})
    return fitted, training


def _peak_memory() -> float:
    """Highest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage counts the process that started this one, too
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
