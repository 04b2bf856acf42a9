"""Any transformers causal language model with a chat template, by name or path."""

import importlib.util
import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file, has_file

from agents.models.backbones.backbone import Backbone, body, project, quiet
from coars_env import BackboneError, ConfigError


def load_causal_lm(
    name_or_path: str | Path,
    *,
    device: str = "cpu",
    bits: Literal[4, 8] | None = None,
    dtype: torch.dtype | None = None,
) -> Backbone:
    """Load a model and its tokenizer. The hub is asked only for what is no folder and not in its cache.

    Args:
        name_or_path: folder or hub name.
        device: where to.
        bits: of the inner matrices, by bitsandbytes: 8 for int8, 4 for NF4. None leaves them whole.
        dtype: of the rest; by default fp32 on a CPU, bf16 on a GPU.

    Raises:
        ConfigError: `bits` without bitsandbytes.
        BackboneError: neither a folder with a model nor a name the hub (or its cache) knows; or a model that dialogues
            cannot be played with.
    """
    name = os.fspath(name_or_path)
    local = Path(name).exists()
    if not local and (Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise _refusal(name, "no such folder")
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    quantization = _quantization(bits, dtype)
    try:
        tokenizer, model, missing = _read(name, dtype, local, device, quantization)
    except Exception as error:  # five libraries take part in loading, each with errors of its own
        raise _refusal(name, repr(error)) from error
    if missing:
        raise _refusal(name, f"no weights for {missing[0]} and {len(missing) - 1} others")
    if bits is None:
        nn.Module.to(model, device)
    _check_logits(model, name)
    return Backbone(model, tokenizer)


def _quantization(bits: Literal[4, 8] | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if bits is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "A base of 8 or 4 bits is made by bitsandbytes. Expected it to be installed, found it missing. "
            "pip install 'coars-env[llm,quantized]'."
        )
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _read(
    name: str, dtype: torch.dtype, local: bool, device: str, quantization: BitsAndBytesConfig | None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, list[str]]:
    """Tokenizer, model, and the names of its tensors that the files do not hold."""

    def read(place: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, list[str]]:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        found: Any = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            output_loading_info=True,
            # a quantized model is put on its device while it is read, and cannot be moved
            **({} if quantization is None else {"quantization_config": quantization, "device_map": {"": device}}),
        )
        model, report = found
        model.name_or_path = name  # not the folder it was cached in
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):  # else its first pass packs the weights in another order
                module.support_avx512bf16_for_cpu = False
        return tokenizer, model, sorted(report["missing_keys"])

    try:
        # the folder in the cache, because by its name transformers would look for updates: offline that takes minutes
        folder = name if local else str(Path(str(cached_file(name, "config.json", local_files_only=True))).parent)
        with quiet():
            return read(folder)
    except Exception:
        if local or not has_file(name, "config.json"):  # asks the hub once; loading would ask again and again
            raise
        return read(name)


def _refusal(name: str, found: str) -> BackboneError:
    return BackboneError(
        "A backbone is a transformers causal language model, or pocket. Expected the folder or the hub name of one, "
        f"found {name!r} ({found}). Check the name, fetch the model while online, or take --backbone pocket."
    )


@torch.no_grad()
def _check_logits(model: PreTrainedModel, name: str) -> None:
    """Some models scale or cap their logits after the output matrix; the decode loop would not see that."""
    ids = torch.arange(4, device=model.device)[None]
    expected = model(input_ids=ids, use_cache=False).logits.float()
    found = project(model, body(model)(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(expected, found, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
        raise _refusal(name, "a model that changes its logits after the output matrix")
