"""SASRec as the agents use it: one for each split, kept in the user's cache folder."""

import dataclasses
import hashlib
from pathlib import Path

from platformdirs import user_cache_path

from agents.sequential.fit import fit
from agents.sequential.model import FORMAT, FitSettings, SequentialModel, fingerprint
from agents.sequential.sasrec import SasRecEncoder
from coars_env import Split


def sasrec_folder(split: Split, *, cache_dir: Path | None = None) -> Path:
    """Where the SASRec of a split lies once it is trained; named by the hash of all it is made from."""
    made_from = (FORMAT, SasRecEncoder.l2, dataclasses.asdict(FitSettings()), split.name, fingerprint(split))
    name = hashlib.sha256(repr((*made_from, split.dataset.provenance)).encode()).hexdigest()[:16]
    return (cache_dir or user_cache_path("coars") / "sasrec") / name


def load_sasrec(split: Split, *, cache_dir: Path | None = None) -> SequentialModel:
    """The SASRec of a split with default settings and seed 0: trained at the first call, minutes on one core."""
    folder = sasrec_folder(split, cache_dir=cache_dir)
    if not folder.exists():
        model = fit(split, SasRecEncoder)
        if not folder.exists():  # another process may have been quicker
            model.save(folder)
    return SequentialModel.load(folder, split, system=SasRecEncoder.name)
