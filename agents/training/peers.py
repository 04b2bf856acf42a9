"""PeersConfig: whose opinions the user hears and whose taste its reward compares with; `peers_of` makes them."""

from dataclasses import dataclass, replace
from typing import Literal

from agents.sequential import load_sasrec, sasrec_folder
from coars_env import PeersOf, Split, SvdPeers, VectorPeers

Source = Literal["auto", "sasrec", "svd", "none"]
SASREC_EDGES = (0.4, 0.7)
"""`VectorPeers.level_edges` for vectors of SASRec, which lie closer together; ours. About a third of the three nearest
owners of uniform candidates of MovieLens 100K, LLaRA's split, fall into each level, as by `SvdPeers` with its own."""


@dataclass(frozen=True, kw_only=True)
class PeersConfig:
    """Who counts as a peer."""

    source: Source = "auto"
    """Where the vectors of users come from: "sasrec" trains one for the split, once, and keeps it in the user's cache
    (the paper's choice); "svd" of the training matrix; "none" for a game without peers. "auto" takes SASRec where the
    cache holds one of this very split, else "svd", and writes down which."""
    opinions: bool = True
    """Whether the user's prompt tells what peers say. Without, they still count in its reward; see also alpha."""


def settle(config: PeersConfig, split: Split) -> PeersConfig:
    """The same with a source that can be named: what "auto" stands for on this machine and split."""
    if config.source != "auto":
        return config
    return replace(config, source="sasrec" if sasrec_folder(split).exists() else "svd")


def peers_of(config: PeersConfig, split: Split) -> PeersOf:
    """What `builder` takes as peers."""
    return {"sasrec": sasrec_peers, "svd": SvdPeers, "none": _nobody}[settle(config, split).source]


def sasrec_peers(split: Split) -> VectorPeers:
    """Peers by the user vectors of the split's SASRec: its last state, of the last ten items, of training users too."""
    return VectorPeers(split, load_sasrec(split).user_vectors, level_edges=SASREC_EDGES)


def _nobody(split: Split) -> VectorPeers | None:
    return None
