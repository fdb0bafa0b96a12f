"""The arrows of the house: who may import whom, and what starts without torch."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "linn"
HEAVY = {"torch", "transformers"}
HEAVY_ROOMS = ("engine", "scale")
"""Torch and transformers are imported here alone."""
LAYERS = (
    "types errors files terminal",
    "progress stopping",
    "chat sandbox",
    "endpoint",
    "recipe",
    "ledger checkpoints assets data engine",
    "judges",
    "domains",
    "play",
    "evals solve bases offline serve scale",
    "stages",
    "pricing run report",
    "publish",
    "cli",
)
"""Lowest first. An import goes down, or stays in its own package."""
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    """Full names of what a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {_imported(node.module, alias.name) for alias in node.names}
    return frozenset(names)


def _imported(module: str, name: str) -> str:
    """The module that `from module import name` reaches: a submodule of that name, or `module`."""
    path = ROOT.parent.joinpath(*module.split("."), name)
    is_module = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
    return f"{module}.{name}" if is_module else module


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("linn", *parts)).removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def links(module: str) -> set[str]:
    """The modules of linn that a module imports, itself excluded."""
    return (imports_of(FILES[module]) & FILES.keys()) - {module, "linn"}


def room(module: str) -> str:
    """The package, or top module, that a module belongs to: `engine` for `linn.engine.open`."""
    return module.split(".")[1]


def test_every_module_has_a_layer():
    assert {room(module) for module in FILES if module != "linn"} <= set(LAYER)


def test_an_import_goes_down_or_stays_in_its_package():
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        if module != "linn"
        for other in sorted(links(module))
        if room(module) != room(other) and LAYER[room(other)] >= LAYER[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_torch_stays_in_its_rooms():
    wrong = [
        f"{module} imports {name}"
        for module, path in FILES.items()
        if module != "linn" and room(module) not in HEAVY_ROOMS
        for name in imports_of(path)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_reaches_itself_through_its_imports():
    graph = {module: links(module) for module in FILES}
    order = graphlib.TopologicalSorter(graph)
    try:
        order.prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_domains_do_not_import_each_other():
    def home(module: str) -> str:
        return module.split(".")[2] if module.count(".") > 1 else ""

    shared = {"base", "common", "load", "check", ""}
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        if module.startswith("linn.domains.") and home(module) not in shared
        for other in links(module)
        if other.startswith("linn.domains.") and home(other) not in shared | {home(module)}
    ]
    assert not wrong, "\n".join(wrong)


def test_engines_for_scale_are_opened_by_name_alone():
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        if module not in ("linn", "linn.engine.open") and room(module) != "scale"
        for other in links(module)
        if room(other) == "scale"
    ]
    assert not wrong, "\n".join(wrong)


def modules_after(statements: str) -> set[str]:
    """Names of the top-level modules that a fresh Python has loaded after the statements."""
    code = f"{statements}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True
    )
    return set(run.stdout.split())


def test_recipes_graders_and_reports_start_without_torch():
    loaded = modules_after(
        "import linn.cli.main, linn.recipe.load, linn.ledger, linn.run.run, linn.report\n"
        "import linn.domains.check, linn.domains.load\n"
        "[linn.domains.load.load(name) for name in linn.domains.load.NAMES]"
    )
    assert "linn" in loaded and not HEAVY & loaded


def test_help_starts_without_the_heavy_parts():
    """How long a start takes is measured by bench/speed/startup.py."""
    loaded = modules_after("import linn.cli.main")
    assert "linn" in loaded and not (HEAVY | {"pydantic", "jinja2", "numpy"}) & loaded
