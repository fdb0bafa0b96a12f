"""The instructions of IFBench's test set that are made for one request each: the request's own
facts are in the checker.
"""

from __future__ import annotations

import csv
import io
import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from itertools import pairwise

from linn.domains.instruct.checkers.text import punkt_sentences, trimmed, without_punctuation

_CAPITALS = (
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin "
    "Amsterdam Warsaw London Brussels "
    "Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana "
    "Zagreb".split()
)
"""European capitals north of 45 degrees, northernmost first."""
_DAYS = {4: 30, 6: 30, 9: 30, 11: 30, 2: 29, 0: 99}
"""The highest day the reference accepts in a month, where not 31; it lets the months and days 00
pass.
"""


def _ascii(text: str) -> str:
    """`text` in ASCII, accents and what has no ASCII form left out."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _multiples(text: str) -> bool:
    return re.findall(r"\d+", text) == [str(n) for n in range(14, 50, 7)]


def _mcq_count_length(text: str) -> bool:
    """Four questions, each longer than the last, of five lettered options each; the first word is
    `Question`.
    """
    if not text.startswith("Question"):
        return False
    questions = [
        part.strip() for part in re.split(r"Question \d+[.|):;]?\s*", text) if part.strip()
    ]
    lengths = []
    for question in questions:
        lines = [line.strip() for line in question.split("\n")]
        options = [
            index for index, line in enumerate(lines) if re.match(r"[A-Ea-e][.|)]\s*\w", line)
        ]
        if len(options) != 5:
            return False
        lengths.append(len(" ".join(lines[: options[0]]).strip()))

    return len(lengths) == 4 and all(a < b for a, b in pairwise(lengths))


def _reverse_newline(text: str) -> bool:
    """52 lines or more from the one that names Zimbabwe on, in falling order."""
    lines = [line for raw in text.split("\n") if (line := trimmed(raw))]
    start = next((index for index, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    plain = [_ascii(line) for line in lines[start:]]
    return len(plain) >= 52 and all(a >= b for a, b in pairwise(plain))


def _word_reverse(text: str) -> bool:
    return "bald eagle" in " ".join(reversed(without_punctuation(text).lower().split()))


def _character_reverse(text: str) -> bool:
    return "elgae dlab" in text.lower()


def _sentence_alphabet(text: str) -> bool:
    return [sentence[:1].lower()[:1] for sentence in punkt_sentences(text)] == list(
        string.ascii_lowercase
    )


def _european_capitals(text: str) -> bool:
    return [name for part in _ascii(text).split(",") if (name := part.strip())] == _CAPITALS


def _table(text: str, delimiter: str = ",") -> list[list[str]]:
    """The rows of a table; none when it cannot be read as one."""
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return []


def _has_header(text: str, delimiter: str, names: str, spaces: str) -> bool:
    """Whether the first line holds these names, each bare or in double quotes."""
    cells = text.split("\n", 1)[0].strip().split(delimiter)
    return [cell.lstrip(spaces) if index else cell for index, cell in enumerate(cells)] == [
        f'"{name}"' if f'"{name}"' in cell else name
        for name, cell in zip(names.split(), [*cells, *[""] * 5], strict=False)
    ]


def _csv_city(text: str) -> bool:
    table = _table(text)
    return (
        len(table) == 8
        and table[0] == ["ID", "Country", "City", "Year", "Count"]
        and all(len(row) == 5 for row in table)
    )


def _csv_special_character(text: str) -> bool:
    """14 rows of five fields up to the first that has a quoted field with a special character in
    it, which there must be.
    """
    if not _has_header(text, ",", "ProductID Category Brand Price Stock", " \t"):
        return False
    table = _table(text.replace('"', '"""'))  # quotation marks stay in the fields
    for row in table[1:] if len(table) == 15 else []:
        if len(row) != 5:
            return False
        if any(map(_is_special, row)):
            return True

    return False


def _is_special(field: str) -> bool:
    line = field.split("\n", 1)[0]
    return line.startswith('"') and bool(re.search(r"[^\d\w\s]", line[1 : max(1, line.rfind('"'))]))


def _csv_quotes(text: str) -> bool:
    if not _has_header(text, "\t", "StudentID Subject Grade Semester Score", " "):
        return False
    table = _table(text.replace('"', '"""'), "\t")
    quoted = all(field.strip()[:1] == field.strip()[-1:] == '"' for row in table for field in row)
    return len(table) == 4 and all(len(row) == 5 for row in table) and quoted


def _date_format_list(text: str) -> bool:
    """Dates of Napoleon's lifetime (1769 to 1821) as YYYY-MM-DD between commas."""
    for date in text.split(","):
        found = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})", date.strip())
        if not found:
            return False
        year, month, day = map(int, found.groups())
        if not 1769 <= year <= 1821 or month > 12 or day > _DAYS.get(month, 31):
            return False
    return True


CHECKERS: Mapping[str, Callable[..., bool]] = {
    "custom:multiples": _multiples,
    "custom:mcq_count_length": _mcq_count_length,
    "custom:reverse_newline": _reverse_newline,
    "custom:word_reverse": _word_reverse,
    "custom:character_reverse": _character_reverse,
    "custom:sentence_alphabet": _sentence_alphabet,
    "custom:european_capitals_sort": _european_capitals,
    "custom:csv_city": _csv_city,
    "custom:csv_special_character": _csv_special_character,
    "custom:csv_quotes": _csv_quotes,
    "custom:date_format_list": _date_format_list,
}
"""The other 11 instruction ids of IFBench's test set."""
