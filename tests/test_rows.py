"""JSON Lines: what comes back is what was written, and every fault has a place."""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from linn.data.rows import Lines, read_rows, shuffled, writable, write_rows
from linn.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"a": 1},
    {"text": "é\u2028\n\"'\x00"},
    {"nested": {"l": [1, None, True, 1.5]}},
    {"half": "\ud800"},
    {},
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    assert write_rows(path, ROWS) == len(ROWS)
    assert list(read_rows(path)) == ROWS
    before = path.read_bytes()
    write_rows(path, ROWS)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"old": 1}])

    def rows() -> Iterator[dict[str, int]]:
        yield {"new": 1}
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_rows(path, rows())
    assert list(read_rows(path)) == [{"old": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_rewritten_from_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ({"n": n} for n in range(1000)))
    write_rows(path, (row for row in read_rows(path) if row["n"] % 2))
    assert sum(1 for _ in read_rows(path)) == 500


def test_line_ends_byte_order_mark_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"b": 2}\n\n{"c": "\xe2\x80\xa8"}')
    rows = read_rows(path)
    assert [next(rows), next(rows)] == [{"a": 1}, {"b": 2}]
    assert rows.line == 4
    assert list(rows) == [{"c": "\u2028"}]
    assert next(rows, None) is None


BROKEN = [
    (b'{"a": 1', "not JSON"),
    (b"[1, 2]", "found a list; each line must hold one JSON object; jq -c '.[]' makes it so"),
    (b"null", "found null"),
    (b'"text"', "found text"),
    (b'{"a": "\xff"}', "byte 8 of the line is not UTF-8"),
    (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    (b'{"a": ' + b"9" * 5000 + b"}", "a number of over 4,300 digits"),
    (b'{"a": 1} {"b": 2}', "not JSON: Extra data at column 10"),
    (b"\x00\x00", "a NUL byte at column 1"),
    (b"{", "jq -c . makes it so"),
]


@pytest.mark.parametrize(("line", "says"), BROKEN)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b'\n{"b": 2}\n')
    rows = read_rows(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(UserError) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{path} line 3: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / "missing.jsonl")
    with pytest.raises(UserError, match="cannot be opened"):
        read_rows(tmp_path)
    whole = gzip.compress(b'{"a": 1}\n' * 1000)
    for name, data in (
        ("cut", whole[: len(whole) // 2]),
        ("bad", whole[:20] + b"\x00" * 20 + whole[40:]),
    ):
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.jsonl.gz: cannot be read after line"):
            list(read_rows(path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe or device.*write it to a file first"):
        read_rows(tmp_path / "pipe")


def test_where_nothing_can_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    assert (
        writable(tmp_path / "new" / "rows.jsonl").name == "rows.jsonl"
        and not (tmp_path / "new").exists()
    )
    (tmp_path / "file").touch()
    for path, says in (
        (tmp_path, "a folder; name the file"),
        (tmp_path / "file" / "x", "file is a file"),
        (tmp_path / "x.zst", "zst"),
    ):
        with pytest.raises(UserError, match=says):
            writable(path)


def test_zst_without_its_package_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(
        UserError, match=r"pip install 'linn\[domains\]', or unpack it first: zstd -d"
    ):
        read_rows(path)
    with pytest.raises(UserError, match=r"name the file \.jsonl or \.jsonl\.gz"):
        write_rows(path, [])


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ({"text": "x" * 1000} for _ in range(10_000)))
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 1_000_000


def test_a_huge_line_takes_time_in_proportion(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"text": "é" * 5_000_000}, ensure_ascii=False)
        + "\n"
        + '{"a": "'
        + "x" * 10_000_000
        + '\n{"b": 1}\n'
    )
    start = time.process_time()
    rows = read_rows(path)
    assert len(next(rows)["text"]) == 5_000_000
    with pytest.raises(
        UserError, match="line 2: not JSON: Invalid control character at column 10000008"
    ):
        next(rows)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.compress, bytes], ids=["gzip", "zstd", "plain"]
)
@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.jsonl.zst"])
def test_packing_is_told_by_the_bytes_not_the_name(
    tmp_path: Path, pack: Callable[[bytes], bytes], name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(pack(b'{"a": 1}\n'))
    assert list(read_rows(path)) == [{"a": 1}]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_members_and_frames_follow_each_other_and_a_cut_one_is_an_error(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    rng = random.Random(0)
    lines = [
        json.dumps({"n": n, "text": rng.randbytes(40).hex()}).encode() + b"\n" for n in range(5000)
    ]
    data = b"".join(lines)
    path = tmp_path / "rows.jsonl"
    parts = [pack(data[:100_001]), pack(b""), pack(data[100_001:])]  # a border within a line
    path.write_bytes(b"".join(parts))
    assert [row["n"] for row in read_rows(path)] == list(range(5000))
    for cut in (3, len(parts[2]) // 2, len(parts[2]) - 2):
        path.write_bytes(b"".join(parts[:2]) + parts[2][:cut])
        with pytest.raises(
            UserError, match=r"cannot be read after line \d+: .*; is the file whole"
        ):
            list(read_rows(path))
    path.write_bytes(parts[0] + b"garbage")
    with pytest.raises(UserError, match="cannot be read after line"):
        list(read_rows(path))


def test_zstd_may_open_with_a_skippable_frame_and_have_a_long_window(tmp_path: Path) -> None:
    path = tmp_path / "rows.zst"
    far = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=far).compress(b'{"a": 1}\n')
    path.write_bytes(b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx" + packed)
    assert list(read_rows(path)) == [{"a": 1}]


@pytest.mark.parametrize("data", [b"", b"\n \r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_files_without_rows(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    assert list(read_rows(path)) == []


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"PAR1xxxx", "not a whole Parquet file"),
        (b"PK\x03\x04x", "zip"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"BZh9x", "bunzip2"),
        (b"\xfd7zXZ\0", "unxz"),
    ],
)
def test_other_kinds_of_file_are_named(tmp_path: Path, head: bytes, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(head)
    with pytest.raises(UserError, match=says):
        read_rows(path)


def test_a_file_without_line_ends_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linn.data.rows.MAX_LINE", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 990 + b'"}\n' + b"[" + b"{}," * 1000)
    rows = read_rows(path)
    assert len(next(rows)["a"]) == 990
    with pytest.raises(UserError, match=r"line 2: longer than 1,000 bytes.*jq -c"):
        next(rows)


def test_a_shuffled_file_is_whole_and_a_function_of_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linn.data.rows.BLOCK_ROWS", 64)
    path = tmp_path / "rows.jsonl"
    write_rows(path, ({"n": n} for n in range(1000)))
    one = list(shuffled(path, 1))
    assert one == list(shuffled(path, 1)) != list(shuffled(path, 2))
    assert sorted(one) == list(Lines(path)) and [number for number, _ in one[:64]] != list(
        range(1, 65)
    )
    assert all(abs(place - number) <= 64 for place, (number, _) in enumerate(one))
    assert [n % 64 for n, _ in one[:64]] != [n % 64 for n, _ in one[64:128]], (
        "blocks share one order"
    )
