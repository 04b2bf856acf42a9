"""Losses: pure functions on tensors, each a scalar or one number per token."""

from torch import Tensor

from coars_env import ShapeError


def coars_loss(
    logprobs: Tensor, rewards: Tensor, advantages: Tensor, weights: Tensor, *, lam: float, num_episodes: int
) -> Tensor:
    """Return the negative of CoARS's objective, arXiv:2604.10029, Eq. 11-12.

    J = mean over episodes of  sum_t 1/|y_t| sum_n (R_t + lambda A_tn) log pi_S(y_tn | x_t, y_t<n)

    Args:
        logprobs: [N] nats, with gradient.
        rewards: [N] R_t of the token's turn.
        advantages: [N] A of the token; no gradient.
        weights: [N] 1/|y_t|, |y_t| counting the tokens the side chose itself.
        lam: lambda.
        num_episodes: episodes of the WHOLE batch, so that 1x8 equals 8x1.

    Returns:
        Scalar.

    Raises:
        ShapeError: the shapes differ.
    """
    _check_shapes(logprobs, rewards, advantages, weights)
    return policy_gradient(logprobs, rewards + lam * advantages, weights, num_episodes=num_episodes)


def policy_gradient(logprobs: Tensor, credit: Tensor, weights: Tensor, *, num_episodes: int) -> Tensor:
    """Return the same loss for a credit of any kind, R_t and what was added to it.

    Args:
        logprobs: [N] nats, with gradient.
        credit: [N]; no gradient goes through it.
        weights: [N], see `coars_loss`.
        num_episodes: episodes of the whole batch.

    Returns:
        Scalar.

    Raises:
        ShapeError: the shapes differ.
    """
    _check_shapes(logprobs, credit, weights)
    return -(weights * credit.detach() * logprobs).sum() / num_episodes


def truncated_ratio(logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float = 2.0) -> Tensor:
    """Weigh each token that another program sampled by min(pi_S / pi_server, cap).

    Truncated importance sampling against the mismatch of rollout and training, Yao et al. 2025, "On the
    Rollout-Training Mismatch in Modern RL Systems" (https://openreview.net/forum?id=8MHqvb4lK9); the cap is the first
    default of TRL (huggingface/trl#3867). Token by token, hence biased: it leaves the tokens before each one as they
    were sampled.

    Args:
        logprobs: [N] nats, of the policy that is trained.
        rollout_logprobs: [N] nats, of the same tokens as the sampler had them.
        cap: largest weight.

    Returns:
        [N], within [0, cap], without gradient.

    Raises:
        ShapeError: the shapes differ.
    """
    _check_shapes(logprobs, rollout_logprobs)
    return (logprobs - rollout_logprobs).detach().exp().clamp(max=cap)


def kl_to_base(logprobs: Tensor, base_logprobs: Tensor) -> Tensor:
    """Estimate KL(student || base) at each token from that one sampled token.

    k3 = exp(d) - d - 1 with d = log pi_base - log pi_S: never negative, its mean is the divergence;
    http://joschu.net/blog/kl-approx.html. It is part of the loss where `Optimisation.kl` is above 0 (GRPO), and only
    a metric otherwise (CoARS: the paper names no such term).

    Args:
        logprobs: [N] nats, of tokens the student sampled.
        base_logprobs: [N] nats, of the same tokens under the base.

    Returns:
        [N] nats, with the gradient of `logprobs`.
    """
    d = base_logprobs - logprobs
    return d.exp() - d - 1


def _check_shapes(*tensors: Tensor) -> None:
    shapes = {tuple(x.shape) for x in tensors}
    if len(shapes) != 1:
        raise ShapeError(f"Tensors have the shapes {sorted(shapes)}, but all are given per token. Collate them once.")
