"""Repair tasks of packages: bugs of every kind, tests without their numbers, rows, descriptions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from support.toy_package import (
    BROKEN,
    CORE,
    DONE,
    SECRETS,
    TESTS,
    TEXT,
    TEXT_TESTS,
    row_of,
)
from typer.testing import CliRunner

from linn.cli.main import app
from linn.data.rows import write_rows
from linn.domains.swe_agentic import (
    SweAgentic,
    bugs,
    episode,
    make_tasks,
    package,
    rows,
    run_tests,
    strip_tests,
)
from linn.domains.swe_agentic.suite import Suite
from linn.domains.swe_agentic.tools import TOOLS
from linn.errors import InfrastructureError, UserError
from linn.offline import describe
from linn.types import Reply

pytest_plugins = ["support.toy_package"]

# ---------------------------------------------------------------- the package and its bugs


@pytest.mark.slow
def test_a_source_distribution_is_read(suite: Suite) -> None:
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

    text = 'def f(é, b):\n    "ü"\n    x = "ä" + é  # ö\n    return é < b, x\n'
    for bug in bugs.candidates("a.py", text, random.Random(1)):
        assert bugs.compiles(bugs.inject({"a.py": text}, [bug])["a.py"]), bug


# ---------------------------------------------------------------- tests without their numbers


def test_no_expected_value_is_left() -> None:
    for text in (TESTS, TEXT_TESTS):
        stripped = strip_tests.strip(text)
        assert not [secret for secret in SECRETS if secret in stripped.text], stripped.text
        assert len(stripped.sites) == text.count("assert") - 0
    again = strip_tests.strip(TESTS)
    assert (
        again.text == strip_tests.strip(TESTS).text
        and [s.values for s in again.sites.values()].count((0, 3, 10)) == 1
    )


def test_a_spared_site_keeps_its_value() -> None:
    spared = strip_tests.strip(TESTS, spared=[0])
    assert "== 43" in spared.text and 0 not in spared.sites and "1007" not in spared.text
    clip = next(number for number, site in strip_tests.strip(TESTS).sites.items() if site.parameter)
    assert "(77, 10)" in strip_tests.strip(TESTS, spared=[clip]).text


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
    assert not strip_tests.strip(f"def test_a():\n    {text}\n").sites


@pytest.mark.slow
def test_the_right_package_passes_and_a_wrong_one_fails(suite: Suite) -> None:
    source = suite.source
    right = {path: source.files[path] for path in source.sources}
    report = run_tests.run(source, right, suite.tests, {}, suite.steady, 3)
    assert not report.doubt and all(report.is_right(test) for test in suite.steady)
    report = run_tests.run(
        source, {**right, "toy/core.py": BROKEN}, suite.tests, {}, suite.steady, 3
    )
    assert [test for test in suite.steady if not report.is_right(test)] == [
        "tests/test_core.py::test_total"
    ]
    assert report.outcomes["tests/test_core.py::test_total"] == "passed", (
        "the process itself cannot know that its value is wrong"
    )


# ---------------------------------------------------------------- making tasks


@pytest.mark.long
def test_made_tasks_hold(domain: SweAgentic, made: list[dict[str, Any]]) -> None:
    assert len(made) == 3
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


@pytest.mark.slow
def test_the_same_seed_makes_the_same_tasks(suite: Suite, made: list[dict[str, Any]]) -> None:
    assert list(make_tasks.make(suite, 1, 6, "easy", make_tasks.Attempts(), 20)) == made[:1]


@pytest.mark.slow
def test_visible_tests_hide_what_judges(suite: Suite) -> None:
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
    """A test may be inherited, or stand in a class within a class: its id tells where it ran."""
    text = (
        "class Base:\n"
        "    def test_a(self):\n        def test_a(): pass\n        assert 1234 == f()\n\n"
        "    def test_b(self): pass\n\n"
        "class A(Base):\n"
        "    class Inner:\n        @mark\n        async def test_c(self):\n"
        "            assert 5678\n"
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


@pytest.mark.long
def test_every_task_is_proved_by_one_command(
    suite: Suite, made: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "tasks.jsonl"
    write_rows(path, [made[-1], row_of(suite)])
    told = CliRunner().invoke(app, ["tasks", "--check", str(path)])
    assert (
        told.exit_code == 0
        and told.stdout.splitlines()[-1] == "2 of 2 fail before the golden patch and pass after it"
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
    (made,) = make_tasks.make_all(["Packaging==1"], 1, ["easy"], 0)
    assert not made.rows and "a right copy would stand beside" in made.why


# ---------------------------------------------------------------- rows


@pytest.mark.slow
def test_rows_are_checked(domain: SweAgentic, suite: Suite, tmp_path: Path) -> None:
    good = row_of(suite)["metadata"]
    changes: list[dict[str, Any]] = [
        {"python": "2.7"},
        {"package": "toy"},
        {"package": "../x==1"},
        {"FAIL_TO_PASS": "[]"},
        {"FAIL_TO_PASS": "[1]"},
        {"values": "{}"},
        {"values": "{"},
        {"golden_patch": ""},
        {"golden_patch": "--- a/toy/core.py\n+++ b/toy/core.py\n@@ -1 +1 @@\n-x\n+y\n"},
        {"problem_statement": None},
        {"spared": "[]"},
    ]
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


@pytest.mark.slow
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
    "instance_id": "pandas-dev__pandas-1",
    "base_commit": "0123456789abcdef",
    "problem_statement": "It is wrong.",
    "golden_patch": "--- a/x\n+++ b/x\n",
    "dataset_name": "SWE-Gym",
    "split": "train",
    "instance_dict": json.dumps(
        {
            "repo": "pandas-dev/pandas",
            "FAIL_TO_PASS": '["t::a"]',
            "PASS_TO_PASS": "[]",
            "docker_image": "img:1",
        }
    ),
}
COMMON = {
    "responses_create_params": {"input": []},
    "agent_ref": {"type": "responses_api_agents", "name": "swe_agents_train"},
}
GYM = {
    "instance_id": "a__b-2",
    "repo": "a/b",
    "base_commit": "fedcba9876543210",
    "version": "1",
    "problem_statement": "It is wrong too.",
    "patch": "p",
    "test_patch": "t",
    "FAIL_TO_PASS": '["x"]',
    "PASS_TO_PASS": '["y", "z"]',
}
SHAPES: dict[str, dict[str, Any]] = {
    "the recipe's release": {**COMMON, "metadata": RELEASED},
    "its fields mirrored at the top": {
        **COMMON,
        "metadata": {
            k: v for k, v in GYM.items() if k not in ("patch", "FAIL_TO_PASS", "PASS_TO_PASS")
        },
        **GYM,
    },
    "SWE-Gym's own": {**GYM, "FAIL_TO_PASS": ["x"], "PASS_TO_PASS": ["y", "z"]},
    "R2E-Gym's own": {
        "repo_name": "c",
        "docker_image": "r2e/c_final:0011",
        "commit_hash": "00112233445566",
        "parsed_commit_content": '{"file_diffs": []}',
        "problem_statement": "It is wrong as well.",
        "expected_output_json": '{"T.a": "PASSED"}',
        "prompt": "Write an issue.",
    },
}


def test_released_rows_are_read() -> None:
    assert {shape: rows.image_task(row, "here") for shape, row in SHAPES.items()} == {
        "the recipe's release": rows.ImageTask(
            "pandas-dev__pandas-1", "pandas-dev/pandas", "0123456789abcdef", "img:1"
        ),
        "its fields mirrored at the top": rows.ImageTask("a__b-2", "a/b", "fedcba9876543210", ""),
        "SWE-Gym's own": rows.ImageTask("a__b-2", "a/b", "fedcba9876543210", ""),
        "R2E-Gym's own": rows.ImageTask(
            "r2e/c_final:0011", "c", "00112233445566", "r2e/c_final:0011"
        ),
    }


def test_rows_that_need_an_image_say_so(domain: SweAgentic, tmp_path: Path) -> None:
    for row in SHAPES.values():
        with pytest.raises(
            UserError,
            match=(
                r"row 7: \S+ is \S+ at [0-9a-f]{12} in its container image .*; "
                r"that needs docker or apptainer"
            ),
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


@pytest.mark.slow
def test_a_file_of_such_rows_is_described_refused_or_counted(suite: Suite, tmp_path: Path) -> None:
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
        match=(
            r"rows.jsonl line \d+: .*needs docker or apptainer .*domains.swe_agentic.skip_bad:"
            r" true .*counts and skips"
        ),
    ):
        list(SweAgentic("full", path).prompts("train"))
    domain = SweAgentic("full", path)
    domain.skip_bad = True
    assert sum(len(list(domain.prompts(split))) for split in ("train", "validation", "test")) == 1  # type: ignore[arg-type]
    assert str(domain.tally) == "1 good, 4 bad and skipped (4 needs its container image)"
