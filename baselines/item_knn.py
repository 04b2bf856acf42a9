"""ItemKnn: the candidate most often taken together with the visible history. The strongest untrained reference.

Item-based collaborative filtering by the cosine of co-occurrence, summed over the history (B. Sarwar et al., WWW
2001, doi:10.1145/371920.372071): score(c) = sum over h in the history of |U_c and U_h| / sqrt(|U_c| |U_h|), where U_i
are the training users who took item i. All neighbours count; there is no k.

Turn t proposes the best candidate which the user has not rejected (dislike or skip). A starred proposal is not
rejected, so it is made again. Reproduce its row by `python -m baselines.item_knn`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from coars_env import Action, FixedUser, Item, Observation, Split, builder, evaluate, freeze, load_split, summarize


class ItemKnn:
    """A recommender that knows which items were taken together in training."""

    def __init__(self, owners: npt.NDArray[np.bool_], items: Sequence[Item], *, last: int = 10) -> None:
        self._owners = owners  # [I, U] whether user u took item i
        self._norms = np.sqrt(np.maximum(owners.sum(1), 1))  # [I]
        self._items = items
        self._last = last

    @classmethod
    def fit(cls, split: Split, *, last: int = 10) -> "ItemKnn":
        """Note who took what in the training part.

        Args:
            split: only its training part is read.
            last: how many of the latest items of the visible history count; at most 10 are visible.
        """
        owners = np.zeros((split.dataset.num_items, len(split.train)), dtype=np.bool_)
        for user, sequence in enumerate(split.train):
            owners[list(sequence.items), user] = True
        return cls(owners, split.dataset.items, last=last)

    def similarity(self, items: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Cosine of co-occurrence in [0, 1], shape [items, others]; 0 for items never taken in training."""
        together = self._owners[items].astype(np.float64) @ self._owners[others].T.astype(np.float64)
        return together / np.outer(self._norms[items], self._norms[others])

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._plans: dict[int, tuple[list[int], list[str]]] = {}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._propose(n, observation) for n, observation in observations.items()}

    def _propose(self, n: int, observation: Observation) -> Action:
        candidates = observation["candidates"]
        if n not in self._plans:
            self._plans[n] = self._plan(n, observation["history"], candidates)
        answers = zip(observation["proposals"].tolist(), observation["actions"].tolist(), strict=True)
        rejected = {item for item, action in answers if action in (0, 1)}  # dislike, skip
        order, reasons = self._plans[n]
        position = next((p for p in order if int(candidates[p]) not in rejected), order[0])
        return {"item": position, "message": reasons[position]}

    def _plan(
        self, n: int, history: npt.NDArray[np.int64], candidates: npt.NDArray[np.int64]
    ) -> tuple[list[int], list[str]]:
        """Positions from best to worst, and the reason for each position."""
        shown = history[history >= 0][-self._last :]
        ties = self._rngs[n].permutation(len(candidates))
        if not len(shown):
            return ties.tolist(), ["A first guess."] * len(candidates)
        similarity = self.similarity(shown, candidates)  # [H, K]
        order = np.lexsort((ties, -similarity.sum(0))).tolist()
        closest = [self._items[int(shown[h])].title for h in similarity.argmax(0)]
        reasons = [
            f"Often taken together with {title}." if best > 0 else "Nothing here goes with what you took; a guess."
            for title, best in zip(closest, similarity.max(0), strict=True)
        ]
        return order, reasons


def main() -> None:
    """Print the row of docs/baselines.md: ml-100k, leave-last, uniform candidates, 5 draws."""
    split = load_split("movielens", "leave_last")
    draws = [freeze(builder(split), "test", rule="uniform", draw=draw) for draw in range(5)]
    print(summarize("item_knn", evaluate(ItemKnn.fit(split), FixedUser(), draws)).to_markdown())


if __name__ == "__main__":
    main()
