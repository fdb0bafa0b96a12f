"""The arrows of the house: who may import whom, and what starts without torch."""

import ast
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent / "linn"
HEAVY = {"torch", "transformers"}
ALLOWED = {
    "types": set(),
    "errors": set(),
    "files": set(),
    "calls": {"types"},
    "chat": {"types", "errors", "calls"},
    "keys": {"types", "errors"},
    "recipe": {"errors", "keys"},
    "ledger": {"types", "errors", "files"},
    "show": {"types"},
    "checkpoints": {"types", "errors", "files", "keys", "chat", "domains", "evals", "engine"},
    "domains": {"types", "errors", "data", "sandbox", "domains", "keys", "play"},
    "sandbox": {"types", "errors", "sandbox"},
    "data": {"types", "errors", "files", "data", "chat", "calls"},
    "engine": {"types", "errors", "engine", "chat", "calls", "files"},
    "play": {"types", "errors", "chat", "domains", "play"},
    "stages": {
        "types",
        "errors",
        "files",
        "chat",
        "keys",
        "ledger",
        "play",
        "data",
        "engine",
        "evals",
        "domains",
        "stages",
    },
    "evals": {
        "types",
        "errors",
        "files",
        "chat",
        "keys",
        "ledger",
        "play",
        "data",
        "domains",
        "engine",
        "evals",
    },
    "report": {"types", "errors", "files", "ledger", "report"},
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module == "linn" else node.module
                for alias in node.names
            }
    return found


def test_arrows_hold():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imports_of(path):
            top, _, rest = name.partition(".")
            if top in HEAVY and part not in ("engine", "scale"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if top == "linn" and part in ALLOWED and rest.split(".")[0] not in ALLOWED[part] | {""}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_domains_do_not_import_each_other():
    named = {
        "arithmetic",
        "math",
        "proof",
        "instruct",
        "mcqa",
        "structured",
        "workplace",
        "preference",
        "genrm",
        "longctx",
        "code",
        "swe_agentless",
        "swe_agentic",
    }
    wrong = [
        f"{path.name} imports {name}"
        for path in sorted((ROOT / "domains").glob("*.py"))
        for name in imports_of(path)
        if name.startswith("linn.domains.")
        and name.split(".")[2] in named
        and name.split(".")[2] != path.stem
    ]
    assert not wrong, wrong


def test_recipes_graders_and_reports_start_without_torch():
    code = (
        "import sys, linn.cli.main, linn.recipe.load, linn.ledger, linn.run.run, linn.domains.load as d, linn.domains.check, linn.report\n"
        "[d.load(n) for n in d.NAMES]\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_help_starts_without_the_heavy_parts():
    code = "import sys, linn.cli.main; bad = {'torch', 'transformers', 'pydantic', 'jinja2', 'numpy'} & set(sys.modules); assert not bad, bad"
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - began < 30
