"""Systems to compare with, one file each; every one hands on an agent."""

from baselines.names import BASELINES, load_baseline

__all__ = ["BASELINES", "load_baseline"]
