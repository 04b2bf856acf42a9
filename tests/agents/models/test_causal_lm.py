"""Loading a transformers model by name or folder."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GraniteConfig, GraniteForCausalLM, MistralConfig, MistralForCausalLM

from agents.models.backbones import load
from agents.models.backbones.causal_lm import load_causal_lm
from agents.models.policy import Policy, fingerprint
from agents.training.coars import Coars
from agents.training.samples import collate
from coars_env import ROLES, USER, BackboneError, ConfigError, Split


def saved_copy(lab: Any, folder: Path) -> Path:
    """A model folder that may be damaged."""
    folder.mkdir()
    for path in lab.folder("qwen3").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_saved_model_is_loaded_in_full_precision_on_a_cpu(lab: Any, kind: str) -> None:
    for name in (lab.folder(kind), str(lab.folder(kind))):
        backbone = load_causal_lm(name)
        assert backbone.model.dtype == torch.float32
        assert backbone.device.type == "cpu"
        assert backbone.list_separator == "\n-"
        assert backbone.trained_on is None


def test_loading_is_silent(lab: Any, capfd: pytest.CaptureFixture[str]) -> None:
    load_causal_lm(lab.folder("llama"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "/no/such/folder", "./nowhere", "runs/a/b"])
def test_what_is_not_there_is_refused_at_once(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(
        BackboneError, match=r"A backbone is a transformers causal language model, or pocket\. Expected"
    ):
        load_causal_lm(name)
    assert time.perf_counter() - started < 5


LOAD = """
from agents.models.backbones.causal_lm import load_causal_lm
backbone = load_causal_lm("nobody/tiny")
print(backbone.vocabulary, backbone.model.name_or_path)
"""


def test_what_is_in_the_cache_of_the_hub_is_loaded_offline_by_its_name(lab: Any, root: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--nobody--tiny"
    shutil.copytree(lab.folder("qwen3"), repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    ran = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "403 nobody/tiny\n"


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def lose_a_layer(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if ".layers.1." not in n}, path, metadata={"format": "pt"})


def lose_the_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def name_another_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no_such_type"}))


@pytest.mark.parametrize("damage", [empty, cut_weights, lose_a_layer, break_the_config, name_another_architecture])
def test_a_damaged_folder_is_refused(lab: Any, damage: Any, tmp_path: Path) -> None:
    folder = saved_copy(lab, tmp_path / "model")
    damage(folder)
    with pytest.raises(BackboneError, match="Check the name, fetch the model while online, or take --backbone pocket"):
        load_causal_lm(folder)


def test_a_folder_without_a_tokenizer_is_refused(lab: Any, tmp_path: Path) -> None:
    """transformers makes up an empty one."""
    folder = saved_copy(lab, tmp_path / "model")
    lose_the_tokenizer(folder)
    with pytest.raises(BackboneError, match="Expected a token for the line break"):
        load_causal_lm(folder)


SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "pad_token_id": 0,
}


def test_a_model_that_scales_its_logits_is_refused(lab: Any, tmp_path: Path) -> None:
    """Granite divides them; the decode loop, which multiplies by the output matrix itself, would not."""
    folder = saved_copy(lab, tmp_path / "model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GraniteForCausalLM(GraniteConfig(vocab_size=403, logits_scaling=8.0, **SHAPE))
    model.save_pretrained(folder)
    with pytest.raises(BackboneError, match="changes its logits after the output matrix"):
        load_causal_lm(folder)


def test_a_model_that_forgets_is_refused(lab: Any, tmp_path: Path) -> None:
    folder = saved_copy(lab, tmp_path / "model")
    with torch.random.fork_rng():
        MistralForCausalLM(MistralConfig(vocab_size=403, sliding_window=32, **SHAPE)).save_pretrained(folder)
    with pytest.raises(BackboneError, match="A backbone must see all it has read"):
        load_causal_lm(folder)


def test_load_tells_a_pocket_folder_from_another(lab: Any, split: Split) -> None:
    pocket = load(lab.folder("pocket"), split)
    assert pocket.trained_on == split.dataset.provenance
    assert pocket.list_separator == ""
    assert load(str(lab.folder("llama")), split).trained_on is None
    with pytest.raises(BackboneError, match="'pocketful'"):
        load("pocketful", split)


# Bits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")  # it computes in fp16
@pytest.mark.parametrize(("bits", "kind"), [(8, "Linear8bitLt"), (4, "Linear4bit")])
def test_a_base_of_few_bits_plays_learns_and_stays_as_it_is(lab: Any, bits: Literal[4, 8], kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    backbone = load_causal_lm(lab.folder("qwen3"), bits=bits)
    whole = load_causal_lm(lab.folder("qwen3"))
    assert type(backbone.model.model.layers[0].mlp.up_proj).__name__ == kind
    before = fingerprint(backbone.model)
    backbone.max_reason_tokens = 4
    policy = Policy(backbone, rank=4, alpha=8)
    assert {parameter.dtype for role in ROLES for parameter in policy.parameters(role)} == {torch.float32}
    untrained = [parameter.detach().clone() for parameter in policy.parameters(USER)]
    lab.train(policy, lab.build, Coars(steps=1, episodes_per_step=4, max_turns=1, explored_share=0.0))
    assert any(not torch.equal(a, b) for a, b in zip(policy.parameters(USER), untrained, strict=True))
    assert fingerprint(backbone.model) == before != fingerprint(whole.model)


def test_pocket_takes_no_bits(lab: Any, split: Split) -> None:
    with pytest.raises(ConfigError, match=r"Expected no bits for .*, found 4\. Leave them out\."):
        load(lab.folder("pocket"), split, bits=4)


def test_on_a_base_in_bf16_adapters_and_log_probabilities_are_fp32(lab: Any) -> None:
    backbone = lab.backbone("qwen3")
    backbone.model.to(torch.bfloat16)
    policy = Policy(backbone, rank=4, alpha=8)
    played = lab.play(policy, 2)
    samples = [sample for sample in played.samples(USER) if sample.turns]
    batch = collate(samples, 0, backbone.device)
    logprobs = policy.score(USER, batch.token_ids, batch.places, batch.allowed)
    assert backbone.model.dtype == torch.bfloat16
    assert logprobs.dtype == torch.float32
    assert {parameter.dtype for role in ROLES for parameter in policy.parameters(role)} == {torch.float32}
    assert torch.allclose(logprobs.detach(), batch.rollout_logprobs, atol=0.1)  # bf16 has three digits
