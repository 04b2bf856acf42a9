"""Every error this project raises on purpose.

    CoarsError
      DatasetError        a data file is missing, truncated, mis-encoded, of another checksum, or its rows do not fit
        MissingDataError  no copy was found and none could be fetched; what is damaged is never "missing"
      TaskError           an episode that cannot be played: target not among the candidates, equal titles, unknown id
      ActionError         an action outside its space; the environment is left as it was
      TranscriptError     a line that is not a transcript, an unknown version
      ShapeError          arrays that do not fit each other
      ConfigError         a setting out of range, settings that contradict, a missing extra
      BackboneError       a path, a name or a server that is not a usable language model
      CheckpointError     saved adapters, a checkpoint or a memory that are damaged, or belong to another base or run
      TrainingError       an update that found no dialogues, no finite numbers, or a side with nothing left to choose

Beside the tree stands CoarsWarning, a UserWarning.

A message states the broken rule, what was expected, what was found and what to do. What an agent says badly is not an
error but data: see `coars_env.transcript.Turn`. At the end stand the checks of settings that are needed all over.
"""

import math
from numbers import Real
from operator import index
from typing import Any


class CoarsError(Exception):
    """Root of every error raised on purpose."""


class DatasetError(CoarsError):
    """A data file is missing, damaged, of another checksum, or does not hold what it should."""


class MissingDataError(DatasetError):
    """No copy of the data was found, and none could be fetched."""


class TaskError(CoarsError):
    """An episode cannot be played, or is not in the set."""


class ActionError(CoarsError):
    """An action lies outside the space of its agent. Nothing was changed by it."""


class TranscriptError(CoarsError):
    """A stored dialogue cannot be read."""


class ShapeError(CoarsError):
    """Arrays do not fit each other."""


class ConfigError(CoarsError):
    """A setting is out of range, contradicts another, or needs an extra that is not installed."""


class BackboneError(CoarsError):
    """A path, a name or a server is not a usable language model."""


class CheckpointError(CoarsError):
    """Saved adapters, a checkpoint or a memory are damaged, or belong to another base model or another run."""


class TrainingError(CoarsError):
    """An update cannot be made. What was saved before it is as it was."""


class CoarsWarning(UserWarning):
    """Something works, but not as asked; for instance invented data in place of real ones."""


def whole_number(rule: str, name: str, value: object, least: int) -> int:
    """A setting as Python's own integer.

    Args:
        rule: what it is for, a sentence.
        name: of the setting.
        value: what was passed.
        least: the smallest that will do.

    Raises:
        ConfigError: no whole number, or a smaller one.
    """
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise ConfigError(f"{rule} Expected {name} >= {least}, found {value!r}. Pass a whole number from {least} on.")
    return number


def number_or_nan(value: object) -> float:
    """A setting as a float; NaN, which lies in no range, where it is no number."""
    return float(value) if isinstance(value, Real) else math.nan


def expect(kind: Any, value: object, rule: str, remedy: str) -> None:
    """Refuse what is no object of a kind: something else, or the class itself.

    Args:
        kind: a class or a protocol that can be asked for at run time.
        value: what was passed.
        rule: what it is for, a sentence.
        remedy: what to do, a sentence.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, type):
        found, remedy = f"the class {value.__name__}", f"Make an object of it: {value.__name__}(...)."
    elif isinstance(value, kind):
        return
    else:
        found = f"{value!r:.200}"
    name = getattr(kind, "__name__", kind)  # a union has none
    raise ConfigError(f"{rule} Expected an object of the kind {name}, found {found}. {remedy}")
