"""Gru4RecEncoder: a recurrent network over the history; B. Hidasi et al., ICLR 2016, arXiv:1511.06939.

h_k = GRU(h_{k-1}, e(i_k)) with h_0 = 0; the user vector is the last of them.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.sequential.dropout import Dropout


class Gru4RecEncoder(nn.Module):
    """Histories [B, H] to user vectors [B, hidden]. One layer, as SQN (arXiv:2006.05779) runs it.

    Its code has no dropout; the one on the items is ours.
    """

    name: ClassVar[str] = "gru4rec"
    l2: ClassVar[float] = 1e-4

    def __init__(self, num_items: int, hidden: int, dropout: Dropout) -> None:
        super().__init__()
        self.padding = num_items
        self.items = nn.Embedding(num_items + 1, hidden, padding_idx=num_items)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.dropout = dropout
        self.items.weight.data.mul_(0.1)

    def forward(self, histories: Tensor) -> Tensor:
        """Padded on the left with the number of items. A row of padding only has the vector 0."""
        length = histories.ne(self.padding).sum(1, keepdim=True)  # [B, 1]
        # The recurrence starts with the oldest item: padding goes to the end, after the state that is read.
        places = torch.arange(histories.shape[1])
        turned = histories.gather(1, (places - length) % histories.shape[1])
        states, _ = self.gru(self.dropout(self.items(turned)))  # [B, H, d]
        last = states[torch.arange(len(states)), (length[:, 0] - 1).clamp(min=0)]
        vectors: Tensor = last * (length > 0)
        return vectors
