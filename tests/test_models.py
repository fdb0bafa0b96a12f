"""The table of docs/models.md: what becomes of thirteen families' folders, from base to export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journey import HEADING, travel
from support.model_families import MODELS

from linn.engine.local.controller import LocalEngine

pytestmark = pytest.mark.slow

TABLE = (Path(__file__).parents[1] / "docs/models.md").read_text()
FAST = ("llama2", "qwen3", "gpt-oss")
"""SentencePiece with a BOS; modes and tied heads; experts, channels and several stops."""
CASES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(processes=1, width=512) as engine:
        yield engine


@pytest.mark.parametrize("family", CASES)
def test_what_is_exported_is_what_was_trained(tmp_path: Path, engine: LocalEngine, family: str):
    """SFT, RL, MOPD and export: ids, text, stops, dtype, size, log-probs; or the line that refuses.

    A row says `equal` and `1e-5` only where that was found.
    """
    arrival = travel(family, tmp_path, engine)
    assert arrival.row in TABLE.splitlines(), arrival


def test_the_table_has_every_family_and_promises_equality():
    assert HEADING in TABLE
    rows = [
        line for line in TABLE.splitlines() if line.startswith("| ") and "`generate" not in line
    ]
    families = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert families[: len(MODELS)] == list(MODELS)
    for row in rows[: len(MODELS)]:
        if "refused" not in row:
            assert row.count("equal") == 2 and "every stop" in row, row
            assert row.endswith("| bfloat16, 1.00 | 1e-5 |"), row
