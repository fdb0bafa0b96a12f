"""A model's weights into an existing Hugging Face folder, in place of those it has."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from linn import files
from linn.engine.models.interface import CausalLM
from linn.engine.models.weight_files import PATTERNS


def export(model: CausalLM, folder: Path, shard_bytes: int) -> None:
    """Write config.json and the weights into an existing folder, in place of those it has.

    Up to `shard_bytes` they are one file; above, shards of at most that size (one tensor may exceed
    it) with `model.safetensors.index.json`.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as name:
        making = Path(name)
        model.save(making, shard_bytes)
        replace_weights(making, folder)


def replace_weights(making: Path, folder: Path) -> None:
    """Move config.json and the weights of `making` into `folder`, in place of those it has."""
    # An old index would point a reader to weights that are gone.
    for path in _weights_of(folder):
        path.unlink()
    for path in [*_weights_of(making), making / "config.json"]:
        os.replace(path, folder / path.name)
        files.give_usual_mode(folder / path.name)


def _weights_of(folder: Path) -> list[Path]:
    return sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
