"""Systems to compare with, one file each; every one hands on an agent."""

from baselines.system import BASELINES, load_baseline

__all__ = ["BASELINES", "load_baseline"]
