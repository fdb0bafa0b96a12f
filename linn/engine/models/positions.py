"""The longest sequence that a transformers model computes as its own code would.

Most families have rotary positions and compute any length; how well is a matter of training. Two
kinds end somewhere: a table of positions has a last row, and rotary frequencies that depend on the
longest position in the call are other ones in a batch, in a cache and alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def longest_sequence(decoder: Any, config: Any) -> int | None:
    """Tokens of the longest sequence; None where any length can be computed.

    decoder: the part that gives hidden states; config: the whole model's.
    """
    text_config = config.get_text_config(decoder=True)
    limits = list(_limits_of_rope(text_config))

    trained = trained_length(config)
    if trained is not None and not limits and _ends_at(decoder, trained):
        limits.append(trained)
    return min(limits, default=None)


def trained_length(config: Any) -> int | None:
    """`max_position_embeddings` of a config, which has other names in old families."""
    text_config = config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "max_seq_len", "context_length"):
        value = getattr(text_config, name, None)
        if isinstance(value, int):
            return value
    return None


def _limits_of_rope(config: Any) -> Iterator[int]:
    """Lengths up to which frequencies do not depend on the call.

    Phi-3's `longrope` has two sets of frequencies, `dynamic` makes new ones for every length.
    """
    for parameters in _ropes(getattr(config, "rope_parameters", None)):
        match parameters.get("rope_type"):
            case "longrope":
                limit = parameters.get("original_max_position_embeddings")
                yield limit or config.original_max_position_embeddings
            case "dynamic":
                yield config.max_position_embeddings


def _ropes(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """The rope parameters of a config: one set, or one per kind of layer."""
    if not isinstance(parameters, Mapping):
        return
    if "rope_type" in parameters:
        yield parameters
        return
    for value in parameters.values():
        yield from _ropes(value)


def _ends_at(decoder: Any, length: int) -> bool:
    """Whether the position after the last, which is `length`, does not exist."""
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        return False
    device = next(decoder.parameters()).device
    if device.type == "meta":
        return False

    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    try:
        with torch.inference_mode():
            decoder(input_ids=token, position_ids=token + length, use_cache=False)
    except (IndexError, RuntimeError):
        return True
    return False
