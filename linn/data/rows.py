"""JSON Lines in and out: one object a line, streamed, every fault named by file and line."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from linn.data.unpack import Unpacked
from linn.errors import UserError
from linn.files import json_line
from linn.types import seed_of

MAX_LINE = 2**30
"""Bytes a line may have; a longer one is no row but a file of another kind."""
BLOCK_ROWS, BLOCK_BYTES = 8192, 2**24
"""Rows are shuffled among so many neighbours at most, in lines and in bytes; that much is in memory at a time."""


class BadRow(UserError):
    """A row that cannot be used; rows with the same fault share its `reason`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Lines(Iterator[tuple[int, bytes]]):
    """(number, bytes) of every line that is not blank, counted from 1; one line in memory at a time."""

    def __init__(self, path: str | Path) -> None:
        """Raises UserError at once when the file cannot be opened."""
        self.path = Path(path)
        self.number = 0
        """Number of the line read last."""
        self._open = True
        self._source = Unpacked(self.path)
        self.packing = self._source.packing
        """`gzip`, `zstd` or nothing."""

    def __next__(self) -> tuple[int, bytes]:
        while self._open:
            raw = self._readline()
            if not raw:
                self.close()
                break
            self.number += 1
            if self.number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if len(raw) >= MAX_LINE and not raw.endswith(b"\n"):
                self.close()
                raise UserError(
                    f"{self.path} line {self.number}: longer than {MAX_LINE:,} bytes; is this JSON Lines, one row a line? "
                    "A JSON array becomes JSON Lines by: jq -c '.[]'"
                )
            if raw.strip():
                return self.number, raw
        raise StopIteration

    @property
    def share(self) -> float:
        """Share of the file that was read."""
        return self._source.share

    def close(self) -> None:
        """Close the file; no line comes any more."""
        self._open = False
        self._source.close()

    def _readline(self) -> bytes:
        try:
            return self._source.stream.readline(MAX_LINE)
        except Exception as error:
            self.close()
            raise UserError(
                f"{self.path}: cannot be read after line {self.number}: {error}; is the file whole?"
            ) from None


def object_of(raw: bytes) -> dict[str, Any]:
    """The JSON object of a line; BadRow says what else is there."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadRow(
            f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8", "not UTF-8"
        ) from None
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        if "\0" in text:
            raise BadRow(
                f"not JSON: a NUL byte at column {text.index(chr(0)) + 1}; is this UTF-8 text?",
                "not JSON",
            ) from None
        raise BadRow(
            f"not JSON: {error.msg.removesuffix(' at')} at column {error.pos + 1}; {_ONE}{_remedy(text)}",
            "not JSON",
        ) from None
    except (ValueError, RecursionError) as error:
        reason = (
            "nested too deeply"
            if isinstance(error, RecursionError)
            else "a number of over 4,300 digits"
        )
        raise BadRow(f"not readable as JSON: {reason}", "not JSON") from None
    if not isinstance(row, dict):
        raise BadRow(
            f"expected a JSON object, found {_kind(row)}; {_ONE}{_remedy(text)}", "not an object"
        )
    return row


_ONE = "each line must hold one JSON object"


def _remedy(text: str) -> str:
    """What makes JSON Lines of an array, or of an object written over several lines."""
    return (
        "; jq -c '.[]' makes it so"
        if text.startswith("[")
        else "; jq -c . makes it so"
        if text.strip() == "{"
        else ""
    )


class Rows(Iterator[dict[str, Any]]):
    """The rows of a file, read as they are asked for; a broken line raises UserError."""

    def __init__(self, path: str | Path) -> None:
        self._lines = Lines(path)
        self.path = self._lines.path

    @property
    def line(self) -> int:
        """Number of the line read last, counted from 1."""
        return self._lines.number

    @property
    def share(self) -> float:
        """Share of the file that was read."""
        return self._lines.share

    def __next__(self) -> dict[str, Any]:
        number, raw = next(self._lines)
        try:
            return object_of(raw)
        except BadRow as error:
            self._lines.close()
            raise BadRow(f"{self.path} line {number}: {error}", error.reason) from None


def read_rows(path: str | Path) -> Rows:
    """The rows of a JSONL file, plain, gzip or zstd; UserError at once when it cannot be opened."""
    return Rows(path)


def shuffled(path: str | Path, seed: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file once, in an order that is a function of `seed`: shuffled within blocks of bounded size, blocks in the file's order.

    Only a block is ever in memory, so a file that is sorted by source should be shuffled once before it is trained on.
    """
    block: list[tuple[int, bytes]] = []
    size = 0
    for number, raw in Lines(path):
        block.append((number, raw))
        size += len(raw)
        if len(block) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield from _mixed(block, seed)
            block, size = [], 0
    yield from _mixed(block, seed)


def _mixed(block: list[tuple[int, bytes]], seed: int) -> list[tuple[int, bytes]]:
    if block:
        random.Random(seed_of(seed, block[0][0])).shuffle(block)
    return block


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows to a JSONL file (`.gz`: compressed), complete or not at all; gives their number. Same rows, same bytes."""
    return write_lines(path, (json_line(row).encode() for row in rows))


def write_lines(path: str | Path, lines: Iterable[bytes]) -> int:
    """Write whole lines as `write_rows` does."""
    path = writable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            packed = (
                gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
                if path.suffix == ".gz"
                else None
            )
            target = cast(BinaryIO, packed or file)
            for line in lines:
                target.write(line if line.endswith(b"\n") else line + b"\n")
                count += 1
            if packed is not None:
                packed.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return count


def writable(path: str | Path) -> Path:
    """The path, if a file of rows can be written there; told before the work whose result it is to hold."""
    path = Path(path)
    if path.suffix == ".zst":
        raise UserError(f"{path}: writing .zst is not supported; name the file .jsonl or .jsonl.gz")
    if path.is_dir():
        raise UserError(f"{path}: a folder; name the file to write in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(
            f"{path}: cannot be written: {above} is {'a folder without write permission' if above.is_dir() else 'a file'}"
        )
    return path


def _kind(value: object) -> str:
    names = {
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        type(None): "null",
    }
    return names[type(value)]
