"""A system of your own in one file: written, compared through the library, and by `coars compare`.

    python examples/own_system.py
    cd examples && coars compare --dataset synthetic --systems own_system:TitleWords --user own_system:TastefulUser

`TitleWords` recommends what shares most words and genres with the history. It is played beside item-kNN on the same
frozen episodes, opposite `TastefulUser`, which judges by a score and not by one answer for all. Both are a `System`:
`plays` names their sides, `fit` learns from the training part and returns an object with the agents.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from baselines import Resources, System
from baselines.item_knn import ItemKnn
from coars_env import (
    RECOMMENDER,
    USER,
    Benchmark,
    GreedyRecommender,
    Item,
    ScorerUser,
    ScoreTable,
    Split,
    SvdPeers,
    builder,
    load_split,
    sample_train_tasks,
    svd_scorer,
)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class TitleWords(System):
    """Recommends the candidate that shares most words and genres with the history."""

    plays = (RECOMMENDER,)

    def __init__(self, items: Sequence[Item]) -> None:
        super().__init__(GreedyRecommender(self._score, "It is much like what you took."))
        words = [{*item.title.lower().split(), *item.genres} for item in items]
        columns = {word: column for column, word in enumerate(sorted(set().union(*words)))}
        self._words = np.zeros((len(items), len(columns)))
        for row, own in zip(self._words, words, strict=True):
            row[[columns[word] for word in own]] = 1
        self._words /= np.linalg.norm(self._words, axis=1, keepdims=True)
        self.num_parameters = 0  # it learns nothing

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Read the titles; nothing is learnt."""
        return cls(split.dataset.items)

    def scores(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        """Similarity of each history with every item, [M, I]. With it `coars compare` has a full ranking, too."""
        return np.stack([self._words @ self._words[list(history)].sum(0) for history in histories])

    def _score(self, history: IntArray, items: IntArray) -> FloatArray:
        return np.asarray(self.scores([history.tolist()])[0, items])


class TastefulUser(System):
    """A user that reacts well to a tenth of the candidates, by the taste that an SVD finds in the history."""

    plays = (USER,)

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Find the threshold on training tasks."""
        tasks = sample_train_tasks(builder(split), 200, np.random.default_rng(seed), prefix="taste")
        return cls(user=ScorerUser.fit(svd_scorer(SvdPeers(split).directions), tasks, accept=0.1))


def main() -> None:
    split = load_split("synthetic", users=200, items=300, interactions=8000)
    benchmark = Benchmark.of(split, draws=2)
    user = TastefulUser.fit(split).agent(USER)
    systems: dict[str, type[System]] = {"item_knn": ItemKnn, "title words": TitleWords}
    played = [benchmark.play(name, kind.fit(split).agent(RECOMMENDER), user) for name, kind in systems.items()]
    print(ScoreTable.of([one.scores() for one in played], "item_knn").to_markdown())


if __name__ == "__main__":
    main()
