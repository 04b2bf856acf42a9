"""Any transformers causal language model with a chat template, by name or path."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.backbones.backbone import Backbone
from coars_env import BackboneError


def load_causal_lm(name_or_path: str | Path, *, device: str = "cpu") -> Backbone:
    """Load a model and its tokenizer; fp32 on a CPU, bf16 on a GPU.

    Raises:
        BackboneError: neither a folder with a model nor a name the hub (or its cache) knows.
    """
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype, attn_implementation="sdpa")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            "A backbone must be a transformers causal language model. Expected its folder or its hub name, found "
            f"{str(name_or_path)!r} ({error}). Check the path, or build the local one with --backbone pocket."
        ) from error
    return Backbone(model.to(device), tokenizer)
