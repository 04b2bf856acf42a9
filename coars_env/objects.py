"""load_object: a class, a function or an object of your own by its path, `module:name`."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from coars_env.errors import ConfigError


def load_object(path: str) -> Any:
    """Import what a path names, such as "my_systems:Nearest"; the working directory is searched last.

    Raises:
        ConfigError: not of this form, the module cannot be imported, or it holds no such name.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ConfigError(f"{path!r} is no path of an object. Write module:name, such as my_systems:Nearest.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # processes that are started from this one search it, too
    try:
        found: Any = import_module(module)
    except Exception as error:  # whatever a module of one's own raises while it is run
        raise ConfigError(
            f"{path} cannot be imported: {type(error).__name__}: {error}. Modules are searched for in {here} and on "
            "PYTHONPATH."
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{path} does not exist: {module} has no {name!r}. Correct the name.")
        found = getattr(found, part)
    return found
