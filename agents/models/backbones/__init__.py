"""Backbone: the frozen language model under both agents; `load` finds one by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.causal_lm import load_causal_lm
from agents.models.backbones.pocket import INSTRUCTED_STEPS, PocketConfig, load_pocket, open_pocket
from coars_env import BackboneError, ConfigError, Split, import_object

__all__ = ["Backbone", "load"]


def load(
    name: str | Path,
    split: Split,
    *,
    kinds: Sequence[str] = (),
    device: str = "cpu",
    bits: Literal[4, 8] | None = None,
    dtype: torch.dtype | None = None,
) -> Backbone:
    """A backbone by name.

    Args:
        name: "pocket", the folder of a pocket model, the folder or hub name of a causal language model, or
            module:function of one's own, which takes the split and returns a `Backbone`.
        split: its training part is what "pocket" is built from.
        kinds: of facets that "pocket" is to know as words, for games with instructions; others know none beforehand.
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
    if ":" in str(name) and not Path(name).exists():
        return own_backbone(str(name), split, bits=bits).to(device)
    if str(name) == "pocket":
        config = PocketConfig(kinds=tuple(kinds), steps=INSTRUCTED_STEPS) if kinds else PocketConfig()
        return load_pocket(split, config).to(device)
    if pocket:
        return open_pocket(Path(name)).to(device)
    return load_causal_lm(name, device=device, bits=bits, dtype=dtype)


def own_backbone(path: str, split: Split, *, bits: Literal[4, 8] | None = None) -> Backbone:
    """Make the backbone that module:function names, also from the working directory.

    Raises:
        ConfigError: it cannot be imported, or `bits`, which are the function's own business.
        BackboneError: what it returns is no `Backbone`.
    """
    if bits is not None:
        raise ConfigError(f"--bits {bits} does not apply to {path}, which makes its own model. Leave it out.")
    made = import_object(path)(split)
    if not isinstance(made, Backbone):
        raise BackboneError(f"{path} returned {made!r:.100}, which is no agents.models.backbones.Backbone.")
    return made
