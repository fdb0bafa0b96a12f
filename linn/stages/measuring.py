"""Evaluations within a run: the coroutine of a measurement, run to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from linn.types import Score


def measured(measurement: Coroutine[Any, Any, list[Score]]) -> list[Score]:
    """The scores of `Evaluation.measure`, outside any event loop."""
    return asyncio.run(measurement)
