"""CaserEncoder: convolutions over the history as an image; J. Tang and K. Wang, WSDM 2018, arXiv:1809.07426.

The last L items are a matrix E [L, d]. A horizontal filter of height h spans h neighbouring rows, a vertical one a
column:

    o_f  = max over k of relu(F_f . E[k : k + h] + b_f)       16 filters for each h of 2, 3, 4           Eq. 3-5
    v    = sum over l of a_l E[l]                             one vertical filter                        Eq. 6-7
    user vector = relu(W [o, v] + b)                                                                     Eq. 9

The paper's vector of the user stands beside it there; here, as in SQN (arXiv:2006.05779), there is none, so that users
unseen in training have one too.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.sequential.dropout import Dropout
from coars_env import HISTORY_LENGTH

FILTERS = 16
HEIGHTS = (2, 3, 4)


class CaserEncoder(nn.Module):
    """Histories [B, H] to user vectors [B, hidden].

    A horizontal filter looks only at rows that are all items of the history; in a shorter history it finds 0 (ours:
    padding has no influence). Places of the vertical filter are counted from the end of the history.
    """

    name: ClassVar[str] = "caser"
    l2: ClassVar[float] = 1e-4

    def __init__(self, num_items: int, hidden: int, dropout: Dropout) -> None:
        super().__init__()
        self.padding = num_items
        self.items = nn.Embedding(num_items + 1, hidden, padding_idx=num_items)
        self.horizontal = nn.Linear(hidden, sum(HEIGHTS) * FILTERS, bias=False)
        self.bias = nn.Parameter(torch.zeros(len(HEIGHTS), FILTERS))
        self.vertical = nn.Linear(HISTORY_LENGTH, 1, bias=False)
        self.out = nn.Linear(len(HEIGHTS) * FILTERS + hidden, hidden)
        self.dropout = dropout
        self.items.weight.data.mul_(0.1)

    def forward(self, histories: Tensor) -> Tensor:
        """Padded on the left with the number of items. A row of padding only has the vector 0."""
        width = histories.shape[1]
        padding = histories.eq(self.padding)  # [B, H]
        rows = self.items(histories)  # [B, H, d]
        products = iter(self.horizontal(rows).split(FILTERS, 2))  # [B, H, filters] of each row of each filter
        found = []
        for height, bias in zip(HEIGHTS, self.bias, strict=True):
            span, own = width - height + 1, [next(products) for _ in range(height)]
            if span > 0:
                windows = torch.relu(sum(own[k][:, k : k + span] for k in range(height)) + bias)  # [B, span, filters]
                found.append((windows * ~padding[:, :span, None]).amax(1))
            else:
                found.append(rows.new_zeros(len(rows), FILTERS))
        column = (self.vertical.weight[:, -width:] @ rows)[:, 0]  # [B, d]; rows of padding are 0
        vectors: Tensor = torch.relu(self.out(self.dropout(torch.cat([*found, column], 1)))) * ~padding[:, -1:]
        return vectors
