"""A model's weights into a Hugging Face folder, as one file or as shards with an index."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file

from linn.engine.models.interface import CausalLM

_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")


def export(model: CausalLM, folder: Path, shard_bytes: int) -> None:
    """Write config.json and the weights into an existing folder, in place of those it has.

    Up to `shard_bytes` they are what `model.save` writes. Above, they are shards of at most that
    size (one tensor may exceed it) with `model.safetensors.index.json`.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as name:
        making = Path(name)
        model.save(making)
        files = sorted(making.glob("*.safetensors"))
        if sum(file.stat().st_size for file in files) > shard_bytes:
            _split(files, making, shard_bytes)

        # An old index would point a reader to weights that are gone.
        for path in _weights_of(folder):
            path.unlink()
        for path in [*_weights_of(making), making / "config.json"]:
            os.replace(path, folder / path.name)


def _split(files: list[Path], folder: Path, shard_bytes: int) -> None:
    """Write the tensors of `files` again, as shards, and remove `files`."""
    tensors = {}
    for file in files:
        for name, tensor in load_file(file).items():
            # A copy of its own: tensors of one storage would stay in one shard.
            tensors[name] = tensor.clone()
    save_torch_state_dict(tensors, folder, max_shard_size=shard_bytes)


def _weights_of(folder: Path) -> list[Path]:
    return sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
