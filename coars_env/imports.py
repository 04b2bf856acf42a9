"""load_object: a module:name of the command line as an object."""

import os
import sys
from importlib import import_module
from typing import Any

from coars_env.errors import ConfigError


def load_object(path: str) -> Any:
    """Import what `module:name` names, from installed packages or the working directory.

    Raises:
        ConfigError: not of that form, the module cannot be imported, or it has no such name.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ConfigError(f"{path!r} is not of the form module:name, such as my_package.my_module:MyClass.")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module itself raises
        raise ConfigError(f"{path} cannot be imported: {error!r}. Check the name, and where the module is.") from error
    return found
