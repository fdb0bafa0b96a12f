"""Which operators compute: those of the reference, or those that suit a GPU.

The environment's `LINN_KERNELS` overrides what the device says: `plain` computes by the reference
on a GPU too, `gpu` by the GPU's operators on a CPU as far as they run there. Both are for tests and
for finding out where a number comes from.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

VARIABLE = "LINN_KERNELS"
"""The environment variable."""

CHUNK = 32
"""Tokens of a scan's chunk on a CPU: the fastest on one thread (`bench/speed/model.py`)."""
GPU_CHUNK = 64
"""The same on a GPU. Weights within chunks take memory in proportion to it, states between chunks
in proportion to its inverse; both are equal near 90 for the base's heads. No result depends on it
but by rounding."""

ALL_EXPERTS_ROWS = 256
"""Up to so many rows every expert computes every row, where a GPU would have to ask the host how
many rows each one got. A running batch is that small, and waiting for weights is what it does."""
CPU_ALL_EXPERTS_ROWS = 256
"""The same on a CPU, where the many small operators of a loop cost more than what is computed in
vain: 0.29 instead of 0.24 ms for 64 rows of the tiny base."""
_CPU_WASTE = 4
"""Experts computed per expert chosen, at most, for that to hold."""
_CPU_COPIED = 2**20
"""Numbers of a layer's first, or second, matrices, at most: the second ones are copied."""

_ALIGNED = 16
"""Bytes of which a row's size must be a multiple, for `grouped_mm`."""
_HOPPER, _BLACKWELL = 9, 10
"""Major compute capabilities for which `grouped_mm` has a kernel that never asks the host."""
_LARGEST_HEAD = 256
"""The widest head of flash attention."""


def on_gpu(device: torch.device) -> bool:
    """Whether the operators for GPUs compute what is on this device."""
    mode = os.environ.get(VARIABLE, "")
    assert mode in ("", "plain", "gpu"), f"{VARIABLE}={mode}: plain, gpu or nothing"
    if mode:
        return mode == "gpu"
    return device.type == "cuda"


def by_triton(device: torch.device) -> bool:
    """Whether Triton's kernels compute here: on a GPU, where Triton is installed (torch brings it).

    `LINN_KERNELS=plain` takes torch's operators everywhere.
    """
    return device.type == "cuda" and on_gpu(device) and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def chunk_for(device: torch.device) -> int:
    """Tokens of a scan's chunk on this device."""
    return GPU_CHUNK if on_gpu(device) else CHUNK


def computed_in(x: Tensor) -> torch.dtype:
    """What a matrix product of x is computed in: its own dtype, or autocast's."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def experts_by(
    hidden: Tensor, up: Tensor, top: int
) -> Literal["loop", "grouped", "all", "side by side"]:
    """How a layer's experts compute the rows of `hidden`; up: their first matrices [E, I, W].

    top: experts that a row chooses.

    loop: one pair of products for each expert that was chosen. grouped: one pair for all of them.
    all: every expert computes every row, and what was not chosen is left out. side by side: the
    same, as one wide expert, in prefill and decoding.
    """
    if not on_gpu(hidden.device):
        # What trains and scores takes the loop, however few its rows are: so no rounding depends on
        # how a batch is dealt, and a teacher's path is the trainer's.
        samples = torch.is_inference_mode_enabled() and os.environ.get(VARIABLE) != "plain"
        few = len(hidden) <= CPU_ALL_EXPERTS_ROWS and len(up) <= _CPU_WASTE * top
        return "side by side" if samples and few and up.numel() <= _CPU_COPIED else "loop"

    dtype = computed_in(hidden)
    aligned = all(size * dtype.itemsize % _ALIGNED == 0 for size in up.shape[1:])
    if aligned and _groups_alone(hidden.device, dtype):
        return "grouped"
    if len(hidden) <= ALL_EXPERTS_ROWS:
        return "all"
    return "grouped" if aligned else "loop"


def _groups_alone(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `grouped_mm` runs without asking the host for the groups' sizes."""
    if device.type != "cuda":
        return True  # the host is where it runs
    return dtype == torch.bfloat16 and _capability(device) in (_HOPPER, _BLACKWELL)


@cache
def _capability(device: torch.device) -> int:
    """A GPU's major compute capability."""
    return torch.cuda.get_device_capability(device)[0]


def attends_joined(projected: Tensor) -> bool:
    """Whether attention runs over segments laid end to end; otherwise over rectangles.

    projected: queries, keys and values [T, ..., head_dim]. The kernel is flash attention's: half
    precision on a GPU alone.
    """
    if not (projected.is_cuda and on_gpu(projected.device)):
        return False
    width = projected.shape[-1]
    fits = width <= _LARGEST_HEAD and width % 8 == 0
    half = projected.dtype in (torch.bfloat16, torch.float16)
    return fits and half and varlen_attention() is not None


@cache
def varlen_attention() -> Any:
    """Torch's `varlen_attn`, or None where this torch has none."""
    return _found("torch.nn.attention.varlen", "varlen_attn")


def _found(module: str, name: str) -> Any:
    """A function of a module that may not be there."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return None
