"""`linn data`: counts that are right, in 80 columns, whatever the file holds."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from linn.chat.codec import Codec
from linn.checkpoints import resolve
from linn.data.rows import write_rows
from linn.errors import UserError
from linn.offline import describe

TOOL = {"name": "look_up", "parameters": {"type": "object", "required": ["key"]}}
CALL = (
    "<tool_call>\n<function=look_up>\n<parameter=key>\nx\n</parameter>\n</function>\n</tool_call>"
)


def mixed(path: Path) -> Path:
    def chat(content: str | None, **more: object) -> dict[str, object]:
        return {
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": content},
            ],
            **more,
        }

    user = {"responses_create_params": {"input": [{"role": "user", "content": "which"}]}}
    rows: list[dict[str, object]] = [chat("<think>t</think>a", domain="math")] * 3 + [
        chat("a"),
        chat(None),
        chat(CALL),
        chat(CALL, tools=[TOOL]),
    ]
    rows += [
        user
        | {
            "agent_ref": {"name": "mcqa_simple_agent"},
            "options": [{"A": "x"}],
            "expected_answer": answer,
        }
        for answer in ("A", None)
    ]
    rows += [
        user | {"instruction_id_list": ["no:comma"], "kwargs": "x"},
        user | {"agent_ref": {"name": "chess_agent"}},
        {"question": "q", "expected_answer": "1"},
    ]
    path.write_bytes(
        gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode() + b"\n\xff\n[1]\n")
    )
    return path


def silent(share: float, lines: int) -> None:
    assert 0 <= share <= 1


def test_the_counts_are_right(tmp_path: Path) -> None:
    found = describe.describe(mixed(tmp_path / "rows.jsonl"), None, None, silent)
    told = found.record()
    assert told["rows"] == 14 and told["good"] == 8
    assert told["layouts"] == {
        "messages": 7,
        "NeMo-Gym, by its agent": 3,
        "NeMo-Gym, IFEval and IFBench": 1,
        "question and answer": 1,
    }
    assert told["use"]["domains.math.rows"] == 1
    assert told["modes"] == {"thinking": 6, "non-thinking": 2} and told["turns"] == {"1": 8}
    assert told["with_tools"] == 1 and told["with_calls"] == 1 and told["calls"] == {"look_up": 1}
    assert (
        told["agents"]["mcqa_simple_agent (mcqa)"] == 2
        and told["agents"]["chess_agent"] == 1
        and told["agents"]["math, by its fields"] == 1
    )
    bad = {reason: entry["rows"] for reason, entry in told["bad"].items()}
    assert bad == {
        "no content": 1,
        "call without tool definitions": 1,
        "no verifier signal": 1,
        "kwargs": 1,
        "not UTF-8": 1,
        "not an object": 1,
    }
    assert told["bad"]["not UTF-8"]["first"].endswith(
        "line 14: byte 1 of the line is not UTF-8; save the file as UTF-8"
    )
    assert (
        sum(told["histogram"].values()) == 8
        and told["lengths"]["max"] >= told["lengths"]["median"] > 0
    )


@pytest.mark.parametrize("width", [80, 40, 3])
def test_the_table_is_as_wide_as_the_terminal(tmp_path: Path, width: int) -> None:
    path = mixed(tmp_path / "rows.jsonl")
    text = describe.table(
        path,
        describe.describe(path, None, None, silent),
        "tokens of the kept tiny base (--tokens CHECKPOINT)",
        width,
    )
    assert (
        "gzip" in text
        and "thinking" in text
        and "no verifier signal" in text
        and "line 5" in text
        and "█" in text
    )
    assert all(len(line) <= max(40, width) for line in text.splitlines()[1:])


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    odd = "a\x1b[2J\nb\ud800"
    request = {"input": [{"role": "user", "content": "q"}]}
    write_rows(
        path,
        [{"responses_create_params": request, "agent_ref": odd}, {"messages": [{"role": odd}]}],
    )
    found = describe.describe(path, None, None, silent)
    assert "a?[2J?b?" in describe.table(path, found, "characters") and "\x1b" not in describe.table(
        path, found, "characters"
    )
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "linn.cli.main",
            "data",
            str(path),
            "--json",
            "--tokens",
            "characters",
        ],
        capture_output=True,
    )
    assert told.returncode == 0 and odd in json.loads(told.stdout)["agents"]


def test_lengths_are_tokens_of_what_the_model_reads(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(
        path,
        [
            {
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": "yes"},
                ]
            }
        ],
    )
    codec = Codec.load(resolve("tiny"))
    expected = len(
        codec.encode(
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n<think></think>yes<|im_end|>\n"
        )
    )
    assert describe.describe(path, codec, None, silent).record()["lengths"]["total"] == expected


@pytest.mark.slow
def test_a_huge_text_is_measured_by_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    codec = Codec.load(resolve("tiny"))
    text = "alpha beta 12 " * 1_000_000
    write_rows(
        path,
        [
            {
                "messages": [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": "yes"},
                ]
            }
        ],
    )
    encode = codec.encode
    given: list[int] = []

    def counted(part: str) -> list[int]:
        given.append(len(part))
        return encode(part)

    monkeypatch.setattr(codec, "encode", counted)
    tokens = describe.describe(
        path,
        codec,
        None,
        silent,
    ).record()["lengths"]["total"]
    assert 0 < sum(given) < len(text) / 4
    assert abs(tokens / (len(encode(text[:140_000])) * 100) - 1) < 0.01


def test_a_long_file_is_sampled_for_tokens_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describe, "TOKENIZED", 5000)
    path = tmp_path / "rows.jsonl"
    write_rows(
        path,
        [
            {
                "messages": [
                    {"role": "user", "content": f"hi {n}"},
                    {"role": "assistant", "content": "yes"},
                ]
            }
            for n in range(400)
        ],
    )
    found = describe.describe(path, Codec.load(resolve("tiny")), None, silent)
    assert (
        found.every > 3
        and 400 / found.every / 2 < sum(found.lengths.values()) < 400 / found.every * 2
    )
    assert (
        f"one row in {found.every}" in describe.table(path, found, "tokens")
        and found.tally.good == 400
    )


def test_an_empty_file_and_none(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"\n\n")
    assert "0 rows" in describe.table(
        path, describe.describe(path, None, None, silent), "characters"
    )
    with pytest.raises(UserError, match="no such file"):
        describe.describe(tmp_path / "missing.jsonl", None, None, silent)


@pytest.mark.slow
def test_the_verb(tmp_path: Path) -> None:
    def linn(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "linn.cli.main", "data", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
        )

    path = mixed(tmp_path / "rows.jsonl")
    said = linn(path, "--json", "--tokens", "characters")
    assert said.returncode == 0 and json.loads(said.stdout)["rows"] == 14, said.stderr
    write_rows(held := tmp_path / "held.jsonl", [{"question": "hi"}])
    out = tmp_path / "clean.jsonl"
    said = linn(path, "--against", held, "--ngram", 9, "--skip-bad", "--out", out)
    assert said.returncode == 0 and "7 overlap with" in said.stdout and out.exists(), said.stderr
    for words, says in (
        ((path, "--out", out), "--against"),
        ((tmp_path / "no.jsonl",), "no such file"),
        ((path, "--ngram", 0), "--ngram"),
    ):
        said = linn(*words)
        assert said.returncode == 2 and says in said.stderr and "Traceback" not in said.stderr
