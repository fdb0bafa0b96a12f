"""Decoding of siblings through the block that many families share, in few calls.

A family's code makes masks, looks at options and calls modules of modules, in every layer of every
step: for a small model that takes as long as its arithmetic. The families named here all consist of
one block: RMS norm, attention with rotary positions, RMS norm, gated MLP. It is written out here
for one token per row, with the family's own modules; each model is tried against its own code.

Letters of shapes: B rows, H hidden size, K key heads, G query heads per key head, d head size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linn.engine.models.kernels.choice import VARIABLE
from linn.engine.models.kernels.norms import rms_norm
from linn.engine.models.kernels.products import Linear, linear
from linn.engine.models.prompt_parts import hidden
from linn.engine.models.siblings import SiblingState, attended

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types with this block. A trial alone would not do: a cap on large numbers, which other
families have, changes nothing of a short text."""


@dataclass
class _Block:
    """One layer's modules, which are the family's."""

    norm: nn.Module
    """Before attention."""
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    q_norm: nn.Module | None
    """Of each head's query; None: the family has none."""
    k_norm: nn.Module | None
    out: nn.Linear
    mlp_norm: nn.Module
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    act: nn.Module
    """Of the gate."""
    size: int
    """d."""
    scale: float
    """Of the queries."""


class PlainBlocks:
    """The decoder of a model whose layers are all the plain block."""

    def __init__(self, decoder: Any) -> None:
        self._embeddings: nn.Embedding = decoder.embed_tokens
        self._rotary: Any = decoder.rotary_emb
        self._blocks = [_block(layer) for layer in decoder.layers]
        self._norm: nn.Module = decoder.norm

    def decoded(self, ids: Tensor, state: SiblingState) -> Tensor:
        """Hidden states [B, H] of one token more per row (int64 [B]); the state moves on."""
        own, columns = state.own, state.own.columns + 1
        x = F.embedding(ids, self._embeddings.weight)
        turn = self._turn(x, state.lengths)
        own_hides = hidden(own.lengths + 1, columns)
        for number, block in enumerate(self._blocks):
            q, k, v = _projected(block, _normed(block.norm, x), turn)
            keys, values = own.cache.layers[number].update(k.unsqueeze(2), v.unsqueeze(2))
            heads = attended(number, q * block.scale, keys, values, state, own_hides)
            x = x + _by(block.out, heads.view(len(x), -1))
            x = x + _mlp(block, _normed(block.mlp_norm, x))
        own.lengths = own.lengths + 1
        own.columns = columns
        return _normed(self._norm, x)

    def _turn(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What `_turned` takes [B, 1, d], for tokens at these positions (int64 [B])."""
        cos, sin = self._rotary(x[:, None], positions[:, None])
        first, second = sin.chunk(2, dim=-1)
        return cos, torch.cat([-first, second], dim=-1)


def plain_blocks(decoder: Any, config: Any) -> PlainBlocks | None:
    """The blocks of a family's decoder; None: they are not the plain one.

    config: the whole model's. Whether the numbers are the family's is tried elsewhere
    (`siblings.agrees`).
    """
    if config.model_type not in _FAMILIES or os.environ.get(VARIABLE) == "plain":
        return None
    if any(_is_changed(module) for module in decoder.modules()):
        return None
    try:
        blocks = PlainBlocks(decoder)
    except AttributeError:  # modules that were fused, or that another transformers calls otherwise
        return None
    for block in blocks._blocks:
        # Subclasses compute something of their own.
        linears = (block.q, block.k, block.v, block.out, block.gate, block.up, block.down)
        if any(type(module) not in (nn.Linear, Linear) for module in linears):
            return None
    return blocks


def _is_changed(module: nn.Module) -> bool:
    """Whether one module computes more than its class says, which is skipped here.

    New weights are so small that the trial would not see it.
    """
    return bool("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks)


def _block(layer: Any) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp
    return _Block(
        norm=layer.input_layernorm,
        q=attention.q_proj,
        k=attention.k_proj,
        v=attention.v_proj,
        q_norm=getattr(attention, "q_norm", None),
        k_norm=getattr(attention, "k_norm", None),
        out=attention.o_proj,
        mlp_norm=layer.post_attention_layernorm,
        gate=mlp.gate_proj,
        up=mlp.up_proj,
        down=mlp.down_proj,
        act=mlp.act_fn,
        size=attention.head_dim,
        scale=attention.scaling,
    )


def _projected(
    block: _Block, x: Tensor, turn: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, K, G, d], keys and values [B, K, d] of x [B, H]; turned by their position."""
    rows = len(x)
    q = _by(block.q, x).view(rows, -1, block.size)
    k = _by(block.k, x).view(rows, -1, block.size)
    v = _by(block.v, x).view(rows, -1, block.size)
    if block.q_norm is not None and block.k_norm is not None:
        q, k = _normed(block.q_norm, q), _normed(block.k_norm, k)
    q, k = _turned(q, turn), _turned(k, turn)
    return q.view(rows, k.shape[1], -1, block.size), k, v


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions of x [B, heads, d]: its halves are the two parts of each number's pair."""
    cos, sin = turn
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def _mlp(block: _Block, x: Tensor) -> Tensor:
    return _by(block.down, block.act(_by(block.gate, x)).mul_(_by(block.up, x)))


def _by(module: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer without the way through a module."""
    return linear(x, module.weight, module.bias)


def _normed(module: Any, x: Tensor) -> Tensor:
    """An RMS norm without the way through a module."""
    return rms_norm(x, module.weight, module.variance_epsilon)
