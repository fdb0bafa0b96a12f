"""The fields of a Nemotron-H `config.json`, read and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from linn.errors import UserError

_LETTERS = {
    "M": "M",
    "*": "*",
    "E": "E",
    "-": "-",
    "linear_attention": "M",
    "full_attention": "*",
    "moe": "E",
    "mlp": "-",
    # The names of older files.
    "mamba": "M",
    "attention": "*",
}
"""A layer's name in the file -> its letter in `Config.pattern`."""

_OLD_NAMES = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_dt_min": "time_step_min",
    "mamba_dt_max": "time_step_max",
    "mamba_dt_limit": "time_step_limit",
    "mamba_dt_init_floor": "time_step_floor",
    "mamba_conv_bias": "use_conv_bias",
}
"""A field's name in older files -> its name in `Config`."""

_ACTIVATIONS = {"mlp_hidden_act": "relu2", "mamba_hidden_act": "silu"}
"""The only activations that the layers compute."""

_MULTIPLES = (
    ("num_attention_heads", "num_key_value_heads"),
    ("mamba_num_heads", "n_groups"),
    ("n_routed_experts", "n_group"),
)
"""(whole, part): the whole must be a multiple of the part."""


@dataclass(frozen=True)
class Config:
    """The fields of `config.json` that change what is computed, under NVIDIA's names."""

    vocab_size: int
    hidden_size: int
    pattern: str
    """One letter per layer: M Mamba-2, * attention, E mixture of experts, - dense MLP."""
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 128
    intermediate_size: int = 21504
    mamba_num_heads: int = 128
    mamba_head_dim: int = 64
    ssm_state_size: int = 128
    n_groups: int = 8
    conv_kernel: int = 4
    use_conv_bias: bool = True
    use_bias: bool = False
    mlp_bias: bool = False
    time_step_limit: tuple[float, float] = (0.0, math.inf)
    """What dt is kept within, whenever it is computed."""
    time_step_min: float = 0.001
    """With `time_step_max` and `time_step_floor`: how dt's biases of a new model are drawn. Trained
    weights are free to leave that range."""
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 7688
    moe_shared_expert_intermediate_size: int = 7688
    moe_latent_size: int | None = None
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = True
    n_group: int = 1
    topk_group: int = 1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    @property
    def inner(self) -> int:
        """Width of a Mamba layer's heads together."""
        return self.mamba_num_heads * self.mamba_head_dim

    @property
    def channels(self) -> int:
        """Channels that go through a Mamba layer's convolution: x, B and C."""
        return self.inner + 2 * self.n_groups * self.ssm_state_size


def read_config(raw: dict[str, Any], file: Path) -> Config:
    """The typed config of a `config.json`.

    raw: its content; file: its path. Raises UserError that names the file and the field.
    """
    raw = {_OLD_NAMES.get(name, name): value for name, value in raw.items()}
    pattern = _pattern_of(raw, file)
    _check_fields(raw, file)

    # A null in the file means the default, as in transformers.
    names = {field.name for field in fields(Config)}
    values = {key: value for key, value in raw.items() if key in names and value is not None}
    _check_types(values, file)
    values["pattern"] = pattern
    values["time_step_limit"] = _limit_of(raw, file)
    config = Config(**values)

    for whole, part in _MULTIPLES:
        number = getattr(config, whole)
        divisor = getattr(config, part)
        if divisor < 1 or number % divisor:
            raise UserError(f"{file}: {whole} {number} is not a multiple of {part} {divisor}")
    return config


def _check_fields(raw: dict[str, Any], file: Path) -> None:
    """Raise UserError for an activation that is not supported, or a missing size."""
    for key, supported in _ACTIVATIONS.items():
        if raw.get(key, supported) != supported:
            raise UserError(f"{file}: {key} is {raw[key]!r}; only {supported!r} is supported")

    for key in ("vocab_size", "hidden_size"):
        if not isinstance(raw.get(key), int):
            raise UserError(f"{file}: {key} is missing; is this a Nemotron-H config?")


def _check_types(values: dict[str, Any], file: Path) -> None:
    """Raise UserError for a size that is no whole number from 0, a flag that is none, and so on."""
    for field in fields(Config):
        value = values.get(field.name)
        if value is None:
            continue
        kind = str(field.type).removesuffix(" | None")
        if kind == "int":
            fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
            expected = "a whole number from 0"
        elif kind == "float":
            number = None if isinstance(value, bool) else _number(value)
            fits = number is not None and math.isfinite(number)
            expected = "a number"
        elif kind == "bool":
            fits, expected = isinstance(value, bool), "true or false"
        else:
            continue
        if not fits:
            raise UserError(f"{file}: {field.name} is {value!r}; expected {expected}")


def _limit_of(raw: dict[str, Any], file: Path) -> tuple[float, float]:
    """`time_step_limit` as two numbers; without one there is no bound.

    Infinity stands in files as JSON's extension `Infinity`, or as what transformers writes for it.
    """
    found = raw.get("time_step_limit")
    if found is None:
        return (0.0, math.inf)

    numbers = []
    if isinstance(found, list | tuple):
        numbers = [_number(value) for value in found]
    match numbers:
        case [float(low), float(high)] if 0 <= low <= high:
            return low, high
    raise UserError(
        f"{file}: time_step_limit is {found!r}; give two numbers from 0, the lower first, "
        "such as [0.0, Infinity]"
    )


def _number(value: Any) -> float | None:
    """A number of a config, where infinity may be spelt `{"__float__": "Infinity"}`."""
    if isinstance(value, dict):
        value = value.get("__float__")
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _pattern_of(raw: dict[str, Any], file: Path) -> str:
    """One letter per layer, from whichever of three fields names the layers."""
    layers = (
        raw.get("layers_block_type") or raw.get("layer_types") or raw.get("hybrid_override_pattern")
    )
    is_named = isinstance(layers, str | list) and all(isinstance(name, str) for name in layers)
    if not layers or not is_named or any(name not in _LETTERS for name in layers):
        raise UserError(
            f"{file}: hybrid_override_pattern is {layers!r}; give one of M * E - for every layer"
        )
    return "".join(_LETTERS[name] for name in layers)
