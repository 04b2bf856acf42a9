"""(loss, metrics): pure functions on tensors."""

from torch import Tensor

from coars_env import ShapeError


def coars_loss(
    logprobs: Tensor, rewards: Tensor, advantages: Tensor, weights: Tensor, *, lam: float, num_episodes: int
) -> Tensor:
    """The negative of CoARS's objective, arXiv:2604.10029, Eq. 11-12.

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
    """The same for a credit of any kind, R_t and what was added to it. [N] thrice.

    Raises:
        ShapeError: the shapes differ.
    """
    _check_shapes(logprobs, credit, weights)
    return -(weights * credit.detach() * logprobs).sum() / num_episodes


def truncated_ratio(logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float = 2.0) -> Tensor:
    """min(pi_S / pi_server, cap) of each token: its weight where another program sampled it.

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


def _check_shapes(*tensors: Tensor) -> None:
    shapes = {tuple(x.shape) for x in tensors}
    if len(shapes) != 1:
        raise ShapeError(f"All are given per token. Expected one shape, found {sorted(shapes)}. Collate once.")


def kl_to_base(logprobs: Tensor, base_logprobs: Tensor) -> Tensor:
    """KL(student || base) of each place, estimated from the one token that was sampled there.

    k3 = exp(d) - d - 1 with d = log pi_base - log pi_S: never negative, its mean is the divergence;
    http://joschu.net/blog/kl-approx.html. Reported, not trained on.

    Args:
        logprobs: [N] nats, of tokens the student sampled.
        base_logprobs: [N] nats, of the same tokens under the base.

    Returns:
        [N] nats.
    """
    d = base_logprobs - logprobs
    return d.exp() - d - 1
