"""SasRec: self-attention over the last ten items; W.-C. Kang and J. McAuley, ICDM 2018, arXiv:1808.09781.

The model, with its equations, is `agents.sequential.sasrec`; a linear head scores every item, score(i) = w_i . h + b_i,
and is trained by cross-entropy over the catalogue (`agents.sequential.fit`; the paper takes binary cross-entropy with
one negative a place). Settings are AFL's (arXiv:2410.20027): width 64, one block of one head, dropout .1, Adam at 1e-3,
batches of 256, L2 from 1e-3 to 1e-7.

Published Hit@1, 20 candidates by LLaRA's rule (AFL, Table 4): MovieLens .4105, LastFM .2869; 95 and 122 users, so that
one standard error is .05 and .04. Two traps: AFL's LastFM is sorted by artist id in every user, which a model may learn
there and cannot here, where it is shuffled; and Hit@1 over lists of 20 is not to be compared with Hit@1 over the
catalogue.

Plays as `coars_env.GreedyRecommender`. Reproduce its row by
`coars compare --split llara --candidates llara --systems sasrec`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from agents.sequential import SasRecEncoder, SequentialModel, fit
from baselines.system import Resources, SavedSystem
from coars_env import RECOMMENDER, GreedyRecommender, Split


class SasRec(SavedSystem):
    """A recommender that proposes the likeliest next item."""

    plays = (RECOMMENDER,)

    def __init__(self, model: SequentialModel) -> None:
        super().__init__(GreedyRecommender(model.scorer, "Those with a history like yours took this next."))
        self.model = model
        self.num_parameters = model.num_parameters

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Train on the training part, see `agents.sequential.fit.fit`; minutes on one core for 100,000 interactions."""
        return cls(fit(split, SasRecEncoder, seed=seed))

    def scores(self, histories: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Logits of the whole catalogue, [M, I], higher is better."""
        return self.model.scores(histories)

    def save(self, folder: Path) -> None:
        """Weights and card; see `SequentialModel.save`."""
        self.model.save(folder)

    @classmethod
    def load(cls, folder: Path, split: Split) -> Self:
        """A saved one, for the split it was trained on; see `SequentialModel.load`."""
        return cls(SequentialModel.load(folder, split, system=SasRecEncoder.name))
