"""A cache that is written in place holds what one that is copied for every token holds."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from linn.engine.models.cache_state import CacheState
from linn.engine.models.growing_layer import GrowingLayer


def cache_of(kind: type[DynamicLayer], count: int = 2) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = [kind() for _ in range(count)]
    return cache


def feed(cache: DynamicCache, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [layer.update(keys + n, values - n) for n, layer in enumerate(cache.layers)]


def test_in_place_equals_copied_under_random_feeds_selections_and_joins():
    rng = random.Random(0)
    torch.manual_seed(0)
    for _ in range(5):
        both = [cache_of(GrowingLayer), cache_of(DynamicLayer)]
        start = torch.randn(3, 2, 4, 8), torch.randn(3, 2, 4, 6)
        for cache in both:
            feed(cache, *start)
        states = [CacheState(cache, torch.full((3,), 4), columns=4) for cache in both]

        for _ in range(150):
            rows = len(states[0].lengths)
            choice = rng.random()
            if choice < 0.05 and rows > 1:
                index = torch.tensor(rng.sample(range(rows), rng.randint(1, rows)))
                states = [state.select(index) for state in states]
            elif choice < 0.10 and rows < 6:
                # What is joined later is older by then: both copies go on by themselves.
                index = torch.tensor([0])
                states = [state.join(state.select(index)) for state in states]
            else:
                keys, values = torch.randn(rows, 2, 1, 8), torch.randn(rows, 2, 1, 6)
                grown, copied = [feed(state.cache, keys, values) for state in states]
                for state in states:
                    state.lengths = state.lengths + 1
                    state.columns += 1
                for (k1, v1), (k2, v2) in zip(grown, copied, strict=True):
                    assert torch.equal(k1, k2) and torch.equal(v1, v2)


def test_rows_that_were_taken_out_are_not_written_over():
    cache = cache_of(GrowingLayer, count=1)
    feed(cache, torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4))
    feed(cache, torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4))
    state = CacheState(cache, torch.tensor([4, 4]), columns=4)
    kept = state.select(torch.tensor([1]))

    feed(cache, torch.full((2, 1, 1, 4), 9.0), torch.full((2, 1, 1, 4), 9.0))
    feed(kept.cache, torch.full((1, 1, 1, 4), 5.0), torch.full((1, 1, 1, 4), 5.0))
    assert kept.cache.layers[0].keys[0, 0, :, 0].tolist() == [0, 0, 0, 1, 5]
    assert cache.layers[0].keys[1, 0, :, 0].tolist() == [0, 0, 0, 1, 9]
