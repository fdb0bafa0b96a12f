"""What families of `transformers` have under names of their own, or compute by a rule of their own.

Letters of shapes: V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def free_time_step(inner: Any) -> None:
    """Bound Mamba-2's dt by the config's `time_step_limit` alone, as its definition does.

    transformers floors the dt of Nemotron-H and Zamba 2 at `time_step_min`, which is the range that
    new weights are drawn from, and in decoding it does not.
    """
    limit = getattr(inner.config, "time_step_limit", None) or (0.0, math.inf)
    for module in inner.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = tuple(limit)


def decoder_of(inner: Any) -> Any:
    """The part of a model that gives hidden states.

    In a few families `base_model` is the whole, and the part is called `model`.
    """
    if inner.base_model is inner:
        return getattr(inner, "model", inner)
    return inner.base_model


def scaled(logits: Tensor, config: Any) -> Tensor:
    """Logits [..., V], scaled or capped as the family of this config does."""
    text_config = config.get_text_config(decoder=True)
    if divide := getattr(text_config, "logits_scaling", None):
        logits = logits / divide

    for name in ("logit_scale", "lm_head_multiplier"):
        if multiply := getattr(text_config, name, None):
            logits = logits * multiply

    if cap := getattr(text_config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits
