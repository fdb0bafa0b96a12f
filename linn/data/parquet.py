"""The rows of a Parquet file as JSON lines.

A table has every column in every row, so a key that a row does not have is a null there. Such
nulls are left out: what comes out is what the row was before it became a table. Elements of lists
and values of maps stay as they are, since nobody fills those in.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linn.errors import UserError

MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""
_BATCH = 256
"""Rows that are in memory at a time."""


class ParquetLines:
    """A Parquet file that is read as if each row were a line of JSON."""

    def __init__(self, path: Path) -> None:
        """UserError where the file is damaged, or pyarrow is missing."""
        try:
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise UserError(
                f"{path}: reading Parquet needs the package pyarrow: pip install 'linn[parquet]'"
            ) from None

        # pyarrow's errors have no common base but Exception.
        try:
            self._file = parquet.ParquetFile(path, memory_map=True)
            self._types = list(self._file.schema_arrow)
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not a whole Parquet file: {why}") from None
        self._rows = self._file.metadata.num_rows
        self._read = 0
        self._lines = self._all()

    @property
    def share(self) -> float:
        """Share of the rows read so far."""
        return self._read / self._rows if self._rows else 1.0

    def readline(self, most: int = -1) -> bytes:
        """The next row, with a newline; empty at the end."""
        return next(self._lines, b"")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _all(self) -> Iterator[bytes]:
        for batch in self._file.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                self._read += 1
                kept = {}
                for field in self._types:
                    value = row.get(field.name)
                    if value is not None:
                        kept[field.name] = _plain(value, field.type)
                yield json.dumps(kept, ensure_ascii=False, default=str).encode() + b"\n"


def _plain(value: Any, kind: Any) -> Any:
    """A value of a table as JSON has it; `kind`: its Arrow type."""
    if value is None:
        return None
    text = str(kind)
    if text.startswith("struct") and isinstance(value, dict):
        fields = {field.name: field.type for field in kind}
        return {key: _plain(part, fields[key]) for key, part in value.items() if part is not None}
    if text.startswith("map") and isinstance(value, list):
        return {str(key): _plain(part, kind.item_type) for key, part in value}
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_plain(part, kind.value_type) for part in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"{len(value)} bytes"
    return value
