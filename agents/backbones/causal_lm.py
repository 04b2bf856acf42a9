"""Any transformers causal language model with a chat template, by name or path."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from agents.backbones.backbone import Backbone, body, project, quiet
from coars_env import BackboneError


def load_causal_lm(name_or_path: str | Path, *, device: str = "cpu") -> Backbone:
    """Load a model and its tokenizer; fp32 on a CPU, bf16 on a GPU. A name that is no folder is asked of the hub.

    Raises:
        BackboneError: neither a folder with a model nor a name the hub (or its cache) knows; or a model that dialogues
            cannot be played with.
    """
    name = os.fspath(name_or_path)
    local = Path(name).exists()
    if not local and (Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise _refusal(name, "no such folder")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        with quiet() if local else contextlib.nullcontext():  # a download may show its bar
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # five libraries take part in loading, each with errors of its own
        raise _refusal(name, repr(error)) from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise _refusal(name, f"no weights for {missing[0]} and {len(missing) - 1} others")
    nn.Module.to(model, device)
    _check_logits(model, name)
    return Backbone(model, tokenizer)


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
