"""Replies that go on from their prompt's keys and values, in families of transformers.

The prompts are computed first, with a cache that keeps what every attention layer made of them.
Then the replies are, each row behind the keys of its own prompt; the family's code makes masks and
positions as it does in sampling. Gradients flow through the kept tensors into the prompts.

Letters of shapes: T tokens, S segments, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import DynamicLayer

from linn.engine.models.rectangles import WASTE, Rectangles, lay, like_lengths

_ATTENTION = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
"""Layers of a cache that hold keys and values of every token, and nothing else."""


class PromptLayer(DynamicLayer):
    """The cache of one attention layer, which keeps what comes first and never grows.

    A layer that is computed again in the backward pass finds it as it was.
    """

    kept: tuple[Tensor, Tensor] | None = None
    """Keys and values [rows, heads, columns, d] of prompts that were computed with this cache."""

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Begin behind these."""
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """What is held, followed by the new ones, which are not added to it."""
        if self.keys is None or self.values is None:
            self.kept = (key_states, value_states)
            return key_states, value_states
        keys = torch.cat([self.keys, key_states], dim=2)
        return keys, torch.cat([self.values, value_states], dim=2)


def prompt_cache(config: Any) -> Any | None:
    """A cache that keeps prompts; None for a family whose layers remember in another way."""
    cache = cache_utils.DynamicCache(config=config)
    if not cache.layers or any(type(layer) not in _ATTENTION for layer in cache.layers):
        return None
    # A sliding window keeps all keys; the family's mask hides the old ones.
    cache.layers = [PromptLayer() for _ in cache.layers]
    return cache


class SharedRows:
    """Segments of which some go on from others, in rectangles for a family's code.

    The rectangles of segments that begin anew come first.
    """

    def __init__(self, lengths: Tensor, prompts: Sequence[int]) -> None:
        """lengths: int64 [S], on the CPU; prompts: the segment that each goes on from, or -1."""
        self.lengths = lengths
        self.prompts = torch.tensor(prompts)
        self.starts = lengths.cumsum(0) - lengths
        anew = self._groups(self.prompts < 0)
        self.first = len(anew)
        """Rectangles that begin anew."""
        self.groups = anew + self._groups(self.prompts >= 0)
        """The segments of each rectangle, one per row."""
        self.layout: Rectangles = lay(lengths, [(-1, group) for group in self.groups])

    def _groups(self, chosen: Tensor) -> list[list[int]]:
        """The chosen segments, by like lengths."""
        members = chosen.nonzero().flatten()
        groups = like_lengths(self.lengths[members], WASTE)
        return [sorted(members[group].tolist()) for group in groups]

    def behind(self, group: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The prompts of a rectangle's rows, padded on the left to the longest.

        Returns the places [rows, columns] of their tokens in the rectangles, and their tokens
        [rows, 1].
        """
        prompts = self.prompts[list(group)]
        lengths = self.lengths[prompts, None]
        longest = int(lengths.max())
        column = torch.arange(longest) - (longest - lengths)  # negative in the padding
        return self.layout.place_of[self.starts[prompts, None] + column.clamp_min(0)], lengths


def shared_states(decoder: Any, config: Any, ids: Tensor, rows: SharedRows) -> Iterator[Tensor]:
    """Hidden states [rows, columns, H] of each rectangle, in order.

    decoder: the family's code; ids: int64 [T], its tokens.
    """
    device = ids.device
    laid = ids[rows.layout.token_at.to(device)]
    parts = list(rows.layout.split(laid))
    caches = []
    for part in parts[: rows.first]:
        cache = prompt_cache(config)
        out = decoder(input_ids=part, past_key_values=cache, use_cache=True)
        caches.append(cache)
        yield out.last_hidden_state

    kept = _kept(caches)
    for part, group in zip(parts[rows.first :], rows.groups[rows.first :], strict=True):
        places, before = (tensor.to(device) for tensor in rows.behind(group))
        cache = prompt_cache(config)
        assert cache is not None
        for layer, pair in zip(cache.layers, kept, strict=True):
            layer.hold(*(_gathered(tensor, places) for tensor in pair))

        columns = torch.arange(part.shape[1], device=device)
        padding = places.shape[1] - before  # columns of it, [rows, 1]
        column = torch.arange(places.shape[1] + part.shape[1], device=device)
        out = decoder(
            input_ids=part,
            past_key_values=cache,
            attention_mask=(column >= padding).long(),
            position_ids=before + columns,
            use_cache=True,
        )
        yield out.last_hidden_state


def _kept(caches: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [places, heads, d] of each layer, over the rectangles end to end."""
    layers = zip(*(cache.layers for cache in caches), strict=True)
    return [(_end_to_end(layer, 0), _end_to_end(layer, 1)) for layer in layers]


def _end_to_end(layers: Sequence[PromptLayer], which: int) -> Tensor:
    kept = []
    for layer in layers:
        assert layer.kept is not None, "the family's code did not use its cache"
        kept.append(layer.kept[which].transpose(1, 2).flatten(0, 1))
    return torch.cat(kept)


def _gathered(kept: Tensor, places: Tensor) -> Tensor:
    """Keys or values [rows, heads, columns, d] at these places [rows, columns]."""
    chosen = kept.index_select(0, places.flatten())
    return chosen.view(*places.shape, *kept.shape[1:]).transpose(1, 2)


def agrees(model: Any, tolerance: float, joined: bool) -> bool:
    """Whether a model of a family computes shared prompts as it computes whole sequences.

    model: a `TransformersLM`; tolerance: nats that log-probs may differ by; joined: in one pass.
    """
    prompts, lengths = [-1, 0, 0, -1, 3], [7, 4, 2, 3, 3]
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab, (sum(lengths),), generator=draw)
    texts = list(ids.split(lengths))
    whole = [
        text if prompt < 0 else torch.cat([texts[prompt], text])
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    try:
        with torch.no_grad():
            shared = _logprobs(model, texts, prompts, joined)
            plain = _logprobs(model, whole, None, joined=False)
    except Exception:  # whatever a family's code says of a cache that it does not expect
        return False
    for own, right in zip(shared, plain, strict=True):
        gap = (own - right[-len(own) :]).abs().nan_to_num(torch.inf)
        if float(gap.max()) > tolerance:
            return False
    return True


def _logprobs(
    model: Any, texts: Sequence[Tensor], prompts: Sequence[int] | None, joined: bool
) -> tuple[Tensor, ...]:
    """Log-probs [tokens, V] after each token of some texts, laid end to end in one row."""
    sizes = [len(text) for text in texts]
    device = next(model.parameters()).device
    ids = torch.cat(list(texts))[None].to(device)
    number = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    continues = None
    if prompts is not None:
        continues = torch.tensor(prompts)[number][None].to(device)
    asked, model.joined = model.joined, joined
    try:
        hidden = model.hidden(ids, number[None].to(device), continues)
    finally:
        model.joined = asked
    logprobs: Tensor = model.head(hidden)[0].log_softmax(-1)
    return logprobs.split(sizes)
