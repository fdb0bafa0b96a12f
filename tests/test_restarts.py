"""A run whose engine loses a process goes on by itself, with the bytes of one that did not."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.fast_runs import HashEngine, go, results, tree

from linn import stopping
from linn.errors import EngineLost, InfrastructureError
from linn.types import Loss, Sample

CLUSTER = {"engine": "cluster", "width": 512, "restarts": 2}


class LostAt(HashEngine):
    """Loses a process before these optimiser steps, counted over all that are made."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.lost_at = list(steps)
        self.closed = 0

    def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
        if self.lost_at and self.steps == self.lost_at[0]:
            del self.lost_at[0]
            self.weights = -1  # whatever is left of the policy is of no use
            raise EngineLost("trainer rank 1 ended with exit code -9")
        return super().step(samples, loss, lr)

    def close(self) -> None:
        super().close()
        self.closed += 1


def run(folder: Path, patch: pytest.MonkeyPatch, *lost_at: int, **options: Any) -> LostAt:
    engine = LostAt(*lost_at)
    go(folder, patch, tree(scale=CLUSTER), open_engine=lambda: engine, **options)
    return engine


def test_a_lost_engine_starts_again_and_the_bytes_are_those_of_an_unbroken_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "whole", monkeypatch)
    # In both stages, in the first step of one, and twice within one state.
    engine = run(tmp_path / "lost", monkeypatch, 3, 4, 8)
    assert results(tmp_path / "lost") == results(tmp_path / "whole")
    assert engine.closed == 4 and not engine.lost_at
    said = capsys.readouterr()
    assert (said.out + said.err).count("the engine starts again from the last saved state") == 3
    assert "stage sft step 4: trainer rank 1 ended with exit code -9" in said.out + said.err


def test_after_its_restarts_a_run_ends_and_can_be_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", monkeypatch)
    with pytest.raises(InfrastructureError, match="stage sft step 1: trainer rank 1"):
        run(tmp_path / "lost", monkeypatch, 0, 0, 0)
    run(tmp_path / "lost", monkeypatch)
    assert results(tmp_path / "lost") == results(tmp_path / "whole")


def test_who_asked_for_the_end_gets_it_from_a_lost_engine_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(LostAt):
        def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
            if self.steps == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(samples, loss, lr)

    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    stopping.listen()
    engine = Asked(1)
    try:
        with pytest.raises(EngineLost, match="stage sft step 2: trainer rank 1"):
            go(tmp_path / "lost", monkeypatch, tree(scale=CLUSTER), open_engine=lambda: engine)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert engine.steps == 1
    run(tmp_path / "whole", monkeypatch)
    run(tmp_path / "lost", monkeypatch)
    assert results(tmp_path / "lost") == results(tmp_path / "whole")
