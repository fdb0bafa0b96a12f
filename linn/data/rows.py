"""JSON Lines in and out: one object per line, streamed, every fault named by file and line.

A Parquet file is read as if each of its rows were such a line.
"""

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
from linn.files import json_line, whole_file
from linn.types import seed_of

MAX_LINE = 2**30
"""Bytes a line may have; a longer one is not a row: the file is of another kind."""
BLOCK_ROWS, BLOCK_BYTES = 8192, 2**24
"""Rows are shuffled among so many neighbours at most, counted in lines and in bytes.

That much is in memory at a time."""


class BadRow(UserError):
    """A row that cannot be used; rows with the same fault share its `reason`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


# ---------------------------------------------------------------- reading


class Lines(Iterator[tuple[int, bytes]]):
    """(number, bytes) of every line that is not blank, counted from 1; one line in memory."""

    def __init__(self, path: str | Path) -> None:
        """Raises UserError at once when the file cannot be opened."""
        self.path = Path(path)
        self.number = 0
        """Number of the line read last."""
        self._open = True
        self._source = Unpacked(self.path)
        self.packing = self._source.packing
        """`gzip`, `zstd`, `Parquet` or empty."""

    def __next__(self) -> tuple[int, bytes]:
        while self._open:
            raw = self._readline()
            if not raw:
                self.close()
                break

            self.number += 1
            if self.number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
            if len(raw) >= MAX_LINE and not raw.endswith(b"\n"):
                self.close()
                raise UserError(
                    f"{self.path} line {self.number}: longer than {MAX_LINE:,} bytes; "
                    "is this JSON Lines, one row a line? "
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
        """Close the file; no more lines come."""
        self._open = False
        self._source.close()

    def _readline(self) -> bytes:
        try:
            return self._source.stream.readline(MAX_LINE)
        # Whatever a broken archive raises: the libraries' own errors have no common base.
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
        place = error.start + 1
        raise BadRow(
            f"byte {place} of the line is not UTF-8; save the file as UTF-8", "not UTF-8"
        ) from None

    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRow(_not_json(text, error), "not JSON") from None
    except RecursionError:
        raise BadRow("not readable as JSON: nested too deeply", "not JSON") from None
    except ValueError:
        reason = "a number of over 4,300 digits"
        raise BadRow(f"not readable as JSON: {reason}", "not JSON") from None

    if not isinstance(row, dict):
        kind = _KINDS[type(row)]
        raise BadRow(
            f"expected a JSON object, found {kind}; {_ONE}{_remedy(text)}", "not an object"
        )

    return row


_ONE = "each line must hold one JSON object"

_KINDS = {
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    type(None): "null",
}


def _not_json(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong with a line that is not JSON."""
    if "\0" in text:
        column = text.index("\0") + 1
        return f"not JSON: a NUL byte at column {column}; is this UTF-8 text?"
    what = error.msg.removesuffix(" at")
    return f"not JSON: {what} at column {error.pos + 1}; {_ONE}{_remedy(text)}"


def _remedy(text: str) -> str:
    """What makes JSON Lines of an array, or of an object written over several lines."""
    if text.startswith("["):
        return "; jq -c '.[]' makes it so"
    if text.strip() == "{":
        return "; jq -c . makes it so"
    return ""


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
    """The rows of a file, plain, packed or Parquet; UserError at once where it cannot be opened."""
    return Rows(path)


def shuffled(path: str | Path, seed: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file once, in an order that is a function of `seed`.

    Lines are shuffled within blocks of bounded size; blocks keep the file's order. Only a block is
    ever in memory, so shuffle a file that is sorted by source once before it is trained on.
    """
    block: list[tuple[int, bytes]] = []
    size = 0

    for number, raw in Lines(path):
        block.append((number, raw))
        size += len(raw)
        if len(block) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield from _shuffled_block(block, seed)
            block, size = [], 0

    if block:
        yield from _shuffled_block(block, seed)


def _shuffled_block(block: list[tuple[int, bytes]], seed: int) -> list[tuple[int, bytes]]:
    first, _ = block[0]
    random.Random(seed_of(seed, first)).shuffle(block)
    return block


# ---------------------------------------------------------------- writing


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows to a JSONL file (`.gz`: compressed), complete or not at all; gives their number.

    The same rows make the same bytes.
    """
    return write_lines(path, (json_line(row).encode() for row in rows))


def write_lines(path: str | Path, lines: Iterable[bytes]) -> int:
    """Write whole lines as `write_rows` does."""
    path = writable(path)
    try:
        with whole_file(path) as file:
            if path.suffix != ".gz":
                return _write(lines, file)
            # Without name and time, so that the same rows make the same bytes.
            with gzip.GzipFile(
                filename="",
                mode="wb",
                fileobj=file,
                mtime=0,
            ) as packed:
                return _write(lines, cast(BinaryIO, packed))
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        raise


def _write(lines: Iterable[bytes], file: BinaryIO) -> int:
    count = 0
    for line in lines:
        file.write(line if line.endswith(b"\n") else line + b"\n")
        count += 1
    return count


def writable(path: str | Path) -> Path:
    """The path, if a file of rows can be written there.

    Called before the work whose result the file is to hold.
    """
    path = Path(path)
    if path.suffix in (".zst", ".parquet"):
        raise UserError(
            f"{path}: writing {path.suffix} is not supported; name the file .jsonl or .jsonl.gz"
        )
    if path.is_dir():
        raise UserError(f"{path}: a folder; name the file to write in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{path}: cannot be written: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be written: {above} is a folder without write permission")

    return path
