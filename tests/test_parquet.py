"""Parquet wherever JSON Lines is read, without the nulls that the table filled in."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.chats import says

from linn.chat.request import render_row
from linn.data.conversations import conversation
from linn.data.rows import Lines, read_rows, shuffled, write_rows
from linn.domains.load import load
from linn.errors import UserError
from linn.offline.grade import grade

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def tool(name: str, **properties: str) -> dict[str, Any]:
    schemas = {key: {"type": kind} for key, kind in properties.items()}
    schema = {"type": "object", "properties": schemas, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def calling(name: str, **arguments: Any) -> list[dict[str, Any]]:
    function = {"name": name, "arguments": arguments}
    return [
        says("user", "q"),
        says("assistant", None, tool_calls=[{"id": "1", "function": function}]),
    ]


ROWS: list[dict[str, Any]] = [
    {"messages": calling("f", a="x"), "tools": [tool("f", a="string")], "key": "é"},
    {"messages": calling("g", b=1, o={"deep": [1, 2]}), "tools": [tool("g", b="integer")]},
    {"messages": [says("user", "q"), says("assistant", "a")], "note": {"only": "here"}},
]
"""Rows whose keys differ at every depth."""


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_a_table_gives_back_the_rows_it_was_made_of(tmp_path: Path) -> None:
    keys = sorted(set(itertools.chain(*ROWS)))
    rows = [{key: row[key] for key in keys if key in row} for row in ROWS]
    full = [{key: row.get(key) for key in keys} for row in rows]
    lines = Lines(as_parquet(tmp_path / "rows.parquet", full))
    assert lines.packing == "Parquet" and lines.share == 0
    read = [json.loads(raw) for _, raw in lines]
    assert lines.share == 1
    for original, back in zip(rows, read, strict=True):
        shown, trained = conversation(original), conversation(back)
        assert shown == trained
        assert back.keys() == original.keys()
    # The same table by way of another program's JSON Lines, nulls and all.
    written = tmp_path / "rows.jsonl"
    write_rows(written, pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist())
    assert "null" in written.read_text()
    for original, back in zip(rows, read_rows(written), strict=True):
        assert conversation(back) == conversation(original)


def test_prompts_of_a_table_are_those_of_its_json(tmp_path: Path) -> None:
    rows = []
    for i in range(40):
        params = {"input": [says("user", f"1+{i}")]}
        if i % 2:
            params["tools"] = [tool("f", a="string")]
        rows.append({"responses_create_params": params, "expected_answer": "2"})
    write_rows(tmp_path / "rows.jsonl", rows)
    table = as_parquet(tmp_path / "rows.parquet", rows)
    assert [render_row(one) for one in read_rows(table)] == [render_row(one) for one in rows]
    splits = []
    for name in ("rows.jsonl", "rows.parquet"):
        domain = load("math", {"rows": str(tmp_path / name)})
        splits.append([list(domain.prompts(split)) for split in ("train", "validation", "test")])
        domain.close()
    assert splits[0] == splits[1]
    orders = [
        [line for line, _ in shuffled(tmp_path / name, 3)]
        for name in ("rows.jsonl", "rows.parquet")
    ]
    assert orders[0] == orders[1]


async def graded(rows: Path, replies: Path) -> list[float]:
    domain = load("math", None)
    return [verdict["reward"] for verdict in await grade(domain, rows, replies)]


def test_rows_and_replies_of_tables_are_graded(tmp_path: Path) -> None:
    import asyncio

    rows = as_parquet(
        tmp_path / "rows.parquet",
        [{"problem": "1+1", "answer": "2"}, {"problem": "2", "answer": "2"}],
    )
    replies = as_parquet(
        tmp_path / "replies.parquet",
        [{"row": 1, "text": "\\boxed{2}"}, {"row": 0, "text": "\\boxed{3}"}],
    )
    assert asyncio.run(graded(rows, replies)) == [1.0, 0.0]


def test_maps_bytes_times_and_nulls_in_lists(tmp_path: Path) -> None:
    from datetime import datetime

    kinds = pyarrow.schema(
        [
            ("m", pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            ("l", pyarrow.list_(pyarrow.struct([("a", pyarrow.int64()), ("b", pyarrow.int64())]))),
            ("b", pyarrow.binary()),
            ("t", pyarrow.timestamp("s")),
            ("d", pyarrow.large_string()),
        ]
    )
    rows = [
        {
            "m": [("k", None)],
            "l": [{"a": 1}, None],
            "b": b"\xff",
            "t": datetime(2026, 1, 2),
            "d": "x",
        }
    ]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=kinds), path)
    assert list(read_rows(path)) == [
        {
            "m": {"k": None},
            "l": [{"a": 1}, None],
            "b": "1 bytes",
            "t": "2026-01-02 00:00:00",
            "d": "x",
        }
    ]


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_parquet(tmp_path / "rows.parquet", ROWS[:1])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"pip install 'linn\[parquet\]'"):
        read_rows(path)


def test_a_cut_table_is_an_error(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "rows.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a whole Parquet file"):
        read_rows(path)
    with pytest.raises(UserError, match="writing .parquet is not supported"):
        write_rows(path, ROWS)
