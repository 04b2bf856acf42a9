"""Backbone: the frozen language model under both agents; `load` finds one by name."""

from pathlib import Path

from agents.backbones.backbone import Backbone
from agents.backbones.causal_lm import load_causal_lm
from agents.backbones.pocket import load_pocket, open_pocket
from coars_env import Split

__all__ = ["Backbone", "load"]


def load(name: str | Path, split: Split, *, device: str = "cpu") -> Backbone:
    """A backbone by name.

    Args:
        name: "pocket", the folder of a pocket model, or the folder or hub name of a causal language model.
        split: its training part is what "pocket" is built from.
        device: "cpu" or "cuda".

    Raises:
        BackboneError: none of these, or a model that dialogues cannot be played with.
    """
    if str(name) == "pocket":
        return load_pocket(split).to(device)
    if (Path(name) / "pocket.json").is_file():
        return open_pocket(Path(name)).to(device)
    return load_causal_lm(name, device=device)
