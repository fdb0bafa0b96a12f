"""What a data file holds: `linn data FILE`. One pass, in memory that does not grow with the file."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from linn.chat import render as chat
from linn.chat.codec import Codec
from linn.chat.request import request_of
from linn.data.agents import agent_of, check_signal, domain_of, is_for, metadata_of, owner
from linn.data.conversations import conversation
from linn.data.rows import Lines, object_of
from linn.data.tally import Tally, by_count, fault
from linn.domains.base import Domain
from linn.domains.load import NAMES, reader
from linn.errors import UserError
from linn.types import Message, Prompt, seed_of

FIELDS = {
    "instruct": ("instruction_id_list",), "structured": ("schema_str",), "workplace": ("ground_truth", "environment_name"),
    "mcqa": ("options", "expected_answer"), "math": ("question", "expected_answer"), "swe_agentless": ("relevant_file_contents",),
    "swe_agentic": ("base_commit",), "genrm": ("response1", "response2"),
}  # fmt: skip
"""Fields that tell a domain where a row names no agent; used for the description alone, never in training."""


TOKENIZED = 2**25
"""Bytes of a file that are tokenized about; at 1 MB/s a core that is half a minute."""
MEASURED = 2**20
"""Characters of a text that are tokenized; the tokens of a longer one are reckoned from these, as 1 MB of text takes 200 MB."""


class Description:
    """Counts over the rows of one file."""

    def __init__(self, codec: Codec | None, domain: str | None = None, every: int = 1) -> None:
        """`codec`: lengths are its tokens, else characters; `domain`: reads every row; lengths are measured of one row in `every`."""
        self.every = every
        self.file = ""
        """Name, size and packing."""
        self.tally = Tally()
        self.layouts: Counter[str] = Counter()
        self.agents: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.turns: Counter[int] = Counter()
        self.lengths: Counter[int] = Counter()
        self.tools: Counter[str] = Counter()
        self.with_tools = self.with_calls = 0
        self._codec = codec
        self._domain = domain
        self._domains: dict[str, Domain] = {}

    def add(self, path: Path, line: int, raw: bytes) -> None:
        """Count one line."""
        try:
            row = object_of(raw)
            if "messages" in row and "responses_create_params" not in row and self._domain is None:
                self._add_conversation(row, line)
            else:
                self._add_task(row, line)
            self.tally.good += 1
        except UserError as error:
            message, reason = fault(error)
            self.tally.add_bad(reason, f"{path} line {line}: {message}")

    def close(self) -> None:
        """Free what the domains hold."""
        for domain in self._domains.values():
            domain.close()

    def _add_conversation(self, row: Mapping[str, Any], line: int) -> None:
        self.layouts["messages"] += 1
        found = conversation(row)
        self.agents[found.domain or "no domain named"] += 1
        self._count(found.messages, found.tools, found.thinking)
        if seed_of("length", line) % self.every == 0:
            self._measure("".join(text for text, _ in chat.spans(found.messages, found.tools)))

    def _add_task(self, row: Mapping[str, Any], line: int) -> None:
        self.layouts[
            "responses_create_params" if "responses_create_params" in row else "other"
        ] += 1
        agent = agent_of(row)
        name = self._domain or (domain_of(agent) if agent else _by_fields(row))
        told = agent or (f"{name}, by its fields" if name else "no agent named")
        self.agents[f"{told} ({name})" if agent and name and agent != name else told] += 1
        prompt = self._prompt(name, row, line)
        self._count(prompt.messages, prompt.tools, prompt.thinking)
        if seed_of("length", line) % self.every == 0:
            self._measure(chat.render(prompt.messages, prompt.tools, prompt.thinking))

    def _prompt(self, name: str | None, row: Mapping[str, Any], line: int) -> Prompt:
        if (
            name is not None
            and name not in self._domains
            and (name.endswith(".py") or name in NAMES)
        ):
            self._domains[name] = reader(name)
        if name in self._domains:
            domain = self._domains[name]
            if is_for(owner(row), domain.name):
                check_signal(row, domain.name)
            return domain.from_row(row, line - 1)
        request = request_of(row, line - 1)
        return Prompt("", "", request.messages, request.thinking, request.tools)

    def _count(
        self, messages: tuple[Message, ...], tools: tuple[Mapping[str, Any], ...], thinking: bool
    ) -> None:
        self.modes["thinking" if thinking else "non-thinking"] += 1
        self.turns[sum(m.role == "user" for m in messages)] += 1
        self.with_tools += bool(tools)
        calls = [call.name for m in messages for call in m.tool_calls]
        self.with_calls += bool(calls)
        for called in calls:
            if called in self.tools or len(self.tools) < 10_000:
                self.tools[called] += 1

    def _measure(self, text: str) -> None:
        length = len(text)
        if self._codec is not None:
            length = round(len(self._codec.encode(text[:MEASURED])) * max(1.0, length / MEASURED))
        self.lengths[length] += 1

    def record(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "rows": self.tally.good + sum(self.tally.bad.values()), "layouts": dict(self.layouts), "agents": dict(by_count(self.agents)),
            "modes": dict(self.modes), "turns": {str(k): v for k, v in sorted(self.turns.items())}, "with_tools": self.with_tools,
            "with_calls": self.with_calls, "calls": dict(by_count(self.tools)[:100]), "lengths": self.figures(),
            "lengths_of_one_row_in": self.every, "histogram": {str(top): count for top, count in self.histogram()}, **self.tally.record(),
        }  # fmt: skip

    def figures(self) -> dict[str, float]:
        """Mean, quantiles, maximum and sum of the lengths."""
        n, total = (
            sum(self.lengths.values()),
            sum(length * count for length, count in self.lengths.items()),
        )
        if not n:
            return {}
        ordered, found, passed = sorted(self.lengths.items()), {"mean": total / n}, 0
        wanted = {"median": 0.5, "p95": 0.95, "p99": 0.99}
        for length, count in ordered:
            passed += count
            found |= {
                name: float(length)
                for name, share in wanted.items()
                if name not in found and passed >= share * n
            }
        return found | {"max": float(ordered[-1][0]), "total": float(total)}

    def histogram(self) -> list[tuple[int, int]]:
        """(length at most, rows), lengths doubling."""
        bins: Counter[int] = Counter()
        for length, count in self.lengths.items():
            bins[max(0, length - 1).bit_length()] += count
        return [
            (2**power, bins[power])
            for power in range(min(bins, default=0), max(bins, default=-1) + 1)
        ]


def _by_fields(row: Mapping[str, Any]) -> str | None:
    """The domain that a row's fields tell of, if they do."""
    if found := next(
        (name for name, fields in FIELDS.items() if all(field in row for field in fields)), None
    ):
        return found
    if isinstance(told := row.get("verifier_metadata"), Mapping):
        return (
            "instruct"
            if "instruction_id_list" in told
            else "code"
            if {"unit_tests", "test"} & told.keys()
            else None
        )
    if "problem" in row and "answer" in row:
        return "math"
    if {"base_commit", "commit_hash"} & row.keys():  # SWE-Gym's and R2E-Gym's own rows
        return "swe_agentic"
    if isinstance(told := metadata_of(row), Mapping):
        return (
            "swe_agentless"
            if "relevant_file_contents" in told
            else "swe_agentic"
            if "problem_statement" in told
            else None
        )
    return None


def describe(
    path: Path, codec: Codec | None, domain: str | None, progress: Callable[[float, int], None]
) -> Description:
    """Read a whole file; `progress` hears the share read and the rows so far.

    Tokenizing is slow, so of a file over TOKENIZED bytes the token lengths of an even sample of rows are taken.
    """
    lines = Lines(path)
    size = path.stat().st_size
    found = Description(codec, domain, 1 if codec is None else max(1, round(size / TOKENIZED)))
    found.file = f"{path}, {_bytes(size)}{' ' + lines.packing if lines.packing else ''}"
    try:
        for number, raw in lines:
            progress(lines.share, number)
            found.add(path, number, raw)
    finally:
        found.close()
    return found


def table(path: Path, found: Description, unit: str, width: int = 80) -> str:
    """The description for a person, in lines of at most `width`, but for the file's name."""
    width = min(max(40, width), 120)
    told = found.record()
    lines = [found.file, f"{told['rows']:,} rows"]

    def block(title: str, counts: Mapping[Any, int], most: int = 20) -> None:
        if counts:
            shown = by_count({str(k): v for k, v in counts.items()})
            lines.append("")
            lines.append(title)
            lines.extend(f"  {v:>11,}  {k}"[:width] for k, v in shown[:most])
            if len(shown) > most:
                lines.append(
                    f"  {sum(v for _, v in shown[most:]):>11,}  {len(shown) - most:,} others"
                )

    block("layout", found.layouts)
    block("domains and agents", found.agents)
    block("mode", found.modes)
    block("user turns", found.turns, 8)
    if found.with_tools or found.with_calls:
        lines += [
            "",
            *textwrap.wrap(
                f"tools: {found.with_tools:,} rows define some, {found.with_calls:,} call some",
                width,
            ),
        ]
        block("calls", found.tools, 10)
    if figures := found.figures():
        measured = f"length in {unit}" + (
            f", of one row in {found.every}" if found.every > 1 else ""
        )
        listed = ", ".join(f"{name} {value:,.0f}" for name, value in figures.items())
        lines += [
            "",
            *textwrap.wrap(measured, width),
            *textwrap.wrap(listed, width, initial_indent="  ", subsequent_indent="  "),
        ]
        bars = found.histogram()
        most = max(count for _, count in bars)
        for top, count in bars:
            lines.append(
                f"  <= {top:>9,}  {count:>11,}  {'█' * round((width - 32) * count / most)}".rstrip()
            )
    if found.tally.bad:
        lines += ["", f"bad rows: {sum(found.tally.bad.values()):,}"]
        for reason, count in by_count(found.tally.bad):
            lines.append(f"  {count:>11,}  {reason}"[:width])
            lines += textwrap.wrap(
                found.tally.first[reason].removeprefix(str(path)).strip(),
                width,
                initial_indent=" " * 15,
                subsequent_indent=" " * 15,
            )
    return "\n".join(
        "".join(c if c.isprintable() else "?" for c in line) for line in lines
    )  # names and values are the file's own


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.1f} {unit}" if unit != "bytes" else f"{size:,.0f} bytes"
