"""What holds for every test: one thread, no network, nothing written outside a temporary folder, the same examples."""

import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before anybody imports numpy or torch: two workers of one thread each beat two workers that fight for two cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

# Derandomised: a run must not fail by the draw of its examples. No deadline: workers share their cores with others.
hypothesis.settings.register_profile("coars", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("coars")

ROOT = Path(__file__).parents[1]
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "", None)
online = threading.Event()


def pretend_offline(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: looking a host up fails as it does without a network, so no test can come to need one."""
    if event == "socket.getaddrinfo" and not online.is_set() and arguments[0] not in LOCAL_HOSTS:
        raise socket.gaierror(socket.EAI_NONAME, f"tests run offline: {arguments[0]!r} was asked for")


sys.addaudithook(pretend_offline)


@pytest.fixture(autouse=True)
def _online_by_mark(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("network"):
        online.set()
    yield
    online.clear()


@pytest.fixture(autouse=True, scope="session")
def _own_cache() -> Iterator[None]:
    """Downloads and trained models go to a folder of this run, also in the subprocesses of a test."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "HF_HOME"):
            patch.setenv(variable, str(Path(folder, variable.lower())))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
