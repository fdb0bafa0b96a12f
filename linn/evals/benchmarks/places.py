"""Files of installed packages: where rows of benchmarks are that nobody may keep with linn."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from linn.errors import UserError

PACKAGES = "LINN_PACKAGES"
"""Environment variable: folders in which packages were unpacked, beside those of Python's path."""


def folders() -> Iterator[Path]:
    """Where packages stand: those of the variable first, then those of Python's path."""
    named = os.environ.get(PACKAGES, "")
    for entry in [*named.split(os.pathsep), *sys.path]:
        if entry:
            yield Path(entry)


def files_of_package(files: Sequence[str]) -> list[Path] | None:
    """The files, all of one folder; None where no folder has them all."""
    for folder in folders():
        paths = [folder / file for file in files]
        if all(path.is_file() for path in paths):
            return paths
    return None


def file_of_package(file: str) -> Path:
    """One file of a package; UserError where it is absent."""
    found = files_of_package([file])
    if found is None:
        raise UserError(f"{file}: in no installed package; linn benchmarks says what to install")
    return found[0]
