"""Whether two mathematical answers are equal, by `math-verify` in a process that can be killed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

from linn.domains.common.limited_worker import LimitedWorker, WorkerEnded
from linn.errors import InfrastructureError

_WALL_SECONDS = 120.0
"""A worker that neither answers nor uses up its processor time in this long: a machine's fault."""
_TRIES = 2
_SMALL = 1e-4
"""Numbers below this are compared by their ratio."""
_NEAR_DECIMAL, _NEAR_EXACT = 1e-4, 1e-12
"""How far from 1 the ratio may be, where a decimal is among the numbers and where none is."""


class Comparer:
    """Compares answers with `math-verify` in a worker process.

    The library's import is slow, and a formula can hang it or fill the memory. Neither touches the
    caller.
    """

    def __init__(self) -> None:
        self.worker = LimitedWorker(
            f"{__name__}:load_comparison", "math-verify process", _WALL_SECONDS
        )

    def equal(self, expected: str, text: str, seconds: float, any_relation: bool = False) -> bool:
        """Whether `text` gives the expected answer.

        `any_relation`: an inequality may stand for the interval that is expected; the library takes
        only the reverse. False where that takes more processor time than `seconds`, or crashes the
        library twice.
        """
        exit_code = 0
        for _ in range(_TRIES):
            try:
                return bool(self.worker.call((expected, text, any_relation), seconds))
            except WorkerEnded as ended:
                if ended.over_cpu_limit:
                    return False
                exit_code = ended.exit_code

        # Out of memory or silent: the machine's doing, never the reply's.
        if exit_code == -signal.SIGKILL:
            raise InfrastructureError(
                "the math-verify process was killed or silent twice;"
                " look at this machine's memory and load"
            )
        return False

    def stop(self) -> None:
        """End the process; a later comparison starts a new one."""
        self.worker.close()


def load_comparison() -> Callable[[str, str, bool], bool]:
    """In the worker: import the library, lock the process down, return the comparison."""
    import resource

    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    from linn.sandbox.inside import kernel

    _tell_small_numbers_apart()
    latex_only = [LatexExtractionConfig()]
    any_form = [ExprExtractionConfig(), LatexExtractionConfig()]

    def equal(expected: str, text: str, any_relation: bool) -> bool:
        try:
            gold = parse(f"\\boxed{{{expected}}}", latex_only, parsing_timeout=None)
            answer = parse(text, any_form, parsing_timeout=None)
            if not gold or not answer:
                return False
            options = {"allow_set_relation_comp": any_relation, "timeout_seconds": None}
            return bool(verify(gold, answer, **options))
        except Exception:
            # Whatever a formula breaks inside the library (MemoryError and RecursionError too), it
            # is not the answer.
            return False

    equal("\\frac{1}{2}", "\\boxed{0.5}", False)  # builds the library's tables, outside any limit

    # The library parses what a model wrote, in part by evaluating it: whatever got through could
    # not write, execute or connect.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    kernel.install_filter(kernel.program_filter())
    return equal


def _tell_small_numbers_apart() -> None:
    """In the worker: make the library compare small numbers by their ratio.

    It rounds decimals to six places and takes a difference below 1e-16 for none, so that any two
    small numbers are equal (math-verify 0.8). What is refused here it still compares as symbols,
    so that two ways to write one number stay equal.
    """
    from math_verify import grader

    numeric_eq = grader.sympy_numeric_eq

    def near_and_not_apart(a: Any, b: Any, rounding: int, precision: int) -> bool:
        return bool(numeric_eq(a, b, rounding, precision)) and not _are_apart(a, b)

    grader.sympy_numeric_eq = near_and_not_apart


def _are_apart(a: Any, b: Any) -> bool:
    """Whether two expressions are small numbers of which one is not near the other."""
    from sympy import Float  # type: ignore[import-untyped]

    try:
        left, right = a.doit().evalf(30), b.doit().evalf(30)
        if not (left.is_number and right.is_number):
            # `x - 1e-18` and `x - 2e-18` differ by next to nothing: only symbols can tell.
            return bool(a.free_symbols or b.free_symbols) and not (a.has(Float) or b.has(Float))
        larger = max(abs(left), abs(right))
        if not 0 < larger < _SMALL:
            return False
        near = _NEAR_DECIMAL if a.has(Float) or b.has(Float) else _NEAR_EXACT
        return bool(abs(left - right) > near * larger)
    except (AttributeError, TypeError, ValueError):
        return False  # no numbers: sets, equations, matrices
