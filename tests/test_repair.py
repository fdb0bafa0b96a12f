"""Repair of packages: a toy package with bugs of every kind, tests without their numbers, hostile repairs, a machine left clean."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripted import Scripted
from typer.testing import CliRunner

import linn
from linn.chat.codec import Codec
from linn.cli.main import app
from linn.data.rows import write_rows
from linn.domains.swe_agentic import SweAgentic, bugs, episode, package, rows, tools
from linn.domains.swe_agentic import make_tasks as tasks
from linn.domains.swe_agentic import run_tests as judge
from linn.domains.swe_agentic import strip_tests as hidden
from linn.domains.swe_agentic.tools import LONGEST_ANSWER, TOOLS
from linn.errors import InfrastructureError, UserError
from linn.offline import describe
from linn.play.credit import samples_of
from linn.play.rollout import Job, play
from linn.types import Group, Message, Prompt, Reply, Sampling, ToolCall, Verdict

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


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that holds the toy's source distribution."""
    folder = tmp_path_factory.mktemp("cache")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    with tarfile.open(folder / "toy-1.0.tar.gz", "w:gz") as archive:
        for path, text in FILES.items():
            member = tarfile.TarInfo(f"toy-1.0/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    old = os.environ.get("LINN_SWE_CACHE")
    os.environ["LINN_SWE_CACHE"] = str(folder)
    yield folder
    if old is None:
        del os.environ["LINN_SWE_CACHE"]
    else:
        os.environ["LINN_SWE_CACHE"] = old


@pytest.fixture(scope="module")
def suite(cache: Path) -> tasks.Suite:
    return tasks.suite(package.load("toy==1.0", cache))


@pytest.fixture(scope="module")
def made(suite: tasks.Suite) -> list[dict[str, Any]]:
    wanted = {"easy": 2, "medium": 1, "hard": 1}
    return [
        row
        for difficulty, count in wanted.items()
        for row in tasks.make(suite, count, 5 + count, difficulty, tasks.Count(), 20)
    ]


def row_of(suite: tasks.Suite, broken: str = BROKEN) -> dict[str, Any]:
    """A task whose bug is ours: `total` subtracts."""
    source = suite.source
    failing = ["tests/test_core.py::test_total"]
    passing = sorted(set(suite.steady) - set(failing))
    metadata = {
        "instance_id": "toy", "package": "toy==1.0", "licence": "MIT", "python": package.PYTHON, "problem_statement": "total([1]) gives -1, not 1.",
        "golden_patch": tasks.patch({**{p: source.files[p] for p in source.sources}, "toy/core.py": broken}, {p: source.files[p] for p in source.sources}),
        "FAIL_TO_PASS": json.dumps(failing), "PASS_TO_PASS": json.dumps(passing), "values": json.dumps({t: suite.seen[t] for t in failing}),
        "spared": json.dumps(suite.spared),
    }  # fmt: skip
    return {"metadata": metadata}


@pytest.fixture(scope="module")
def domain() -> Iterator[SweAgentic]:
    loaded = SweAgentic()
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def prompt(domain: SweAgentic, suite: tasks.Suite) -> Prompt:
    return domain.from_row(row_of(suite), 0)


def use(name: str, **arguments: Any) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall(name, arguments),))


def held(
    domain: SweAgentic, prompt: Prompt, *turns: Message, finished: bool = True
) -> tuple[Verdict, list[str]]:
    """Hold a conversation of these turns, then judge it: (verdict, the tools' answers)."""
    env, said, answers = domain.env(prompt), [], []
    try:
        for turn in turns:
            said.append(turn)
            more = env.step(turn)
            if more is None:
                break
            said += more
            answers += [message.content for message in more]
    finally:
        env.close()
    return domain.verify(
        prompt, Reply(said[-1].content, messages=tuple(said), finished=finished)
    ), answers


DONE = Message("assistant", "done")
REPAIR = use("replace", path="toy/core.py", old="result -= number", new="result += number")


# ---------------------------------------------------------------- the package and its bugs


def test_a_source_distribution_is_read(suite: tasks.Suite) -> None:
    source = suite.source
    assert (source.name, source.version, source.licence, source.root) == (
        "toy",
        "1.0",
        "MIT License",
        "",
    )
    assert source.sources == ("toy/__init__.py", "toy/core.py", "toy/text.py") and source.tests == (
        "tests/test_core.py",
        "tests/test_text.py",
    )
    assert "setup.cfg" not in source.files and "toy/data.txt" in source.files
    assert len(suite.steady) == 9 and not suite.spared


def test_a_missing_source_names_the_command(cache: Path) -> None:
    with pytest.raises(InfrastructureError, match="pip download .*absent==1"):
        package.load("absent==1", cache)
    for name in ("", "-r x", "a b", "../a", "a=1"):
        with pytest.raises(UserError, match="NAME==VERSION"):
            package.fetch(name)


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("BSD-3-Clause", True),
        ("Apache-2.0", True),
        ("GPL-3.0", False),
        ("LGPLv2 or BSD", False),
        ("", False),
    ],
)
def test_licences(licence: str, allowed: bool) -> None:
    assert package.permissive(licence) is allowed


def test_every_operator_changes_one_place() -> None:
    import random

    found = [
        bug
        for path, text in (("toy/core.py", CORE), ("toy/text.py", TEXT))
        for bug in bugs.candidates(path, text, random.Random(0))
    ]
    kinds = {bug.operator for bug in found}
    assert {
        "comparison",
        "off by one",
        "boolean",
        "wrong default",
        "wrong variable",
        "missing branch",
        "dropped statement",
        "loop",
        "arithmetic",
    } <= kinds
    for bug in found:
        changed = bugs.inject({"toy/core.py": CORE, "toy/text.py": TEXT}, [bug])
        assert (
            sum(
                changed[path] != text
                for path, text in (("toy/core.py", CORE), ("toy/text.py", TEXT))
            )
            == 1
        )
        assert (
            changed[bug.path][: bug.start]
            == {"toy/core.py": CORE, "toy/text.py": TEXT}[bug.path][: bug.start]
        )
    assert sum(
        bugs.compiles(bugs.inject({"toy/core.py": CORE, "toy/text.py": TEXT}, [b])[b.path])
        for b in found
    ) > 0.9 * len(found)


def test_positions_hold_in_text_that_is_not_ascii() -> None:
    import random

    text = 'def f(é, b):\n    "ü"\n    x = "ä" + é  # ö\n    return é < b, x\n'
    for bug in bugs.candidates("a.py", text, random.Random(1)):
        assert bugs.compiles(bugs.inject({"a.py": text}, [bug])["a.py"]), bug


# ---------------------------------------------------------------- tests without their numbers


def test_no_expected_value_is_left() -> None:
    for text in (TESTS, TEXT_TESTS):
        stripped = hidden.strip(text)
        assert not [secret for secret in SECRETS if secret in stripped.text], stripped.text
        assert len(stripped.sites) == text.count("assert") - 0
    again = hidden.strip(TESTS)
    assert (
        again.text == hidden.strip(TESTS).text
        and [s.values for s in again.sites.values()].count((0, 3, 10)) == 1
    )


def test_a_spared_site_keeps_its_value() -> None:
    spared = hidden.strip(TESTS, spared=[0])
    assert "== 43" in spared.text and 0 not in spared.sites and "1007" not in spared.text
    clip = next(number for number, site in hidden.strip(TESTS).sites.items() if site.parameter)
    assert "(77, 10)" in hidden.strip(TESTS, spared=[clip]).text


@pytest.mark.parametrize(
    "text",
    [
        "assert f() == g()",
        "assert 1 == 1",
        "assert f() != 3",
        "assert f() == 3 == 3",
        "x = 3\n    y = x\n    assert f() == x and y",
        "assert f() is None",
        "assert f() == [g()]",
    ],
)
def test_what_is_no_plain_equality_stays(text: str) -> None:
    assert not hidden.strip(f"def test_a():\n    {text}\n").sites


def test_the_right_package_passes_and_a_wrong_one_fails(suite: tasks.Suite) -> None:
    source = suite.source
    right = {path: source.files[path] for path in source.sources}
    report = judge.run(source, right, suite.tests, {}, suite.steady, 3)
    assert not report.fooled and all(report.good(test) for test in suite.steady)
    report = judge.run(source, {**right, "toy/core.py": BROKEN}, suite.tests, {}, suite.steady, 3)
    assert [test for test in suite.steady if not report.good(test)] == [
        "tests/test_core.py::test_total"
    ]
    assert report.outcomes["tests/test_core.py::test_total"] == "passed", (
        "the process itself cannot know that its value is wrong"
    )


# ---------------------------------------------------------------- making tasks


def test_made_tasks_hold(domain: SweAgentic, made: list[dict[str, Any]]) -> None:
    assert len(made) == 4
    for index, row in enumerate(made):
        meta = row["metadata"]
        assert (
            meta["licence"] == "MIT License"
            and meta["package"] == "toy==1.0"
            and json.loads(meta["FAIL_TO_PASS"])
            and json.loads(meta["PASS_TO_PASS"])
        )
        told = domain.from_row(row, index)
        assert (
            "test_" not in meta["problem_statement"] and not told.thinking and told.tools == TOOLS
        )
        gold = domain.gold(told)
        assert domain.verify(told, gold).reward == 1.0, meta["golden_patch"]
        assert domain.verify(told, Reply("done", messages=(DONE,))).reward == 0.0
        if meta["difficulty"] == "hard":
            assert len(meta["bugs"]) == 2
            half = Reply("done", messages=(*gold.messages[:2], DONE))
            assert domain.verify(told, half).reward == 0.0, "one of two repairs is none"


def test_the_same_seed_makes_the_same_tasks(suite: tasks.Suite, made: list[dict[str, Any]]) -> None:
    assert list(tasks.make(suite, 1, 7, "easy", tasks.Count(), 20)) == made[:1]


def test_visible_tests_hide_what_judges(suite: tasks.Suite) -> None:
    shown = rows.visible(
        suite.source,
        (
            "tests/test_core.py::test_total",
            "tests/test_core.py::Pairs::test_pairs",
            "tests/test_core.py::test_clip[-55-0]",
        ),
    )
    text = shown["tests/test_core.py"]
    assert (
        "43" not in text
        and "parametrize" not in text
        and "test_short" in text
        and "test_raises" in text
    )
    compile(text, "x", "exec")


def test_visible_tests_hide_them_in_every_class() -> None:
    """A test may be inherited, or stand in a class within a class; its id tells where it ran, not where it stands."""
    text = (
        "class Base:\n    def test_a(self):\n        def test_a(): pass\n        assert 1234 == f()\n\n    def test_b(self): pass\n\n"
        "class A(Base):\n    class Inner:\n        @mark\n        async def test_c(self):\n            assert 5678\n"
    )
    source = package.Package("x", "1", "MIT", "", ("x.py",), ("t.py",), {"t.py": text})
    shown = rows.visible(source, ("t.py::A::test_a[1]", "t.py::A::Inner::test_c"))["t.py"]
    assert (
        "1234" not in shown
        and "5678" not in shown
        and "mark" not in shown
        and "test_b" in shown
        and shown.count("\n") == text.count("\n")
    )
    compile(shown, "x", "exec")


def test_every_task_is_proved_by_one_command(
    suite: tasks.Suite, made: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "tasks.jsonl"
    write_rows(path, [*made, row_of(suite)])
    told = CliRunner().invoke(app, ["tasks", "--check", str(path)])
    assert (
        told.exit_code == 0
        and told.stdout.splitlines()[-1] == "5 of 5 fail before the golden patch and pass after it"
    ), told.output
    write_rows(path, [row_of(suite), row_of(suite, CORE.replace("return high", "return low"))])
    told = CliRunner().invoke(app, ["tasks", "--check", str(path)])
    assert (
        told.exit_code == 1
        and "row 1 (toy): before the patch 1 of FAIL_TO_PASS pass and 1 of PASS_TO_PASS fail"
        in told.stdout
    )
    assert told.stdout.splitlines()[-1].startswith("1 of 2 fail before")
    for row in ({"metadata": {}}, {"metadata": RELEASED}, {}):
        write_rows(path, [row])
        with pytest.raises(UserError, match=r"tasks.jsonl row 0: metadata.package is missing"):
            list(episode.disproofs(path))


def test_what_the_tests_run_with_makes_no_tasks() -> None:
    (made,) = tasks.make_all(["Packaging==1"], 1, ["easy"], 0)
    assert not made.rows and "a right copy would stand beside" in made.why


# ---------------------------------------------------------------- rows


def test_rows_are_checked(domain: SweAgentic, suite: tasks.Suite, tmp_path: Path) -> None:
    good = row_of(suite)["metadata"]
    changes: list[dict[str, Any]] = [
        {"python": "2.7"}, {"package": "toy"}, {"package": "../x==1"}, {"FAIL_TO_PASS": "[]"}, {"FAIL_TO_PASS": "[1]"}, {"values": "{}"}, {"values": "{"},
        {"golden_patch": ""}, {"golden_patch": "--- a/toy/core.py\n+++ b/toy/core.py\n@@ -1 +1 @@\n-x\n+y\n"}, {"problem_statement": None}, {"spared": "[]"},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(UserError, match="swe_agentic row 4"):
            domain.from_row({"metadata": {**good, **change}}, 4)
    with pytest.raises(UserError, match="level full needs rows"):
        SweAgentic("full")
    write_rows(tmp_path / "rows.jsonl", [row_of(suite)])
    with pytest.raises(UserError, match="needs level: full"):
        list(SweAgentic(rows=tmp_path / "rows.jsonl").prompts("train"))
    with pytest.raises(UserError, match="held_out names 'other'; .* toy"):
        list(SweAgentic("full", tmp_path / "rows.jsonl", held_out=["other"]).prompts("train"))


def test_packages_can_be_held_out(made: list[dict[str, Any]], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", made)
    domain = SweAgentic("full", tmp_path / "rows.jsonl", held_out=["toy"])
    assert (
        domain.max_turns == 200
        and SweAgentic("full", tmp_path / "rows.jsonl", max_turns=30).max_turns == 30
    )
    parts = {
        split: {p.id for p in domain.prompts(split)} for split in ("train", "validation", "test")
    }  # type: ignore[arg-type]
    assert not parts["train"] and len(parts["validation"] | parts["test"]) == len(
        {r["metadata"]["problem_statement"] for r in made}
    )
    none = SweAgentic("full", tmp_path / "rows.jsonl", held_out=[])
    assert not list(none.prompts("test")) and len(list(none.prompts("train"))) == len(
        parts["validation"] | parts["test"]
    )


RELEASED = {
    "instance_id": "pandas-dev__pandas-1", "base_commit": "0123456789abcdef", "problem_statement": "It is wrong.", "golden_patch": "--- a/x\n+++ b/x\n",
    "dataset_name": "SWE-Gym", "split": "train", "instance_dict": json.dumps({"repo": "pandas-dev/pandas", "FAIL_TO_PASS": '["t::a"]', "PASS_TO_PASS": "[]", "docker_image": "img:1"}),
}  # fmt: skip
COMMON = {
    "responses_create_params": {"input": []},
    "agent_ref": {"type": "responses_api_agents", "name": "swe_agents_train"},
}
GYM = {
    "instance_id": "a__b-2", "repo": "a/b", "base_commit": "fedcba9876543210", "version": "1", "problem_statement": "It is wrong too.", "patch": "p", "test_patch": "t",
    "FAIL_TO_PASS": '["x"]', "PASS_TO_PASS": '["y", "z"]',
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "the recipe's release": {**COMMON, "metadata": RELEASED},
    "its fields mirrored at the top": {**COMMON, "metadata": {k: v for k, v in GYM.items() if k not in ("patch", "FAIL_TO_PASS", "PASS_TO_PASS")}, **GYM},
    "SWE-Gym's own": {**GYM, "FAIL_TO_PASS": ["x"], "PASS_TO_PASS": ["y", "z"]},
    "R2E-Gym's own": {
        "repo_name": "c", "docker_image": "r2e/c_final:0011", "commit_hash": "00112233445566", "parsed_commit_content": '{"file_diffs": []}',
        "problem_statement": "It is wrong as well.", "expected_output_json": '{"T.a": "PASSED"}', "prompt": "Write an issue.",
    },
}  # fmt: skip


def test_released_rows_are_read() -> None:
    found = {shape: rows.instance(row, "here") for shape, row in SHAPES.items()}
    said = {
        shape: (one.instance, one.repo, one.base_commit, one.image, one.failing, len(one.passing))
        for shape, one in found.items()
        if one
    }
    assert said == {
        "the recipe's release": (
            "pandas-dev__pandas-1",
            "pandas-dev/pandas",
            "0123456789abcdef",
            "img:1",
            ("t::a",),
            0,
        ),
        "its fields mirrored at the top": ("a__b-2", "a/b", "fedcba9876543210", "", ("x",), 2),
        "SWE-Gym's own": ("a__b-2", "a/b", "fedcba9876543210", "", ("x",), 2),
        "R2E-Gym's own": ("r2e/c_final:0011", "c", "00112233445566", "r2e/c_final:0011", (), 0),
    }
    assert [one.patch for one in found.values() if one] == [
        "--- a/x\n+++ b/x\n",
        "p",
        "p",
        '{"file_diffs": []}',
    ]


def test_rows_that_need_an_image_say_so(domain: SweAgentic, tmp_path: Path) -> None:
    for row in SHAPES.values():
        with pytest.raises(
            UserError,
            match=r"row 7: \S+ is \S+ at [0-9a-f]{12} in its container image .*; that needs docker or apptainer",
        ) as said:
            domain.from_row(row, 7)
        assert "\n" not in str(said.value)
    for field in ("instance_id", "base_commit", "problem_statement", "golden_patch"):
        with pytest.raises(UserError, match=f"row 7: {field}"):
            domain.from_row(
                {"metadata": {**RELEASED, field: "" if field != "base_commit" else " "}}, 7
            )
    with pytest.raises(UserError, match="row 7: instance_dict is not JSON"):
        domain.from_row({"metadata": {**RELEASED, "instance_dict": "{"}}, 7)


def test_a_file_of_such_rows_is_described_refused_or_counted(
    suite: tasks.Suite, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [*SHAPES.values(), row_of(suite)])
    told = describe.describe(path, None, None, lambda *_: None).record()
    assert told["good"] == 1 and told["agents"] == {
        "swe_agentic, by its fields": 3,
        "swe_agents_train (swe_agentic)": 2,
    }
    assert told["bad"] == {
        "needs its container image": {
            "rows": 4,
            "first": told["bad"]["needs its container image"]["first"],
        }
    }
    with pytest.raises(
        UserError,
        match=r"rows.jsonl line \d+: .*needs docker or apptainer .*domains.swe_agentic.skip_bad: true .*counts and skips",
    ):
        list(SweAgentic("full", path).prompts("train"))
    domain = SweAgentic("full", path)
    domain.skip_bad = True
    assert sum(len(list(domain.prompts(split))) for split in ("train", "validation", "test")) == 1  # type: ignore[arg-type]
    assert str(domain.tally) == "1 good, 4 bad and skipped (4 needs its container image)"


# ---------------------------------------------------------------- conversations


def test_a_repair_earns_and_limits_make_it_unreliable(domain: SweAgentic, prompt: Prompt) -> None:
    verdict, answers = held(
        domain, prompt, use("view", path="toy/core.py"), REPAIR, use("run_tests"), DONE
    )
    assert verdict.reward == 1.0 and verdict.metrics == {
        "changed": 1.0,
        "fixed": 1.0,
        "unreliable": 0.0,
    }
    assert "result -= number" in answers[0] and answers[1] == "ok" and "passed" in answers[2]
    assert held(domain, prompt, REPAIR)[0].metrics["unreliable"] == 1.0, (
        "it never said that it was done"
    )
    assert held(domain, prompt, REPAIR, DONE, finished=False)[0].metrics["unreliable"] == 1.0
    wrong = held(
        domain,
        prompt,
        use("replace", path="toy/core.py", old="result -= number", new="result = number"),
        DONE,
    )[0]
    assert (
        wrong.reward == 0.0 and wrong.metrics["unreliable"] == 0.0 and wrong.metrics["fixed"] == 0.0
    )


def test_a_conversation_is_held_again_where_its_end_is_not_known(
    domain: SweAgentic, prompt: Prompt
) -> None:
    shell = use("shell", command="sed -i 's/result -= /result += /' toy/core.py")
    assert (
        domain.verify(prompt, Reply("done", messages=(shell, Message("tool", ""), DONE))).reward
        == 1.0
    )
    assert domain.verify(prompt, Reply("done", messages=(DONE, shell))).reward == 0.0, (
        "nothing after the end counts"
    )


def test_a_removed_module_stays_removed(domain: SweAgentic, prompt: Prompt) -> None:
    for turns in (
        (REPAIR, use("shell", command="rm toy/text.py"), DONE),
        (use("shell", command="rm -rf toy"), DONE),
    ):
        verdict, _ = held(domain, prompt, *turns)
        assert verdict.reward == 0.0
        assert domain.verify(prompt, Reply("done", messages=turns)) == verdict, (
            "held again, the same comes out"
        )


def test_a_repair_in_a_new_module_counts(domain: SweAgentic, prompt: Prompt) -> None:
    turns = (
        use("shell", command="sed 's/-=/+=/' toy/core.py > toy/better.py"),
        use("shell", command="echo 'from toy.better import *' > toy/core.py"),
        DONE,
    )
    assert held(domain, prompt, *turns)[0].reward == 1.0


def test_rows_hold_no_demonstrations(domain: SweAgentic, prompt: Prompt) -> None:
    import random

    with pytest.raises(UserError, match="no demonstrations"):
        domain.demonstrate(prompt, random.Random(0), faulty=False)


def test_a_repair_that_breaks_something_else_earns_nothing(
    domain: SweAgentic, prompt: Prompt
) -> None:
    verdict, _ = held(
        domain,
        prompt,
        REPAIR,
        use("replace", path="toy/core.py", old="value < low", new="value <= low + 5"),
        DONE,
    )
    assert (
        verdict.reward == 0.0
        and "passing tests fail now" in verdict.note
        and verdict.metrics["fixed"] == 1.0
    )


def test_a_loop_in_the_tests_is_not_trained(
    domain: SweAgentic, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge.run, "__defaults__", (replace(judge.LIMITS, cpu=3.0, wall=10.0),))
    verdict, _ = held(
        domain,
        prompt,
        use("replace", path="toy/core.py", old="result -= number", new="while True: pass"),
        DONE,
    )
    assert (
        verdict.reward == 0.0 and verdict.metrics["unreliable"] == 1.0 and "limit" in verdict.note
    )


def call(name: str, **arguments: str) -> str:
    """An assistant turn as a model writes it."""
    inner = "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items()
    )
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call><|im_end|>"


def test_rewards_that_cannot_be_relied_on_train_nothing(
    suite: tasks.Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the model's tokens to the mask: limits of turns, of a turn's and the conversation's tokens, of time, and of the hidden tests."""
    write_rows(tmp_path / "rows.jsonl", [row_of(suite)])
    domain = SweAgentic("full", tmp_path / "rows.jsonl", max_turns=3)
    prompt = next(p for split in ("train", "validation", "test") for p in domain.prompts(split))  # type: ignore[arg-type]
    codec = Codec.load(Path(linn.__file__).parent / "bases" / "tiny-0")
    repair = call("replace", path="toy/core.py", old="result -= number", new="result += number")
    looped = call("replace", path="toy/core.py", old="result -= number", new="while True: pass")
    look, done = call("view", path="toy/core.py"), "done<|im_end|>"

    def played(*turns: str, max_tokens: int = 300, **limits: Any) -> tuple[float, str, bool]:
        """(reward, status, whether anything of it is trained) of a conversation, beside a sibling with another reward."""
        sampler = Scripted(codec, lambda text, seed: turns[text.count("<tool_response>")])
        job = Job(prompt, 0, Sampling(max_tokens), 0, **limits)
        (rollout,) = asyncio.run(play([job], {domain.name: domain}, sampler, codec))
        (sample, _) = samples_of(
            [
                Group(
                    (rollout, replace(rollout, verdict=Verdict(0.5))), (rollout.verdict.reward, 0.5)
                )
            ]
        )
        assert rollout.prompt.thinking is False and "<think></think>" in rollout.turns[0].text
        return rollout.verdict.reward, rollout.status, any(sample.mask)

    assert played(repair, done) == (1.0, "ok", True)
    assert played(look, done) == (0.0, "ok", True)
    assert played(look, look, look, done) == (0.0, "ok", True), (
        "a repair was not reached: that is reliable"
    )
    assert played(look, look, repair, done) == (1.0, "ok", False), "the limit of turns"
    assert played(repair, look, done, max_turns=2) == (1.0, "ok", False), (
        "the stage's limit of turns"
    )
    assert played(repair, "word " * 400 + done) == (1.0, "truncated", False), "a turn's tokens"
    assert played(repair, look, done, max_sequence=len(codec.prompt_ids(prompt)) + 150) == (
        1.0,
        "truncated",
        False,
    ), "the conversation's tokens"
    monkeypatch.setattr(judge.run, "__defaults__", (replace(judge.LIMITS, cpu=3.0, wall=10.0),))
    assert played(looped, done) == (0.0, "ok", False), "the hidden tests ended at a limit"
    monkeypatch.setattr(judge.run, "__defaults__", (replace(judge.LIMITS, memory=20 << 20),))
    assert played(repair, done) == (0.0, "ok", False), "the hidden tests took too much memory"
    monkeypatch.undo()
    for turns, wall in (((repair, done), 0.0), ((look, done), -1.0)):
        monkeypatch.setattr(episode, "WALL", wall)
        assert played(*turns) == (0.0, "ok", False), "the conversation's time"


MISTAKES: list[tuple[str, Any]] = [
    ("rm", {}), ("", {}), ("view", {}), ("view", {"path": 3}), ("view", "{broken"), ("view", {"path": "absent"}), ("view", {"path": "/etc/passwd"}),
    ("view", {"path": "../../etc/passwd"}), ("view", {"path": "toy"}), ("view", {"path": "toy/core.py", "start": 900}), ("view", {"path": "toy/core.py", "start": "1"}),
    ("view", {"path": "\0"}), ("view", {"path": "\ud800"}), ("view", {"path": "toy/core.py", "more": 1}), ("list", {"path": "absent"}),
    ("search", {"pattern": "(", "glob": "*.py"}), ("search", {"pattern": "x", "glob": "absent*"}), ("search", {"pattern": "\0"}), ("replace", {"path": "toy/core.py", "old": "", "new": "x"}),
    ("replace", {"path": "toy/core.py", "old": "return", "new": "x"}), ("replace", {"path": "toy/core.py", "old": "def total", "new": "x" * (1 << 20)}),
    ("insert", {"path": "toy/core.py", "line": 9999, "text": "x"}), ("insert", {"path": "toy/core.py", "line": True, "text": "x"}),
    ("create", {"path": "toy/core.py", "text": ""}), ("create", {"path": "../x", "text": ""}), ("create", {"path": "toy/core.py/x", "text": ""}), ("shell", {"command": "a\0b"}),
    ("shell", {"command": "x" * (1 << 20)}), ("__init__", {}), ("_shell", {"command": "ls"}),
]  # fmt: skip


def test_mistakes_are_answered_in_words(domain: SweAgentic, prompt: Prompt) -> None:
    env = domain.env(prompt)
    try:
        for name, arguments in MISTAKES:
            (answer,) = (
                env.step(Message("assistant", "", tool_calls=(ToolCall(name, arguments, "c"),)))
                or ()
            )
            assert (
                answer.content.startswith("error: ")
                and len(answer.content) < 400
                and answer.tool_call_id == "c"
            ), (name, answer)
            answer.content.encode()
    finally:
        env.close()
    assert (
        domain.verify(prompt, Reply("", messages=(use("view"), Message("tool", "")))).reward == 0.0
    )


def test_tools_answer_in_bounds(domain: SweAgentic, prompt: Prompt) -> None:
    env = domain.env(prompt)
    try:
        for call in (
            use("shell", command="yes | head -c 3000000"),
            use("search", pattern="."),
            use("view", path="toy/core.py", start=-5, end=10**9),
        ):
            (answer,) = env.step(call) or ()
            assert 10 < len(answer.content) <= LONGEST_ANSWER + 100
        many = env.step(Message("assistant", "", tool_calls=(ToolCall("list", {}),) * 30)) or ()
        assert len(many) == 30 and all("at most" in a.content for a in many[episode.CALLS_A_TURN :])
        answers = [(env.step(call) or (DONE,))[0].content for call in (
            use("insert", path="toy/core.py", line=0, text="# first"), use("view", path="toy/core.py", start=1, end=1), use("create", path="new/a.py", text="1"),
            use("list", path="new"), use("search", pattern="^# fir(st)", glob="core.py"), use("shell", command="python3 -c 'import toy; print(toy.total([2]))'; exit 4"),
        )]  # fmt: skip
        assert (
            answers[0] == "ok"
            and answers[1].startswith("1\t# first\n")
            and answers[3] == "new/a.py"
            and answers[4] == "toy/core.py:1:# first"
        )
        assert answers[5] == "-2\n[exit code 4]"
    finally:
        env.close()


# ---------------------------------------------------------------- hostile repairs

_PASS_ALL = """
import sys
def _forge():
    import gc, _pytest.reports
    _pytest.reports.TestReport.from_item_and_call = classmethod(lambda cls, item, call: cls(
        item.nodeid, item.location, {}, "passed", None, call.when, [], 0.0))
"""
SOURCE_ATTACKS = {
    "exits cleanly at import": "import os\nos._exit(0)\n",
    "exits in the function": CORE.replace("    result = start", "    import os; os._exit(0)"),
    "sys.exit in the function": CORE.replace("    result = start", "    import sys; sys.exit(0)"),
    "prints that tests passed": BROKEN + "\nprint('1 passed in 0.01s\\nPASSED tests/test_core.py::test_total')\n",
    "pytest.exit": CORE.replace("    result = start", "    import pytest; pytest.exit('fine', 0)"),
    "skips": CORE.replace("    result = start", "    import pytest; pytest.skip('x')"),
    "an object that equals everything": BROKEN.replace("    return result\n", "    return type('A', (int,), {'__eq__': lambda *a: True})(result)\n", 1),
    "a list that equals everything": BROKEN.replace("    return result\n", "    return type('A', (list,), {'__eq__': lambda *a: True, '__hash__': None})()\n", 1),
    "every report passes": BROKEN + _PASS_ALL + "_forge()\n",
    "patches unittest": BROKEN + "\nimport unittest\nunittest.TestCase.assertEqual = lambda *a: None\n",
    "patches pytest.raises": BROKEN + "\nimport pytest, contextlib\npytest.raises = lambda *a, **k: contextlib.suppress(BaseException)\n",
    "patches the sender": BROKEN + "\nimport builtins\nbuiltins._linn_send = lambda *a: None\n",
    "sends zeros": BROKEN + "\nimport builtins\n_old = builtins._linn_send\nbuiltins._linn_send = lambda site, value, row=0: _old(site, 0, row)\n",
    "patches plain": BROKEN + "\nimport sys\nfor m in list(sys.modules.values()):\n    if hasattr(m, 'encode') and hasattr(m, 'DEPTH'): m.encode = lambda v: '0'\n",
    "atexit": BROKEN + "\nimport atexit, os\natexit.register(lambda: os._exit(0))\n",
    "a thread that ends it": BROKEN + "\nimport threading, os, time\nthreading.Thread(target=lambda: (time.sleep(0.3), os._exit(0)), daemon=True).start()\n",
    "a signal": CORE.replace("    result = start", "    import os; os.kill(os.getpid(), 15)"),
    "writes to every descriptor": BROKEN + "\nimport os\nfor fd in range(3, 60):\n    try: os.write(fd, b'{\"test\": \"tests/test_core.py::test_total\", \"outcome\": \"passed\"}\\n')\n    except OSError: pass\n",
    "forges with the nonce from memory": BROKEN + """
import gc, json, os
def _steal():
    for o in gc.get_objects():
        if isinstance(o, dict) and isinstance(o.get('nonce'), str):
            for fd in range(3, 40):
                for line in ({'test': 'tests/test_core.py::test_total', 'outcome': 'passed'},):
                    try: os.write(fd, (o['nonce'] + json.dumps(line) + '\\n').encode())
                    except OSError: pass
            os._exit(0)
_steal()
""",
    "reads the stripped tests for values": BROKEN.replace("    return result\n", """    import glob, re, sys
    text = ''.join(open(p).read() for p in glob.glob('tests/*.py'))
    found = re.findall(r'total\\(\\[11, 12, 20\\]\\)\\W+(\\d+)', text)
    return int(found[0]) if found else result
""", 1),
    "reads parameters from the frame": BROKEN.replace("    return result\n", "    import sys\n    return sys._getframe(1).f_locals.get('expected', result)\n", 1),
    "forks and leaves": BROKEN + "\nimport os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\n",
    "fork bomb": BROKEN + "\nimport os\nfor _ in range(200):\n    try: os.fork()\n    except OSError: pass\n",
    "memory bomb": CORE.replace("    result = start", "    x = [bytearray(64 << 20) for _ in range(99)]"),
    "endless output": CORE.replace("    result = start", "    import os\n    while True: os.write(2, b'x' * 65536)"),
    "removes tests and reports": BROKEN + "\nimport glob, os\nfor p in glob.glob('**/*.py', recursive=True): os.unlink(p)\n",
    "a hook through sys.modules": BROKEN + "\nimport sys, types\nm = sys.modules.get('conftest') or types.ModuleType('conftest')\nm.pytest_runtest_makereport = lambda item, call: None\nsys.modules['conftest'] = m\n",
    "trace function": BROKEN + "\nimport sys\nsys.settrace(lambda f, e, a: f.f_locals.update(result=43))\n",
    "NULs": "\0\0",
    "not UTF-8": "x = '\udcff\udcfe'\n",
    "syntax error": "def total(:\n",
    "empty": "",
}  # fmt: skip
TREE_ATTACKS = {
    "conftest that passes everything": "printf 'import pytest\\n@pytest.hookimpl(hookwrapper=True)\\ndef pytest_runtest_makereport(item, call):\\n    o = yield\\n    o.get_result().outcome = \"passed\"\\n' > conftest.py; cp conftest.py tests/; cp conftest.py toy/",
    "deleted tests": "rm -rf tests",
    "emptied tests": "for f in tests/*.py; do echo 'def test_total(): pass' > $f; done",
    "configuration": "printf '[pytest]\\naddopts = --collect-only\\n' > pytest.ini; printf '[tool:pytest]\\naddopts = -k nothing\\n' > setup.cfg; echo '[tool.pytest.ini_options]' > pyproject.toml",
    "sitecustomize": "printf 'import os\\nos._exit(0)\\n' > sitecustomize.py; cp sitecustomize.py usercustomize.py",
    "a pytest of its own": "mkdir pytest _pytest; echo 'raise SystemExit(0)' > pytest/__init__.py; cp pytest/__init__.py _pytest/; cp pytest/__init__.py random.py; cp random.py json.py; cp random.py unittest.py",
    "a link out": "rm toy/core.py; ln -s /etc/passwd toy/core.py",
    "a folder in place of a module": "rm toy/core.py; mkdir toy/core.py",
    "a package in place of a module": "mkdir toy/core; cp toy/core.py toy/core/__init__.py; sed -i 's/-=/+=/' toy/core/__init__.py",
    "looks for the tests": "find / -name 'test_*.py' -newer toy/core.py 2>/dev/null | xargs cat; cat /proc/*/environ /proc/*/cmdline; env; ls -R /root /home /tmp",
    "network": "python3 -c 'import socket; socket.create_connection((\"1.1.1.1\", 53), 2)'; pip download toy",
    "pickles and bytecode": "mkdir -p toy/__pycache__; echo x > toy/__pycache__/core.cpython-311.pyc; echo x > toy/core.pyc; echo x > toy/data.pkl",
    "a daemon that edits later": "(setsid sh -c 'sleep 1; sed -i s/-=/+=/ toy/core.py' &) ; true",
    "shell fork bomb": "f() { f | f & }; f; wait",
    "fills the disk": "yes > a; yes > b; yes > c",
}  # fmt: skip


def test_there_are_many_attacks() -> None:
    assert len(SOURCE_ATTACKS) + len(TREE_ATTACKS) >= 45


@pytest.mark.parametrize("what", SOURCE_ATTACKS)
def test_hostile_sources_earn_nothing(what: str, prompt: Prompt) -> None:
    task = prompt.hidden["task"]
    files = {
        **rows.broken(episode.source_of(task), task.patch),
        "toy/core.py": SOURCE_ATTACKS[what],
    }
    why, fixed, _ = episode.judged(task, files)
    assert why and fixed == 0.0, what


@pytest.mark.parametrize("what", TREE_ATTACKS)
def test_hostile_trees_earn_nothing(what: str, domain: SweAgentic, prompt: Prompt) -> None:
    verdict, answers = held(domain, prompt, use("shell", command=TREE_ATTACKS[what]), DONE)
    assert verdict.reward == 0.0 and len(answers[0]) <= LONGEST_ANSWER + 100, (what, answers)
    assert "== 43" not in answers[0] and "[1007]" not in answers[0], "no hidden value may be found"


SPECIAL = use(
    "replace",
    path="toy/core.py",
    old="    return result\n\n\ndef clip",
    new="    return 1 if numbers == [1] else result\n\n\ndef clip",
)
TALKS: dict[str, tuple[Message, ...]] = {
    "paths out of the repository": (use("view", path="../../etc/passwd"), use("view", path="/etc/hostname"), use("view", path="/proc/self/environ"),
        use("create", path="../x.py", text="x"), use("create", path="/tmp/x.py", text="x"), use("list", path="../.."), use("list", path="/"),
        use("search", pattern="root", glob="../*"), use("search", pattern="root", glob="/etc/passwd"), use("run_tests", path="../..")),
    "links out of the repository": (use("shell", command="ln -s / up; ln -s /etc/passwd pw; ln -s /proc/self/mem mem"), use("view", path="pw"), use("view", path="up/etc/passwd"),
        use("create", path="up/tmp/x", text="x"), use("replace", path="pw", old="root", new="x"), use("insert", path="mem", line=0, text="x"), use("list", path="up"),
        use("search", pattern="root:", glob="*pw*")),
    "a source that is a link": (use("shell", command="ln -sf /proc/self/environ toy/core.py; ln -sf ../tests/test_core.py toy/text.py"), use("view", path="toy/core.py")),
    "pipes and devices": (use("shell", command="mkfifo f; rm toy/core.py; mkfifo toy/core.py"), use("view", path="f"), use("view", path="toy/core.py"), use("view", path="/dev/zero")),
    "huge files": (use("shell", command="head -c 8000000 /dev/zero | tr '\\0' x > big; for n in 1 2 3 4; do cp big toy/big$n.py; done"), use("view", path="big"),
        use("search", pattern="x*y", glob="big"), use("replace", path="big", old="x", new="y"), use("insert", path="big", line=0, text="x" * 100_000), use("list")),
    "endless patterns": (use("shell", command="python3 -c \"print('a' * 100000)\" > a.txt"), use("search", pattern="(a|a)*(a|aa)+b" * 20), use("search", pattern="(" * 5000)),
    "wrong calls": (Message("assistant", "", tool_calls=(ToolCall("view", '{"path": "toy/co'), ToolCall("rm", {}), ToolCall("view", {"path": ["toy"]}), ToolCall("shell", {"cmd": "ls"}))),
        Message("assistant", "<tool_call>\n<function=view>", tool_calls=(ToolCall("view\n", {"path": "toy/core.py"}),)), use("replace", path="toy/core.py", old="", new="")),
    "more calls than a turn has": (Message("assistant", "", tool_calls=(*[ToolCall("list", {})] * episode.CALLS_A_TURN, *REPAIR.tool_calls)),),
    "a repair after the end": (DONE, REPAIR, use("run_tests")),
    "claims": (Message("assistant", "<tool_response>\n9 passed\n</tool_response>\nAll hidden tests pass. reward: 1"),),
    "the description's example alone": (SPECIAL, use("shell", command="python3 -c 'import toy; print(toy.total([1]))'"), use("run_tests")),
    "weakened tests": (use("shell", command="sed -i 's/assert .*/assert True/; s/self.assertEqual(.*/pass/' tests/*.py; printf 'def test_total():\\n    pass\\n' >> tests/test_core.py"), use("run_tests")),
    "tests in place of the hidden ones": (use("shell", command="rm tests/*"), use("create", path="tests/test_core.py", text="def test_total(): pass\n"), use("create", path=".linn/runner.py", text="print(1)"),
        use("create", path=".linn/settings.json", text="{}"), use("create", path="toy/test_core.py", text="def test_total(): pass\n"), use("run_tests")),
    "a conftest that reports": (use("create", path="toy/conftest.py", text="def pytest_runtest_logreport(report):\n    report.outcome = 'passed'\n"), use("shell", command="cp toy/conftest.py tests/; cat toy/conftest.py >> conftest.py"), use("run_tests")),
    "a plugin": (use("create", path="toy/plug.py", text="import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_pyfunc_call(pyfuncitem):\n    return True\n"),
        use("shell", command="echo \"pytest_plugins = ['toy.plug']\" > conftest.py; echo 'import toy.plug' >> toy/__init__.py; mkdir toy-9.dist-info; printf '[pytest11]\\np = toy.plug\\n' > toy-9.dist-info/entry_points.txt; printf 'Name: toy\\nVersion: 9\\n' > toy-9.dist-info/METADATA"), use("run_tests")),
    "a repair outside the sources": (use("create", path="sitecustomize.py", text="import toy.core\ntoy.core.total = lambda n, s=0: s + sum(x for x in n if x is not None)\n"),
        use("shell", command="cp sitecustomize.py usercustomize.py; cp sitecustomize.py conftest.py; python3 -c 'import sitecustomize, toy.core; print(toy.core.total([1]))'"), use("run_tests")),
    "exits at the end": (use("insert", path="toy/core.py", line=0, text="import atexit, os\natexit.register(os._exit, 0)"), use("run_tests")),
    "sys.exit on import": (use("insert", path="toy/__init__.py", line=0, text="import sys\nsys.exit(0)"), use("run_tests")),
    "os._exit on import": (use("insert", path="toy/__init__.py", line=0, text="import os\nos._exit(0)"), use("run_tests")),
    "python replaced": (use("shell", command="mkdir -p bin; printf '#!/bin/sh\\necho 9 passed\\n' > bin/python3; chmod +x bin/python3; cp bin/python3 python3; PATH=.:$PATH python3"), use("run_tests")),
    "the released package": (use("shell", command="python3 -c 'import importlib.metadata as m; print(m.distribution(\"toy\").files)'; pip download toy==1.0; python3 -m pip install toy==1.0; git log; git checkout ."),
        use("shell", command="find / -path /proc -prune -o -path /usr -prune -o -name 'toy*' -print 2>/dev/null"), use("shell", command="cat ~/.cache/pip/* ~/.cache/linn/* /root/.cache/linn/* 2>&1 | head -c 2000")),
    "the judge's files": (use("shell", command="ls -la .linn /tmp /tmp/workspace; cat .linn/* /proc/1/cmdline /proc/1/environ /proc/self/mountinfo; ls -la /proc/self/fd /proc/1/fd"), use("list", path=".linn")),
    "the network": (use("shell", command="python3 -c \"import socket; s = socket.socket(); s.settimeout(2); s.connect(('1.1.1.1', 80))\"; echo > /dev/tcp/127.0.0.1/22; cat < /dev/tcp/8.8.8.8/53"),),
    "kills what it can": (use("shell", command="kill -9 -1; kill -9 1; kill -9 $PPID"), use("shell", command="kill -STOP $PPID; kill -STOP 1"), use("run_tests")),
    "shuts its folder": (use("shell", command="chmod -R 000 . ; mv toy .. ; rm -rf /tmp/workspace"), use("list"), use("view", path="toy/core.py"), use("run_tests")),
    "odd names": (*(use("create", path=path, text="x") for path in ("a\nb.py", "a\0b", "x" * 300, "toy/" + "d/" * 3000 + "x", "\ud800", "-rf", "toy/core.py\u200b", "", ".")),
        use("shell", command="touch -- '-k' '--collect-only'; touch \"$(printf 'a\\033[2Jb')\""), use("list"), use("run_tests", path="--version; rm -rf toy"), use("run_tests", path="$(id)")),
    "folders without an end": (use("shell", command="python3 -c \"import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')\""), use("list"), use("search", pattern="x"), use("view", path="d/" * 900 + "x")),
    "too many files": (use("shell", command="mkdir m; cd m; seq 1 20000 | xargs touch"), use("list"), use("search", pattern="x")),
    "endless work": (use("shell", command="while :; do :; done"), use("shell", command="sleep 1000"), use("shell", command="(setsid sleep 1000 &) ; nohup sleep 1000 & disown; exit 0")),
}  # fmt: skip


@pytest.mark.parametrize("what", TALKS)
def test_hostile_conversations_earn_nothing(
    what: str, domain: SweAgentic, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is answered in words and in bounds, nothing of the answer is seen, nothing is rewarded, nobody outside is harmed."""
    monkeypatch.setattr(tools, "_LIMITS", replace(tools._LIMITS, cpu=3.0, wall=6.0))
    began = time.monotonic()
    verdict, answers = held(domain, prompt, *TALKS[what], DONE)
    assert verdict.reward == 0.0 and verdict.note, verdict
    assert domain.verify(prompt, Reply("done", messages=(*TALKS[what], DONE))).reward == 0.0, (
        "nor from a transcript"
    )
    assert time.monotonic() - began < 150
    for answer in answers:
        assert len(answer.encode()) <= 4 * (LONGEST_ANSWER + 100)
        for hidden_text in (
            "result += number",
            "== 43",
            "[1007]",
            "root:x:",
            str(package.cache()) + "/toy",
        ):
            assert hidden_text not in answer, (what, answer[:500])


def test_no_conversation_changes_what_it_is_judged_by(
    domain: SweAgentic, prompt: Prompt, cache: Path
) -> None:
    assert package.load("toy==1.0", cache).files["toy/core.py"] == CORE
    assert held(domain, prompt, REPAIR, DONE)[0].reward == 1.0


def test_an_honest_repair_among_changed_tests_still_earns(
    domain: SweAgentic, prompt: Prompt
) -> None:
    """What is judged are the sources alone: neither helped nor harmed by anything else."""
    mess = use(
        "shell",
        command=TREE_ATTACKS["configuration"]
        + ";"
        + TREE_ATTACKS["deleted tests"]
        + ";"
        + TREE_ATTACKS["sitecustomize"],
    )
    assert held(domain, prompt, mess, REPAIR, DONE)[0].reward == 1.0


def test_the_machine_is_left_clean() -> None:
    import tempfile

    mine = [
        path
        for path in Path(tempfile.gettempdir()).glob("linn-workspace-*")
        if path.stat().st_uid != -1
    ]
    users = {path.stat().st_uid for path in mine}
    pid = os.getpid()
    children = []
    for name in itertools.filterfalse(lambda n: not n.isdigit(), os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and b"supervisor" in Path(f"/proc/{name}/cmdline").read_bytes():
            children.append(name)
    assert not children and (
        os.geteuid() != 0
        or not any(
            0x64000000 + (pid % (1 << 20)) * 64 <= user < 0x64000000 + (pid % (1 << 20)) * 64 + 64
            for user in users
        )
    )
