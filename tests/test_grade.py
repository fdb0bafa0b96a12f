"""Offline grading: verdicts in order, broken lines named, or counted and skipped without moving an
index."""

import asyncio
import json
from pathlib import Path

import pytest

from linn.data.tally import Tally
from linn.domains.base import Domain
from linn.errors import UserError
from linn.offline import grade as offline
from linn.types import Message, Prompt, Verdict


class Echo(Domain):
    name = "echo"

    def from_row(self, row, index):
        if "say" not in row:
            raise UserError("say is missing")
        return Prompt("echo", str(index), (Message("user", "go"),), hidden={"say": row["say"]})

    def verify(self, prompt, reply):
        return Verdict(float(reply.text == prompt.hidden["say"]), "said")


def write(path: Path, *lines: object) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return path


def grade(*arguments):
    return asyncio.run(offline.grade(*arguments))


def test_verdicts_come_in_order(tmp_path):
    rows = write(tmp_path / "rows.jsonl", {"say": "a"}, {"say": "b"})
    replies = write(
        tmp_path / "replies.jsonl",
        {"row": 1, "text": "<think>\nx\n</think>\nb"},
        {"row": 0, "text": "b"},
    )
    assert [(v["row"], v["reply"], v["reward"]) for v in grade(Echo(), rows, replies)] == [
        (1, 0, 1.0),
        (0, 1, 0.0),
    ]


def test_skipped_lines_are_counted_and_move_no_index(tmp_path):
    rows = write(tmp_path / "rows.jsonl", "{", {"say": "a"}, {"other": 1}, {"say": "d"}, "[]")
    replies = write(
        tmp_path / "replies.jsonl",
        {"row": 3, "text": "d"},
        "no json",
        {"row": 2, "text": "c"},
        {"row": 1, "text": "a"},
        {"row": 9, "text": ""},
        {"row": 4, "text": ""},
    )
    broken = Tally()
    found = list(grade(Echo(), rows, replies, broken))
    assert [(v["row"], v["reply"], v["reward"]) for v in found] == [(3, 0, 1.0), (1, 3, 1.0)]
    assert broken.bad == {
        "not JSON": 2,
        "say": 1,
        "not an object": 1,
        "row N cannot be graded": 2,
        "row": 1,
    }
    assert broken.first["not an object"].startswith(
        f"{rows} line 5: expected a JSON object, found a list"
    )
    assert (
        broken.first["row N cannot be graded"]
        == f"{replies} line 3: row 2 cannot be graded: {rows} line 3: say is missing"
    )


def test_rows_of_other_domains_are_no_fault_until_a_reply_answers_one(tmp_path):
    rows = write(
        tmp_path / "rows.jsonl", {"agent_ref": {"name": "mcqa_simple_agent"}}, {"say": "b"}
    )
    replies = write(tmp_path / "replies.jsonl", {"row": 1, "text": "b"})
    assert [v["reward"] for v in grade(Echo(), rows, replies)] == [1.0]
    with pytest.raises(
        UserError,
        match=r"replies.jsonl line 1: row 0 cannot be graded: .*rows.jsonl line 1: say is missing",
    ):
        list(grade(Echo(), rows, write(replies, {"row": 0, "text": ""})))


@pytest.mark.parametrize(
    ("row", "reply", "said"),
    [
        ("{", {"row": 0, "text": ""}, "rows.jsonl line 1: not JSON"),
        ({"x": 1}, {"row": 0, "text": ""}, "rows.jsonl line 1: say"),
        ({"say": ""}, {"row": 1, "text": ""}, "replies.jsonl line 1: row is 1"),
        ({"say": ""}, {"row": True, "text": ""}, "row must be"),
        ({"say": ""}, {"row": 0}, "replies.jsonl line 1: text .* is needed"),
        (
            {"say": ""},
            {"row": 0, "messages": [{"role": "bot"}]},
            r"replies.jsonl line 1: messages\[0\].role must be",
        ),
        (
            {"say": ""},
            {"row": 0, "messages": [{"role": "assistant", "tool_calls": [3]}]},
            r"messages\[0\].tool_calls: expected a list of objects, found.*; --skip-bad counts",
        ),
        ({"say": ""}, "]", "replies.jsonl line 1: not JSON"),
    ],
)
def test_a_broken_line_names_file_and_line(tmp_path, row, reply, said):
    rows, replies = write(tmp_path / "rows.jsonl", row), write(tmp_path / "replies.jsonl", reply)
    with pytest.raises(UserError, match=said):
        list(grade(Echo(), rows, replies))
