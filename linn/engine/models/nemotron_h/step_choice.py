"""Which operators step a Mamba layer in slots."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch


def has_fused_step(device: torch.device) -> bool:
    """Whether Triton's kernels do it: on a GPU, where Triton is installed (torch brings it there).

    `LINN_KERNELS=plain` in the environment takes torch's operators everywhere.
    """
    if device.type != "cuda" or os.environ.get("LINN_KERNELS") == "plain":
        return False
    return _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
