"""What a data file holds: `linn data FILE`.

One pass, in memory that does not grow with the file.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from linn.chat.codec import Codec
from linn.chat.request import request_of
from linn.chat.template import Nemotron, Template, text_of
from linn.chat.tools import tools_of
from linn.data.agents import agent_of, check_signal, is_for, owner
from linn.data.conversations import conversation
from linn.data.layouts import Layout, layout_of, present
from linn.data.rows import Lines, object_of
from linn.data.tally import Tally, by_count, fault
from linn.data.unused import unused
from linn.domains.base import Domain
from linn.domains.load import NAMES, reader
from linn.errors import UserError
from linn.types import Message, Prompt, seed_of

TOKENIZED = 2**25
"""Bytes of a file that are tokenized about; at 1 MB/s per core that is half a minute."""
MEASURED = 2**20
"""Characters of a text that are tokenized.

The tokens of a longer one are estimated from these, as 1 MB of text takes 200 MB."""
TOOLS = 10_000
"""Names of called functions that are counted apart; bounds memory."""
QUANTILES = {"median": 0.5, "p95": 0.95, "p99": 0.99}


class Description:
    """Counts over the rows of one file."""

    def __init__(
        self,
        codec: Codec | None,
        domain: str | None = None,
        every: int = 1,
    ) -> None:
        """`codec`: lengths are its tokens, else characters. `domain`: reads every row.

        Lengths are measured of one row in `every`.
        """
        self.every = every
        self.file = ""
        """Name, size and packing."""
        self.tally = Tally()
        """Rows that can be used, and the others by reason."""
        self.layouts: Counter[str] = Counter()
        self.uses: Counter[str] = Counter()
        """Rows by where a recipe names them."""
        self.unused: Counter[str] = Counter()
        """Rows by what of them reaches neither a prompt nor training."""
        self.agents: Counter[str] = Counter()
        """Agents, or domains where rows name none."""
        self.modes: Counter[str] = Counter()
        """Thinking and non-thinking."""
        self.turns: Counter[int] = Counter()
        """Rows by the number of user turns."""
        self.lengths: Counter[int] = Counter()
        """Rows by length."""
        self.tools: Counter[str] = Counter()
        """Calls by function."""
        self.with_tools = 0
        self.with_calls = 0
        self._codec = codec
        self._template: Template = codec.template if codec is not None else Nemotron()
        self._domain = domain
        self._domains: dict[str, Domain] = {}

    def add(
        self,
        path: Path,
        line: int,
        raw: bytes,
    ) -> None:
        """Count one line."""
        try:
            row = present(object_of(raw))
            layout = layout_of(row)
            self.layouts[layout.name] += 1
            if layout.sft and self._domain is None:
                self._add_conversation(row, line)
            else:
                self._add_task(row, layout, line)

            self.uses[layout.use if self._domain is None else f"domain {self._domain}"] += 1
            for name in unused(row):
                self.unused[name] += 1
            self.tally.good += 1
        except UserError as error:
            message, reason = fault(error)
            self.tally.add_bad(reason, f"{path} line {line}: {message}")

    def close(self) -> None:
        """Free what the domains hold."""
        for domain in self._domains.values():
            domain.close()

    def _add_conversation(self, row: Mapping[str, Any], line: int) -> None:
        """A row of SFT, as the SFT stage reads it."""
        sft = conversation(row)
        self.agents[sft.domain or "no domain named"] += 1
        self._count(sft.messages, sft.tools, sft.thinking)
        if self._is_measured(line):
            spans = self._template.spans(sft.messages, sft.tools, sft.thinking)
            self.lengths[self._length(text_of(spans))] += 1

    def _add_task(self, row: Mapping[str, Any], layout: Layout, line: int) -> None:
        """A row of RL, as its domain reads it."""
        name = self._add_agent(row, layout)
        prompt = self._prompt(name, row, line)
        if len(prompt.tools) < len(tools_of(row.get("responses_create_params") or {}, row)):
            self.unused["tools, which the domain does not run"] += 1
        self._count(prompt.messages, prompt.tools, prompt.thinking)
        if self._is_measured(line):
            spans = self._template.prompt(prompt.messages, prompt.tools, prompt.thinking)
            self.lengths[self._length(text_of(spans))] += 1

    def _add_agent(self, row: Mapping[str, Any], layout: Layout) -> str | None:
        """Count whose the row is; gives the domain that reads it, if one is known."""
        agent = agent_of(row)
        name = self._domain
        if name is None:
            name = layout.domain

        label = agent or "no agent named"
        if agent and name and agent != name:
            label = f"{agent} ({name})"
        elif name and not agent:
            label = f"{name}, by its fields"

        self.agents[label] += 1

        return name

    def _prompt(self, name: str | None, row: Mapping[str, Any], line: int) -> Prompt:
        """The row as a prompt; without a domain, what any domain would show of it."""
        domain = self._reader(name) if name is not None else None
        if domain is None:
            request = request_of(row, line - 1)
            return request.prompt("", "")
        # Another's row, read by this domain on demand, may lack the signal its own would need.
        if is_for(owner(row), domain.name):
            check_signal(row, domain.name)
        return domain.from_row(row, line - 1)

    def _reader(self, name: str) -> Domain | None:
        """The domain of a name, loaded once; None where no domain has the name."""
        if name not in self._domains:
            if not name.endswith(".py") and name not in NAMES:
                return None
            self._domains[name] = reader(name)
        return self._domains[name]

    def _count(
        self, messages: tuple[Message, ...], tools: tuple[Mapping[str, Any], ...], thinking: bool
    ) -> None:
        self.modes["thinking" if thinking else "non-thinking"] += 1
        self.turns[sum(message.role == "user" for message in messages)] += 1
        self.with_tools += bool(tools)
        calls = [call.name for message in messages for call in message.tool_calls]
        self.with_calls += bool(calls)
        for name in calls:
            if name in self.tools or len(self.tools) < TOOLS:
                self.tools[name] += 1

    def _is_measured(self, line: int) -> bool:
        return seed_of("length", line) % self.every == 0

    def _length(self, text: str) -> int:
        if self._codec is None:
            return len(text)
        tokens = len(self._codec.encode(text[:MEASURED]))
        return round(tokens * max(1.0, len(text) / MEASURED))

    def record(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "rows": self.tally.good + sum(self.tally.bad.values()),
            "layouts": dict(self.layouts),
            "use": dict(self.uses),
            "unused": dict(by_count(self.unused)),
            "agents": dict(by_count(self.agents)),
            "modes": dict(self.modes),
            "turns": {str(turns): count for turns, count in sorted(self.turns.items())},
            "with_tools": self.with_tools,
            "with_calls": self.with_calls,
            "calls": dict(by_count(self.tools)[:100]),
            "lengths": self.statistics(),
            "lengths_of_one_row_in": self.every,
            "histogram": {str(most): count for most, count in self.histogram()},
            **self.tally.record(),
        }

    def statistics(self) -> dict[str, float]:
        """Mean, quantiles, maximum and sum of the lengths; empty without any."""
        if not self.lengths:
            return {}
        n = sum(self.lengths.values())
        total = sum(length * count for length, count in self.lengths.items())
        statistics = {"mean": total / n}
        passed = 0

        for length, count in sorted(self.lengths.items()):
            passed += count
            for name, share in QUANTILES.items():
                if name not in statistics and passed >= share * n:
                    statistics[name] = float(length)

        statistics["max"] = float(max(self.lengths))
        statistics["total"] = float(total)

        return statistics

    def histogram(self) -> list[tuple[int, int]]:
        """(length at most, rows), lengths doubling."""
        bins: Counter[int] = Counter()
        for length, count in self.lengths.items():
            bins[max(0, length - 1).bit_length()] += count
        if not bins:
            return []
        # Empty ones in between are shown too, so that bars stand at their distance.
        return [(2**power, bins[power]) for power in range(min(bins), max(bins) + 1)]


def describe(
    path: Path, codec: Codec | None, domain: str | None, progress: Callable[[float, int], None]
) -> Description:
    """Read a whole file; `progress` hears the share read and the rows so far.

    Tokenizing is slow, so of a file over TOKENIZED bytes the token lengths of an even sample of
    rows are taken.
    """
    lines = Lines(path)
    size = path.stat().st_size
    every = 1
    if codec is not None:
        every = max(1, round(size / TOKENIZED))
    description = Description(codec, domain, every)
    description.file = f"{path}, {_bytes(size)}"
    if lines.packing:
        description.file += f" {lines.packing}"
    try:
        for number, raw in lines:
            progress(lines.share, number)
            description.add(path, number, raw)
    finally:
        description.close()

    return description


# ---------------------------------------------------------------- for a person


def table(
    path: Path,
    description: Description,
    unit: str,
    width: int = 80,
) -> str:
    """The description in lines of at most `width`, but for the file's name."""
    width = min(max(40, width), 120)
    rows = description.tally.good + sum(description.tally.bad.values())
    turns = {str(count): rows for count, rows in description.turns.items()}
    lines = [description.file, f"{rows:,} rows"]
    lines += _block("layout", description.layouts, width)
    lines += _block("use as", description.uses, width)
    lines += _block("domains and agents", description.agents, width)
    lines += _block("mode", description.modes, width)
    lines += _block("user turns", turns, width, most=8)

    if description.with_tools or description.with_calls:
        with_tools, with_calls = description.with_tools, description.with_calls
        text = f"tools: {with_tools:,} rows define some, {with_calls:,} call some"
        lines += ["", *textwrap.wrap(text, width)]
        lines += _block("calls", description.tools, width, most=10)

    lines += _block("not used", description.unused, width)
    if description.lengths:
        lines += _lengths(description, unit, width)
    if description.tally.bad:
        lines += _bad_rows(path, description.tally, width)

    return "\n".join(_printable(line) for line in lines)


def _block(
    title: str,
    counts: Mapping[str, int],
    width: int,
    most: int = 20,
) -> list[str]:
    """A title and a line per count, the most frequent first; nothing without counts."""
    if not counts:
        return []
    entries = by_count(counts)
    lines = ["", title]
    for name, count in entries[:most]:
        lines.append(f"  {count:>11,}  {name}"[:width])
    rest = entries[most:]
    if rest:
        lines.append(f"  {sum(count for _, count in rest):>11,}  {len(rest):,} others")

    return lines


def _lengths(description: Description, unit: str, width: int) -> list[str]:
    """Figures of the lengths, and a bar per bin of the histogram."""
    title = f"length in {unit}"
    if description.every > 1:
        title += f", of one row in {description.every}"
    statistics = ", ".join(
        f"{name} {value:,.0f}" for name, value in description.statistics().items()
    )
    lines = ["", *textwrap.wrap(title, width)]
    lines += textwrap.wrap(
        statistics,
        width,
        initial_indent="  ",
        subsequent_indent="  ",
    )

    bins = description.histogram()
    highest = max(count for _, count in bins)

    for most, count in bins:
        bar = "█" * round((width - 32) * count / highest)
        lines.append(f"  <= {most:>9,}  {count:>11,}  {bar}".rstrip())

    return lines


def _bad_rows(path: Path, tally: Tally, width: int) -> list[str]:
    """A line per reason, and below it the first row with that fault."""
    lines = ["", f"bad rows: {sum(tally.bad.values()):,}"]
    indent = " " * 15
    for reason, count in by_count(tally.bad):
        lines.append(f"  {count:>11,}  {reason}"[:width])
        first = tally.first[reason].removeprefix(str(path)).strip()
        lines += textwrap.wrap(
            first,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
        )
    return lines


def _printable(line: str) -> str:
    """Names and values are the file's own; they must not steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in line)


def _bytes(size: float) -> str:
    if size < 1000:
        return f"{size:,.0f} bytes"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:,.1f} {unit}"
    return f"{size / 1000:,.1f} GB"
