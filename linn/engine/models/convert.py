"""A folder's weights in another dtype, shard by shard: a model larger than the memory will do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.precision import KEY, Precision, precision_of
from linn.engine.models.rounding import by_chance
from linn.engine.models.weight_files import (
    DTYPES,
    Entry,
    bytes_of,
    headers,
    planned_files,
    with_dtype,
    write_config,
    write_weights,
)
from linn.errors import InfrastructureError, UserError

NAMES = {getattr(torch, name): found for found, name in DTYPES.items()}
"""Torch's dtypes -> their names in a safetensors header."""

Plan = dict[str, tuple[Path, torch.dtype | None]]
"""Where a tensor is, and the dtype it gets; None: the one it has."""


def convert(
    source: Path,
    folder: Path,
    dtype: str | None,
    shard_bytes: int,
    note: Callable[[float, int], None],
) -> str:
    """Write config.json and the weights of `source` into `folder`; returns their dtype.

    dtype: float32, bfloat16 or float16; None: as the base of the checkpoint had them, tensor by
    tensor. note: is told (share written, MB written).

    Raises UserError for weights that are not finite in that dtype, InfrastructureError where the
    disk is too small.
    """
    raw = _config_of(source)
    base = precision_of(raw, source)
    aim = _aim(base, dtype)

    # From the headers alone: the size of every file is known before the first is written.
    plan, sizes = _planned(source, aim)
    with ExitStack() as stack:
        weights = _Weights(stack)
        drawn_as = _tied(raw, plan, weights)
        for head in _left_out(raw, drawn_as):
            del sizes[head]
        total = sum(sizes.values())
        _check_space(folder, total)

        def tensor(name: str) -> Tensor:
            file, kind = plan[name]
            value = weights.read(file, name)
            if kind is None:
                return value
            # A head that is written beside its embeddings stays equal to them.
            draw = drawn_as.get(name, name)
            out = _cast(value, kind, draw, trained_on_grid=base.of(name) != "float32")
            _check_finite(out, value, f"{source}: tensor {name}")
            return out

        def written(done: int) -> None:
            note(done / total, done // 10**6)

        write_weights(sizes, tensor, folder, shard_bytes, written)

    _write_config(raw, aim, folder)
    return aim.dtype


def planned(
    source: Path, folder: Path, dtype: str | None, shard_bytes: int
) -> tuple[str, dict[str, int]]:
    """What `convert` would write: the dtype, and the bytes of every file of weights by its name.

    config.json is written into `folder`; of the weights only the headers are read.
    """
    raw = _config_of(source)
    aim = _aim(precision_of(raw, source), dtype)
    plan, sizes = _planned(source, aim)
    with ExitStack() as stack:
        for head in _left_out(raw, _tied(raw, plan, _Weights(stack))):
            del sizes[head]
    entries = {}
    for _, name, found, shape in headers(source):
        if name in sizes:
            kind = plan[name][1]
            entries[name] = Entry(found if kind is None else NAMES[kind], shape, sizes[name])
    _write_config(raw, aim, folder)
    return aim.dtype, planned_files(entries, shard_bytes)


def _config_of(source: Path) -> dict[str, Any]:
    return dict(json.loads((source / "config.json").read_text(encoding="utf-8")))


def _aim(base: Precision, dtype: str | None) -> Precision:
    """What the weights become."""
    if dtype is None:
        return base
    if dtype == "float32":
        return Precision(dtype)
    # What the base keeps exact stays exact in any other dtype too.
    return Precision(dtype, base.float32)


def _left_out(raw: dict[str, Any], tied: dict[str, str]) -> list[str]:
    """Heads that are not written beside the embeddings that they equal."""
    # transformers does not tie this family, whatever its config says.
    return [] if raw.get("model_type") == "nemotron_h" else list(tied)


def _write_config(raw: dict[str, Any], aim: Precision, folder: Path) -> None:
    kept = {key: value for key, value in raw.items() if key != KEY}
    write_config(with_dtype(kept, aim.dtype), folder)


def _planned(source: Path, aim: Precision) -> tuple[Plan, dict[str, int]]:
    """Where every tensor is and what it becomes, and the bytes that it then has."""
    plan: Plan = {}
    sizes: dict[str, int] = {}
    for file, name, found, shape in headers(source):
        # Anything that is no weight (counts, masks) stays as it is.
        kind = None
        size = bytes_of(found)
        if found in DTYPES:
            kind = getattr(torch, aim.of(name))
            size = kind.itemsize
        plan[name] = file, kind
        sizes[name] = prod(shape) * size
    return plan, sizes


class _Weights:
    """Tensors of several files, which are opened once."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._files: dict[Path, Any] = {}

    def read(self, file: Path, name: str) -> Tensor:
        from safetensors import safe_open

        if file not in self._files:
            self._files[file] = self._stack.enter_context(safe_open(file, "pt"))
        tensor: Tensor = self._files[file].get_tensor(name)
        return tensor


def _tied(raw: dict[str, Any], plan: Plan, weights: _Weights) -> dict[str, str]:
    """The head of a model with tied embeddings whose folder holds both -> the equal embeddings."""
    heads = [name for name in plan if name.endswith("lm_head.weight")]
    if not raw.get("tie_word_embeddings") or len(heads) != 1:
        return {}

    head_file, _ = plan[heads[0]]
    head = weights.read(head_file, heads[0])
    embeddings = [name for name in plan if "embed" in name]
    for name in embeddings:
        file, _ = plan[name]
        other = weights.read(file, name)
        if other.shape == head.shape and torch.equal(other, head):
            return {heads[0]: name}
    return {}


def _cast(value: Tensor, dtype: torch.dtype, name: str, trained_on_grid: bool) -> Tensor:
    """A copy in this dtype.

    trained_on_grid: whether the tensor began in a narrow dtype; see `rounding`.
    """
    narrow = dtype in (torch.bfloat16, torch.float16)
    if trained_on_grid and narrow and value.dtype == torch.float32:
        return by_chance(value, dtype, name).contiguous()
    return value.to(dtype, copy=True).contiguous()


def _check_finite(out: Tensor, value: Tensor, what: str) -> None:
    """Raise UserError where a number is not finite in the new dtype."""
    if out.isfinite().all():
        return
    if not value.isfinite().all():
        raise UserError(f"{what} holds values that are not finite: this checkpoint is broken")

    largest = float(value.abs().max())
    name = str(out.dtype).removeprefix("torch.")
    raise UserError(
        f"{what} holds {largest:.3g}, more than {name} can; export with --dtype bfloat16"
    )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InfrastructureError(
            f"{folder.parent}: the weights take {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are "
            "free; give a folder on another disk, or a --dtype of fewer bytes"
        )
