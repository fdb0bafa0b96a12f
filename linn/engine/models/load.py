"""Reads a model from a Hugging Face folder: the one place that knows the families."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from linn.engine.models.agreement import quick, stock_forward
from linn.engine.models.interface import CausalLM
from linn.engine.models.kernels.norms import take_norms
from linn.engine.models.kernels.products import take_products
from linn.engine.models.precision import KEY, kept, precision_of
from linn.engine.models.vocabulary import ids_without_text
from linn.errors import UserError

_AGREED: set[str] = set()
"""Contents of config.json whose models this process has tried: a run reads a checkpoint of the same
architecture many times."""


def load(
    folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> CausalLM:
    """Read a folder: our own class for `nemotron_h`, `transformers` for every other family.

    It is tried on the CPU and then moved to `device`, where one is given.

    Raises UserError where the folder is not a model, its weights do not fit its config.json or are
    not finite, or where linn would compute it otherwise than its own code does.
    """
    config = read_config(folder)
    family = config["model_type"]
    config[KEY] = kept(precision_of(config, folder))
    model: CausalLM

    if family == "nemotron_h":
        from linn.engine.models.nemotron_h.model import NemotronH

        try:
            model = NemotronH.load(folder, config, dtype)
        except (UserError, OSError, MemoryError):
            raise
        except Exception as error:  # whatever torch says of sizes that cannot be
            raise UserError(
                f"{folder}: cannot be built from its config.json: {short(error)}"
            ) from None
        _check_finite(model, folder)
    else:
        # Imported here, so that a run of our own family never waits for transformers.
        from linn.engine.models.transformers_lm import TransformersLM

        model = TransformersLM.load(folder, config, dtype)
        _check_finite(model, folder)
        # Rounding of a smaller dtype hides what is looked for.
        architecture = json.dumps(config, sort_keys=True)
        if dtype == torch.float32 and architecture not in _AGREED:
            _check_family(model, folder)
            _AGREED.add(architecture)
        if device is None or device.type == "cpu":
            take_norms(model)

    model.absent = ids_without_text(folder, model.vocab)
    if device is not None:
        model.to(device)
    if device is None or device.type == "cpu":
        take_products(model)
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """The content of `config.json`, which names a model type.

    Raises UserError where there is no folder, no file, or no such content.
    """
    expected = "give a Hugging Face model folder (config.json and safetensors)"
    file = folder / "config.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {expected}")
    if not file.is_file():
        raise UserError(f"{folder}: no config.json; {expected}")

    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error})") from None

    family = None
    if isinstance(config, dict):
        family = config.get("model_type")
    if not isinstance(family, str):
        raise UserError(f"{file}: no model_type; say which architecture the weights are of")
    return dict(config)


def _check_finite(model: CausalLM, folder: Path) -> None:
    """Refuse weights with NaN or infinity: every score would be 0, without a word."""
    module: torch.nn.Module = model  # type: ignore[assignment]
    for name, value in module.state_dict().items():
        if not value.is_floating_point() or value.numel() == 0:
            continue
        # Both are NaN where any entry is; no second tensor of that size is made.
        low, high = torch.aminmax(value)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(
                f"{folder}: tensor {name} holds NaN or infinity; "
                "the weights are broken: take another checkpoint"
            )


def _check_family(model: Any, folder: Path) -> None:
    """Refuse a family whose numbers on any path are not those of its own forward."""
    for finding in quick(model, stock_forward(model.inner)):
        if not finding.ok:
            raise UserError(
                f"{folder}: linn cannot compute model type {model.inner.config.model_type}: "
                f"{finding.what}: {finding.detail}"
            )


def short(error: Exception) -> str:
    """An error of somebody else's code in one line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"
