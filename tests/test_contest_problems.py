"""The problems under examples/contest on the judge: references, brute force, wrong solutions."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.contest import python
from support.wrong_solutions import WRONG

from linn.errors import UserError
from linn.solve.contest.folder import read_own, solved_by
from linn.solve.contest.judge import Judge

EXAMPLES = Path(__file__).parent.parent / "examples" / "contest"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def judge():
    # Of a slower machine too: what is right takes a tenth of its limit, what is not, for ever.
    judge = Judge()
    yield judge
    judge.close()


def test_there_are_enough_of_every_kind():
    assert sorted(WRONG) == NAMES and len(NAMES) >= 6
    assert sum(map(len, WRONG.values())) >= 20
    kinds = [(EXAMPLES / name / "problem.yaml").read_text() for name in NAMES]
    for word in ("kind: interactive", "kind: output_only", "checker: checker.py"):
        assert any(word in text for text in kinds), word


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_references_earn_full_brute_force_its_subtasks_and_wrong_ones_what_they_should(judge, name):
    problem = read_own(EXAMPLES / name, judge.sandbox)
    assert problem.points == 100 and problem.statement.startswith(f"# {problem.title}")
    for reference, solved in solved_by(EXAMPLES / name).items():
        judged = judge.judge(problem, python(problem.references[reference].text))
        right = [subtask for subtask, share in judged.shares.items() if share == 1]
        assert right == list(map(str, solved)), (reference, judged.words)
        assert reference != "full" or judged.points(problem) == 100

    for what, program, shares in WRONG[name]:
        judged = judge.judge(problem, python(program))
        for share, (subtask, got) in zip(shares, judged.shares.items(), strict=True):
            assert share is None or got == share, (what, subtask, judged.words[subtask])
        assert judged.points(problem) < 100, what


def test_a_folder_that_is_wrong_is_refused_by_file(judge, tmp_path):
    def problem(yaml: str, **files: str) -> Path:
        for name, text in {"problem.yaml": yaml, "statement.md": "# T", **files}.items():
            (tmp_path / name.replace("_py", ".py")).write_text(text)
        return tmp_path

    good = "title: T\nsubtasks: [{points: 1, tests: 1}]\n"
    make = "def make(subtask, index):\n    return '1'\n"
    cases = [
        ("title: [", {}, r"problem\.yaml: not YAML"),
        ("title: T\n", {}, r"problem\.yaml: subtasks: Field required"),
        (good + "limit: 3\n", {}, r"problem\.yaml: limit: Extra inputs"),
        (good, {"make_py": "def make(a, b): return 3"}, r"make\.py: make\(1, 0\): gave int"),
        (
            good,
            {"make_py": make, "validate_py": "def validate(t, s): assert t == '2', t"},
            r"validate\.py: input 0 of subtask 1",
        ),
        (
            good,
            {"make_py": make, "validate_py": "def validate(t, s): pass", "full_py": "1/0"},
            r"full\.py: input 0: ZeroDivisionError",
        ),
        (good + "checker: mine\n", {"full_py": "print(1)"}, r"checker 'mine'; allowed"),
        (good + "kind: interactive\n", {}, "an interactive problem names its interactor"),
    ]
    for yaml, files, message in cases:
        with pytest.raises(UserError, match=message):
            read_own(problem(yaml, **files), judge.sandbox)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "word"),
    [
        ("while True: print('? 1', flush=True)", "wrong answer"),
        ("1/0", "runtime error"),
        ("pass", "wrong answer"),
        ("import os\nos.close(1)\nos.close(0)", "wrong answer"),
        ("while True: pass", "time limit exceeded"),
    ],
)
def test_a_conversation_always_ends_and_whoever_ends_it_is_told(judge, program, word):
    problem = read_own(EXAMPLES / "summit", judge.sandbox)
    if word == "wrong answer":
        # Time to be told: on a busy machine the interactor may wait for a processor.
        problem = replace(problem, seconds=20.0)
    judged = judge.judge(problem, python(program), ["1"])
    assert judged.words["1"].word == word
