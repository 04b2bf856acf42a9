"""Sequential models: which item comes next after a history. Torch, small, trained in a minute on a CPU.

`fit(split, SasRecEncoder)` trains one; a `SequentialModel` scores the catalogue, has user vectors, ranks candidates as
a `coars_env.Scorer` and is kept in a folder.
"""

from agents.sequential.cache import load_sasrec, sasrec_folder
from agents.sequential.caser import CaserEncoder
from agents.sequential.fit import fit
from agents.sequential.gru4rec import Gru4RecEncoder
from agents.sequential.model import ENCODERS, FitSettings, SequentialModel
from agents.sequential.sasrec import SasRecEncoder

__all__ = [
    "ENCODERS",
    "CaserEncoder",
    "FitSettings",
    "Gru4RecEncoder",
    "SasRecEncoder",
    "SequentialModel",
    "fit",
    "load_sasrec",
    "sasrec_folder",
]
