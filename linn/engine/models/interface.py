"""The one interface every model family offers to the sampler and the trainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from linn.errors import UserError


class State(Protocol):
    """Caches of B running sequences (keys and values, conv and SSM states)."""

    def select(self, rows: Tensor) -> State:
        """A new state holding these rows (int64 [B']), in this order; rows may repeat (siblings) or be left out (finished)."""
        ...

    def join(self, other: State) -> State:
        """This state's rows followed by the other's."""
        ...


class CausalLM(Protocol):
    """A causal language model as `torch.nn.Module`: packed forward for training, prefill and decode for sampling."""

    vocab: int
    """Size V of the head's output."""
    packs: bool
    """Whether several samples in a row are computed exactly as alone."""

    def hidden(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Final normed hidden states [R, W, H] of packed rows. ids, segments: int64 [R, W]; segment -1 is padding (at a row's end)."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in float32 of hidden states [..., H]."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, State]:
        """Logits [B, V] after each prompt, and the state to go on from. Without gradients."""
        ...

    def decode(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed one token a row (int64 [B]); logits [B, V] and the new state. Without gradients."""
        ...

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors in Hugging Face layout, in `dtype` (default: the weights' own)."""
        ...


def load(folder: Path, dtype: torch.dtype = torch.float32) -> CausalLM:
    """Read a Hugging Face folder: our own class for `nemotron_h`, `transformers` for every other family."""
    file = folder / "config.json"
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give a Hugging Face model folder (config.json and safetensors)"
        )
    if not file.is_file():
        raise UserError(
            f"{folder}: no config.json; give a Hugging Face model folder (config.json and safetensors)"
        )
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error})") from None
    family = raw.get("model_type") if isinstance(raw, dict) else None
    if not isinstance(family, str):
        raise UserError(f"{file}: no model_type; say which architecture the weights are of")
    if family == "nemotron_h":
        from linn.engine.models.nemotron_h.model import NemotronH

        return NemotronH.load(folder, raw, dtype)
    from linn.engine.models.transformers_lm import TransformersLM

    return TransformersLM.load(folder, dtype)
