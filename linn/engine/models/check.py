"""What takes torch to see of a model folder, for `linn check MODEL` and before every run.

`load` refuses what cannot be trained at all. Here the folder is tried in all the ways that training
and sampling will take, and what it is gets told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from linn.engine.models.agreement import Forward, agreement, stock_forward
from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load, short
from linn.engine.models.positions import trained_length
from linn.engine.protocol import ModelCheck
from linn.errors import UserError
from linn.types import Finding

_WINDOW = 6
"""Tokens of a sliding window while it is tried: short of every text."""
_WINDOWS = ("sliding_window", "attention_chunk_size")
"""What configs call a window."""


def check_model(folder: Path) -> ModelCheck:
    """Read a folder in float32 and try it. Raises nothing for a folder that is no model."""
    try:
        model = load(folder)
    except UserError as error:
        return ModelCheck((Finding("weights", False, str(error)),))

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        inner = _stock(model, folder)
        findings = tuple(_findings(model, inner, config))
        trained = trained_length(inner.config)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever its own code says of a config that ours could read
        findings = (Finding("arithmetic", False, f"cannot be tried: {short(error)}"),)
        trained = None
    return ModelCheck(findings, model.vocab, model.positions, trained)


def _findings(model: CausalLM, inner: Any, config: dict[str, Any]) -> Iterator[Finding]:
    yield Finding("weights", True, _sizes(model, config))
    stock = stock_forward(inner)
    yield from agreement(model, stock)
    if inner is not model:
        yield from _windows(model, inner, stock)


def _sizes(model: CausalLM, config: dict[str, Any]) -> str:
    """Parameters, precision and ties, in words."""
    module: torch.nn.Module = model  # type: ignore[assignment]
    parameters = sum(parameter.numel() for parameter in module.parameters())
    text = f"{config['model_type']}, {parameters:,} parameters, all finite"

    stored = config.get("dtype") or config.get("torch_dtype")
    if stored not in (None, "float32"):
        text += f"; stored in {stored}, computed in float32"
    return text


def _stock(model: CausalLM, folder: Path) -> Any:
    """The model in transformers' own class.

    Of `nemotron_h` it is read anew.
    """
    if hasattr(model, "inner"):
        return model.inner
    # Imported here, so that a run of our own family never waits for transformers.
    from transformers import AutoModelForCausalLM

    from linn.engine.models.family_code import free_time_step

    auto: Any = AutoModelForCausalLM
    inner = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    free_time_step(inner)
    return inner


def _windows(model: CausalLM, inner: Any, stock: Forward) -> Iterator[Finding]:
    """The same with a window shorter than the texts, where the model has a longer one."""
    config = inner.config.get_text_config(decoder=True)
    own = [getattr(config, name, None) for name in _WINDOWS]
    sizes = [size for size in own if isinstance(size, int) and size > _WINDOW]
    if not sizes:
        return

    text = torch.arange(4 * _WINDOW) % model.vocab
    with torch.no_grad(), _short_windows(config):
        before = stock(text)
    with torch.no_grad():
        has_effect = not torch.allclose(before, stock(text))
    if not has_effect:
        return

    with _short_windows(config):
        wrong = [finding for finding in agreement(model, stock) if not finding.ok]
    what = f"window of {max(sizes):,} tokens, tried at {_WINDOW}"
    yield Finding(what, not wrong, "; ".join(f"{one.what}: {one.detail}" for one in wrong))


@contextmanager
def _short_windows(config: Any) -> Iterator[None]:
    """A config whose windows are `_WINDOW` tokens; masks are made from it at every forward."""
    before = {}
    for name in _WINDOWS:
        size = getattr(config, name, None)
        if isinstance(size, int) and size > _WINDOW:
            before[name] = size
            setattr(config, name, _WINDOW)
    try:
        yield
    finally:
        for name, size in before.items():
            setattr(config, name, size)
