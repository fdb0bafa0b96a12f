"""Problems whose programs read and write files, tests that count unequally, absent answers.

Each was found on problems of other people: `python -m bench.agreement.contest` judges those.
"""

import pytest
from support.contest import RIGHT, python
from test_contest_readers import TESTS, cms, ioi, polygon

from linn.errors import UserError
from linn.solve.contest.judge import Judge
from linn.solve.contest.layouts import read_problem
from linn.solve.wording import task_text

BY_FILES = """
a, b = map(int, open("input.txt").read().split())
open("output.txt", "w").write(f"{a + b}\\n")
print("this is nobody's business")
"""


@pytest.fixture(scope="module")
def judge():
    judge = Judge(servers=1)
    yield judge
    judge.close()


def with_files(layout, folder):
    """A problem of CMS's or of Polygon's that names its files."""
    if layout == "cms":
        text = "name: sum\ninfile: input.txt\noutfile: output.txt\ntime_limit: 2\n"
        return cms(folder, **{"task.yaml": text})
    found = polygon(folder, TESTS.format("", "", ""))
    path = found / "problem.xml"
    names = 'input-file="input.txt" output-file="output.txt"'
    path.write_text(path.read_text().replace('cpu-name="x"', names))
    return found


@pytest.mark.parametrize("layout", ["cms", "polygon"])
def test_a_program_reads_and_writes_the_files_that_the_problem_names(judge, tmp_path, layout):
    problem = read_problem(with_files(layout, tmp_path), judge.sandbox)
    assert judge.judge(problem, python(BY_FILES)).points(problem) == 100
    assert "reads the file input.txt and writes the file output.txt" in task_text("cpp", problem)

    # Standard input is empty then, and what is printed does not count.
    judged = judge.judge(problem, python(RIGHT))
    assert judged.points(problem) == 0
    (word, *_) = judged.words.values()
    assert word.word == "runtime error" and "EOFError" in word.note
    silent = judge.judge(problem, python("print(open('input.txt').read())"))
    (word, *_) = silent.words.values()
    assert (word.word, word.note) == ("wrong answer", "it wrote no file output.txt")


def test_a_file_on_one_side_alone(judge, tmp_path):
    text = "name: sum\noutfile: sum.out\ninfile: ''\ntime_limit: 2\n"
    problem = read_problem(cms(tmp_path, **{"task.yaml": text}), judge.sandbox)
    program = "a, b = map(int, input().split())\nopen('sum.out', 'w').write(str(a + b))"
    assert judge.judge(problem, python(program)).points(problem) == 100
    assert "reads standard input and writes the file sum.out" in task_text("python", problem)


@pytest.mark.parametrize("name", ["../answer", "/etc/passwd", ".."])
def test_a_file_outside_the_folder_is_refused(judge, tmp_path, name):
    with pytest.raises(UserError, match=r"infile is .*; allowed: a plain file name"):
        read_problem(cms(tmp_path, **{"task.yaml": f"infile: {name}\n"}), judge.sandbox)


def test_polygons_own_names_of_the_standard_streams(judge, tmp_path):
    folder = with_files("polygon", tmp_path)
    path = folder / "problem.xml"
    path.write_text(path.read_text().replace("input.txt", "stdin").replace("output.txt", "stdout"))
    problem = read_problem(folder, judge.sandbox)
    assert judge.judge(problem, python(RIGHT)).points(problem) == 100


def test_a_test_counts_for_its_own_points(judge, tmp_path):
    # The sample is a test of no points; the others are worth 30 and 70.
    tests = TESTS.format(' points="0.0"', ' points="30.0"', ' points="70.0"')
    problem = read_problem(polygon(tmp_path, tests), judge.sandbox)
    (subtask,) = problem.subtasks
    assert (subtask.points, subtask.tests, subtask.weights) == (100, ("2", "3"), (30, 70))
    small = "a, b = map(int, input().split())\nprint(min(a + b, 99))"
    assert judge.judge(problem, python(RIGHT)).points(problem) == 100
    assert judge.judge(problem, python(small)).points(problem) == pytest.approx(30)


def test_absent_answers_are_refused_where_outputs_are_compared_with_them(judge, tmp_path):
    made = {
        "cms": (cms(tmp_path / "cms"), "output/output1.txt"),
        "ioi": (ioi(tmp_path / "ioi"), "tests/1-1.out"),
        "polygon": (polygon(tmp_path / "polygon", TESTS.format("", "", "")), "tests/02.a"),
    }
    for folder, name in made.values():
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"{name}: is not there; make the answers"):
            read_problem(folder, judge.sandbox)
