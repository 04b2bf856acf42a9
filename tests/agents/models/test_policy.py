"""Two adapters on one frozen base: who is live, who learns, what a score is, what is saved."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agents.models.backbones.backbone import Backbone
from agents.models.policy import Policy, fingerprint
from coars_env import RECOMMENDER, ROLES, USER, CheckpointError, ConfigError, Role

KINDS = ("pocket", "llama", "qwen3")
LINEAR_LAYERS = 7  # of a transformer layer: q, k, v, o, gate, up, down; there are two layers


def some_tokens() -> Tensor:
    return (100 + torch.arange(24)).reshape(2, 12)  # letters, nothing special


PLACES = ((0, 3), (0, 11), (1, 1), (1, 7))
ALLOWED = (None, (105, 111, 120), None, (101, 119))  # free text and choices


def score(policy: Policy, role: Role | None) -> Tensor:
    """Of four tokens."""
    rows, columns = torch.tensor(PLACES).T
    return policy.score(role, some_tokens(), (rows, columns), ALLOWED)


def scores(policy: Policy) -> list[Tensor]:
    """Of the base and both sides."""
    return [score(policy, role).detach() for role in (None, *ROLES)]


def gradients(policy: Policy, role: Role) -> float:
    return sum(float(p.grad.abs().sum()) for p in policy.parameters(role) if p.grad is not None)


def base_of(policy: Policy) -> dict[str, Tensor]:
    adapters = {id(p) for role in ROLES for p in policy.parameters(role)}
    return {name: p for name, p in policy.peft.named_parameters() if id(p) not in adapters}


# What a score is ------------------------------------------------------------------------------------------------------


def test_three_tokens_are_scored_as_the_table_says(bigrams: Backbone) -> None:
    policy = Policy(bigrams, rank=2)
    ids = torch.tensor([[3, 5, 6, 4]])  # <|assistant|> a b newline
    places = torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3])
    free = policy.score(RECOMMENDER, ids, places, [None, None, None])
    assert free.tolist() == pytest.approx([math.log(0.5), math.log(0.5), math.log(0.25)], abs=1e-5)
    # after a, b against c: .5 to .125; after b, newline against c: .25 to .25
    chosen = policy.score(RECOMMENDER, ids, places, [None, (6, 7), (4, 7)])
    assert chosen.tolist() == pytest.approx([math.log(0.5), math.log(0.8), math.log(0.5)], abs=1e-5)
    # at temperature 1/2 the odds are squared: .25 among .25 + 2/16; .25 to 1/64
    cold = policy.score(RECOMMENDER, ids, places, [(5, 6, 7), (6, 7), (4, 7)], temperature=0.5)
    assert cold.tolist() == pytest.approx([math.log(2 / 3), math.log(16 / 17), math.log(0.5)], abs=1e-5)


def test_padding_on_the_right_changes_no_score(lab: Any) -> None:
    policy = lab.policy()
    ids = some_tokens()[:1]
    places = torch.tensor([0, 0]), torch.tensor([3, 11])
    expected = policy.score(USER, ids, places, [None, (1, 11)])
    for pad in (0, 5):
        padded = nn.functional.pad(ids, (0, 9), value=pad)
        assert torch.allclose(policy.score(USER, padded, places, [None, (1, 11)]), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_made_in_pieces_equal_those_made_at_once(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    sizes: list[int] = []
    policy.backbone.model.get_output_embeddings().register_forward_hook(lambda *_: sizes.append(_[2].numel()))
    found = []
    for limit in (2**26, 3 * policy.backbone.vocabulary, 1):
        policy.logits_at_once = limit
        policy.peft.zero_grad()
        logprobs = score(policy, USER)
        (logprobs * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
        found.append((logprobs.detach(), [p.grad.clone() for p in policy.parameters(USER)]))
    assert set(sizes[1:5]) == {3 * policy.backbone.vocabulary, policy.backbone.vocabulary}
    assert set(sizes[5:]) == {policy.backbone.vocabulary}
    for logprobs, gradient in found[1:]:
        assert torch.allclose(logprobs, found[0][0], atol=1e-6)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradient, found[0][1], strict=True))


# Who is live ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_adapters_do_nothing_and_trained_ones_differ_from_base_and_each_other(lab: Any, kind: str) -> None:
    policy = lab.policy(kind, scale=0)
    base, recommender, user = scores(policy)
    assert torch.equal(base, recommender)
    assert torch.equal(base, user)
    lab.perturb(policy)
    base_again, recommender, user = scores(policy)
    assert torch.equal(base, base_again)
    for a, b in ((base, recommender), (base, user), (recommender, user)):
        assert float((a - b).abs().max()) > 0.01


def test_swapping_the_two_adapters_swaps_the_scores(lab: Any) -> None:
    policy = lab.policy()
    before = {role: score(policy, role) for role in ROLES}
    for a, b in zip(policy.parameters(RECOMMENDER), policy.parameters(USER), strict=True):
        a.data, b.data = b.data, a.data
    assert torch.equal(score(policy, USER), before[RECOMMENDER])
    assert torch.equal(score(policy, RECOMMENDER), before[USER])


# Who learns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_has_its_own_tensors_on_every_linear_layer_but_the_output(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    names = {role: [name for name, _ in policy.named_parameters(role)] for role in ROLES}
    for role, own in ((RECOMMENDER, "recommender"), (USER, "user")):
        assert len(names[role]) == 2 * LINEAR_LAYERS * 2
        assert all(f".{own}." in name and "lora_" in name for name in names[role])
        assert not any("lm_head" in name or "embed" in name for name in names[role])
    assert {id(p) for p in policy.parameters(RECOMMENDER)}.isdisjoint(id(p) for p in policy.parameters(USER))
    assert not any("lora" in name for name in base_of(policy))


def asks_for_gradients(policy: Policy) -> bool:
    adapters = all(p.requires_grad for role in ROLES for p in policy.parameters(role))
    return adapters and not any(p.requires_grad for p in base_of(policy).values())


def test_both_sides_can_learn_after_every_switch(lab: Any) -> None:
    policy = lab.policy()
    assert asks_for_gradients(policy)
    for role in (RECOMMENDER, USER, None, USER, RECOMMENDER, None):
        with policy.use_adapter(role):
            pass
        assert asks_for_gradients(policy)
    for role in (USER, None):
        with pytest.raises(KeyError), policy.use_adapter(role):
            raise KeyError
        assert asks_for_gradients(policy)


def test_a_side_can_be_live_inside_another(lab: Any) -> None:
    policy = lab.policy()
    expected = score(policy, RECOMMENDER)
    with policy.use_adapter(None):
        pass
    with policy.use_adapter(USER):
        score(policy, None)
    assert torch.equal(score(policy, RECOMMENDER), expected)


def test_after_the_base_has_spoken_both_sides_still_train(lab: Any) -> None:
    policy = lab.policy()
    optimizers = {role: torch.optim.AdamW(policy.parameters(role), lr=1e-2, weight_decay=0.0) for role in ROLES}
    base = {name: p.detach().clone() for name, p in base_of(policy).items()}
    for _ in range(2):
        for role in ROLES:
            score(policy, None)
            optimizers[role].zero_grad()
            before = {side: [p.detach().clone() for p in policy.parameters(side)] for side in ROLES}
            score(policy, role).sum().backward()
            assert all(p.grad is not None and bool(p.grad.any()) for p in policy.parameters(role))
            optimizers[role].step()
            for side in ROLES:
                moved = [not torch.equal(a, b) for a, b in zip(before[side], policy.parameters(side), strict=True)]
                assert moved == [side == role] * len(moved)
    assert all(torch.equal(p, base[name]) for name, p in base_of(policy).items())
    assert all(p.grad is None for p in base_of(policy).values())


def test_a_gradient_reaches_the_scoring_side_alone(lab: Any) -> None:
    policy = lab.policy()
    score(policy, USER).sum().backward()
    assert gradients(policy, USER) > 0
    assert gradients(policy, RECOMMENDER) == 0


def test_the_start_depends_on_seed_and_side_and_on_no_global_state(lab: Any) -> None:
    state = torch.random.get_rng_state()
    starts = {}
    for seed in (0, 1, 0):
        policy = lab.policy(scale=0, seed=seed)
        for role in ROLES:
            start = torch.cat([p.detach().flatten() for p in policy.parameters(role)])
            assert torch.equal(starts.setdefault((seed, role), start), start)
        torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.random.get_rng_state(), state)
    different = list(starts.values())
    assert len(different) == 4
    assert not any(torch.equal(a, b) for n, a in enumerate(different) for b in different[:n])


def test_a_backbone_carries_one_policy(lab: Any) -> None:
    policy = lab.policy()
    with pytest.raises(ConfigError, match="A backbone carries one policy"):
        Policy(policy.backbone)
    policy.peft.unload()
    assert torch.equal(score(Policy(policy.backbone, rank=4), USER), score(lab.policy(scale=0), USER))


# What is saved --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_saved_adapters_are_read_by_us_and_by_plain_peft(lab: Any, kind: str, tmp_path: Path) -> None:
    policy = lab.policy(kind)
    expected = {role: score(policy, role).detach() for role in (*ROLES, None)}
    policy.save(tmp_path)
    assert asks_for_gradients(policy)
    again = Policy.load(lab.backbone(kind), tmp_path)
    assert asks_for_gradients(again)
    assert not again.peft.training
    for role in (*ROLES, None):
        assert torch.equal(score(again, role), expected[role])
    for role, name in ((RECOMMENDER, "recommender"), (USER, "user")):
        backbone = lab.backbone(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = PeftModel.from_pretrained(backbone.model, tmp_path / name)
        logits = plain(input_ids=some_tokens()).logits
        for (row, column), choices, logprob in zip(PLACES, ALLOWED, expected[role].tolist(), strict=True):
            among = list(choices or backbone.free_mask.nonzero()[:, 0].tolist())
            found = torch.log_softmax(logits[row, column - 1, among], -1)[among.index(int(some_tokens()[row, column]))]
            assert found.item() == pytest.approx(logprob, abs=1e-5)


def test_loaded_adapters_go_on_learning(lab: Any, tmp_path: Path) -> None:
    lab.policy().save(tmp_path)
    policy = Policy.load(lab.backbone(), tmp_path)
    for role in ROLES:
        score(policy, role).sum().backward()
        assert gradients(policy, role) > 0


def cut_weights(folder: Path) -> None:
    path = folder / "user" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def drop_a_tensor(folder: Path) -> None:
    path = folder / "user" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in list(tensors.items())[1:]}, path)


def break_config(folder: Path) -> None:
    (folder / "user" / "adapter_config.json").write_text("{")


def name_no_kind(folder: Path) -> None:
    (folder / "user" / "adapter_config.json").write_text(json.dumps({"r": 4}))


def lose_a_side(folder: Path) -> None:
    (folder / "user" / "adapter_config.json").unlink()


def lose_weights(folder: Path) -> None:
    (folder / "recommender" / "adapter_model.safetensors").unlink()


def change_the_rank(folder: Path) -> None:
    path = folder / "user" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 2}))


@pytest.mark.parametrize(
    "damage", [cut_weights, drop_a_tensor, break_config, name_no_kind, lose_a_side, lose_weights, change_the_rank]
)
def test_damaged_adapters_are_refused_and_leave_the_backbone_alone(lab: Any, damage: Any, tmp_path: Path) -> None:
    lab.policy().save(tmp_path)
    damage(tmp_path)
    backbone = lab.backbone()
    with pytest.raises(CheckpointError, match=r"Adapters are read from two folders written by `coars train`"):
        Policy.load(backbone, tmp_path)
    assert torch.equal(score(Policy(backbone, rank=4), USER), score(lab.policy(scale=0), USER))


def test_adapters_that_are_not_there_are_refused(lab: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        Policy.load(lab.backbone(), tmp_path / "nowhere")


def test_adapters_of_another_base_are_refused(lab: Any, tmp_path: Path) -> None:
    lab.policy("llama").save(tmp_path)
    with pytest.raises(CheckpointError, match="adapters of a base model with other weights"):
        Policy.load(lab.backbone("qwen3"), tmp_path)
    backbone = lab.backbone("llama")
    next(backbone.model.parameters()).data[0, 0] += 1.0  # of the same shape
    with pytest.raises(CheckpointError, match="adapters of a base model with other weights"):
        Policy.load(backbone, tmp_path)
    (tmp_path / "base.json").unlink()
    with pytest.raises(CheckpointError, match="of another shape"):
        Policy.load(lab.backbone("pocket"), tmp_path)


def test_a_base_has_the_same_fingerprint_with_and_without_adapters_and_in_half_precision(lab: Any) -> None:
    backbone = lab.backbone()
    bare = fingerprint(backbone.model)
    Policy(backbone)
    assert fingerprint(backbone.model) == bare
    assert fingerprint(lab.backbone().model.to(torch.bfloat16)) == bare
    assert fingerprint(lab.backbone("qwen3").model) != bare
