"""SQN, SAC and their control: rewards, counts and losses by hand, and what the trained ones do."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.sequential import FitSettings, Gru4RecEncoder, SasRecEncoder
from agents.sequential.fit import Windows
from agents.sequential.model import NextItemNet
from baselines import SYSTEMS, load_system
from baselines.sqn_sac import Sqn, TwoHeads, counts, fit_critic, fit_proxy, losses, rewards
from coars_env import (
    CheckpointError,
    ConfigError,
    FixedUser,
    Split,
    UserSequence,
    builder,
    evaluate,
    freeze,
    from_interactions,
    load_split,
)

QUICK = FitSettings(hidden=16, learning_rate=0.01, max_epochs=4)
# Two users; ten items, so that 10 is padding.
SEQUENCES = [UserSequence(0, (4, 5, 6)), UserSequence(1, (7, 2))]


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=40, items=200, interactions=1200)


@pytest.fixture
def windows() -> Windows:
    return Windows.of(SEQUENCES, 10)


def new_heads(seed: int, *, dropout: float = 0.0) -> TwoHeads:
    heads = TwoHeads(NextItemNet(SasRecEncoder, 10, 8, dropout, seed=seed), seed).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in heads.parameters():
        parameter.data.normal_(0.0, 0.5, generator=generator)
    heads.net.encoder.items.weight.data[-1] = 0.0
    return heads


@pytest.mark.parametrize(
    ("ratings", "expected"),
    [
        ([4, 5, 3, 1, 4], [1, 1, 0.2, 0.2, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),  # no ratings
        ([13883, 4, 1, 2, 7], [1, 1, 1, 1, 1]),  # listens
    ],
)
def test_items_liked_are_worth_more(ratings: list[float], expected: list[float]) -> None:
    rows = {"user_id": list("uuuvv"), "item_id": list("abcde"), "rating": ratings, "timestamp": [1, 2, 3, 1, 2]}
    dataset = from_interactions(rows, {"item_id": list("abcde"), "title": list("ABCDE")})
    sequences = [UserSequence(user, tuple(dataset.sequence(user).tolist())) for user in range(2)]
    windows = Windows.of(sequences, dataset.num_items)
    found = rewards(sequences, windows, dataset)
    assert found[windows.all_places].tolist() == pytest.approx(expected)
    assert float(found.sum()) == pytest.approx(sum(expected))  # padding is worth nothing


def test_counts_begin_anew_with_each_user(windows: Windows) -> None:
    assert counts(windows)[windows.all_places].tolist() == [0, 1, 2, 0, 1]


def test_the_losses_are_those_of_double_q_learning(windows: Windows) -> None:
    this, other = new_heads(1), new_heads(2)
    reward = torch.zeros(len(windows.flat)).double()
    reward[windows.all_places] = torch.tensor([1.0, 0.2, 1.0, 0.2, 1.0]).double()
    entropy, td, q = (loss.detach() for loss in losses(this, other, windows, reward, windows.all_places))

    @torch.no_grad()
    def of(heads: TwoHeads, history: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        padded = torch.tensor([[10] * (10 - len(history)) + list(history)])
        return heads(padded)[0], heads.values(heads.net.encoder(padded))[0]

    row = 0
    for sequence in SEQUENCES:
        for place, item in enumerate(sequence.items):
            logits, values = of(this, sequence.items[:place])
            after = 0.0
            if place + 1 < len(sequence.items):
                choice = int(of(this, sequence.items[: place + 1])[1].argmax())
                after = float(of(other, sequence.items[: place + 1])[1][choice])
            y = float(reward[windows.all_places[row]]) + 0.5 * after
            assert float(q[row]) == pytest.approx(float(values[item]))
            assert float(td[row]) == pytest.approx((y - float(values[item])) ** 2 / 2)
            assert float(entropy[row]) == pytest.approx(-float(torch.log_softmax(logits, -1)[item]))
            row += 1
    assert row == 5


def test_only_the_network_of_the_coin_learns_and_not_from_its_target(windows: Windows) -> None:
    this, other = new_heads(1), new_heads(2)
    reward = torch.zeros(len(windows.flat)).double()
    _, td, q = losses(this, other, windows, reward, windows.all_places)
    td.sum().backward()
    assert all(parameter.grad is None for parameter in other.parameters())
    assert this.values.bias.grad is not None
    # d/dq of (y - q)^2 / 2 with y held fixed is q - y; item 6 is the last one, so that y = 0 there
    assert float(this.values.bias.grad[6]) == pytest.approx(float(q[2].detach()))


def test_q_of_sequences_that_end_is_their_reward() -> None:
    """Every user takes one item, so that nothing follows it: Q is the reward, 1 for all."""
    sequences = [UserSequence(user, (user % 10,)) for user in range(50)]
    windows = Windows.of(sequences, 10)
    reward = torch.where(windows.flat < 10, 1.0, 0.0)
    this, other = new_heads(1).float(), new_heads(2).float()
    optimizer = torch.optim.Adam(this.parameters(), lr=0.05)
    for _ in range(100):
        _, td, _ = losses(this, other, windows, reward, windows.all_places)
        optimizer.zero_grad()
        td.mean().backward()
        optimizer.step()
    _, _, q = losses(this, other, windows, reward, windows.all_places)
    assert q.detach().numpy() == pytest.approx(np.ones(50), abs=1e-2)


@pytest.mark.parametrize("actor_critic", [False, True])
def test_one_seed_gives_one_model(actor_critic: bool, split: Split) -> None:
    settings = dataclasses.replace(QUICK, max_epochs=3)
    before = torch.random.get_rng_state()
    first, again, other = (
        fit_critic(
            split, Gru4RecEncoder, system="x", actor_critic=actor_critic, seed=seed, settings=settings, warm_up=1
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    histories = [[1, 2, 3], []]
    assert first.scores(histories).tolist() == again.scores(histories).tolist()
    assert first.scores(histories).tolist() != other.scores(histories).tolist()
    assert first.card == again.card


def test_no_epoch_of_the_warm_up_is_kept(split: Split) -> None:
    settings = dataclasses.replace(QUICK, patience=1, max_epochs=9)
    model = fit_critic(split, SasRecEncoder, system="sac", actor_critic=True, settings=settings, warm_up=5)
    assert model.card.best_epoch > 5


def test_a_warm_up_without_end_is_refused(split: Split) -> None:
    with pytest.raises(ConfigError, match=r"Expected max_epochs >= 5 for training sac, found 4\. Raise it"):
        fit_critic(split, SasRecEncoder, system="sac", actor_critic=True, settings=QUICK, warm_up=4)


def test_after_the_warm_up_sac_is_no_longer_sqn(split: Split) -> None:
    settings = dataclasses.replace(QUICK, max_epochs=2)
    sqn = fit_critic(split, SasRecEncoder, system="x", actor_critic=False, settings=settings)
    sac = fit_critic(split, SasRecEncoder, system="x", actor_critic=True, settings=settings, warm_up=1)
    assert sac.scores([[1, 2]]).tolist() != sqn.scores([[1, 2]]).tolist()


def test_the_card_tells_of_the_second_head(split: Split) -> None:
    sqn = fit_critic(split, SasRecEncoder, system="sqn", actor_critic=False, settings=QUICK).card.figures
    assert sqn["q_min"] < sqn["q_mean"] < sqn["q_max"]
    proxy = fit_proxy(split, SasRecEncoder, system="proxy", settings=dataclasses.replace(QUICK, max_epochs=30))
    # sequences hold about 29 items, and the mean of log(1 + n) over n = 0 to 28 is 2.6; it begins near 0
    assert 1.0 < proxy.card.figures["log_count_mean"] < 2.9


def test_all_nine_are_found_by_name() -> None:
    names = [f"{method}{encoder}" for method in ("sqn", "sac", "proxy") for encoder in ("", "-gru4rec", "-caser")]
    kinds = [load_system(name) for name in names]
    assert all(name in SYSTEMS and issubclass(kind, Sqn) for name, kind in zip(names, kinds, strict=True))
    assert [vars(kind)["name"] for kind in kinds] == names


@pytest.mark.parametrize("encoder", ["", "-gru4rec", "-caser"])
def test_a_saved_one_plays_the_same(encoder: str, split: Split, tmp_path: Path) -> None:
    kind = load_system(f"sqn{encoder}")
    fitted = kind(fit_critic(split, kind.encoder, system=kind.name, actor_critic=False, settings=QUICK))
    fitted.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model", split)
    episodes = [freeze(builder(split), "test")]
    assert evaluate(loaded.recommender, FixedUser("skip", 0.3), episodes) == evaluate(
        fitted.recommender, FixedUser("skip", 0.3), episodes
    )
    assert loaded.num_parameters == fitted.num_parameters
    with pytest.raises(CheckpointError, match=f"Expected system sac, found {kind.name}"):
        load_system("sac").load(tmp_path / "model", split)


def test_it_is_fitted_by_its_class(split: Split) -> None:
    fitted = Sqn.fit(split, seed=0)
    assert fitted.model.card.system == "sqn"
    assert fitted.scores([[0, 1]]).shape == (1, 200)
