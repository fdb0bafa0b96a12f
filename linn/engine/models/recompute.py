"""Layers whose activations are not kept for the backward pass, but computed again in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(
    layers: Sequence[nn.Module],
    on: bool,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[None]:
    """Within the block, of each layer's activations its inputs alone are kept, if `on`.

    around: what the layers are computed in, the second time as well.

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
            context_fn=lambda: (nullcontext(), around()),
        )
    try:
        yield
    finally:
        # Left there, it would be a circle that keeps a model's memory after its last use.
        for layer in layers:
            del layer.forward


def layers_of_family(decoder: nn.Module) -> list[nn.Module]:
    """The layers of a family of transformers that can be computed again by themselves."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    modules = decoder.modules()
    return [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
