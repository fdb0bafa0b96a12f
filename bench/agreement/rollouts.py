"""Recorded rollouts: the rewards of `linn grade` against those that nemo-gym recorded beside its
example rows.

    python -m bench.agreement.rollouts --reference FOLDER

FOLDER: see `reference.py`. Every reply is graded twice, as `text` and as `messages`. Of `math` the
library's reward is compared, not the judge's; of `swe_agentless` (by `grading_mode: patch`) whether
a patch came of the edits, since its tests need container images (rows of mode `repro-gen`, which
need them too, are left out). Rollouts whose row the wheel does not hold are counted: those of
`workplace` and `structured`, whose own example rows are graded with made replies (`valid` where all
is as wanted). Judged servers have none that can be graded without their judge; `longctx` compares
the labels that were recorded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.agreement.reference import Tally, arguments, examples, question_of, replies_of, report
from linn.judges.equivalence import DIFFERENT, EQUAL, read_equivalence

_FILES = (
    ("mcqa", "mcqa", "example", "example_rollouts"),
    ("mcqa", "mcqa", "example_with_template_metadata", "example_rollouts_with_template_metadata"),
    ("code", "code_gen", "example", "example_rollouts"),
    ("math", "math_with_judge", "example", "example_rollouts"),
    ("instruct", "instruction_following", "example", "example_rollouts"),
    ("swe_agentless", "swerl_gen", "example", "example_rollouts"),
    ("workplace", "workplace_assistant", "example", "example_rollouts"),
    ("structured", "structured_outputs", "example", "example_rollouts"),
)


def _grade(domain: str, rows: Sequence[Any], replies: Sequence[Any]) -> list[dict[str, Any]]:
    """The verdicts of `linn grade`, run as a user runs it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.jsonl" for name in ("rows", "replies", "out")}
        for name, entries in (("rows", rows), ("replies", replies)):
            paths[name].write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        command = [sys.executable, "-m", "linn.cli.main", "grade", domain]
        for name, path in paths.items():
            command += [f"--{name}", str(path)]
        if domain == "swe_agentless":
            command += ["--option", "grading_mode=patch"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return [json.loads(line) for line in paths["out"].read_text().splitlines()]


def _recorded(folder: Path, domain: str, server: str, rows_name: str, rollouts_name: str) -> Tally:
    rows = [row for row in examples(folder, server, rows_name) if row.get("mode", "eval") == "eval"]
    rollouts = examples(folder, server, rollouts_name)
    places = {question_of(row): index for index, row in enumerate(rows)}
    with_row = [rollout for rollout in rollouts if question_of(rollout) in places]
    without = len(rollouts) - len(with_row)
    tally = Tally(f"{domain}, {rollouts_name} ({without} of {len(rollouts)} without their row)")
    if not with_row:
        return tally

    replies, texts = [], []
    for rollout in with_row:
        place, reply = places[question_of(rollout)], replies_of(rollout)
        replies.append({"row": place, **reply})
        texts.append({"row": place, "text": reply["messages"][-1]["content"]})
    verdicts = _grade(domain, rows, replies + texts)
    for verdict, rollout in zip(verdicts, with_row * 2, strict=True):
        if domain == "swe_agentless":
            theirs = float(rollout["model_patch"] is not None)
        else:
            theirs = rollout.get("library_reward", rollout["reward"])
        case = (verdict, question_of(rollout)[-1][-300:])
        tally.add(verdict["reward"], theirs, partial(_why, domain, rollout), case)
    return tally


def _why(domain: str, rollout: Any) -> str | None:
    if domain == "mcqa" and rollout["extracted_answer"] is None:
        return "recorded before `\\boxed{C: words}` was read"
    return None


def _workplace(folder: Path) -> Tally:
    """The true calls, the same with a search before them, one left out, one with broken arguments,
    none.
    """
    tally = Tally("workplace, example rows, made replies")
    rows = examples(folder, "workplace_assistant")
    replies: list[dict[str, Any]] = []
    rewards: list[float] = []
    for index, row in enumerate(rows):
        true = [{key: call[key] for key in ("name", "arguments")} for call in row["ground_truth"]]
        broken = {**true[-1], "arguments": true[-1]["arguments"][:-1]}
        search = {"name": "email_search_emails", "arguments": '{"query": "x"}'}
        for calls, reward in (
            (true, 1),
            ([search, *true], 1),
            ([*true, broken], 1),
            (true[:-1], 0),
            ([*true[:-1], broken], 0),
            ([], 0),
        ):
            turns: list[dict[str, Any]] = []
            for number, call in enumerate(calls):
                tool_call = {"id": str(number), "function": call}
                turns.append({"role": "assistant", "tool_calls": [tool_call]})
            turns.append({"role": "assistant", "content": "done"})
            replies.append({"row": index, "messages": turns})
            rewards.append(float(reward))
    for verdict, reward in zip(_grade("workplace", rows, replies), rewards, strict=True):
        tally.add(verdict["reward"], reward, case=verdict)
    return tally


def _structured(folder: Path) -> Tally:
    """Example rows of calls: nothing, text instead of a call, broken arguments, another tool, two
    calls, an empty object.
    """
    tally = Tally("structured, example rows, made replies that break them")
    rows = examples(folder, "structured_outputs")
    replies: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        name = row["tool_name"]
        for calls in (
            [],
            [(name, '{"a": ')],
            [("other", "{}")],
            [(name, "{}"), (name, "{}")],
            [(name, "{}")],
            [(name, '{"nothing": 1}')],
        ):
            tool_calls = [
                {"id": "1", "function": {"name": tool, "arguments": text}} for tool, text in calls
            ]
            turn = {"role": "assistant", "content": "{}", "tool_calls": tool_calls}
            replies.append({"row": index, "messages": [turn]})
    for verdict in _grade("structured", rows, replies):
        tally.add(verdict["reward"], 0.0, case=verdict)
    return tally


def _labels(folder: Path) -> Tally:
    """What recorded judges said, and the label that was taken."""
    tally = Tally("longctx, recorded judges")
    for name in ("example_rollouts", "example_rollouts_openqa"):
        for rollout in examples(folder, "equivalence_llm_judge", name):
            for evaluation in rollout["judge_evaluations"]:
                text = ""
                for item in evaluation["response"]["output"]:
                    if item["type"] == "message":
                        text += "".join(part["text"] for part in item["content"])
                label = {True: EQUAL, False: DIFFERENT, None: None}[read_equivalence(text)]
                tally.add(label, evaluation["verdict_label"], case=text)
    return tally


def main() -> int:
    folder, _, _ = arguments(__doc__, 0)
    tables = folder / "resources_servers" / "workplace_assistant" / "csv_data"
    os.environ["LINN_WORKPLACE_DATA"] = str(tables)
    tallies = [_recorded(folder, *files) for files in _FILES]
    tallies += [_workplace(folder), _structured(folder), _labels(folder)]
    return report(folder, tallies)


if __name__ == "__main__":
    sys.exit(main())
