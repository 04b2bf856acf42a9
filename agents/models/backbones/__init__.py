"""Backbone: the frozen language model under both agents; `load` finds one by name."""

from pathlib import Path
from typing import Literal

import torch

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.causal_lm import load_causal_lm
from agents.models.backbones.pocket import load_pocket, open_pocket
from coars_env import ConfigError, Split

__all__ = ["Backbone", "load"]


def load(
    name: str | Path,
    split: Split,
    *,
    device: str = "cpu",
    bits: Literal[4, 8] | None = None,
    dtype: torch.dtype | None = None,
) -> Backbone:
    """A backbone by name.

    Args:
        name: "pocket", the folder of a pocket model, or the folder or hub name of a causal language model.
        split: its training part is what "pocket" is built from.
        device: "cpu" or "cuda".
        bits: of the inner matrices, see `load_causal_lm`.
        dtype: see `load_causal_lm`; a pocket is fp32 always.

    Raises:
        ConfigError: `bits` for a pocket, or without bitsandbytes.
        BackboneError: none of these, or a model that dialogues cannot be played with.
    """
    pocket = str(name) == "pocket" or (Path(name) / "pocket.json").is_file()
    if pocket and bits is not None:
        raise ConfigError(f"pocket is small as it is. Expected no bits for {name}, found {bits}. Leave them out.")
    if str(name) == "pocket":
        return load_pocket(split).to(device)
    if pocket:
        return open_pocket(Path(name)).to(device)
    return load_causal_lm(name, device=device, bits=bits, dtype=dtype)
