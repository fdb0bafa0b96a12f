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
from linn.solve.contest.judge import Judge
from linn.solve.contest.layouts import LAYOUTS, is_problem, read_problem
from linn.solve.contest.problem import Problem
from linn.solve.run import Task
from linn.solve.strategies import Solve, Strategy
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


def problems_of(names: Sequence[str], limit: int | None, judge: Judge) -> list[Problem]:
    """The problems in these folders, each a problem's own or one that holds several."""
    folders: list[Path] = []
    for name in names:
        folder = Path(name)
        if not folder.is_dir():
            raise UserError(f"TASKS {name!r}: no folder; a contest strategy takes folders")
        # A problem's own folder, or one that holds several.
        within = [each for each in sorted(folder.iterdir()) if is_problem(each)]
        found = [folder] if is_problem(folder) else within
        if not found:
            raise UserError(f"{name}: neither it nor a folder in it is a problem; {LAYOUTS}")
        folders += found

    # Tasks are known by their problem's name: in the record, in seeds, in the results.
    problems: dict[str, Problem] = {}
    for folder in folders[:limit]:
        problem = read_problem(folder, judge.sandbox)
        if problem.name in problems:
            raise UserError(f"{folder}: a problem {problem.name} is there already")
        problems[problem.name] = problem
    return list(problems.values())


def problem_tasks(
    problems: Sequence[Problem], strategy: Strategy, rules: Any, judge: Judge
) -> list[Task]:
    """A task per problem; its highest score is that of the strategy: points, or solved."""
    tasks = []
    for problem in problems:
        solve = functools.partial(strategy.solve, problem, rules=rules, judge=judge)
        highest = problem.points if strategy.in_points else 1.0
        tasks.append(Task(problem.name, solve, highest))
    return tasks
