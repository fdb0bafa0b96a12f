"""A run as a person starts it: the command in a process of its own, and what its folder holds."""

import hashlib
import subprocess
import sys
from pathlib import Path

RESULTS = (
    "stages/*/checkpoints/*/*",
    "stages/*/rollouts/*",
    "stages/*/evals/*",
    "stages/*/DONE",
)
"""Files of a run folder, beside ledger and recipe, that must not depend on interruptions."""


def linn(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """The command `linn` with these arguments, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "linn.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def fingerprint(folder: Path) -> dict[str, str]:
    """Hashes of what must not depend on interruptions: weights, ledger, rollouts, evaluations."""
    paths = [folder / "ledger.jsonl", folder / "recipe.yaml"]
    for pattern in RESULTS:
        paths += sorted(folder.glob(pattern))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def steps_done(folder: Path) -> int:
    """Optimiser steps that are on record in all stages of a run folder."""
    return sum(path.read_text().count("\n") for path in folder.glob("stages/*/metrics.jsonl"))
