"""Packed rows in one pass through a family's code, of which attention alone knows the segments.

Everything else in such a family computes each token by itself. So it runs over all tokens laid end
to end, and only attention goes by rectangles. Families with other memories than keys and values of
all tokens are computed segment by segment instead (`TransformersLM.hidden`).

Letters of shapes: T tokens, H query heads that share G key heads, d the width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache, DynamicLayer

from linn.engine.models.rectangle_attention import attend_apart
from linn.engine.models.rectangles import Rectangles, rectangles

_NAME = "linn_joined"
"""What transformers calls the attention of this file."""

_NEEDED = {"position_ids", "kwargs"}
"""What the family's code must take: positions, and what it hands on to its attention."""

_HARMLESS = {
    "dropout",
    "position_ids",
    "position_embeddings",
    "cache_position",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
}
"""What families also tell their attention that changes nothing here. Whatever else they tell, such
as a window, a cap or sinks, this attention has not."""


_WINDOWS = ("sliding_window", "attention_chunk_size")
"""What configs call the most tokens that are looked back on."""


def attends_to_all(config: Any) -> bool:
    """Whether a family remembers the keys and values of all tokens, and nothing else.

    Its own cache says so, and its config has no window: one may be hidden in a mask alone, where
    no short trial would show it, also in layers that are called full.
    """
    text_config = config.get_text_config(decoder=True)
    if any(getattr(text_config, name, None) for name in _WINDOWS):
        return False
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def may_attend(config: Any, takes: set[str]) -> bool:
    """Whether a family could be computed with an attention of ours.

    takes: the parameters of its decoder's `forward`. Whether it gives the same numbers is tried
    (`kept_prompts.agrees`, `siblings.agrees`).
    """
    return attends_to_all(config) and takes >= _NEEDED


def check_told(told: dict[str, Any]) -> None:
    """Raise NotImplementedError where a family tells its attention more than ours does."""
    more = sorted(name for name in told if told[name] is not None and name not in _HARMLESS)
    if more:
        raise NotImplementedError(f"this attention has no {', '.join(more)}")


def joined_states(
    decoder: Any,
    ids: Tensor,
    lengths: Tensor,
    prompts: Sequence[int] | None,
    cache: Any | None = None,
) -> Tensor:
    """Hidden states [T, ...] of segments laid end to end; within `joined_attention`.

    decoder: the family's code; ids: int64 [T]; lengths: int64 [S], on the CPU; prompts: the segment
    that each one goes on from, -1 where it begins anew; None: all do. cache: one that keeps what it
    is given and gives it back as it is.
    """
    told = {} if cache is None else {"past_key_values": cache}
    out = decoder(
        input_ids=ids[None],
        position_ids=_positions(lengths, prompts)[None].to(ids.device),
        use_cache=cache is not None,
        rectangles=rectangles(lengths, prompts).to(ids.device),
        **told,
    )
    states: Tensor = out.last_hidden_state[0]
    return states


def _positions(lengths: Tensor, prompts: Sequence[int] | None) -> Tensor:
    """The position [T] of each token in its sequence, its prompt included."""
    first = lengths.cumsum(0) - lengths
    if prompts is not None:
        prompt = torch.tensor(prompts)
        first = first - lengths[prompt].where(prompt >= 0, 0)
    return torch.arange(int(lengths.sum())) - first.repeat_interleave(lengths)


def joined_attention(config: Any) -> AbstractContextManager[None]:
    """Within the block a family's code attends by rectangles, as `joined_states` asks it to.

    config: the whole model's.
    """
    return attention_named(_NAME, config)


@contextmanager
def attention_named(name: str, config: Any) -> Iterator[None]:
    """Within the block a family's attention is the one that is registered under this name."""
    text_config = config.get_text_config(decoder=True)
    before = text_config._attn_implementation
    text_config._attn_implementation = name
    try:
        yield
    finally:
        text_config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    *,
    rectangles: Rectangles,
    **told: Any,
) -> tuple[Tensor, None]:
    """Attention [1, T, H, d] as transformers calls it: query [1, H, T, d], key, value [1, G, T, d].

    Raises NotImplementedError where the family tells more than this attention does.
    """
    check_told(told | {"attention_mask": attention_mask})
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    return attend_apart(q, k, v, rectangles, scaling)[None], None


AttentionInterface.register(_NAME, _attend)
