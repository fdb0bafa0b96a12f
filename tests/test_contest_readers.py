"""Problem folders of CMS, of the IOI and of Polygon: what is read of them, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from support.contest import RIGHT, WRONG, cpp, python

from linn.errors import UserError
from linn.solve.contest.judge import Judge
from linn.solve.contest.layouts import is_problem, read_problem
from linn.solve.contest.problem import Checker, Test
from linn.solve.contest.submission import submission_of
from linn.solve.contest.verdicts import together

CHECKER = """
import sys
wanted, found = (open(path).read().split() for path in sys.argv[2:4])
print(1.0 if wanted == found else 0.5)
print("almost", file=sys.stderr)
"""
"""CMS's: (input, right, contestant's)."""


@pytest.fixture(scope="module")
def judge():
    judge = Judge(servers=1)
    yield judge
    judge.close()


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def cms(folder: Path, **more: str) -> Path:
    files = {
        "task.yaml": "name: sum\ntitle: The sum\ntime_limit: 0.5\nmemory_limit: 128\n",
        "statement/statement.md": "Print a + b.",
        "gen/GEN": "# a comment\n#ST: 30 small\n1 2\n3 4 # two\n#ST: 70\n#COPY: gen/big.txt\n",
    }
    for number, (a, b) in enumerate([(1, 2), (3, 4), (10**9, 1)]):
        files[f"input/input{number}.txt"] = f"{a} {b}\n"
        files[f"output/output{number}.txt"] = f"{a + b}\n"
    return tree(folder, {**files, **{k.replace("__", "/"): v for k, v in more.items()}})


def test_a_cms_folder(judge, tmp_path):
    problem = read_problem(cms(tmp_path), judge.sandbox)
    assert (problem.name, problem.title, problem.seconds, problem.memory) == (
        "sum",
        "The sum",
        0.5,
        128,
    )
    assert [(s.points, s.tests, s.text) for s in problem.subtasks] == [
        (30, ("0", "1"), "small"),
        (70, ("2",), ""),
    ]
    assert judge.judge(problem, python(RIGHT)).points(problem) == 100
    small = "a, b = map(int, input().split())\nprint(min(a + b, 99))"
    assert judge.judge(problem, python(small)).shares == {"1": 1.0, "2": 0.0}


def test_cms_score_types_by_parameters(judge, tmp_path):
    more = "score_type: {}\nscore_type_parameters: {}\n"
    for score_type, parameters, shares in (
        ("GroupMul", "[[40, 2], [60, 1]]", {"1": 1.0, "2": 0.0}),
        ("GroupMin", '[[0, "2"], [60, "[01]"]]', {"2": 1.0}),
        ("Sum", "30", {"1": 2 / 3}),
    ):
        text = "name: sum\n" + more.format(score_type, parameters)
        folder = cms(tmp_path / score_type, **{"task.yaml": text})
        problem = read_problem(folder, judge.sandbox)
        small = "a, b = map(int, input().split())\nprint(min(a + b, 99))"
        assert judge.judge(problem, python(small)).shares == pytest.approx(shares), score_type


def test_a_cms_checker_gives_a_share_and_a_note(judge, tmp_path):
    problem = read_problem(cms(tmp_path, check__checker_py="").resolve(), judge.sandbox)
    assert problem.checker.kind == "tokens"
    tree(tmp_path, {"check/checker.py": CHECKER})
    problem = read_problem(tmp_path, judge.sandbox)
    verdict = judge.checking.check(problem.checker, Test("t", "1 2", "3"), "4")
    assert (verdict.share, verdict.word, verdict.note) == (0.5, "partly right", "almost")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"task.yaml": "[1]"}, r"task\.yaml: expected keys and values"),
        ({"task.yaml": "time_limit: -1"}, "time_limit is -1; allowed: a number above 0"),
        ({"gen__GEN": "#ST: 100\n1 2\n"}, "makes 1 inputs, and input/ holds 3"),
        ({"check__manager.cpp": ""}, "Communication tasks are not read"),
        ({"task.yaml": "score_type: X\nscore_type_parameters: [[1, 2]]"}, "score_type 'X'; read"),
        ({"task.yaml": "time_limit: .nan"}, "time_limit is nan; allowed"),
        ({"task.yaml": "memory_limit: .inf"}, "memory_limit is inf; allowed"),
        ({"task.yaml": "title: 2020-02-30"}, r"task\.yaml: not YAML \(day is out of range"),
        ({"task.yaml": "a: " + "[" * 3000}, "not YAML"),
        ({"task.yaml": "score_type_parameters: [[x, 1]]"}, "points of group 1 is 'x'; allowed"),
        (
            {"task.yaml": "score_type_parameters: [[5, null]]"},
            "group 1 are None; allowed: a number",
        ),
        ({"task.yaml": "score_type_parameters: [[5, 2], [5, 2]]"}, "group 2 are 2; .* 1 at most"),
        ({"task.yaml": "score_type_parameters: [[5, '(']]"}, "which is no pattern"),
        ({"task.yaml": "score_type_parameters: []"}, "no subtask earns points"),
        ({"task.yaml": "score_type_parameters: true"}, "is True; allowed: points"),
        ({"gen__GEN": "#ST: 1.2.3\n1\n2\n3\n"}, "is '1.2.3'; allowed: points"),
        ({"input__input4.txt": "1 2"}, r"input3\.txt: is not there, and 1 later"),
    ],
)
def test_a_cms_folder_that_cannot_be_read_says_why(judge, tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        read_problem(cms(tmp_path, **files), judge.sandbox)


def test_a_statement_as_pdf_alone_is_refused_with_what_to_do(judge, tmp_path):
    folder = cms(tmp_path)
    (folder / "statement" / "statement.md").unlink()
    (folder / "statement" / "statement.pdf").write_text("%PDF")
    with pytest.raises(UserError, match="put its text beside it"):
        read_problem(folder, judge.sandbox)


# ---------------------------------------------------------------- the IOI's


def ioi(folder: Path, **more: str) -> Path:
    files = {
        "problem.json": json.dumps({"name": "sum", "time_limit": 0.5, "memory_limit": 128}),
        "subtasks.json": json.dumps(
            {
                "subtasks": {
                    "samples": {"index": 0, "score": 0},
                    "full": {"index": 2, "score": 60},
                    "small": {"index": 1, "score": 40, "text": "small ones"},
                }
            }
        ),
        "statement/index.md": "Print a + b.",
        "tests/mapping": "samples 0-1\nsmall 1-1\nfull 1-1\nfull 2-1\n",
    }
    for name, (a, b) in {"0-1": (2, 2), "1-1": (1, 2), "2-1": (10**9, 1)}.items():
        files[f"tests/{name}.in"] = f"{a} {b}\n"
        files[f"tests/{name}.out"] = f"{a + b}\n"
    return tree(folder, {**files, **{k.replace("__", "/"): v for k, v in more.items()}})


def test_an_ioi_folder_shares_tests_between_subtasks(judge, tmp_path):
    problem = read_problem(ioi(tmp_path), judge.sandbox)
    assert [(s.name, s.points, s.tests) for s in problem.subtasks] == [
        ("small", 40, ("1-1",)),
        ("full", 60, ("1-1", "2-1")),
    ]
    judged = judge.judge(problem, python(RIGHT))
    assert judged.points(problem) == 100 and list(judged.tests) == ["1-1", "2-1"]


def test_ioi_subtasks_in_files_of_their_own(judge, tmp_path):
    folder = ioi(
        tmp_path,
        subtasks__1=json.dumps({"score": 100, "testcases": ["1-1"], "description": "all"}),
    )
    (folder / "subtasks" / "1").rename(folder / "subtasks" / "1.json")
    (subtask,) = read_problem(folder, judge.sandbox).subtasks
    assert (subtask.name, subtask.points, subtask.tests, subtask.text) == (
        "1",
        100,
        ("1-1",),
        "all",
    )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_functions_are_called_by_the_judges_own_code(judge, tmp_path):
    folder = ioi(tmp_path)
    add = "long long add(long long a, long long b)"
    grader = (
        '#include <cstdio>\n#include "sum.h"\nstatic int n;\n'
        'int main() { long long a, b; scanf("%lld %lld", &a, &b); printf("%lld", add(a, b)); }\n'
    )
    tree(
        folder,
        {
            "grader/cpp/grader.cpp": grader,
            "grader/cpp/sum.h": f"{add};",
        },
    )
    problem = read_problem(folder, judge.sandbox)
    right = f'#include "sum.h"\nstatic int n;\n{add} {{ return a + b; }}'
    assert judge.judge(problem, cpp(right)).points(problem) == 100
    judged = judge.judge(problem, cpp("long long add(int"))
    assert judged.words["full"].word == "compilation error"


def test_other_kinds_of_the_iois_are_refused(judge, tmp_path):
    text = json.dumps({"type": "Communication"})
    with pytest.raises(UserError, match="type 'Communication' is not read"):
        read_problem(ioi(tmp_path, **{"problem.json": text}), judge.sandbox)
    with pytest.raises(UserError, match=r"mapping line 1: expected a subtask and a test"):
        read_problem(ioi(tmp_path / "b", tests__mapping="other 1-1\n"), judge.sandbox)
    with pytest.raises(UserError, match=r"subtask full: no test 9-9"):
        read_problem(ioi(tmp_path / "c", tests__mapping="full 9-9\n"), judge.sandbox)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("problem.json", '{"time_limit": "x"}', "time_limit is 'x'; allowed: a number above 0"),
        ("problem.json", '{"time_limit": NaN}', "time_limit is nan; allowed"),
        ("problem.json", '{"memory_limit": Infinity}', "memory_limit is inf; allowed"),
        ("problem.json", "[" * 100_000, "not JSON"),
        ("subtasks.json", '{"subtasks": null}', "subtasks: expected keys and values, found None"),
        ("subtasks.json", '{"subtasks": {"a": 5}}', "subtasks: a: expected keys and values"),
        ("subtasks/01.json", '{"score": null}', "score is None; allowed: points"),
        ("subtasks/01.json", '{"testcases": 5}', "testcases: expected a list, found int"),
    ],
)
def test_values_of_an_ioi_folder_that_are_none_are_named(judge, tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        read_problem(ioi(tmp_path, **{name: text}), judge.sandbox)


# ---------------------------------------------------------------- Polygon

TESTS = """<test method="manual" sample="true"{0}/><test method="generated"{1}/>
<test method="generated"{2}/>"""
PROBLEM = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<problem revision="3" short-name="sum">
<names><name language="russian" value="R"/><name language="english" value="The sum"/></names>
<statements><statement charset="UTF-8" language="english" type="application/x-tex"/></statements>
<judging cpu-name="x"><testset name="tests"><time-limit>500</time-limit>
<memory-limit>134217728</memory-limit><test-count>3</test-count>
<input-path-pattern>tests/%02d</input-path-pattern>
<answer-path-pattern>tests/%02d.a</answer-path-pattern>
<tests>{tests}</tests>{groups}</testset></judging>
<assets>{assets}</assets></problem>"""
WCMP = '<checker name="std::wcmp.cpp" type="testlib"><source path="files/check.cpp"/></checker>'


def polygon(folder: Path, tests: str, groups: str = "", assets: str = WCMP, **more: str) -> Path:
    properties = {
        "name": "The sum",
        "legend": "Print a + b.",
        "input": "a and b",
        "output": "the sum",
        "sampleTests": [{"input": "2 2\n", "output": "4\n"}],
    }
    files = {
        "problem.xml": PROBLEM.format(tests=tests, groups=groups, assets=assets),
        "statements/english/problem-properties.json": json.dumps(properties),
    }
    for number, (a, b) in enumerate([(2, 2), (1, 2), (10**9, 1)], 1):
        files[f"tests/{number:02}"] = f"{a} {b}\n"
        files[f"tests/{number:02}.a"] = f"{a + b}\n"
    return tree(folder, {**files, **{k.replace("__", "/"): v for k, v in more.items()}})


def test_a_polygon_package_without_groups_is_one_subtask(judge, tmp_path):
    problem = read_problem(polygon(tmp_path, TESTS.format("", "", "")), judge.sandbox)
    assert (problem.name, problem.title) == ("sum", "The sum")
    assert (problem.seconds, problem.memory) == (0.5, 128)
    assert [subtask.tests for subtask in problem.subtasks] == [("1", "2", "3")]
    assert [test.name for test in problem.samples] == ["1"]
    for part in ("# The sum\n\nPrint a + b.", "## Input\n\na and b", "```\n2 2\n```"):
        assert part in problem.statement
    assert judge.judge(problem, python(RIGHT)).points(problem) == 100
    assert judge.passes(problem, python(WRONG), problem.samples)
    assert judge.judge(problem, python(WRONG)).points(problem) == 0


def test_groups_with_points_are_subtasks_and_take_those_they_depend_on(judge, tmp_path):
    tests = TESTS.format(' group="0"', ' group="1" points="40"', ' group="2" points="60"')
    groups = (
        '<groups><group name="0" points-policy="complete-group"/>'
        '<group name="1" points="40.0" points-policy="complete-group">'
        '<dependencies><dependency group="0"/></dependencies></group>'
        '<group name="2" points="60.0" points-policy="complete-group">'
        '<dependencies><dependency group="1"/></dependencies></group></groups>'
    )
    problem = read_problem(polygon(tmp_path, tests, groups), judge.sandbox)
    assert [(s.name, s.points, s.tests) for s in problem.subtasks] == [
        ("1", 40, ("1", "2")),
        ("2", 60, ("1", "2", "3")),
    ]
    each = groups.replace("complete-group", "each-test")
    problem = read_problem(polygon(tmp_path / "each", tests, each), judge.sandbox)
    assert [(s.tests, s.rule) for s in problem.subtasks] == [(("2",), "sum"), (("3",), "sum")]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_checker_and_an_interactor_of_a_package_decide_by_their_exit_code(judge, tmp_path):
    check = (
        '#include <fstream>\n#include "mine.h"\nint main(int, char** v) {\n'
        "std::ifstream o(v[2]), a(v[3]); long long x, y; o >> x; a >> y;\n"
        "return x == y ? OK : x == -y ? 66 : WRONG; }\n"
    )
    assets = '<checker name="check.cpp" type="testlib"><source path="files/check.cpp"/></checker>'
    files = {"files__check.cpp": check, "files__mine.h": "enum { OK = 0, WRONG = 1 };\n"}
    plain = TESTS.format("", "", "")
    problem = read_problem(polygon(tmp_path / "a", plain, "", assets, **files), judge.sandbox)
    test = problem.tests["3"]
    shares = [
        judge.checking.check(problem.checker, test, text).share
        for text in (test.answer, "5", f"-{test.answer}")
    ]
    assert shares == [1.0, 0.0, 0.5]

    talk = (
        "#include <cstdio>\n#include <fstream>\nint main(int, char** v) {\n"
        "std::ifstream i(v[1]); long long a, b, c; i >> a >> b;\n"
        'printf("%lld\\n%lld\\n", a, b); fflush(stdout);\n'
        'return scanf("%lld", &c) == 1 && c == a + b ? 0 : 1; }\n'
    )
    assets = '<interactor><source path="files/talk.cpp"/></interactor>'
    folder = polygon(tmp_path / "b", plain, "", assets, **{"files__talk.cpp": talk})
    problem = read_problem(folder, judge.sandbox)
    assert problem.kind == "interactive"
    right = "print(int(input()) + int(input()), flush=True)"
    assert judge.judge(problem, python(right)).points(problem) == 100
    assert judge.judge(problem, python("print(input())")).points(problem) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("</problem>", ""), "not XML"),
        (("<problem revision", '<!DOCTYPE x [<!ENTITY a "b">]><problem revision'), "entities"),
        (("tests/%02d<", "../../%02d<"), "path pattern"),
        (("tests/%02d<", "tests/%s<"), "path pattern"),
        (("tests/%02d<", "data/%02d<"), "take the package with its tests"),
        (("500", "half"), "time-limit is 'half'"),
        (("500", "0"), "time-limit is '0'; allowed: a whole number above 0"),
        (("500", "9" * 5000), "time-limit is '999"),
        (("%02d<", "%99999999999d<"), "path pattern"),
        (('"generated"', '"generated" points="x"'), "points of test 2 is 'x'; allowed: points"),
    ],
)
def test_a_package_that_cannot_be_read_says_why(judge, tmp_path, change, message):
    folder = polygon(tmp_path, TESTS.format("", "", ""))
    path = folder / "problem.xml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError, match=message):
        read_problem(folder, judge.sandbox)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected keys and values, found list"),
        ('{"sampleTests": 5}', "sampleTests: expected a list, found int"),
        ('{"sampleTests": [3]}', "sampleTests 1: expected keys and values, found int"),
    ],
)
def test_a_statement_that_cannot_be_read_says_why(judge, tmp_path, text, message):
    name = "statements/english/problem-properties.json"
    folder = polygon(tmp_path, TESTS.format("", "", ""), **{name: text})
    with pytest.raises(UserError, match=message):
        read_problem(folder, judge.sandbox)


def test_testlibs_own_checkers_need_no_compiler(judge, tmp_path):
    for name, checker in {
        "std::ncmp.cpp": Checker("tokens"),
        "std::rcmp6.cpp": Checker("numbers", tolerance=1e-6),
        "std::nyesno.cpp": Checker("lines"),
    }.items():
        assets = f'<checker name="{name}" type="testlib"><source path="files/check.cpp"/></checker>'
        folder = polygon(tmp_path / name, TESTS.format("", "", ""), "", assets)
        assert read_problem(folder, judge.sandbox).checker == checker
    six = Checker("numbers", tolerance=1e-6)
    for output, share in (("0.3333333", 1.0), ("0.33333", 0.0), ("nan", 0.0), ("0.3333333 1", 0.0)):
        assert judge.checking.check(six, Test("t", "", "0.333333333"), output).share == share
    yes = Checker("lines")
    assert judge.checking.check(yes, Test("t", "", "YES\nno"), "yes\nNo").share == 1


# ---------------------------------------------------------------- what is common


def test_what_is_no_problem_is_refused_and_says_what_is_read(judge, tmp_path):
    assert not is_problem(tmp_path)
    with pytest.raises(UserError, match=r"problem\.yaml.*problem\.xml.*task\.yaml.*problem\.json"):
        read_problem(tmp_path, judge.sandbox)


def test_a_checker_at_fault_is_an_error_and_no_verdict(judge):
    test = Test("t", "1", "1")
    for program in ("1/0", "def check(i, o, a): return 7", "def check(i, o, a): return 'yes'"):
        with pytest.raises(UserError, match="checker, test t"):
            judge.checking.check(Checker("function", python(program).program), test, "1")


@pytest.mark.parametrize(
    ("rule", "shares", "share"),
    [("min", [1, 0.5], 0.5), ("multiply", [0.5, 0.5], 0.25), ("sum", [1, 0], 0.5)],
)
def test_a_subtasks_share(rule, shares, share):
    assert together(rule, shares) == share


def test_outputs_may_be_submitted_by_themselves(judge, tmp_path):
    text = "name: sum\noutput_only: true\n"
    problem = read_problem(cms(tmp_path, **{"task.yaml": text}), judge.sandbox)
    reply = "```output 0\n3\n```\nand\n```output 2\n1000000001\n```\n```output 9\n1\n```"
    submission = submission_of(reply, problem)
    assert submission.program is None and sorted(submission.outputs) == ["0", "2"]
    assert judge.judge(problem, submission).shares == {"1": 0.0, "2": 1.0}
    both = submission_of(f"```output 2\n5\n```\n```python\n{RIGHT}```", problem)
    assert judge.judge(problem, both).shares == {"1": 1.0, "2": 0.0}, "outputs go before a program"
