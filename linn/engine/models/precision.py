"""The dtypes that a base's weights have, which its exports get again.

Training holds float32 weights, and so do all checkpoints of a run. What the base had is kept in
their `config.json` under `linn`, from checkpoint to checkpoint.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from linn.engine.models.weight_files import DTYPES, headers
from linn.errors import UserError

KEY = "linn"
"""The key of config.json that holds what only linn reads."""

_ALWAYS_FLOAT32 = "gate.e_score_correction_bias"
"""Decides between near-equal experts: float32 in every released checkpoint that has it."""


@dataclass(frozen=True)
class Precision:
    """The dtypes of a folder's weights."""

    dtype: str
    """Torch's name of the one that most of them have."""
    float32: tuple[str, ...] = ()
    """Kinds of tensors (`kind_of`) that are float32 where `dtype` is another."""

    def of(self, name: str) -> str:
        """The dtype of one tensor."""
        kind = kind_of(name)
        if kind in self.float32 or kind.endswith(_ALWAYS_FLOAT32):
            return "float32"
        return self.dtype


def kind_of(name: str) -> str:
    """A tensor's name without its layer: `backbone.layers.3.mixer.D` is a `mixer.D`."""
    return re.sub(r"^.*\.\d+\.", "", name)


def precision_of(raw: Mapping[str, Any], folder: Path) -> Precision:
    """What the base of a folder had: as its config.json keeps it, or as its own weights are.

    raw: the content of config.json. Raises UserError for weights that are not safetensors of
    floating point.
    """
    known = raw.get(KEY)
    if isinstance(known, dict) and "dtype" in known:
        return Precision(str(known["dtype"]), tuple(known.get("float32", ())))

    if method := raw.get("quantization_config"):
        name = method.get("quant_method") if isinstance(method, dict) else method
        raise UserError(
            f"{folder / 'config.json'}: quantization_config ({name}): quantised weights can't be "
            "trained; give a folder of the same model in bfloat16 or float32"
        )

    count: Counter[str] = Counter()
    names: dict[str, str] = {}
    for file, name, found, shape in headers(folder):
        if found in DTYPES:
            names[name] = DTYPES[found]
            count[DTYPES[found]] += prod(shape)
        elif found.startswith("F"):
            raise UserError(
                f"{file}: tensor {name} is {found}: quantised weights can't be trained; "
                "give a folder in float32, bfloat16 or float16"
            )
    if not count:
        raise UserError(f"{folder}: its safetensors hold no floating-point weights")

    # Most of them by size: small tensors in float32 do not make a float32 model.
    most = max(count, key=lambda dtype: count[dtype])
    float32 = {kind_of(name) for name, dtype in names.items() if dtype == "float32" != most}
    return Precision(most, tuple(sorted(float32)))


def kept(precision: Precision) -> dict[str, Any]:
    """What goes under `KEY` into the config.json of a checkpoint."""
    return asdict(precision)
