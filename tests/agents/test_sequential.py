"""Sequential models: encoders against plain computations, toy sequences that are learnt, folders that are refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from agents.sequential import ENCODERS, FitSettings, SasRecEncoder, SequentialModel, fit
from agents.sequential.caser import CaserEncoder
from agents.sequential.dropout import Dropout
from agents.sequential.fit import Windows, cross_entropy, divide, validate
from agents.sequential.gru4rec import Gru4RecEncoder
from agents.sequential.model import EncoderClass, NextItemNet, pad
from coars_env import (
    CheckpointError,
    CoarsError,
    ConfigError,
    Dataset,
    FixedUser,
    GreedyRecommender,
    Item,
    Split,
    TaskBuilder,
    TaskError,
    TopCandidates,
    UserSequence,
    evaluate,
    expected_hit,
    freeze,
    metric_values,
    target_ranks,
    uniform_candidates,
)

QUICK = FitSettings(hidden=16, learning_rate=0.02, batch=32, max_epochs=25)
NUM_ITEMS = 8
UNSEEN = (6, 7)


def cycle_split(*, origin: str = "toy", title: str = "g", validation: bool = True) -> Split:
    """Items 0 to 5 follow one another in a circle, and each user starts somewhere; 6 and 7 are never taken.

    Of eight users of a start three are held out, with one, two and four items before their target, and one is tested
    on the item that follows the user's training sequence.
    """
    lengths = (2, 3, 5, 5, 5, 5, 5, 5)
    sequences = [tuple((start + n) % 6 for n in range(length)) for start in range(6) for length in lengths]
    rows = [(user, item, time) for user, items in enumerate(sequences) for time, item in enumerate(items)]
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    dataset = Dataset(
        name="toy",
        items=tuple(Item(letter) for letter in f"abcdef{title}h"),
        item_ids=tuple("abcdefgh"),
        user_ids=tuple(str(user) for user in range(len(sequences))),
        users=users,
        item_indices=items,
        ratings=np.ones(len(users)),
        timestamps=times,
        source="custom",
        origin=origin,
    )
    parts = [UserSequence(user, items) for user, items in enumerate(sequences)]
    tested = tuple(UserSequence(s.user, (*s.items, (s.items[-1] + 1) % 6)) for s in parts[3::8])
    owned = {s.user: frozenset(s.items) for s in (*parts, *tested)}
    held = tuple(s for s in parts if s.user % 8 < 3) if validation else ()
    train = tuple(s for s in parts if s not in held)
    return Split("toy", dataset, train, held, tested, owned)


@pytest.fixture(scope="module")
def split() -> Split:
    return cycle_split()


@pytest.fixture(scope="module", params=ENCODERS)
def model(request: pytest.FixtureRequest, split: Split) -> SequentialModel:
    return fit(split, ENCODERS[request.param], settings=QUICK)


@pytest.fixture(scope="module")
def sasrec(split: Split) -> SequentialModel:
    return fit(split, SasRecEncoder, settings=QUICK)


def new_net(encoder: EncoderClass, *, num_items: int = 20, hidden: int = 8, dropout: float = 0.0) -> NextItemNet:
    """Double precision, and weights of the order of 1, so that nothing is nearly linear."""
    net = NextItemNet(encoder, num_items, hidden, dropout, seed=3).double()
    generator = torch.Generator().manual_seed(4)
    for parameter in net.parameters():
        parameter.data.normal_(0.0, 0.7, generator=generator)
    net.encoder.items.weight.data[-1] = 0.0
    return net.eval()


def some_histories(n: int = 30, *, num_items: int = 20) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.permutation(num_items)[: row % 11].tolist() for row in range(n)]


each_encoder = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)

# --- Encoders ---------------------------------------------------------------------------------------------------------


@each_encoder
def test_padding_has_no_influence(encoder: EncoderClass) -> None:
    net = new_net(encoder).encoder
    for history in some_histories():
        if history:
            bare = torch.tensor([history])
            torch.testing.assert_close(net(pad([history], 20)), net(bare), rtol=0, atol=1e-12)


@each_encoder
def test_many_histories_equal_single_ones(encoder: EncoderClass) -> None:
    net, padded = new_net(encoder), pad(some_histories(), 20)
    alone = torch.cat([net(row[None]) for row in padded])
    torch.testing.assert_close(net(padded), alone, rtol=0, atol=1e-12)


@each_encoder
def test_the_order_of_a_history_matters(encoder: EncoderClass) -> None:
    net = new_net(encoder).encoder
    assert not torch.allclose(net(torch.tensor([[1, 2, 3, 4]])), net(torch.tensor([[2, 1, 3, 4]])), atol=1e-3)


def test_the_shortcut_of_sasrec_equals_the_plain_computation() -> None:
    net = new_net(SasRecEncoder).encoder
    assert isinstance(net, SasRecEncoder)
    for history in [[3], [3, 5], list(range(10))]:
        x = net.items(torch.tensor(history)) + net.places.weight[-len(history) :]  # [H, d]
        z = net.before_attention(x)
        match = net.query(z) @ net.key(z).T / 8**0.5
        future = torch.ones_like(match, dtype=torch.bool).triu(1)
        s = x + torch.softmax(match.masked_fill(future, -torch.inf), -1) @ net.value(z)
        h = s + net.outer(torch.relu(net.inner(net.before_inner(s))))
        torch.testing.assert_close(net(pad([history], 20))[0], net.last(h)[-1], rtol=0, atol=1e-12)


def test_gru4rec_walks_from_the_oldest_item_to_the_latest() -> None:
    net = new_net(Gru4RecEncoder).encoder
    assert isinstance(net, Gru4RecEncoder)
    cell = nn.GRUCell(8, 8).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.gru.state_dict().items()})
    state = torch.zeros(1, 8).double()
    for item in (4, 9, 2):
        state = cell(net.items(torch.tensor([item])), state)
    torch.testing.assert_close(net(pad([[4, 9, 2]], 20)), state, rtol=0, atol=1e-12)


@pytest.mark.parametrize("history", [[7, 3, 11], list(range(10))])
def test_caser_equals_its_equations(history: list[int]) -> None:
    net = new_net(CaserEncoder).encoder
    assert isinstance(net, CaserEncoder)
    rows = net.items(torch.tensor(history))  # E [L, d]
    blocks = iter(net.horizontal.weight.split(16))  # F of each row of each filter
    found = []
    for bank, height in enumerate((2, 3, 4)):
        filters = [next(blocks) for _ in range(height)]
        values = [
            torch.relu(sum(filters[n] @ rows[k + n] for n in range(height)) + net.bias[bank])
            for k in range(len(history) - height + 1)
        ]
        found.append(torch.stack(values).amax(0) if values else torch.zeros(16).double())
    column = net.vertical.weight[0, -len(history) :] @ rows
    expected = torch.relu(net.out(torch.cat([*found, column])))
    torch.testing.assert_close(net(pad([history], 20))[0], expected, rtol=0, atol=1e-12)


# --- Parts of the training --------------------------------------------------------------------------------------------


def test_cross_entropy_equals_that_of_torch_with_its_gradient() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    targets, weights = torch.tensor([0, 6, 3, 3, 1]), torch.arange(5.0).double()
    ours, theirs = cross_entropy(logits, targets), nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad((loss * weights).sum(), logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    x = torch.ones(100, 1001)  # an odd number
    dropout = Dropout(0.1, torch.Generator().manual_seed(0))
    dropped = dropout(x)
    assert {round(value, 4) for value in dropped.unique().tolist()} == {0.0, 1.1111}
    assert float((dropped == 0).double().mean()) == pytest.approx(0.1, abs=0.004)  # four standard errors
    assert not torch.equal(dropped, dropout(x))
    assert torch.equal(dropped, Dropout(0.1, torch.Generator().manual_seed(0))(x))
    assert torch.equal(dropout.eval()(x), x)


def test_the_windows_are_all_prefixes() -> None:
    # Users took 4 5 6 and 7; there are ten items, so 10 is padding.
    windows = Windows.of([UserSequence(0, (4, 5, 6)), UserSequence(1, (7,)), UserSequence(2, ())], 10)
    histories = windows.histories(windows.all_places)
    assert [[i for i in row if i != 10] for row in histories.tolist()] == [[], [4], [4, 5], []]
    assert histories.shape == (4, 10)
    assert histories[2].tolist()[-2:] == [4, 5]
    assert windows.targets(windows.all_places).tolist() == [4, 5, 6, 7]


def test_a_window_holds_ten_items_at_most() -> None:
    windows = Windows.of([UserSequence(0, tuple(range(13)))], 20)
    assert windows.histories(windows.all_places[-1:]).tolist() == [list(range(2, 12))]


def test_the_validation_part_stops_the_training_where_there_is_one(split: Split) -> None:
    train, held = divide(split, 0)
    assert train == list(split.train)
    assert held.targets.tolist() == [s.items[-1] for s in split.validation]
    assert [[i for i in row if i < NUM_ITEMS] for row in held.histories.tolist()] == [
        list(s.items[:-1]) for s in split.validation
    ]
    assert [sorted(own.tolist()) for own in held.owned] == [sorted(s.items[:-1]) for s in split.validation]


def test_without_a_validation_part_a_tenth_of_the_users_lose_their_last_item() -> None:
    split = cycle_split(validation=False)
    train, held = divide(split, 0)
    shorter = [s for s, whole in zip(train, split.train, strict=True) if s != whole]
    assert len(shorter) == len(held.targets) == 4  # of 48
    assert all(s.items == split.train[s.user].items[:-1] for s in shorter)
    assert sorted(held.targets.tolist()) == sorted(split.train[s.user].items[-1] for s in shorter)
    assert divide(split, 0)[1].targets.tolist() == held.targets.tolist()
    assert divide(split, 1)[0] != train


# --- Trained models ---------------------------------------------------------------------------------------------------


def test_a_cycle_of_items_is_learnt(model: SequentialModel) -> None:
    histories = [[(start + n) % 6 for n in range(length)] for start in range(6) for length in (1, 2, 4)]
    scores = model.scores(histories)
    for row, history in zip(scores, histories, strict=True):
        row[history] = -np.inf  # nothing is taken twice
    assert scores.argmax(1).tolist() == [(history[-1] + 1) % 6 for history in histories]
    assert model.card.validation == 1.0


def test_items_unseen_in_training_score_lowest(model: SequentialModel) -> None:
    scores = model.scores([[start, (start + 1) % 6] for start in range(6)])
    following = scores[np.arange(6), (np.arange(6) + 2) % 6]
    assert (scores[:, UNSEEN] < following[:, None]).all()
    assert (scores[:, UNSEEN].mean(0) < scores[:, :6].mean()).all()


def test_items_unseen_in_training_are_blanks_in_a_history(model: SequentialModel) -> None:
    one, other, known, bare = model.scores([[2, 6], [2, 7], [2, 4], [2]]).tolist()
    assert one == other
    assert one not in (known, bare)


def test_an_empty_history_has_the_vector_0_and_knows_what_comes_first(model: SequentialModel, split: Split) -> None:
    assert (model.user_vectors([[]]) == 0).all()
    scores = model.scores([[]])[0]
    assert scores[:6].min() > scores[[*UNSEEN]].max()  # sequences start with items 0 to 5
    assert model.scores([[], []]).tolist() == [scores.tolist()] * 2


def test_no_histories_have_no_scores(sasrec: SequentialModel) -> None:
    assert sasrec.scores([]).shape == (0, NUM_ITEMS)
    assert sasrec.user_vectors([]).shape == (0, 16)


def test_the_last_ten_items_count(sasrec: SequentialModel) -> None:
    long = [1, 2, 3, 4, 5, 0] * 3
    assert sasrec.scores([long]).tolist() == sasrec.scores([long[-10:]]).tolist()


def test_batches_and_single_histories_have_the_same_scores(model: SequentialModel) -> None:
    histories = some_histories(40, num_items=6)
    whole = model.scores(histories)
    assert whole.dtype == np.float64
    assert whole.tolist() == [model.scores([history])[0].tolist() for history in histories]


@pytest.mark.parametrize("history", [[1, 8], [-1]])
def test_an_item_that_is_not_of_the_catalogue_is_refused(sasrec: SequentialModel, history: list[int]) -> None:
    with pytest.raises(TaskError, match=r"Expected 0\.\.7, found \["):
        sasrec.scores([[1], history])


def test_the_best_epoch_is_kept(split: Split) -> None:
    # At this rate the criterion goes up and down.
    settings = dataclasses.replace(QUICK, learning_rate=0.3, patience=4, max_epochs=12)
    model = fit(split, SasRecEncoder, settings=settings, seed=1)
    _, held = divide(split, 1)
    assert model.card.best_epoch < model.card.epochs <= 12
    scores = model.scores([[i for i in row if i < NUM_ITEMS] for row in held.histories.tolist()])
    found = expected_hit(target_ranks(scores, held.targets, held.owned)).mean()
    assert model.card.validation == pytest.approx(found)


def test_training_stops_when_nothing_gets_better(split: Split) -> None:
    settings = dataclasses.replace(QUICK, learning_rate=1e-9, patience=3)
    assert fit(split, SasRecEncoder, settings=settings).card.epochs <= 5


@each_encoder
def test_learnt_numbers_are_counted(encoder: EncoderClass, split: Split) -> None:
    model = fit(split, encoder, settings=dataclasses.replace(QUICK, max_epochs=1))
    d = 16
    own = {
        "sasrec": 10 * d + 3 * d * d + 2 * (d * d + d) + 3 * 2 * d,  # places; q, k, v; two layers; three norms
        "gru4rec": 3 * (2 * d * d + 2 * d),
        "caser": 16 * 9 * d + 3 * 16 + 10 + (3 * 16 + d) * d + d,  # filters, their biases, the vertical one, out
    }
    assert model.num_parameters == NUM_ITEMS * d + own[encoder.name] + NUM_ITEMS * (d + 1)


def test_a_split_without_validation_users_can_be_fitted() -> None:
    model = fit(cycle_split(validation=False), SasRecEncoder, settings=QUICK)
    assert model.scores([[1, 2]]).argmax() == 3


def test_nobody_to_hold_out_is_refused(split: Split) -> None:
    alone = dataclasses.replace(split, train=(UserSequence(0, (1,)),), validation=())
    with pytest.raises(TaskError, match=r"Training is stopped by held-out items\. .* found neither"):
        fit(alone, SasRecEncoder, settings=QUICK)


def test_nothing_to_train_on_is_refused(split: Split) -> None:
    with pytest.raises(TaskError, match="A model is trained on windows"):
        fit(dataclasses.replace(split, train=()), SasRecEncoder, settings=QUICK)


def test_a_loss_that_is_not_finite_stops_the_training(split: Split) -> None:
    settings = dataclasses.replace(QUICK, learning_rate=1e30)
    with pytest.raises(CoarsError, match=r"A loss must be finite\. .* found nan\. Lower the learning rate, 1e\+30"):
        fit(split, Gru4RecEncoder, settings=settings)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"dropout": 1.0}, {"l2": -1.0}, {"learning_rate": float("nan")}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Settings of a training must be in range"):
        FitSettings(**wrong)  # type: ignore[arg-type]


def test_one_seed_gives_one_model_and_leaves_the_global_generator_alone(split: Split, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, max_epochs=2)
    for encoder in ENCODERS.values():
        files = []
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            before = torch.random.get_rng_state()
            fit(split, encoder, seed=seed, settings=settings).save(tmp_path / encoder.name / name)
            assert torch.equal(torch.random.get_rng_state(), before)
            files.append((tmp_path / encoder.name / name / "model.safetensors").read_bytes())
        assert files[0] == files[1] != files[2]


def test_what_users_took_after_training_does_not_enter(split: Split) -> None:
    other = dataclasses.replace(split, test=())
    settings = dataclasses.replace(QUICK, max_epochs=2)
    one, two = (fit(s, SasRecEncoder, settings=settings).scores([[1, 2]]) for s in (split, other))
    assert one.tolist() == two.tolist()


def test_validation_leaves_the_net_in_training_mode(split: Split) -> None:
    net = NextItemNet(SasRecEncoder, NUM_ITEMS, 8, 0.5)
    assert validate(net, divide(split, 0)[1]) == validate(net, divide(split, 0)[1])  # no dropout in it
    assert net.training


# --- As a scorer ------------------------------------------------------------------------------------------------------


def test_the_scorer_says_what_scores_say(sasrec: SequentialModel) -> None:
    items = np.array([5, 0, 5])
    for _ in range(2):
        assert sasrec.scorer(np.array([1, 2]), items).tolist() == sasrec.scores([[1, 2]])[0, items].tolist()


def test_the_scorer_ranks_candidates_and_retrieves_them(sasrec: SequentialModel, split: Split) -> None:
    player = GreedyRecommender(sasrec.scorer)
    build = TaskBuilder(split, uniform_candidates(NUM_ITEMS), num_candidates=3)
    runs = evaluate(player, FixedUser(), [freeze(build, "test")])
    assert metric_values(runs)["hit_final"].mean() == 1.0
    for keep in (True, False):
        top = TaskBuilder(split, TopCandidates(sasrec.scorer, keep_target=keep), num_candidates=3)
        for task in freeze(top, "test"):
            assert task.target in task.candidates  # it is the best of all
            assert task.retrieved is not keep


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_saved_model_comes_back_to_the_byte(model: SequentialModel, split: Split, tmp_path: Path) -> None:
    model.save(tmp_path / "a" / "first")
    loaded = SequentialModel.load(tmp_path / "a" / "first", split)
    histories = some_histories(num_items=6)
    assert loaded.scores(histories).tolist() == model.scores(histories).tolist()
    assert loaded.card == model.card
    assert loaded.num_parameters == model.num_parameters
    loaded.save(tmp_path / "second")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_card_says_what_was_trained(sasrec: SequentialModel, split: Split, tmp_path: Path) -> None:
    sasrec.save(tmp_path / "model")
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    assert (card["system"], card["encoder"], card["split"], card["seed"]) == ("sasrec", "sasrec", "toy", 0)
    assert card["data"] == dataclasses.asdict(split.dataset.provenance)
    assert card["settings"]["learning_rate"] == 0.02
    assert set(card["versions"]) == {"coars-env", "numpy", "torch", "safetensors"}


def test_a_model_is_written_once_and_whole(sasrec: SequentialModel, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"A model is written once"):
        sasrec.save(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def other_training_part(split: Split) -> Split:
    return dataclasses.replace(split, train=split.train[:-1])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda s: cycle_split(origin="tea"), "Expected dataset custom tea, found custom toy"),
        (lambda s: cycle_split(title="z"), "Expected catalogue and interactions"),
        (lambda s: dataclasses.replace(s, name="llara"), "Expected split llara, found toy"),
        (other_training_part, "Expected training part"),
    ],
    ids=["dataset", "catalogue", "split", "training part"],
)
def test_a_model_of_something_else_is_refused(
    other: Callable[[Split], Split], message: str, sasrec: SequentialModel, split: Split, tmp_path: Path
) -> None:
    sasrec.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        SequentialModel.load(tmp_path / "model", other(split))


def test_a_model_of_another_system_is_refused(sasrec: SequentialModel, split: Split, tmp_path: Path) -> None:
    sasrec.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="Expected system gru4rec, found sasrec"):
        SequentialModel.load(tmp_path / "model", split, system="gru4rec")


def cut_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-4])


def flip_a_bit(folder: Path) -> None:
    whole = bytearray((folder / "model.safetensors").read_bytes())
    whole[-1] ^= 1
    (folder / "model.safetensors").write_bytes(whole)


def edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, **changes}))


@pytest.mark.parametrize(
    "damage",
    [
        cut_weights,
        flip_a_bit,
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.json").write_text("{"),
        lambda folder: (folder / "model.json").write_text("[]"),
        lambda folder: edit_card(folder, encoder="bert4rec"),
        lambda folder: edit_card(folder, format=2),
        lambda folder: edit_card(folder, settings={"hidden": 0}),
        lambda folder: edit_card(folder, settings={"hidden": 24}),
        lambda folder: edit_card(folder, colour="blue"),
    ],
)
def test_a_damaged_folder_is_refused(
    damage: Callable[[Path], None], sasrec: SequentialModel, split: Split, tmp_path: Path
) -> None:
    sasrec.save(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"A sequential model is a folder with model\.json"):
        SequentialModel.load(tmp_path / "model", split)


def test_an_empty_place_is_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Train it again\."):
        SequentialModel.load(tmp_path / "nowhere", split)
