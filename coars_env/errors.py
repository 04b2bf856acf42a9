"""Every error this project raises on purpose.

    CoarsError
      DatasetError        a data file is missing, truncated, mis-encoded, of another checksum, or its rows do not fit
        MissingDataError  no copy was found and none could be fetched; what is damaged is never "missing"
      TaskError           an episode that cannot be played: target not among the candidates, equal titles, unknown id
      ActionError         an action outside its space; the environment is left as it was
      TranscriptError     a line that is not a transcript, an unknown version
      ShapeError          arrays that do not fit each other
      ConfigError         a setting out of range, settings that contradict, a missing extra
      BackboneError       a path or name that is not a usable language model
      CheckpointError     saved adapters that are damaged or belong to another base

Beside the tree stands CoarsWarning, a UserWarning.

A message states the broken rule, what was expected, what was found and what to do. What an agent says badly is not an
error but data: see `coars_env.transcript.Turn`.
"""


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
    """A path or name is not a usable language model."""


class CheckpointError(CoarsError):
    """Saved adapters are damaged or belong to another base model."""


class CoarsWarning(UserWarning):
    """Something works, but not as asked; for instance invented data in place of real ones."""
