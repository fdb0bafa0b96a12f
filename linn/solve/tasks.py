"""What is solved: rows of a file, a domain's own prompts, or contest problems in folders."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from linn.data.layouts import layout_of
from linn.data.names import located
from linn.data.rows import read_rows
from linn.domains.base import Domain
from linn.domains.load import NAMES, load
from linn.errors import UserError, nearest
from linn.solve.run import Task
from linn.solve.strategies import Solve
from linn.types import Prompt


def domain_of(name: str, options: Mapping[str, Any]) -> Domain:
    """The domain that TASKS names: `DOMAIN`, `DOMAIN=FILE`, or FILE, whose first row then says.

    Its test split is what is solved: a file's rows, whole, or the generator's.
    """
    domain, separator, file = name.rpartition("=")
    if separator:
        return load(domain, {**options, "test": file})
    if name in NAMES or name.endswith(".py"):
        return load(name, options)
    if not Path(name).exists() and "/" not in name and "." not in name:
        raise UserError(
            f"TASKS {name!r}: neither a file of rows, a contest problem's folder, nor a domain"
            f"{nearest(name, NAMES)}"
        )
    row = next(read_rows(located(name)), None)
    found = layout_of(row).domain if row is not None else None
    if found is None:
        raise UserError(f"{name}: its first row points to no domain; say DOMAIN={name}")
    return load(found, {**options, "test": name})


def prompts_of(domain: Domain, limit: int | None) -> list[Prompt]:
    """The domain's test prompts, at most `limit`; a generator has no end of its own."""
    if limit is None and domain.splits.file("test") is None and domain.rows is None:
        raise UserError(f"{domain.name}: its generator has no end; say --limit N")
    prompts = [domain.in_mode(prompt) for prompt in islice(domain.prompts("test"), limit)]
    if not prompts:
        raise UserError(f"{domain.name}: no prompts ({domain.tally})")
    return prompts


def row_tasks(prompts: Sequence[Prompt], solve: Solve, rules: Any) -> list[Task]:
    """A task per prompt."""
    tasks = []
    for prompt in prompts:
        tasks.append(Task(prompt.id, functools.partial(solve, prompt, rules=rules)))
    return tasks
