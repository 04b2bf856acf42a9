"""Muon: a step by hand, and orthogonality."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.models.backbones.muon import Muon, orthogonal


@given(st.integers(0, 1000), st.sampled_from([(4, 4), (3, 9), (9, 3)]))
def test_singular_values_come_near_one_and_the_vectors_stay(seed: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.linspace(1.0, 0.1, min(shape))
    (found,) = orthogonal((left * values @ right)[None])
    inner = left.mT @ found @ right.mT
    assert torch.allclose(inner, inner.diagonal().diag(), atol=1e-4)
    assert bool(((inner.diagonal() > 0.6) & (inner.diagonal() < 1.3)).all())


def test_matrices_are_made_orthogonal_each_for_itself() -> None:
    matrices = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonal(matrices)[1], orthogonal(matrices[1:2])[0], atol=1e-5)


def test_a_step_by_hand() -> None:
    """A multiple of the identity stays one: x goes to x (a + b x^2 + c x^4) five times, from 1 / sqrt(2)."""
    x = 0.5**0.5
    for _ in range(5):
        x *= 3.4445 - 4.7750 * x**2 + 2.0315 * x**4
    weight = torch.nn.Parameter(3 * torch.eye(2))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = 7 * torch.eye(2)
    optimizer.step()
    expected = 3 * (1 - 0.1 * 0.5) - 0.2 * 0.1 * 2**0.5 * x
    assert weight.detach().tolist() == [pytest.approx([expected, 0], abs=1e-5), pytest.approx([0, expected], abs=1e-5)]


def test_momentum_outlives_a_step() -> None:
    """Without it the second step would go the other way, as its gradient does."""
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = Muon([weight], lr=1.0, weight_decay=0.0)
    for _ in range(20):
        weight.grad = torch.eye(2)
        optimizer.step()
    before = weight.detach().clone()
    weight.grad = -0.1 * torch.eye(2)
    optimizer.step()
    assert bool((weight.diagonal() < before.diagonal()).all())
