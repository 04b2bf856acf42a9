"""SasRecEncoder: self-attention over the history; W.-C. Kang and J. McAuley, ICDM 2018, arXiv:1808.09781.

One block of one head, as AFL (arXiv:2410.20027) and SQN (arXiv:2006.05779) run it:

    x_k = e(i_k) + p_k                                            items and places, Eq. 1
    s   = x_n + softmax(q K^T / sqrt(d)) V,   z = LN(x),  q = z_n W_Q,  K = z W_K,  V = z W_V          Eq. 2-4
    h   = s + W_2 relu(W_1 LN(s) + b_1) + b_2,    user vector = LN(h)                                  Eq. 5
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.sequential.dropout import Dropout
from coars_env import HISTORY_LENGTH


class SasRecEncoder(nn.Module):
    """Histories [B, H] to user vectors [B, hidden].

    Only the last place is asked for, and with one block nothing else is needed of the other places than their inputs:
    q K^T = (q W_K^T) z^T and softmax(...) V = (softmax(...) z) W_V, so that keys and values are never written down. The
    projections have no bias; the key's would cancel in the softmax. Places are counted from the end of the history.
    """

    name: ClassVar[str] = "sasrec"
    l2: ClassVar[float] = 1e-3

    def __init__(self, num_items: int, hidden: int, dropout: Dropout) -> None:
        super().__init__()
        self.padding = num_items
        self.items = nn.Embedding(num_items + 1, hidden, padding_idx=num_items)
        self.places = nn.Embedding(HISTORY_LENGTH, hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.before_attention, self.before_inner, self.last = (nn.LayerNorm(hidden) for _ in range(3))
        self.dropout = dropout
        self.items.weight.data.mul_(0.1)
        self.places.weight.data.mul_(0.1)

    def forward(self, histories: Tensor) -> Tensor:
        """Padded on the left with the number of items. A row of padding only has the vector 0."""
        padding = histories.eq(self.padding)  # [B, H]
        x = self.dropout(self.items(histories) + self.places.weight[-histories.shape[1] :])  # [B, H, d]
        z = self.before_attention(x)
        query = self.query(z[:, -1]) @ self.key.weight  # [B, d]
        match = (z @ query[:, :, None])[:, :, 0] / query.shape[1] ** 0.5  # [B, H]
        weights = torch.softmax(match.masked_fill(padding, torch.finfo(match.dtype).min), -1)
        seen = (self.dropout(weights)[:, None] @ z)[:, 0]  # [B, d]
        s = x[:, -1] + self.dropout(self.value(seen))
        h = s + self.dropout(self.outer(self.dropout(torch.relu(self.inner(self.before_inner(s))))))
        vectors: Tensor = self.last(h) * ~padding[:, -1:]
        return vectors
