"""Systems to compare with, one file each; every one hands on an agent."""

from baselines.system import SYSTEMS, Resources, SavedSystem, System, load_system

__all__ = ["SYSTEMS", "Resources", "SavedSystem", "System", "load_system"]
