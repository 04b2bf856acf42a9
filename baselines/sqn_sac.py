"""Sqn, Sac, Proxy: next-item models with a second head; X. Xin et al., SIGIR 2020, arXiv:2006.05779.

SAC is the Self-supervised Actor-Critic of that paper, not Soft Actor-Critic. A state s is the encoded history, an
action a the next item, s' the state after it. One head holds the logits, from which alone candidates are ranked, the
other a value Q of each item:

    y     = r + gamma Q_other(s', argmax_a' Q_this(s', a')),  gamma = .5, nothing after the last item of a sequence
    TD    = (y - Q_this(s, a))^2 / 2
    L_SQN = mean(CE(s, a) + TD)
    L_SAC = mean(sg(Q_this(s, a)) CE(s, a) + TD)      after some epochs of L_SQN, with a fresh Adam

There are two whole networks; a coin decides for each update which of them learns, and the other bootstraps it (double
Q-learning). The first one ranks. An update of one is an update: an epoch passes the windows once, as that of a plain
model, so each network learns from about half of them.

The reward of an item is 1, or .2 where its rating is below 4 (ours, after .2 for a click and 1 for a purchase). Without
ratings it is constant, and Q can learn little but how long sequences are.

Proxy is the control of A. Silva et al., ICML 2024, "On the Unexpected Effectiveness of Reinforcement Learning for
Sequential Recommendation": no reward and no second network; the second head, read at the taken item as Q is, predicts
how many items the user has taken before:

    L_Proxy = mean(CE(s, a) + (log(1 + n) - f(s, a))^2 / 2)

The logarithm is ours; they count in sessions of a few items, where users here have hundreds. In their public code the
count is taken after padding and is always ten; ours is the true one.

Published figures are of other data (RC15, RetailRocket), full rankings and validation parts; see the paper. Traps: the
best of many evaluations of a collapsing run looks fine, so look at `figures` of the card; a negative Q turns the sign
of SAC's cross-entropy, which the epochs of SQN before it are to prevent.

Each comes with three encoders: `Sqn` (SASRec), `SqnGru4Rec`, `SqnCaser`, and so on. Plays as
`coars_env.GreedyRecommender`. Reproduce the rows by
`coars compare --split llara --candidates llara --systems sqn sac proxy`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from agents.sequential import CaserEncoder, FitSettings, Gru4RecEncoder, SasRecEncoder, SequentialModel
from agents.sequential.fit import Windows, cross_entropy, divide, new_card, new_net, new_optimizer, run_epochs
from agents.sequential.model import EncoderClass, NextItemNet
from baselines.system import Resources, SavedSystem
from coars_env import RECOMMENDER, Dataset, GreedyRecommender, Split, UserSequence

GAMMA = 0.5
LIKED, TAKEN = 1.0, 0.2
"""Rewards of a rating of 4 or more, or of none, and of a lower one."""
WARM_UP = 5
"""Epochs of L_SQN before those of L_SAC; ours: about a sixth of the published number of epochs, as there."""


class TwoHeads(nn.Module):
    """A next-item net with one more linear head on the encoded history. Called, it gives the logits."""

    def __init__(self, net: NextItemNet, seed: int) -> None:
        super().__init__()
        self.net = net
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.values = nn.Linear(net.head.in_features, net.head.out_features)

    def forward(self, histories: Tensor) -> Tensor:
        logits: Tensor = self.net(histories)
        return logits

    def value(self, state: Tensor, items: Tensor) -> Tensor:
        """The second head's number of one item a row. [B]"""
        rows = nn.functional.embedding(items, self.values.weight)
        return (rows * state).sum(1) + self.values.bias[items]


def rewards(sequences: Sequence[UserSequence], windows: Windows, dataset: Dataset) -> Tensor:
    """The reward of taking what stands at each place of `windows.flat`; 0 at padding.

    Ratings are stars from .5 to 5 that differ; where they are anything else, such as counts of listens, all rewards are
    1. Of an item rated twice the first rating counts, as in the splits.
    """
    values = np.zeros(len(windows.flat), dtype=np.float32)
    values[windows.all_places.numpy()] = LIKED
    stars = len(dataset.ratings) and 0 < dataset.ratings.min() < dataset.ratings.max() <= 5
    if stars:
        low: list[bool] = []
        for sequence in sequences:
            rows = dataset.rows(sequence.user)
            latest_first = zip(dataset.item_indices[rows][::-1], dataset.ratings[rows][::-1], strict=True)
            rating = {int(item): given for item, given in latest_first}
            low.extend(rating[item] < 4 for item in sequence.items)
        values[windows.all_places.numpy()[np.array(low, dtype=np.bool_)]] = TAKEN
    return torch.from_numpy(values)


def counts(windows: Windows) -> Tensor:
    """How many items the sequence holds before each place of `windows.flat`."""
    items = windows.flat < windows.num_items
    before = torch.cumsum(items, 0) - items.long()
    start = torch.where(items, 0, before).cummax(0).values  # grows at the padding before each sequence
    return before - start


def losses(
    this: TwoHeads, other: TwoHeads, windows: Windows, reward: Tensor, places: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """CE and TD of the windows at some places, with gradient for `this`; and Q_this(s, a). [B] each."""
    state, items = this.net.encoder(windows.histories(places)), windows.targets(places)
    with torch.no_grad():
        after = windows.histories(places + 1)
        choice = this.values(this.net.encoder(after)).argmax(1)
        goes_on = windows.targets(places + 1) < windows.num_items
        y = reward[places] + GAMMA * goes_on * other.value(other.net.encoder(after), choice)
    q = this.value(state, items)
    return cross_entropy(this.net.head(state), items), (y - q) ** 2 / 2, q


def fit_critic(
    split: Split,
    encoder: EncoderClass,
    *,
    system: str,
    actor_critic: bool,
    seed: int = 0,
    settings: FitSettings | None = None,
    warm_up: int = WARM_UP,
) -> SequentialModel:
    """SQN, or SAC where `actor_critic`; see the top of this file. Of SAC no epoch of the warm-up is kept.

    The card's figures are of Q at the taken items of the training windows, by the weights that are kept.

    Raises:
        CoarsError: as `agents.sequential.fit.fit`.
    """
    settings = settings or FitSettings()
    train, held = divide(split, seed)
    windows = Windows.of(train, split.dataset.num_items)
    reward = rewards(train, windows, split.dataset)
    nets = [TwoHeads(new_net(encoder, windows, settings, 2 * seed + n), 2 * seed + n) for n in range(2)]
    optimizers = [new_optimizer(net, encoder, settings) for net in nets]
    rng = np.random.default_rng([seed, 2])
    steps_before = warm_up * -(-len(windows.all_places) // settings.batch) if actor_critic else None
    steps = 0

    def step(places: Tensor) -> float:
        nonlocal steps
        if steps == steps_before:
            optimizers[:] = [new_optimizer(net, encoder, settings) for net in nets]
        coin = int(rng.integers(2))
        entropy, td, q = losses(nets[coin], nets[1 - coin], windows, reward, places)
        acting = steps_before is not None and steps >= steps_before
        loss = ((q.detach() * entropy if acting else entropy) + td).mean()
        optimizers[coin].zero_grad()
        loss.backward()
        optimizers[coin].step()
        steps += 1
        return float(loss.detach())

    begin = warm_up + 1 if actor_critic else 1
    report = run_epochs(nets[0], step, windows, held, settings, seed=seed, title=f"training {system}", begin=begin)
    figures = _figures("q", nets[0], windows)
    card = new_card(split, encoder, settings, report, seed=seed, system=system, figures=figures)
    return SequentialModel(nets[0].net, card)


def fit_proxy(
    split: Split, encoder: EncoderClass, *, system: str, seed: int = 0, settings: FitSettings | None = None
) -> SequentialModel:
    """The control; see the top of this file.

    Raises:
        CoarsError: as `agents.sequential.fit.fit`.
    """
    settings = settings or FitSettings()
    train, held = divide(split, seed)
    windows = Windows.of(train, split.dataset.num_items)
    logs = torch.log1p(counts(windows).float())
    net = TwoHeads(new_net(encoder, windows, settings, seed), seed)
    optimizer = new_optimizer(net, encoder, settings)

    def step(places: Tensor) -> float:
        state, items = net.net.encoder(windows.histories(places)), windows.targets(places)
        miss = logs[places] - net.value(state, items)
        loss = (cross_entropy(net.net.head(state), items) + miss**2 / 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    report = run_epochs(net, step, windows, held, settings, seed=seed, title=f"training {system}")
    figures = _figures("log_count", net, windows)
    card = new_card(split, encoder, settings, report, seed=seed, system=system, figures=figures)
    return SequentialModel(net.net, card)


@torch.inference_mode()
def _figures(name: str, net: TwoHeads, windows: Windows) -> dict[str, float]:
    """Mean, lowest and highest number of the second head at the taken items of all windows."""
    net.eval()
    parts = [
        net.value(net.net.encoder(windows.histories(places)), windows.targets(places))
        for places in windows.all_places.split(1024)
    ]
    values = torch.cat(parts).double()
    return {
        f"{name}_mean": float(values.mean()),
        f"{name}_min": float(values.min()),
        f"{name}_max": float(values.max()),
    }


class Sqn(SavedSystem):
    """A recommender that proposes the likeliest next item, its state shaped by Q-learning."""

    plays = (RECOMMENDER,)
    name: ClassVar[str] = "sqn"
    encoder: ClassVar[EncoderClass] = SasRecEncoder

    def __init__(self, model: SequentialModel) -> None:
        super().__init__(GreedyRecommender(model.scorer, "Those with a history like yours took this next."))
        self.model = model
        self.num_parameters = model.num_parameters

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Train on the training part; minutes on one core for 100,000 interactions."""
        return cls(cls._train(split, seed))

    @classmethod
    def _train(cls, split: Split, seed: int) -> SequentialModel:
        return fit_critic(split, cls.encoder, system=cls.name, actor_critic=False, seed=seed)

    def scores(self, histories: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Logits of the whole catalogue, [M, I], higher is better."""
        return self.model.scores(histories)

    def save(self, folder: Path) -> None:
        """Encoder, logits and card; the second head is not kept. See `SequentialModel.save`."""
        self.model.save(folder)

    @classmethod
    def load(cls, folder: Path, split: Split) -> Self:
        """A saved one, for the split it was trained on; see `SequentialModel.load`."""
        return cls(SequentialModel.load(folder, split, system=cls.name))


class SqnGru4Rec(Sqn):
    """SQN on GRU4Rec."""

    name = "sqn-gru4rec"
    encoder = Gru4RecEncoder


class SqnCaser(Sqn):
    """SQN on Caser."""

    name = "sqn-caser"
    encoder = CaserEncoder


class Sac(Sqn):
    """SAC on SASRec: cross-entropy weighted by Q."""

    name = "sac"

    @classmethod
    def _train(cls, split: Split, seed: int) -> SequentialModel:
        return fit_critic(split, cls.encoder, system=cls.name, actor_critic=True, seed=seed)


class SacGru4Rec(Sac):
    """SAC on GRU4Rec."""

    name = "sac-gru4rec"
    encoder = Gru4RecEncoder


class SacCaser(Sac):
    """SAC on Caser."""

    name = "sac-caser"
    encoder = CaserEncoder


class Proxy(Sqn):
    """The control on SASRec: the second head counts the items taken."""

    name = "proxy"

    @classmethod
    def _train(cls, split: Split, seed: int) -> SequentialModel:
        return fit_proxy(split, cls.encoder, system=cls.name, seed=seed)


class ProxyGru4Rec(Proxy):
    """The control on GRU4Rec."""

    name = "proxy-gru4rec"
    encoder = Gru4RecEncoder


class ProxyCaser(Proxy):
    """The control on Caser."""

    name = "proxy-caser"
    encoder = CaserEncoder
