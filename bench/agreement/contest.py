"""Contest problems of others: linn's verdicts on their own solutions, and what their folders claim.

    python -m bench.agreement.contest FOLDER… [--seconds-times 2] [--only PART]

A claim is a tag of Polygon's problem.xml, a line of the IOI's solutions.json (per subtask), or, for
CMS's folders, that `sol/solution.*` is right. C++ needs a compiler; Pascal, Java and PHP are left
out. Folders are those that `linn solve --strategy ioi` takes, tests included.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

from linn.errors import UserError
from linn.solve.contest.files import source_of
from linn.solve.contest.judge import Judge
from linn.solve.contest.layouts import read_problem
from linn.solve.contest.problem import Problem
from linn.solve.contest.submission import Submission

_ENDINGS = (".cpp", ".cc", ".c", ".py")
_FULL = ("main", "accepted", "model_solution", "correct")


@dataclass(frozen=True)
class Claim:
    """What a folder says of one of its solutions."""

    path: Path
    """The program."""
    is_full: bool
    """Whether it is right on everything."""
    subtasks: Mapping[str, bool] = field(default_factory=dict)
    """Whether it solves each subtask, where the folder says so."""


def main() -> int:
    """Print a line per solution; 1 where any verdict is other than claimed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seconds-times", type=float, default=1.0)
    parser.add_argument("--only", default="", help="solutions whose names hold this")
    given = parser.parse_args()
    judge = Judge(servers=1)
    counts = {"as claimed": 0, "OTHER": 0, "refused": 0}
    try:
        for folder in given.folders:
            try:
                problem = read_problem(folder, judge.sandbox)
            except UserError as error:
                counts["refused"] += 1
                print(f"{folder.name}: refused: {error}")
                continue
            problem = replace(problem, seconds=problem.seconds * given.seconds_times)
            for claim in claims(folder, problem):
                if given.only not in claim.path.name:
                    continue
                counts[_told(judge, problem, claim)] += 1
    finally:
        judge.close()
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return int(counts["OTHER"] > 0)


def _told(judge: Judge, problem: Problem, claim: Claim) -> str:
    """Judge one solution and print what came of it; whether that is as claimed."""
    judged = judge.judge(problem, Submission(source_of(claim.path)))
    points = judged.points(problem)
    wrong = [
        name for name, solved in claim.subtasks.items() if (judged.shares[name] == 1) != solved
    ]
    is_full = abs(points - problem.points) < 1e-9
    word = "as claimed" if is_full == claim.is_full and not wrong else "OTHER"
    shares = " ".join(f"{name}:{share:g}" for name, share in judged.shares.items())
    worst = min(judged.words.values(), key=lambda verdict: verdict.share)
    print(
        f"{problem.name} {claim.path.name}: {points:g} of {problem.points:g} ({shares}); "
        f"{worst.word} {worst.note[:80]}; {word}"
    )
    sys.stdout.flush()
    return word


def claims(folder: Path, problem: Problem) -> Iterator[Claim]:
    """What a folder says of its own solutions, in the languages that linn runs."""
    if (folder / "problem.xml").is_file():
        found = _of_polygon(folder)
    elif (folder / "solutions.json").is_file():
        found = _of_ioi(folder, problem)
    else:
        found = (Claim(path, True) for path in sorted((folder / "sol").glob("solution.*")))
    for claim in found:
        if claim.path.suffix in _ENDINGS and claim.path.is_file():
            yield claim


def _of_polygon(folder: Path) -> Iterator[Claim]:
    root = ElementTree.parse(folder / "problem.xml").getroot()
    for solution in root.findall("assets/solutions/solution"):
        source = solution.find("source")
        if source is not None:
            yield Claim(folder / (source.get("path") or ""), solution.get("tag") in _FULL)


def _of_ioi(folder: Path, problem: Problem) -> Iterator[Claim]:
    """A subtask that `except` does not name has the verdict of the whole, where that is sure."""
    for name, block in json.loads((folder / "solutions.json").read_text()).items():
        is_full = block["verdict"] in _FULL
        exceptions = block.get("except", {})
        known = {subtask.name: is_full for subtask in problem.subtasks if exceptions or is_full}
        for subtask, verdict in exceptions.items():
            if subtask in known:
                known[subtask] = verdict in _FULL
        yield Claim(folder / "solution" / name, is_full and not exceptions, known)


if __name__ == "__main__":
    sys.exit(main())
