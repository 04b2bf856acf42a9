"""ColumnCache: the keys and values of all dialogues of a side, carried over their turns.

A token's keys and values are in the column of its position, so rows of unequal length leave no holes: a query at
position p sees the columns up to p.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class ColumnCache(Cache):
    """Keys and values by position. Set `rows`, `columns` and `limit` before a forward pass, then pass it as the cache.

    Tokens that only pad a row go to the last column, which nothing may see.
    """

    def __init__(self, num_layers: int, num_rows: int) -> None:
        super().__init__(layers=[])
        self.num_rows = num_rows
        self.capacity = 0
        self.rows: Tensor | None = None  # [b] rows that take part in the pass, or None for all
        self.columns = torch.empty(0)  # [b, n] where each token goes
        self.limit = 0
        self._store: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def reserve(self, length: int) -> None:
        """Make room for columns 0..length-1 and the one for padding."""
        if length + 1 <= self.capacity:
            return
        wanted = max(length + 1, self.capacity + self.capacity // 2)
        for layer, pair in enumerate(self._store):
            if pair is not None:
                more = pair[0].new_zeros(*pair[0].shape[:2], wanted - self.capacity, pair[0].shape[3])
                keys, values = (torch.cat((store, more), 2) for store in pair)
                self._store[layer] = (keys, values)
        self.capacity = wanted

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """[b, H, n, D] twice -> [b, H, limit, D] twice."""
        pair = self._store[layer_idx]
        if pair is None:
            shape = (self.num_rows, key_states.shape[1], self.capacity, key_states.shape[3])
            pair = self._store[layer_idx] = (key_states.new_zeros(shape), value_states.new_zeros(shape))
        if self.rows is None:
            index = self.columns[:, None, :, None].expand_as(key_states)
            for store, new in zip(pair, (key_states, value_states), strict=True):
                store.scatter_(2, index, new)
            return pair[0][:, :, : self.limit], pair[1][:, :, : self.limit]
        for store, new in zip(pair, (key_states, value_states), strict=True):
            store[self.rows[:, None], :, self.columns] = new.transpose(1, 2)
        return pair[0][self.rows, :, : self.limit], pair[1][self.rows, :, : self.limit]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def keep(self, rows: Sequence[int | None]) -> None:
        """Forget all rows but these; None stands for a new one, to be read from position 0 on."""
        kept = [row or 0 for row in rows]  # what a new row copies is written over before it can be seen
        for layer, pair in enumerate(self._store):
            if pair is not None:
                index = torch.tensor(kept, device=pair[0].device)
                self._store[layer] = (pair[0][index], pair[1][index])
        self.num_rows = len(rows)
