"""`coars <command> [arguments]`: finds the commands by their entry points and loads only the one asked for.

A command is an entry of the group `coars.commands`: a function of one argument, the list of words after its name. The
packages above this one announce theirs in `pyproject.toml`, and so may anybody's.
"""

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from itertools import accumulate

from coars_env.errors import CoarsError, ConfigError

GROUP = "coars.commands"
DISTRIBUTION = "coars-env"
COMMON_NAMES = ("agents", "baselines")
"""Our import names that another distribution may well carry, too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after `coars`; None reads them from the command line.

    Returns:
        The exit status: 0, 1 if the command failed in a way it can name, 2 if there is no such command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {entry.name: entry for entry in sorted(entry_points(group=GROUP))}
    if not words:
        print(_usage(commands), file=sys.stderr)
        return 2
    name, *arguments = words
    if name in ("-h", "--help"):
        print(_usage(commands))
        return 0
    if name == "--version":
        print(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        return 0
    if name not in commands:
        known = ", ".join(commands) or "none: the package is not installed, run `pip install .`"
        print(f"coars: there is no command {name!r}. Known commands: {known}.", file=sys.stderr)
        return 2
    try:
        _refuse_foreign_packages(packages_distributions())
        commands[name].load()(arguments)
    except CoarsError as error:
        print(f"coars {name}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        extra = _extra_with(error.name or "", commands[name])
        if extra is None:
            raise
        print(f'coars {name} needs {error.name}, which is not installed: pip install "{extra}"', file=sys.stderr)
        return 1
    return 0


def _usage(commands: Mapping[str, EntryPoint]) -> str:
    width = max(map(len, commands), default=0)
    lines = [f"  {name:<{width}}  {_summary(entry)}".rstrip() for name, entry in commands.items()]
    return "\n".join(
        ["usage: coars <command> [arguments]", "", "commands:", *lines, "", "coars <command> --help tells the rest."]
    )


def _summary(entry: EntryPoint) -> str:
    """The first line of the docstring of the command's module, which is read but not run; "" if there is none."""
    *parents, _ = accumulate(entry.module.split("."), "{}.{}".format)
    path: Sequence[str] | None = None
    for parent in parents:
        spec = PathFinder.find_spec(parent, path)
        path = spec.submodule_search_locations if spec else []
    spec = PathFinder.find_spec(entry.module, path)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    with open(spec.origin, encoding="utf-8") as source:
        return (ast.get_docstring(ast.parse(source.read())) or "").partition("\n")[0]


def _refuse_foreign_packages(owners: Mapping[str, Sequence[str]]) -> None:
    """Owners: import name -> the distributions that installed files under it."""
    for name in COMMON_NAMES:
        foreign = sorted(set(owners.get(name, ())) - {DISTRIBUTION})
        if foreign:
            raise ConfigError(
                f"The import name `{name}` must belong to {DISTRIBUTION} alone. Expected no other package with it in "
                f"this environment, found {', '.join(foreign)}. Use an environment of its own for {DISTRIBUTION}."
            )


def _extra_with(module: str, entry: EntryPoint) -> str | None:
    """`distribution[extra]`, the extra of the command's distribution that brings the module; None if there is none."""
    if entry.dist is None:
        return None
    for requirement in entry.dist.requires or ():
        match = re.match(r"([\w.-]+).*\bextra\s*==\s*['\"]([\w.-]+)['\"]", requirement)
        if match and match[1].replace("-", "_") == module.partition(".")[0]:
            return f"{entry.dist.name}[{match[2]}]"
    return None


if __name__ == "__main__":
    sys.exit(main())
