"""PeersConfig: whose opinions the user hears and whose taste its reward compares with; `peers_of` makes them.

A trained sequential model, once there is one, stands between "svd" and "none": its name goes into `Source`, what makes
its peers into `_MAKERS`, and `settle` takes it where the user's cache holds one of the very split. Its function of
histories is an `Embed` that reads the last ten items, of training users too.
"""

from dataclasses import dataclass, replace
from typing import Literal

from coars_env import PeersOf, Split, SvdPeers, VectorPeers

Source = Literal["auto", "svd", "none"]


@dataclass(frozen=True, kw_only=True)
class PeersConfig:
    """Who counts as a peer."""

    source: Source = "auto"
    """Where the vectors of users come from: "svd" of the training matrix, "none" for a game without peers. "auto" takes
    the best there is and writes down what it took; at present that is "svd". The paper's are SASRec's."""
    opinions: bool = True
    """Whether the user's prompt tells what peers say. Without, they still count in its reward; see also alpha."""


def _nobody(split: Split) -> VectorPeers | None:
    return None


_MAKERS: dict[str, PeersOf] = {"svd": SvdPeers, "none": _nobody}


def settle(config: PeersConfig, split: Split) -> PeersConfig:
    """The same with a source that can be named: what "auto" stands for on this machine and split."""
    return replace(config, source="svd") if config.source == "auto" else config


def peers_of(config: PeersConfig, split: Split) -> PeersOf:
    """What `builder` takes as peers."""
    return _MAKERS[settle(config, split).source]
