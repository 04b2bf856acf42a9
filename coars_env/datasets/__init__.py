"""Data sets by name."""

from coars_env.datasets.dataset import Dataset, Item, Provenance

__all__ = ["Dataset", "Item", "Provenance"]
