"""Attention over segments laid end to end, without rectangles and padding (GPU, half precision).

Letters of shapes: T tokens in S segments, K keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.kernels import choice


@dataclass(frozen=True)
class Joined:
    """Where the queries and the keys of each segment begin and end."""

    queries: Tensor
    """int32 [S + 1]: the segments' first tokens, and T."""
    keys: Tensor
    """int32 [S + 1]: the same of what each segment reads."""
    key_at: Tensor | None
    """int64 [K]: the token of each key: a segment's prompt, then itself; None: the tokens as they
    stand, where no segment goes on from another."""
    longest_query: int
    """Tokens of the longest segment."""
    longest_key: int
    """Keys of the segment that reads most."""

    def to(self, device: torch.device) -> Joined:
        """The same on another device."""
        key_at = self.key_at
        if key_at is not None:
            key_at = key_at.to(device, non_blocking=True)
        return Joined(
            self.queries.to(device, non_blocking=True),
            self.keys.to(device, non_blocking=True),
            key_at,
            self.longest_query,
            self.longest_key,
        )


def join(lengths: Sequence[int], prompts: Sequence[int] | None) -> Joined:
    """Of segments of these lengths, on the CPU.

    prompts: the segment that each one goes on from, -1 where it begins anew.
    """
    queries = _ends(lengths)
    if prompts is None:
        return Joined(queries, queries, None, max(lengths), max(lengths))

    begins = queries.tolist()
    reads: list[int] = []
    key_at: list[Tensor] = []
    for segment, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
        reads.append(length)
        if prompt >= 0:
            reads[-1] += lengths[prompt]
            key_at.append(torch.arange(begins[prompt], begins[prompt + 1]))
        key_at.append(torch.arange(begins[segment], begins[segment + 1]))
    return Joined(queries, _ends(reads), torch.cat(key_at), max(lengths), max(reads))


def _ends(lengths: Sequence[int]) -> Tensor:
    """int32 [S + 1]: 0 and the running sum."""
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def attend(projected: Tensor, heads: int, joined: Joined) -> Tensor:
    """Causal attention [T, heads, head_dim] of each segment to its prompt and to itself.

    projected: queries, keys and values [T, heads + 2 kv heads, head_dim], of these query heads.
    """
    query, both = projected[:, :heads], projected[:, heads:]
    if joined.key_at is not None:
        # Siblings share the keys of their prompt: the gradients of all of them add up in float32.
        both = both.float()[joined.key_at].to(projected.dtype)
    key, value = both.chunk(2, dim=1)

    # Each segment's last query stands beside its last key.
    out: Tensor = choice.varlen_attention()(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        joined.queries,
        joined.keys,
        joined.longest_query,
        joined.longest_key,
        **_causal(),
    )
    return out


@cache
def _causal() -> dict[str, Any]:
    """How this torch's `varlen_attn` is asked for a causal mask and for shared key heads."""
    takes = inspect.signature(choice.varlen_attention()).parameters
    options: dict[str, Any] = {}
    if "window_size" in takes:
        options["window_size"] = (-1, 0)
    else:
        options["is_causal"] = True
    if "enable_gqa" in takes:
        options["enable_gqa"] = True
    return options
