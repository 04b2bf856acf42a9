"""import_object: what `module:name` on the command line stands for."""

import os
import sys
from functools import reduce
from importlib import import_module
from typing import Any

from coars_env.errors import ConfigError


def import_object(path: str) -> Any:
    """Import `module:name`; modules are also looked for in the working directory, after all installed ones.

    Raises:
        ConfigError: it is not written so, the module cannot be imported, or it has no such name.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ConfigError(f"an object is named as module:name, got {path!r}. Write it so.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for good: the module may import others later, and processes inherit it
    try:
        found = import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        remedy = f"Put it into {os.getcwd()} or into PYTHONPATH, or install it." if missing else "Correct the module."
        raise ConfigError(f"{path!r} cannot be imported: {error!r}. {remedy}") from error
    try:
        return reduce(getattr, name.split("."), found)
    except AttributeError as error:
        raise ConfigError(
            f"{path!r} cannot be imported: {getattr(found, '__file__', module)} has no {name!r}. Correct the name."
        ) from error
