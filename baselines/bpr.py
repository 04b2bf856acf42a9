"""Bpr: matrix factorisation that learns to rank taken items above others; S. Rendle et al., UAI 2009, arXiv:1205.2618.

Maximises sum over users u, items i they took and items j they did not of ln sigma(x_ui - x_uj), less an L2 penalty,
with x_ui = w_u . v_i + b_i, by stochastic gradient. The trainer is that of the library implicit, at its own settings
(100 factors, rate and penalty .01, 100 passes), on one thread and from a seed, so that equal seeds give equal factors.
It draws j in proportion to how often an item was taken (the paper: uniformly), which keeps popularity small in b_i.

A dialogue shows a history and no user, and LLaRA's users are not in training at all. So w_u is folded in: the mean of
the v_i of the visible items, for users of the training part, too. This is ours. On LLaRA's validation users it does
better than maximising the criterion over w_u with v and b held fixed (docs/log.md).

Needs the extra `mf`. Plays as `coars_env.GreedyRecommender`. Reproduce its row by `coars compare --systems bpr`.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from baselines.system import Resources, System
from coars_env import RECOMMENDER, ConfigError, GreedyRecommender, Split

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Bpr(System):
    """A recommender of the items whose vectors lie in the direction of the history's."""

    plays = (RECOMMENDER,)

    def __init__(self, vectors: FloatArray, biases: FloatArray, num_users: int) -> None:
        super().__init__(GreedyRecommender(self._score, "It goes with all of what you took, taken together."))
        self.vectors = vectors  # [I, d]
        self.biases = biases  # [I]
        self.num_parameters = vectors.size + biases.size + num_users * vectors.shape[1]

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Train on the training part; seconds for 100,000 interactions.

        Raises:
            ConfigError: the extra `mf` is not installed.
        """
        try:
            from implicit.cpu.bpr import BayesianPersonalizedRanking
            from scipy.sparse import csr_matrix
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"The baseline bpr needs the extra mf. Expected {error.name}, found none. "
                'Install it: pip install "coars-env[mf]"'
            ) from error
        rows = np.repeat(np.arange(len(split.train)), [len(sequence.items) for sequence in split.train])
        items = np.concatenate([sequence.items for sequence in split.train])
        taken = csr_matrix((np.ones(len(rows), np.float32), (rows, items)), (len(split.train), split.dataset.num_items))
        model = BayesianPersonalizedRanking(num_threads=1, random_state=seed)
        model.fit(taken, show_progress=False)
        factors = model.item_factors.astype(np.float64)  # [I, d + 1], the bias in the last column
        return cls(factors[:, :-1], factors[:, -1], len(split.train))

    def scores(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        """w . v_i + b_i of every item, w the mean vector of the history; b_i alone without one. [M, I]"""
        users = np.zeros((len(histories), self.vectors.shape[1]))
        for user, history in zip(users, histories, strict=True):
            if len(history):
                user[:] = self.vectors[list(history)].mean(0)
        return np.asarray(users @ self.vectors.T + self.biases)

    def _score(self, history: IntArray, items: IntArray) -> FloatArray:
        return np.asarray(self.scores([history.tolist()])[0, items])
