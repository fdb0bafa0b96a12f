"""Messages to a process that Ray placed; no Ray here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linn.scale.ray_places import RayProcess


def test_names_of_files_hold_wherever_ray_runs_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def remote(message: str, arguments: tuple[Any, ...]) -> str:
        sent.extend([message, *arguments])
        return "reference"

    actor = SimpleNamespace(answer=SimpleNamespace(remote=remote))
    process = RayProcess("trainer rank 0", actor, None)
    monkeypatch.chdir(tmp_path)
    process.send("save", (Path("runs/t"), Path("/shared/x"), 3, None))
    assert sent == ["save", tmp_path / "runs/t", Path("/shared/x"), 3, None]
    assert process.answer == "reference"
