"""What a run ran on, for run.json."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

PACKAGES = ("linn", "torch", "transformers", "tokenizers", "numpy")
"""Packages whose version decides a number."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    by_name = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_name[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            by_name[package] = "absent"
    return by_name


def machine() -> dict[str, Any]:
    """The machine, and the command line."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "argv": sys.argv[1:],
    }
