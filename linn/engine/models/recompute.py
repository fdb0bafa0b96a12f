"""Layers whose activations are not kept for the backward pass, but computed again in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(layers: Sequence[nn.Module], on: bool) -> Iterator[None]:
    """Within the block, of each layer's activations its inputs alone are kept, if `on`.

    The gradients have the same bits: the backward pass runs a layer forward once more, with the
    same arithmetic, just before it needs what is inside. Without gradients nothing changes.
    """
    if not (on and torch.is_grad_enabled()):
        yield
        return

    for layer in layers:
        # Shadows the method of the class. linn's layers draw no random numbers.
        layer.forward = partial(
            checkpoint,
            layer.forward,
            use_reentrant=False,
            preserve_rng_state=False,
        )
    try:
        yield
    finally:
        # Left there, it would be a circle that keeps a model's memory after its last use.
        for layer in layers:
            del layer.forward
