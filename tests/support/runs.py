"""A run as a person starts it: the command in a process of its own, and what its folder holds."""

import hashlib
import subprocess
import sys
from pathlib import Path

import yaml

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
        timeout=1200,
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


SFT = {"name": "sft", "kind": "sft", "steps": 5, "batch": 8, "lr": 3e-3, "save_every": 2}
RL = {"kind": "rl", "prompts": 3, "rollouts": 3, "max_tokens": 10, "lr": 1e-3}
MOPD = {"kind": "distill", "prompts": 2, "rollouts": 2, "max_tokens": 10, "lr": 1e-3}
RECIPE = {
    "name": "small",
    "model": {"vocab": 320, "seed": 0},
    "domains": {"arithmetic": {}, "mcqa": {}},
    "evaluate": {"test": 6, "validation": 4, "max_tokens": 12},
    "scale": {"processes": 1, "width": 256, "capacity": 32},
    "stages": [
        {**SFT, "faulty": 0.5},
        {**RL, "name": "rl", "steps": 4, "save_every": 2, "domains": {"mcqa": 1}},
        {**RL, "name": "kl", "from": "sft", "steps": 2, "prompts": 2, "rollouts": 2, "kl": 0.03},
        {
            **MOPD,
            "name": "mopd",
            "from": "rl",
            "teachers": {"arithmetic": "sft", "mcqa": "rl"},
            "steps": 3,
            "save_every": 1,
            "curve_every": 2,
        },
    ],
}


def write(folder: Path, **changes) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path
