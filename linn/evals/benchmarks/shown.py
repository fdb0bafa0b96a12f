"""Results for a person: measured beside published, and what must be known to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from linn.evals.benchmarks import config
from linn.evals.benchmarks.config import Benchmark
from linn.evals.benchmarks.results import Result
from linn.evals.benchmarks.rows import how_to_get, is_here
from linn.ledger import Difference, Interval

_COLUMNS = (
    "benchmark",
    "measured [95 %]",
    "published",
    "n",
    "k",
    "pass@k",
    "maj@k",
    "tokens",
    "cut off",
    "failed",
)


def table(results: Sequence[tuple[Result, Benchmark]]) -> list[str]:
    """Lines: a row a benchmark, then what must be known of each. `Benchmark`: as published."""
    rows = [list(_COLUMNS)]
    rows += [_row(result, benchmark) for result, benchmark in results]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    for result, benchmark in results:
        lines += [f"{result.benchmark}: {line}" for line in _notes(result, benchmark)]
    return lines


def _row(result: Result, benchmark: Benchmark) -> list[str]:
    n = f"{result.n}"
    if result.is_part:
        n = f"{result.n} of {result.full}"
    return [
        result.benchmark,
        f"{_of(result, result.avg.value)} [{_of(result, result.avg.low)}, "
        f"{_of(result, result.avg.high)}]",
        _published(result, benchmark),
        n,
        str(result.k),
        _maybe(result, result.passed),
        _maybe(result, result.majority),
        f"{result.tokens:.0f}",
        f"{100 * result.truncated:.1f} %",
        str(result.failed),
    ]


def _of(result: Result, value: float) -> str:
    """A share in the published unit."""
    return f"{value * result.scale:.1f}"


def _maybe(result: Result, interval: Interval | None) -> str:
    return "–" if interval is None else _of(result, interval.value)


def _published(result: Result, benchmark: Benchmark) -> str:
    """The paper's own model; marked where the protocols differ, so that nobody compares."""
    if not benchmark.published:
        return "–"
    scores = benchmark.published[0].scores
    value = next(iter(scores.values()))
    mark = " ≠" if result.differs or result.is_part else ""
    return f"{value:g}{mark}"


def _notes(result: Result, benchmark: Benchmark) -> Iterator[str]:
    if result.is_part:
        yield f"a part of it: {result.n + result.left_out} of {result.full} rows"
    if result.differs:
        what = "not comparable with the published scores"
        if not benchmark.published:
            what = "another protocol than the benchmark's own"
        yield f"{what}: {'; '.join(result.differs)}"
    if result.again is not None:
        low, high = _of(result, result.again.low), _of(result, result.again.high)
        yield f"other samples of the same prompts: [{low}, {high}]"
    for published in benchmark.published:
        scores = ", ".join(f"{model} {value:g}" for model, value in published.scores.items())
        tools = ", ".join(f"{model} {value:g}" for model, value in published.tools.items())
        line = f"published ({published.source}, {published.unit}): {scores}"
        yield line + (f"; with a Python tool: {tools}" if tools else "")
        if published.note:
            yield f"published: {published.note}"
    if result.judge is not None:
        yield f"judged by {result.judge}"
    if result.left_out or result.undecided:
        yield (
            f"{result.left_out} prompts left out, {result.failed} rollouts failed, "
            f"{result.undecided} answers of the judge unreadable"
        )
    yield f"rows: {result.place}"
    if benchmark.note:
        yield f"protocol: {benchmark.note}"
    yield from result.notes


def difference_line(result: Result, other: Result, by: Difference) -> str:
    """One result against another of the same protocol."""
    scale = result.scale
    low, high = f"{by.low * scale:+.1f}", f"{by.high * scale:+.1f}"
    return (
        f"{result.benchmark}: {result.model} {_of(result, result.avg.value)} against {other.model} "
        f"{_of(other, other.avg.value)}: {by.value * scale:+.1f} [{low}, {high}], "
        f"{by.pairs} prompts"
    )


def listing(names: Sequence[str]) -> list[str]:
    """Every benchmark in two lines: its protocol, and where its rows are."""
    lines = []
    for name in names or config.names():
        benchmark = config.load(name)
        if benchmark.unsupported:
            lines += [f"{name}: {benchmark.title}", f"    not run: {benchmark.unsupported}"]
            continue
        mode = "thinking" if benchmark.thinking else "not thinking"
        protocol = (
            f"{name}: {benchmark.title}; {benchmark.domain}, avg@{benchmark.k}, {mode}, "
            f"temperature {benchmark.temperature:g}, top_p {benchmark.top_p:g}, "
            f"{benchmark.max_tokens:,} tokens, {benchmark.rows.full:,} rows"
        )
        if benchmark.judge is not None:
            protocol += f", judge {benchmark.judge.model}"
        place = "here" if is_here(benchmark.rows) else how_to_get(benchmark.rows)
        lines += [protocol, f"    rows: {place}"]
    return lines
