"""One table of the office: labelled rows, changed by replacing them, compared as the reference
grader compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_CASE_COUNTS = ("status", "list_name", "board")
BLANK = float("nan")
"""A cell that is empty in the data or, when states are compared, is not text; one object, so equal
to itself in tuples.
"""


Row = tuple[Any, ...]
Record = dict[str, Any]


class Table:
    """Rows with labels. Rows are tuples and never change in place, so tables can share them."""

    def __init__(
        self, columns: Sequence[str], rows: Sequence[Row], labels: Sequence[int] | None = None
    ) -> None:
        self.columns = tuple(columns)
        self.rows = list(rows)
        self.labels = list(range(len(self.rows)) if labels is None else labels)

    def copy(self) -> Table:
        """A table that can change without changing this one."""
        return Table(self.columns, self.rows, self.labels)

    def records(self) -> list[Record]:
        """The rows as objects, blanks as None."""
        return [self.record(row) for row in self.rows]

    def record(self, row: Row) -> Record:
        """One row as an object."""
        return {
            column: None if cell is BLANK else cell
            for column, cell in zip(self.columns, row, strict=True)
        }

    def has(self, key: Any) -> bool:
        """Whether a row's id (first column) is `key`."""
        return any(row[0] == key for row in self.rows)

    def get(self, key: Any) -> Record | None:
        """The first row with this id."""
        return next((self.record(row) for row in self.rows if row[0] == key), None)

    def next_id(self, width: int) -> str:
        """One more than the largest id; ids are compared as text."""
        return str(int(max(row[0] for row in self.rows)) + 1).zfill(width)

    def add(self, record: Mapping[str, Any], relabel: bool = True) -> None:
        """Append a row; `relabel` numbers all labels anew, otherwise the new row's label is 0."""
        self.rows.append(tuple(record[column] for column in self.columns))
        self.labels = list(range(len(self.rows))) if relabel else [*self.labels, 0]

    def set(self, key: Any, column: str, value: Any) -> None:
        """Put a scalar into one column of the rows with this id."""
        if isinstance(value, (list, dict)):
            raise TypeError("the new value must be a single value")
        at = self.columns.index(column)
        self.rows = [
            (*row[:at], value, *row[at + 1 :]) if row[0] == key else row for row in self.rows
        ]

    def drop(self, key: Any) -> None:
        """Remove the rows with this id; the others keep their labels."""
        pairs = list(zip(self.rows, self.labels, strict=True))
        self.labels = [label for row, label in pairs if row[0] != key]
        self.rows = [row for row, _ in pairs if row[0] != key]

    def same(self, other: Table, exact: bool = False) -> bool:
        """Equal labels and cells; case counts in `status`, `list_name` and `board` alone.

        `exact`: a number where a text belongs is no empty cell, as it is for the reference.
        """
        if self.labels != other.labels or len(self.rows) != len(other.rows):
            return False
        kept = [column in _CASE_COUNTS for column in self.columns]
        return all(
            a is b or _folded(a, kept, exact) == _folded(b, kept, exact)
            for a, b in zip(self.rows, other.rows, strict=True)
        )


def _folded(row: Row, kept: Sequence[bool], exact: bool) -> Row:
    """Cells as they are compared: `kept` ones as they are, text in small letters, others blank."""
    cells: list[Any] = []
    for cell, keep in zip(row, kept, strict=True):
        if keep or cell is None:
            cells.append(cell)
        elif isinstance(cell, str):
            cells.append(cell.lower())
        elif exact:
            cells.append(cell)
        else:
            # The reference compares text columns alone; a number in one counts as empty.
            cells.append(BLANK)

    return tuple(cells)
