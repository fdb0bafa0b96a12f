"""The grader that a benchmark names: a domain, or one of the files beside this."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from linn.domains import load as domains
from linn.domains.base import Domain
from linn.errors import UserError, nearest

if TYPE_CHECKING:
    from linn.evals.benchmarks.config import Benchmark

NAMES = ("calls", "two_turns")
"""The graders that stand here; domains have theirs."""


def check_grader(name: str) -> None:
    """Refuse a name that neither a domain nor a grader has."""
    if name.endswith(".py") or name in NAMES:
        return
    if name not in domains.NAMES:
        raise UserError(f"grader {name!r} is unknown{nearest(name, [*NAMES, *domains.NAMES])}")


def grader_of(benchmark: Benchmark) -> Domain:
    """The benchmark's grader, ready to read rows and to verify."""
    name = benchmark.domain
    assert name is not None, benchmark.name
    check_grader(name)
    options = dict(benchmark.options)
    if benchmark.judge is not None:
        options["judged"] = True
    if name not in NAMES:
        return domains.load(name, options)
    module = importlib.import_module(f"linn.evals.graders.{name}")
    grader: Domain = module.GRADER(**options)
    return grader
