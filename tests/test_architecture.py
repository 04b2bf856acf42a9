"""The design rules of the project, read off the syntax trees: imports, one face, no hidden state, short files.

Each rule is a function from sources to violations. A rule is tried twice: on the project, where it must find nothing,
and on a few lines that break it, where it must find them.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("coars_env", "agents", "baselines", "examples")
"""Each imports only those to its left. Tests import anything."""
SHIPPED = PACKAGES[:3]
LADDERS = {
    "coars_env": "errors files imports datasets tasks rules roles transcript rewards scoring rendering "
    "observation turns dialogue spaces env partners views vector make coars_v0 integrations rollout evaluation "
    "commands testing cli",
    "coars_env.vector": "streams arrays numeric dialogue single",
    "agents": "sequential models players training runs",
    "agents.models": "wishes fields replies prompts usage column_cache backbones decoding forms policy language_model "
    "reply_cache endpoint api",
    "agents.players": "llm_agent demonstrator served text_agent memory text_system judge",
    "agents.training": "distributed samples sharding hindsight credit losses learner rollout update train recipe "
    "coars peers",
    "agents.runs": "checkpoint card plots loggers config record run command evaluate export",
    "baselines.benchmark": "game cell playing page plots compare crossplay",
}
"""Each module, or folder of modules, imports only what stands to its left."""
PUBLIC_FACE = {"coars_env", "coars_env.testing"}
LOADS_ALL_BASELINES = ("baselines.benchmark", "baselines.demo")
CONTRACTS = ("baselines.system", "baselines.trained_pair")
"""What a baseline may import of this package, beside itself."""


@dataclass(frozen=True)
class Source:
    """One module: its dotted name, whether it is an `__init__`, its tree, and how many lines it has."""

    name: str
    is_package: bool
    tree: ast.Module
    lines: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def rung(self) -> str:
        """The module or folder below the top package; "" for the top `__init__` itself."""
        return self.name.partition(".")[2].partition(".")[0]


def read(folder: str) -> list[Source]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        code = path.read_text(encoding="utf-8")
        found.append(Source(name, is_package, ast.parse(code, str(path)), len(code.splitlines())))
    return found


def sample(name: str, code: str) -> Source:
    is_package = name.endswith(".__init__")
    return Source(name.removesuffix(".__init__"), is_package, ast.parse(code), len(code.splitlines()))


PROJECT = [source for package in PACKAGES for source in read(package)]
TESTS = read("tests")


def exported(sources: Sequence[Source], package: str) -> list[str]:
    """What `__all__` of the package's top `__init__` lists."""
    for source in sources:
        if source.name == package and source.is_package:
            for node in source.tree.body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    return list(ast.literal_eval(node.value))
    return []


def imports(source: Source, sources: Sequence[Source]) -> Iterator[tuple[int, str]]:
    """Line and dotted module of every import, also inside functions and under TYPE_CHECKING.

    `from package import name` means the module `package.name` if there is one, unless the package exports the name.
    """
    modules = {other.name for other in sources}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = source.name.split(".")
                parents = parents[: len(parents) - node.level + source.is_package]
                base = ".".join(parents + ([base] if base else []))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules and alias.name not in exported(sources, base) else base


# The rules ----------------------------------------------------------------------------------------------------------


def packages_import_leftwards(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        above = PACKAGES[PACKAGES.index(source.top) + 1 :]
        for line, target in imports(source, sources):
            if target.partition(".")[0] in (*above, "tests"):
                yield f"{source.name}:{line} imports {target}, which stands above it"


def rung_in(folder: str, module: str) -> str:
    """The module or folder right below a folder that a dotted name leads to; "" where it leads elsewhere."""
    return module.removeprefix(f"{folder}.").partition(".")[0] if module.startswith(f"{folder}.") else ""


def modules_import_leftwards(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        for folder, words in LADDERS.items():
            ladder, own = words.split(), rung_in(folder, source.name)
            if not own:
                continue
            if own not in ladder:
                yield f"{source.name} has no place in the ladder of {folder}: give it one"
                continue
            for line, target in imports(source, sources):
                rung = rung_in(folder, target)
                if rung and rung not in ladder[: ladder.index(own) + 1]:
                    yield f"{source.name}:{line} imports {target}, which stands to its right"


def nobody_imports_its_own_init(sources: Sequence[Source]) -> Iterator[str]:
    """The top `__init__`, or that of a folder from inside the folder: both import what is below them."""
    for source in sources:
        inits = {source.top} | ({source.name.rpartition(".")[0]} if not source.is_package else set())
        for line, target in imports(source, sources):
            if target in inits:
                yield f"{source.name}:{line} imports from the __init__ of {target}, which stands above it"


def outsiders_see_the_public_face_only(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        for line, target in imports(source, sources):
            if source.top != "coars_env" and target.partition(".")[0] == "coars_env" and target not in PUBLIC_FACE:
                yield f"{source.name}:{line} imports {target}; expected one of {', '.join(sorted(PUBLIC_FACE))}"


def baselines_stand_alone(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        if source.top == "baselines" and source.rung and not source.name.startswith(LOADS_ALL_BASELINES):
            for line, target in imports(source, sources):
                if target.startswith("baselines") and target not in (source.name, *CONTRACTS):
                    yield f"{source.name}:{line} imports {target}; a baseline is read alone"


def imports_have_no_cycle(sources: Sequence[Source]) -> Iterator[str]:
    graph = {source.name: {target for _, target in imports(source, sources)} - {source.name} for source in sources}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " <- ".join(error.args[1])


def third_parties_are_declared(sources: Sequence[Source]) -> Iterator[str]:
    """coars_env lives on the core dependencies; agents and baselines on these and some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    agents = ("llm", "wandb", "trackio", "quantized", "server", "api", "embeddings")
    extras = {"coars_env": (), "agents": agents, "baselines": ("llm", "mf")}
    for source in sources:
        lists = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras.get(source.top, ()))]
        declared = {requirement.partition(">=")[0] for requirements in lists for requirement in requirements}
        allowed = {*sys.stdlib_module_names, *PACKAGES, *declared}
        for line, target in imports(source, sources):
            if source.top in SHIPPED and target.partition(".")[0] not in allowed:
                yield f"{source.name}:{line} imports {target}, which no dependency of its package brings"


def random_state_is_owned(sources: Sequence[Source]) -> Iterator[str]:
    """No call reads or seeds a global generator: numpy's legacy functions, `random`, torch without `generator=`.

    Inside `with torch.random.fork_rng()` torch's may be used, since the block puts it back.
    """
    for source in sources:
        forked = {
            inner
            for node in ast.walk(source.tree)
            if isinstance(node, ast.With)
            and any(ast.unparse(item.context_expr).partition("(")[0].endswith("fork_rng") for item in node.items)
            for inner in ast.walk(node)
        }
        names = bound_names(source)
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            root, dot, rest = called.partition(".")
            function = names.get(root, root) + dot + rest
            owner, _, last = function.rpartition(".")
            if owner in ("numpy.random", "random"):
                is_global = not (last[0].isupper() or last == "default_rng")  # classes and default_rng make instances
            elif owner in ("torch", "torch.random", "torch.cuda", "torch.cuda.random"):
                is_global = last in TORCH_SEEDS or (last in TORCH_DRAWS and not has_generator(node))
            else:
                is_global = last in TORCH_DRAWS_IN_PLACE and "." in called and not has_generator(node)
            if is_global and not (node in forked and owner != "numpy.random" and owner != "random"):
                yield f"{source.name}:{node.lineno} calls {called}, which uses a global random state"


TORCH_SEEDS = {"manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state", "set_rng_state_all"}
TORCH_DRAWS = {"bernoulli", "multinomial", "normal", "rand", "randint", "randn", "randperm"}
TORCH_DRAWS_IN_PLACE = {"bernoulli_", "exponential_", "normal_", "random_", "uniform_"}


def has_generator(call: ast.Call) -> bool:
    return any(keyword.arg == "generator" for keyword in call.keywords)


def bound_names(source: Source) -> dict[str, str]:
    """Name in the module -> what it stands for, for everything imported: np -> numpy, shuffle -> random.shuffle."""
    names = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def doubles_go_through_the_seams(sources: Sequence[Source]) -> Iterator[str]:
    """Tests fake with a toy passed in: no mock library, and no patching of our own code."""
    for source in sources:
        names = bound_names(source)
        for name in names.values():
            if name.startswith(("unittest.mock", "mock", "pytest_mock")):
                yield f"{source.name} imports {name}"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef) and any(argument.arg == "mocker" for argument in node.args.args):
                yield f"{source.name}:{node.lineno} asks for the fixture mocker"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("patch.setattr") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    target = str(first.value)
                else:
                    root, dot, rest = ast.unparse(first).partition(".")
                    target = names.get(root, root) + dot + rest
                if target.partition(".")[0] in PACKAGES:
                    yield f"{source.name}:{node.lineno} patches {target}"


MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 80
REASON = re.compile(r"Longer than 400 lines: \w+")


def files_and_functions_are_short(sources: Sequence[Source]) -> Iterator[str]:
    """A file of more lines gives the reason in its docstring; a function has no more."""
    for source in sources:
        if source.lines > MOST_LINES and not REASON.search(ast.get_docstring(source.tree) or ""):
            yield (
                f"{source.name} has {source.lines} lines, above {MOST_LINES}: shorten it, or write "
                "'Longer than 400 lines: ' and the reason in its docstring"
            )
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    yield f"{source.name}:{node.lineno} {node.name} has {lines} lines, above {MOST_LINES_OF_A_FUNCTION}"


# The rules on the project ---------------------------------------------------------------------------------------------

Rule = Callable[[Sequence[Source]], Iterator[str]]
PROJECT_RULES: list[Rule] = [
    packages_import_leftwards,
    modules_import_leftwards,
    nobody_imports_its_own_init,
    outsiders_see_the_public_face_only,
    baselines_stand_alone,
    imports_have_no_cycle,
    third_parties_are_declared,
    random_state_is_owned,
    files_and_functions_are_short,
]


@pytest.mark.parametrize("rule", PROJECT_RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    assert list(rule(PROJECT)) == []


def test_the_tests_use_no_mocks() -> None:
    assert list(doubles_go_through_the_seams(TESTS)) == []


BROKEN: list[tuple[Rule, dict[str, str], list[str]]] = [
    (
        packages_import_leftwards,
        {"agents.training.train": "def f():\n    import baselines.afl", "coars_env.env": "import tests.conftest"},
        ["agents.training.train:2 imports baselines.afl", "coars_env.env:1 imports tests.conftest"],
    ),
    (
        modules_import_leftwards,
        {
            "coars_env.tasks": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from coars_env.env import X",
            "coars_env.datasets.toy": "from coars_env import errors, tasks",
            "coars_env.utils": "",
            "coars_env.errors": "from .datasets.toy import Toy",
        },
        [
            "coars_env.tasks:3 imports coars_env.env",
            "coars_env.datasets.toy:1 imports coars_env.tasks",
            "coars_env.utils has no place",
            "coars_env.errors:1 imports coars_env.datasets.toy",
        ],
    ),
    (
        nobody_imports_its_own_init,
        {
            "coars_env.__init__": "__all__ = ['tasks']",
            "coars_env.tasks": "import coars_env",
            "coars_env.views": "from coars_env import tasks",
            "coars_env.datasets.__init__": "from coars_env.datasets.toy import Toy",
            "coars_env.datasets.toy": "from coars_env.datasets import Dataset",
        },
        ["coars_env.tasks:1", "coars_env.views:1", "coars_env.datasets.toy:1"],
    ),
    (
        outsiders_see_the_public_face_only,
        {
            "coars_env.__init__": "__all__ = ['rollout']",
            "coars_env.rollout": "",
            "coars_env.env": "",
            "coars_env.testing": "",
            "agents.training.train": "from coars_env import rollout, testing\nfrom coars_env import env",
            "baselines.afl": "import coars_env.env",
        },
        ["agents.training.train:2 imports coars_env.env", "baselines.afl:1 imports coars_env.env"],
    ),
    (
        baselines_stand_alone,
        {
            "baselines.afl": "from baselines import sasrec\nfrom baselines.system import System",
            "baselines.sasrec": "from baselines.trained_pair import TrainedPair",
            "baselines.system": "",
            "baselines.trained_pair": "from baselines.system import System",
            "baselines.benchmark.compare": "from baselines import afl, sasrec",
        },
        ["baselines.afl:1 imports baselines.sasrec"],
    ),
    (
        imports_have_no_cycle,
        {
            "agents.models.decoding": "def f():\n    import agents.models.policy",
            "agents.models.policy": "import agents.players.memory",
            "agents.players.memory": "from agents.models.decoding import Completion",
        },
        ["agents."],
    ),
    (
        third_parties_are_declared,
        {
            "coars_env.env": "import json, numpy as np\nimport torch.nn",
            "agents.models.decoding": "import torch\nimport pandas",
        },
        ["coars_env.env:2 imports torch.nn", "agents.models.decoding:2 imports pandas"],
    ),
    (
        random_state_is_owned,
        {
            "agents.a": "import numpy as np\nnp.random.default_rng(np.random.SeedSequence(1))\nnp.random.shuffle(x)",
            "agents.b": "import random\nrandom.Random(1).shuffle(x)\nrandom.seed(1)",
            "agents.c": "from random import choice\nchoice(x)",
            "agents.d": "import torch\nwith torch.random.fork_rng():\n    torch.manual_seed(1)\ntorch.manual_seed(1)",
            "agents.e": "import torch\ntorch.rand(2, generator=g)\ntorch.rand(2)",
            "agents.f": "from torch import nn\nnn.init.normal_(w, generator=g)\nw.uniform_(0, 1)",
        },
        ["agents.a:3", "agents.b:3", "agents.c:2", "agents.d:4", "agents.e:3", "agents.f:3"],
    ),
    (
        files_and_functions_are_short,
        {
            "agents.a": '"""A."""\n' + "x = 1\n" * 400,
            "agents.b": '"""B.\n\nLonger than 400 lines: one table."""\n' + "x = 1\n" * 400,
            "agents.c": '"""C.\n\nLonger than 400 lines: """\n' + "x = 1\n" * 400,
            "agents.d": '"""D."""\n' + "x = 1\n" * 399,
            "agents.e": "class E:\n    def long(self):\n"
            + "        x = 1\n" * 80
            + "def short():\n"
            + "    x = 1\n" * 79,
            "agents.f": "async def long():\n" + "    x = 1\n" * 80,
        },
        ["agents.a has 401 lines", "agents.c has 403 lines", "agents.e:2 long has 81 lines", "agents.f:1 long has 81"],
    ),
    (
        doubles_go_through_the_seams,
        {
            "tests.a": "from unittest import mock",
            "tests.b": "def test_b(mocker): pass",
            "tests.c": "import coars_env as c\ndef test_c(monkeypatch):\n    monkeypatch.setattr(c.env, 'T', 1)",
            "tests.d": "def test_d(monkeypatch):\n    monkeypatch.setattr('agents.models.decoding.f', g)",
            "tests.e": "import sys\ndef test_e(monkeypatch):\n    monkeypatch.setattr(sys, 'argv', [])",
        },
        ["tests.a imports unittest.mock", "tests.b:1 asks", "tests.c:3 patches coars_env.env", "tests.d:2 patches"],
    ),
]


@pytest.mark.parametrize(("rule", "modules", "expected"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_the_rule_finds_what_breaks_it(rule: Rule, modules: dict[str, str], expected: list[str]) -> None:
    found = list(rule([sample(name, code) for name, code in modules.items()]))
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


# The public face ------------------------------------------------------------------------------------------------------


def isort_order(name: str) -> tuple[int, str]:
    """Constants, classes, functions; as ruff sorts an `__all__`."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_all_of_coars_env_is_sorted_and_complete() -> None:
    init = next(source for source in PROJECT if source.name == "coars_env")
    public = {name for name in bound_names(init) if not name.startswith("_")}
    names = exported(PROJECT, "coars_env")
    assert [name for name in names if not name.startswith("__")] == sorted(public, key=isort_order)


def test_the_init_of_coars_env_holds_no_logic() -> None:
    init = next(source for source in PROJECT if source.name == "coars_env")
    statements = {type(node) for node in init.tree.body}
    assert statements <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign}


def test_importing_coars_env_is_light() -> None:
    code = "import sys; import coars_env; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "gymnasium" in ran.stdout.split()
    assert set(ran.stdout.split()).isdisjoint(
        {"torch", "transformers", "peft", "pandas", "scipy", "matplotlib", "rich", "tyro", "agents", "baselines"}
    )
