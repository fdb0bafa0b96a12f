"""Reads a model from a Hugging Face folder: the one place that knows the families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from linn.engine.models.interface import CausalLM
from linn.engine.models.precision import KEY, kept, precision_of
from linn.errors import UserError


def load(folder: Path, dtype: torch.dtype = torch.float32) -> CausalLM:
    """Read a folder: our own class for `nemotron_h`, `transformers` for every other family.

    Raises UserError where the folder is not a model, or its weights do not fit its config.json.
    """
    config = _read_config(folder)
    family = config["model_type"]
    config[KEY] = kept(precision_of(config, folder))

    if family == "nemotron_h":
        from linn.engine.models.nemotron_h.model import NemotronH

        return NemotronH.load(folder, config, dtype)

    # Imported here, so that a run of our own family never waits for transformers.
    from linn.engine.models.transformers_lm import TransformersLM

    return TransformersLM.load(folder, config, dtype)


def _read_config(folder: Path) -> dict[str, Any]:
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
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error})") from None

    family = None
    if isinstance(config, dict):
        family = config.get("model_type")
    if not isinstance(family, str):
        raise UserError(f"{file}: no model_type; say which architecture the weights are of")
    return dict(config)
