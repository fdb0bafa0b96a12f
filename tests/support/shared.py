"""Groups of siblings, and what training makes of them with and without a shared prompt."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import Tensor

from linn.bases.make import tiny_config
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.training.losses import backward
from linn.engine.training.pack import micro_batches
from linn.types import Loss, Sample

VOCAB = 48
PATTERNS = {"dense": "M-*M-", "moe": "EM*EM"}

Group = tuple[int, list[int]]
"""Tokens of a prompt, and of each reply to it."""

GROUPS = st.lists(
    st.tuples(st.integers(1, 70), st.lists(st.integers(1, 35), min_size=1, max_size=6)),
    min_size=1,
    max_size=3,
)
"""Replies and prompts of one token, and of more than a chunk of the scan."""


def hybrid(pattern: str, seed: int = 0) -> NemotronH:
    """A small Nemotron-H with random weights, far from uniform."""
    raw = tiny_config(VOCAB) | {"hybrid_override_pattern": PATTERNS[pattern]}
    raw |= {"hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.2}
    raw |= {"mamba_head_dim": 16, "n_groups": 2 if pattern == "moe" else 1}
    model = NemotronH(raw, Path("config.json"))
    model.initialise(seed)
    return model


def siblings(groups: Sequence[Group], seed: int = 0, tools: bool = False) -> list[Sample]:
    """Random samples of these groups; `tools`: each reply has a token that is not trained."""
    draw = random.Random(seed)
    samples = []
    for number, (prompt, replies) in enumerate(groups):
        shared = [draw.randrange(VOCAB) for _ in range(prompt)]
        for length in replies:
            mask = [False] * prompt + [True] * length
            if tools and length > 2:
                mask[prompt + draw.randrange(1, length)] = False
            behaviour = [-4 + draw.random() / 10 if trained else 0.0 for trained in mask]
            samples.append(
                Sample(
                    tokens=[*shared, *(draw.randrange(VOCAB) for _ in range(length))],
                    mask=mask,
                    advantage=[draw.choice((-1.0, 0.5))] * len(mask),
                    behaviour=behaviour,
                    teacher=[value - 0.3 for value in behaviour],
                    domain="d",
                    source=f"{number}/{len(samples)}",
                    group=number,
                )
            )
    draw.shuffle(samples)
    return samples


def trained(
    model: Any, samples: Sequence[Sample], loss: Loss, share: bool, tokens: int = 256
) -> tuple[Tensor, dict[str, Tensor], int]:
    """Metrics of all trained tokens of a batch in order, gradients, and how many were computed."""
    model.zero_grad()
    by_token: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
    computed = 0
    weights = [1 / len(samples)] * len(samples)
    for packed in micro_batches(samples, weights, tokens // 2, tokens, True, share):
        computed += int((packed.segments >= 0).sum())
        _, watched = backward(model, packed, loss)
        values = torch.stack([watched[name] for name in sorted(watched)], dim=1)
        places = zip(packed.sample.tolist(), packed.token.tolist(), strict=True)
        for place, row in zip(places, values, strict=True):
            by_token[place].append(row)

    assert all(len(rows) == 1 for rows in by_token.values()), "a token was looked at twice"
    metrics = torch.stack([by_token[place][0] for place in sorted(by_token)])
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return metrics, gradients, computed


def worst(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two gradients, as a share of the largest entry of all."""
    assert one.keys() == other.keys()
    largest = max(float(grad.abs().max()) for grad in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


@contextmanager
def in_double() -> Iterator[None]:
    """Whatever would be narrowed to float32 keeps 64 bits: formulas show, and no rounding."""
    to = torch.Tensor.to

    def wide(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        changed = [torch.float64 if a is torch.float32 else a for a in arguments]
        if options.get("dtype") is torch.float32:
            options["dtype"] = torch.float64
        return to(tensor, *changed, **options)

    with (
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        mock.patch.object(torch.Tensor, "to", wide),
    ):
        yield
