"""A toy package for tests of agentic repair: its source distribution, a task in it, conversations.

A pytest plugin: a test module names it in `pytest_plugins` to have its fixtures. It asserts nothing
itself (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linn.domains.swe_agentic import SweAgentic, make_tasks, package
from linn.domains.swe_agentic import suite as suites
from linn.domains.swe_agentic.suite import Suite
from linn.types import Message, Prompt, Reply, ToolCall, Verdict

CORE = '''"""Small sums."""


def total(numbers, start=0):
    """The sum."""
    result = start
    for number in numbers:
        if number is None:
            continue
        result += number
    return result


def clip(value, low=0, high=10):
    if value < low:
        return low
    if value > high:
        return high
    return value


def pairs(items):
    items = list(items)
    return [(items[i], items[i + 1]) for i in range(len(items) - 1)]
'''
TEXT = """def title(words):
    return " ".join(word[:1].upper() + word[1:] for word in words)


def wrap(text, width=5):
    lines = []
    while len(text) > width:
        lines.append(text[:width])
        text = text[width:]
    lines.append(text)
    return lines
"""
TESTS = '''import unittest

import pytest
from toy.core import clip, pairs, total


def test_total():
    assert total([11, 12, 20]) == 43
    assert [1007] == [total([None, 7], 1000)]
    expected = 0
    assert total([]) == expected


@pytest.mark.parametrize("value, expected", [(-55, 0), (3, 3), (77, 10)])
def test_clip(value, expected):
    assert clip(value) == expected


class Pairs(unittest.TestCase):
    def test_pairs(self):
        """pairs(range(4)) == [(0, 1), (1, 2), (2, 3)]"""
        self.assertEqual(pairs(range(4)), [(0, 1), (1, 2), (2, 3)])
        self.assertEqual(pairs("xyz"), [("x", "y"), ("y", "z")])

    def test_short(self):
        self.assertEqual(pairs([1]), [])


def test_raises():
    with pytest.raises(TypeError):
        total(["a"])
'''
TEXT_TESTS = """from toy.text import title, wrap


def test_title():
    words = ["ab", "cd"]
    assert title(words) == "Ab Cd"
    assert title(["x"]) == "X"


def test_wrap():
    assert wrap("abcdefghijk") == ["abcde", "fghij", "k"]
    assert wrap("abc", 2) == ["ab", "c"]
"""
FILES = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\nLicense: MIT License\n\nA toy.\n",
    "toy/__init__.py": "from toy.core import *\n",
    "toy/core.py": CORE,
    "toy/text.py": TEXT,
    "toy/data.txt": "data\n",
    "tests/test_core.py": TESTS,
    "tests/test_text.py": TEXT_TESTS,
    "conftest.py": "# released\n",
    "setup.cfg": "[tool:pytest]\naddopts = --collect-only\n",
    "pyproject.toml": "",
}
BROKEN = CORE.replace("result += number", "result -= number")
SECRETS = ("43", "1007", "(2, 3)", "'y', 'z'", "Ab Cd", "'fghij'")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that holds the toy's source distribution.

    One for all modules and all of xdist's workers: pytest is copied into it, and compiled.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "cache"
    folder.mkdir(exist_ok=True)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    archive_path = folder / "toy-1.0.tar.gz"
    part = folder / f"{os.getpid()}.part"
    with tarfile.open(part, "w:gz") as archive:
        for path, text in FILES.items():
            member = tarfile.TarInfo(f"toy-1.0/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    # Another worker may be reading it.
    part.replace(archive_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINN_SWE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def suite(cache: Path) -> Suite:
    return suites.suite(package.load("toy==1.0", cache))


@pytest.fixture(scope="module")
def made(suite: Suite) -> list[dict[str, Any]]:
    """Rows of made tasks: one easy, one medium, one hard."""
    rows: list[dict[str, Any]] = []
    for difficulty in make_tasks.DIFFICULTIES:
        attempts = make_tasks.Attempts()
        rows += make_tasks.make(suite, 1, 6, difficulty, attempts, most_tried=20)
    return rows


@pytest.fixture(scope="module")
def domain() -> Iterator[SweAgentic]:
    loaded = SweAgentic()
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def prompt(domain: SweAgentic, suite: Suite) -> Prompt:
    return domain.from_row(row_of(suite), 0)


def row_of(suite: Suite, broken: str = BROKEN) -> dict[str, Any]:
    """A task whose bug is ours: `total` subtracts."""
    right = suite.source.own_files()
    failing = ["tests/test_core.py::test_total"]
    metadata = {
        "instance_id": "toy",
        "package": "toy==1.0",
        "licence": "MIT",
        "python": package.PYTHON,
        "problem_statement": "total([1]) gives -1, not 1.",
        "golden_patch": make_tasks.patch({**right, "toy/core.py": broken}, right),
        "FAIL_TO_PASS": json.dumps(failing),
        "PASS_TO_PASS": json.dumps(sorted(set(suite.steady) - set(failing))),
        "values": json.dumps({test: suite.values[test] for test in failing}),
        "spared": json.dumps(suite.spared),
    }
    return {"metadata": metadata}


def use(name: str, **arguments: Any) -> Message:
    """A turn of one call."""
    return Message("assistant", "", tool_calls=(ToolCall(name, arguments),))


def held(
    domain: SweAgentic, prompt: Prompt, *turns: Message, finished: bool = True
) -> tuple[Verdict, list[str]]:
    """Hold a conversation of these turns, then grade it: (verdict, the tools' answers)."""
    env = domain.env(prompt)
    messages: list[Message] = []
    answers: list[str] = []
    try:
        for turn in turns:
            messages.append(turn)
            more = env.step(turn)
            if more is None:
                break
            messages += more
            answers += [message.content for message in more]
    finally:
        env.close()
    reply = Reply(messages[-1].content, messages=tuple(messages), finished=finished)
    return domain.verify(prompt, reply), answers


DONE = Message("assistant", "done")
REPAIR = use("replace", path="toy/core.py", old="result -= number", new="result += number")
