"""environment_info: by what a result was made; part of every one that is written down."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("coars-env", "numpy", "torch", "transformers", "peft", "tokenizers", "gymnasium", "pettingzoo"),
    *("implicit", "scipy"),
)
"""Their versions are noted where they are installed."""


def environment_info() -> dict[str, Any]:
    """Commit, versions, machine and command."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {_cores()} cores",
        "command": " ".join([_program(), *sys.argv[1:]]),
        "versions": _versions(),
    }


def commit() -> str:
    """Commit of the source this runs from, "+changes" where it was edited; "installed" outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return f"installed, version {version('coars-env')}"
    said = [
        subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    return said[0] + ("+changes" if said[1] else "")


def _program() -> str:
    name = Path(sys.argv[0]).name
    return "coars" if name == "cli.py" else name


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
