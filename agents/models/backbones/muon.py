"""Muon in fp32: the optimizer of pocket's inner matrices."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the quintic of Newton-Schulz: they make the small singular values grow fastest; the author's."""


class Muon(Optimizer):
    """Momentum whose matrix is made orthogonal before each step, https://kellerjordan.github.io/posts/muon/.

        M <- .95 M + .05 G;   O = orthogonal((1 - .95) G + .95 M);   W <- (1 - lr decay) W - .2 lr sqrt(max(m, n)) O

    The last factor gives the steps the size of AdamW's, so both take one learning rate (arXiv:2502.16982). torch has a
    Muon of its own; it makes matrices orthogonal in bf16, for which a CPU takes fifty times as long, and one by one.

    Args:
        parameters: matrices.
        lr: learning rate.
        weight_decay: as in AdamW.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                gradients = torch.stack([p.grad for p in parameters if p.grad is not None])
                momentum = self.state[parameters[0]].setdefault("momentum", torch.zeros_like(gradients))
                momentum.lerp_(gradients, 0.05)
                updates = orthogonal(gradients.lerp(momentum, 0.95))
                size = 0.2 * group["lr"] * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=size)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearly the orthogonal factor of each matrix: the same singular vectors, all singular values near 1.
    [K, m, n] -> [K, m, n]
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT.contiguous() if tall else x
