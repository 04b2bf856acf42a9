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


class AskingNet(nn.Module):
    """[..., L] -> [..., n]: the recommender's acts in games with an instruction, proposals and questions.

    A candidate is scored by how well it goes with the history (inner product of features, in units of the list), its
    cosine, the last of its features, and the facets revealed that it lacks; a question by the turn, what was asked and
    revealed so far, and how sure the scores are.
    """

    def __init__(self, encoder: Encoder, *, hidden: int = 32) -> None:
        super().__init__()
        self.candidates, self.described, self.acts = encoder.num_candidates, encoder.described, encoder.acts.n
        self.dynamic = encoder.static_size
        self.facets = encoder.static_size + encoder.dynamic_size  # where what was said of facets begins
        self.kinds = q = len(encoder.acts.kinds)
        of_kind = [[facet.kind == kind for kind in encoder.acts.kinds] for facet in encoder.acts.facets]
        self.register_buffer("of_kind", torch.tensor(of_kind, dtype=torch.float32))
        self.score = nn.Sequential(nn.Linear(4 + q, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.ask = nn.Sequential(nn.Linear(1 + 2 * q + 3, hidden), nn.Tanh(), nn.Linear(hidden, q))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        k, d, q, start, facets = self.candidates, self.described, self.kinds, self.dynamic, self.facets
        summary = vectors[..., : d - 1]
        listed = vectors[..., d - 1 : start].unflatten(-1, (k, d))
        turn, proposed = vectors[..., start + 2 : start + 3], vectors[..., start + 3 : start + 3 + k]
        asked = vectors[..., facets : facets + q]
        shares = vectors[..., facets + 2 * q : facets + (2 + k) * q].unflatten(-1, (k, q))
        revealed = (vectors[..., -len(self.of_kind) :] @ self.of_kind).clamp(max=1)
        goes = (listed[..., :-2] * summary[..., None, :-1]).sum(-1)
        goes = (goes - goes.mean(-1, keepdim=True)) / (goes.std(-1, keepdim=True) + 1e-6)
        lacks = revealed.unsqueeze(-2) - shares
        known = torch.cat([goes.unsqueeze(-1), listed[..., -2:], proposed.unsqueeze(-1), lacks], -1)
        scores = self.score(known).squeeze(-1)
        sure = (scores - 1e3 * proposed).softmax(-1).topk(3).values
        questions = self.ask(torch.cat([turn, asked, revealed, sure], -1))
        return pad(torch.cat([scores, questions], -1), (0, self.acts - k - q))


def greedy(net: nn.Module, encoder: Encoder) -> NumericAgent:
    """The trained network as an agent that always takes the best of the legal acts."""

    @torch.no_grad()
    def policy(vector: Any, mask: Any) -> int:
        scores = net(torch.as_tensor(vector))
        return int(scores.masked_fill(torch.as_tensor(mask) == 0, -torch.inf).argmax())

    return NumericAgent(policy, encoder)
