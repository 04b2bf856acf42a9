"""A network for the numeric views, shared by the examples of plugging in an algorithm. Needs torch.

A plain network with a weight for each entry has to learn anew, for each of the 20 places of the list, what makes a
candidate good. This one scores all candidates by the same small network, and the user's acts by another.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from coars_env import Encoder, NumericAgent


class CandidateNet(nn.Module):
    """[..., L] -> [..., n]: a vector of either side, see `Encoder`, to one number for each of that side's acts.

    Where a description and the mean of the history are at hand, their product goes in as well: tastes that agree.
    """

    def __init__(self, encoder: Encoder, *, hidden: int = 32) -> None:
        super().__init__()
        self.candidates, self.described, self.acts = encoder.num_candidates, encoder.described, encoder.acts.n
        self.dynamic = encoder.static_size  # where the dynamic part begins
        width = 2 * self.described - 1
        self.score = nn.Sequential(nn.Linear(width + 1, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.answer = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 20))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        k, d, start = self.candidates, self.described, self.dynamic
        summary = vectors[..., : d - 1]
        listed = vectors[..., d - 1 : start].unflatten(-1, (k, d))
        proposed = vectors[..., start + 3 : start + 3 + k].unsqueeze(-1)
        latest = vectors[..., start + 3 + k : start + 3 + k + d]
        match = listed[..., :-1] * summary.unsqueeze(-2)
        scores = self.score(torch.cat([listed, match, proposed], -1)).squeeze(-1)
        answers = self.answer(torch.cat([latest, latest[..., :-1] * summary], -1))
        is_user = vectors[..., start : start + 1] == 1
        acts = self.acts
        return torch.where(is_user, pad(answers, (0, acts - answers.shape[-1])), pad(scores, (0, acts - k)))


def greedy(net: CandidateNet, encoder: Encoder) -> NumericAgent:
    """The trained network as an agent that always takes the best of the legal acts."""

    @torch.no_grad()
    def policy(vector: Any, mask: Any) -> int:
        scores = net(torch.as_tensor(vector))
        return int(scores.masked_fill(torch.as_tensor(mask) == 0, -torch.inf).argmax())

    return NumericAgent(policy, encoder)
