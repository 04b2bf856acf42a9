"""Cell: one system under one seed, and the folder in which it leaves what it did.

cell.json           written last: settings, cost, and the cause if it failed
scores.json         the figures of every user, see `coars_env.Scores`
controls.json       the same of each of the `coars_env.control_users`, in games with instructions
transcripts-dN.jsonl, log.txt
memory.sqlite       what a system with memory wrote while it learnt; see docs/memory.md
trained/            the model as soon as it is trained, for a `SavedSystem`; not trained again
user/               the same of the partner of a system that plays the recommender alone
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from itertools import accumulate
from pathlib import Path
from typing import Any

from coars_env import ConfigError, Cost, Scores, Transcript, read_transcripts, write_atomically

HOMES = ("trained", "user/trained")
"""Folders of saved systems: of the system itself, and of its partner."""
NO_MATTER = (
    "baselines.system",
    "baselines.benchmark.compare",
    "baselines.benchmark.page",
    "baselines.benchmark.plots",
    "coars_env.evaluation.score_table",
)
"""Modules that change nothing for a cell that is there: the list of systems, and what lays cells out."""


@dataclass(frozen=True)
class Cell:
    """A system under a seed, and the folder for what it leaves behind."""

    system: str
    seed: int
    folder: Path

    @classmethod
    def of(cls, out: Path, system: str, seed: int) -> "Cell":
        """The cell of a comparison that is written to `out`."""
        return cls(system, seed, out / "cells" / f"{plain(system)}-s{seed}")

    @property
    def name(self) -> str:
        return f"{self.system}, seed {self.seed}"

    def finished(self) -> bool:
        """Whether it was played to its end and did not fail."""
        return (self.folder / "cell.json").exists() and self.record()["cause"] is None

    def record(self) -> dict[str, Any]:
        """Read `cell.json` of a cell that was played; "cause" is None unless it failed."""
        return read_json(self.folder / "cell.json")

    def scores(self) -> Scores:
        """The figures of a cell that was played; none but a note if it failed."""
        record = self.record()
        if record["cause"] is not None:
            return Scores(name=self.system, notes=(f"seed {self.seed}: {record['cause']}",))
        found = Scores.from_dict(read_json(self.folder / "scores.json"))
        broke = record["failed_dialogues"]
        note = f"seed {self.seed}: {broke} dialogues broke and count as misses, see log.txt"
        return replace(found, cost=Cost(**record["cost"]), notes=(note,) if broke else ())

    def controls(self) -> dict[str, Scores]:
        """The figures of each control, by its name; none if it was not played with any."""
        path = self.folder / "controls.json"
        return {name: Scores.from_dict(body) for name, body in read_json(path).items()} if path.exists() else {}

    def transcripts(self) -> list[list[Transcript]]:
        """The dialogues of each draw; none if it was not played."""
        return [list(read_transcripts(path)) for path in sorted(self.folder.glob("transcripts-d*.jsonl"))]

    def refuse_other_settings(self, settings: dict[str, str]) -> None:
        """Refuse to join what was made otherwise. A failed cell is no result and will be played again.

        Raises:
            ConfigError: what is there, finished or trained, was made with other data, episodes, partner or code.
        """
        notes = [self.record()] if self.finished() else []
        notes += [read_json(path) for home in HOMES for path in self.folder.glob(f"{home}/training.json")]
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


def plain(system: str) -> str:
    """A name for files."""
    return system.replace(":", ".")


def code_digests(owners: Sequence[type], known: dict[str, str]) -> dict[str, str]:
    """Digest each module of this project, and of the packages of these classes, that this process has loaded.

    What is known already is not read again.
    """
    tops = {"agents", "baselines", "coars_env", *(owner.__module__.partition(".")[0] for owner in owners)}
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


def write_json(path: Path, body: dict[str, Any], *, indent: int | None = 1) -> None:
    """Write JSON, so that a reader sees all of it or none."""
    write_atomically(path, json.dumps(body, indent=indent) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body
