"""import_object: a class, function or object of one's own, named on the command line."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from coars_env.errors import ConfigError


def import_object(name: str) -> Any:
    """Import what "module:attribute" names, such as "my_reward:Sparse". Modules in the working directory are found.

    Raises:
        ConfigError: the name has another form, the module cannot be imported, or it has no such attribute.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"{name!r} names nothing to import. Write module:attribute, such as my_reward:Sparse.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
    except Exception as error:  # whatever the module raises while it runs
        raise ConfigError(
            f"The module of {name!r} cannot be imported: {error!r}. Check the name; modules are looked for in {here} "
            "and where Python finds packages."
        ) from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ConfigError(f"The module {module!r} has no {attribute!r}. Name what is defined there.") from error
    return found
