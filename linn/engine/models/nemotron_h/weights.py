"""Nemotron-H's weights: the names they have in a file, and how a new model's are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from linn.engine.models.nemotron_h.config import Config
from linn.engine.models.weight_files import weight_files
from linn.errors import UserError

ROUTER_BIAS = "e_score_correction_bias"
"""Always float32: it decides between near-equal experts."""

_INTO_RESIDUAL = (
    "out_proj.weight",
    "o_proj.weight",
    "down_proj.weight",
    "down_proj",
    "fc2_latent_proj.weight",
)
"""Endings of the projections that write into the residual stream."""


def draw(parameters: Iterable[tuple[str, Tensor]], config: Config, seed: int) -> None:
    """Random weights in place, a function of the seed.

    Normal, with the projections back into the residual scaled down by the depth; A and dt as
    Mamba-2 draws them.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(parameters):
            _draw_one(name, weight, config, generator)


def _draw_one(name: str, weight: Tensor, config: Config, generator: torch.Generator) -> None:
    """Fill one parameter, as its name says. Norms and D stay 1."""
    if name.endswith("A_log"):
        a = torch.empty_like(weight).uniform_(1, 16, generator=generator)
        weight.copy_(a.log())

    elif name.endswith("dt_bias"):
        low = math.log(config.time_step_min)
        high = math.log(config.time_step_max)
        log_dt = torch.empty_like(weight).uniform_(low, high, generator=generator)
        dt = log_dt.exp().clamp_min(config.time_step_floor)
        # The inverse of softplus, so that a bias alone gives dt.
        weight.copy_(dt + torch.log(-torch.expm1(-dt)))

    elif name.endswith("conv1d.weight"):
        bound = 1 / math.sqrt(config.conv_kernel)
        weight.uniform_(-bound, bound, generator=generator)

    elif name.endswith(".bias"):
        weight.zero_()

    elif weight.dim() > 1:
        spread = config.initializer_range
        # Every layer adds to the residual: scaled so that its size does not grow with the depth.
        if name.endswith(_INTO_RESIDUAL):
            spread = config.initializer_range / math.sqrt(len(config.pattern))
        weight.normal_(0, spread, generator=generator)


def unstacked(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its name in a file, which holds one matrix per expert."""
    for name, value in state.items():
        if ".experts." not in name:
            yield name, value
            continue
        for written, number in names_of_experts(name, len(value)):
            yield written, value[number]


def names_of_experts(name: str, count: int) -> Iterator[tuple[str, int]]:
    """The names in a file, with their numbers, of the matrices that are stacked as `name` here."""
    stem, kind = name.rsplit(".", 1)
    for number in range(count):
        yield f"{stem}.{number}.{kind}.weight", number


def stacked(tensors: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The model's tensors of these names, with the experts' matrices stacked in order.

    Experts' matrices are taken out of `tensors`, so that none is held twice for long.
    """
    state = {}
    for name in names:
        if ".experts." not in name:
            state[name] = tensors[name]
            continue

        stem, kind = name.rsplit(".", 1)
        matrices: list[Tensor] = []
        while True:
            expert = f"{stem}.{len(matrices)}.{kind}.weight"
            if expert not in tensors:
                break
            matrices.append(tensors.pop(expert))
        state[name] = torch.stack(matrices)
    return state


def read_tensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of a folder under NVIDIA's names, in `dtype`."""
    tensors = {}
    for written, value in _read(folder):
        name = own_name(written)
        if name is None:
            continue
        kept_dtype = dtype
        if name.endswith(ROUTER_BIAS):
            kept_dtype = torch.float32
        tensors[name] = value.to(kept_dtype)
    return tensors


def own_name(written: str) -> str | None:
    """A tensor's name here, where a file calls it `written`; None: the model does without it."""
    # Heads that predict several tokens ahead are for speculative decoding only.
    if written.startswith("mtp."):
        return None
    # transformers calls the backbone `model`.
    if written.startswith("model."):
        return "backbone." + written.removeprefix("model.")
    return written


def ties_head(tensors: dict[str, Tensor]) -> bool:
    """Whether the head of a config with tied embeddings is the embeddings; if so, both are there.

    A file that has another head keeps it, whatever the config says: the stock class never ties, and
    saves a head that was trained apart.
    """
    embeddings = tensors.get("backbone.embeddings.weight")
    if embeddings is None:
        return False
    head = tensors.setdefault("lm_head.weight", embeddings)
    return head.shape == embeddings.shape and torch.equal(head, embeddings)


def check_shapes(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, torch.Size],
    folder: Path,
) -> None:
    """Raise UserError for the first tensor that is missing, unknown or misshapen.

    tensors: as read from `folder`; expected: the model's shapes.
    """
    names = sorted(expected.keys() | tensors.keys())
    for name in names:
        have: tuple[int, ...] | str = "none"
        need: tuple[int, ...] | str = "none"
        if name in tensors:
            have = tuple(tensors[name].shape)
        if name in expected:
            need = tuple(expected[name])

        if have != need:
            raise UserError(
                f"{folder}: tensor {name}: shape {have} found, {need} expected; "
                "do config.json and the weights match?"
            )


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a folder's safetensors; UserError where a file is not there or not whole."""
    from safetensors import SafetensorError, safe_open

    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    yield name, tensors.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{file}: not whole safetensors ({error}); copy it anew") from None
