"""Folders that a command line names."""

from __future__ import annotations

from pathlib import Path

from linn.errors import UserError


def run_folder(name: Path) -> Path:
    """A run's folder from its path or its name under runs/."""
    for folder in (name, Path("runs") / name):
        if any((folder / file).is_file() for file in ("run.json", "compare.json")):
            return folder
    raise UserError(f"{name}: no run there (no run.json); give a folder made by linn run")
