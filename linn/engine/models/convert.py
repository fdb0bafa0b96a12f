"""A checkpoint's weights in another precision."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from linn.engine.models.load import load


def convert(source: Path, folder: Path, dtype: Literal["float32", "bfloat16"] | str) -> None:
    """Write config.json and model.safetensors of `source` into `folder`, in `dtype`."""
    load(source, torch.float32).save(folder, getattr(torch, dtype))
