"""What the documents say of the code, held against the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml
from test_imports import LAYERS

from linn.recipe.scale import ScaleConfig

ROOT = Path(__file__).parent.parent
DOCS = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("design/*.md")), ROOT / "README.md"]
WALK = (ROOT / "docs" / "walk.md").read_text()


def test_the_layers_are_those_of_the_import_test():
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = re.search(r"## Layers.*?```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    assert tuple(block[1].splitlines()) == LAYERS


STEPS = re.findall(r"^\| \d+ \| `(linn/[\w/]+\.py)` \| `([\w.]+)`", WALK, re.MULTILINE)


def test_the_walk_has_steps():
    assert len(STEPS) >= 20 and len(STEPS) == len(re.findall(r"^\| \d+ \|", WALK, re.MULTILINE))


@pytest.mark.parametrize(("path", "name"), STEPS, ids="::".join)
def test_every_function_of_the_walk_exists(path: str, name: str):
    module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    thing: object = importlib.import_module(module)
    for part in name.split("."):
        thing = getattr(thing, part)
    assert callable(thing)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_documents_name_exist(path: Path):
    text = path.read_text()
    named = set(re.findall(r"`((?:linn|docs|design|recipes|bench|tests)/[\w./-]+\.\w+)`", text))
    named |= {
        str((path.parent / link).resolve().relative_to(ROOT))
        for link in re.findall(r"\]\(([\w./-]+\.(?:md|png|yaml|py))\)", text)
    }
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


@pytest.mark.parametrize("name", ["cluster.md", "gpu.md"])
def test_scale_blocks_of_documents_are_read(name: str):
    blocks = re.findall(r"```yaml\n(scale:.*?)```", (ROOT / "docs" / name).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        ScaleConfig.model_validate(yaml.safe_load(block)["scale"])
