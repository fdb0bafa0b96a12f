"""What nobody reads of a family's last layer is not computed.

A place whose final state is not asked for, such as a token of a prompt, gives the last layer its
keys and values and nothing else. So there the attention of such places is left out, and the MLP is
computed for the others alone. Elsewhere all places are needed, since later tokens read them.

Letters of shapes: T tokens laid end to end, N places that are read, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from linn.engine.models.recompute import layers_of_family

MOST_READ = 0.75
"""Share of the places at most that are read, where others are left out: less saves nothing."""


@dataclass(frozen=True)
class Reading:
    """Which places of tokens laid end to end are read."""

    layer: int
    """The number of the last layer."""
    places: Tensor
    """int64 [N], in order, each once."""
    firsts: tuple[int, ...]
    """Of each rectangle of the attention: the first column that is read in any row."""


class _Rows(torch.autograd.Function):
    """x[places]; places hold no number twice, so the gradient is copied where it belongs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        (grad,) = grads
        return grad.new_zeros(ctx.rows, *grad.shape[1:]).index_copy_(0, places, grad), None


def few(read: Tensor, tokens: int) -> Tensor | None:
    """The places that are read (int64 [N], any order), in order and each once.

    None: so many of all tokens that nothing is worth sparing.
    """
    places = read.unique()
    return places if len(places) <= MOST_READ * tokens else None


@contextmanager
def read_at(decoder: nn.Module, places: Tensor | None) -> Iterator[None]:
    """Within the block the MLP of a family's last layer is computed for these places [N] alone.

    decoder: the family's code, which is given tokens laid end to end in one row. None: for all of
    them, as where the layer's MLP has a name that is not known here. Others become 0.
    """
    mlp = last_mlp(decoder) if places is not None else None
    if mlp is None or places is None:
        yield
        return
    own, read = mlp.forward, places

    def forward(x: Tensor) -> Tensor:
        states = own(_Rows.apply(x[0], read)[None])
        if not isinstance(states, Tensor) or states.shape[1] != len(read):
            raise NotImplementedError("this layer's MLP gives more than states")
        return torch.zeros_like(x[0]).index_copy(0, read, states[0])[None]

    # Shadows the method of the class.
    mlp.forward = forward
    try:
        yield
    finally:
        del mlp.forward


def last_mlp(decoder: nn.Module) -> nn.Module | None:
    """The MLP of the last layer, which sees each token by itself; None: it is not found."""
    layers = layers_of_family(decoder)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    return mlp if isinstance(mlp, nn.Module) else None


def number_of_last(decoder: nn.Module) -> int:
    """The number of the last layer, as its attention knows it; -1: none has one."""
    return max((getattr(module, "layer_idx", -1) for module in decoder.modules()), default=-1)


def agrees(model: Any, tolerance: float) -> bool:
    """Whether a `TransformersLM` gives the same at places that are read, where others are spared.

    tolerance: nats that log-probs may differ by.
    """
    device = next(model.parameters()).device
    lengths = torch.tensor([7, 3, 5, 6])
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab, (1, int(lengths.sum())), generator=draw).to(device)
    segments = torch.arange(4).repeat_interleave(lengths)[None].to(device)
    continues = torch.tensor([-1, 0, 0, -1]).repeat_interleave(lengths)[None].to(device)
    read = torch.tensor([6, 7, 8, 12, 18], device=device)
    try:
        with torch.no_grad():
            some = model.hidden(ids, segments, continues, read)[0, read]
            right = model.hidden(ids, segments, continues)[0, read]
            gap = model.head(some).log_softmax(-1) - model.head(right).log_softmax(-1)
    except Exception:  # whatever a family's code says of an MLP of fewer tokens
        return False
    return float(gap.abs().nan_to_num(torch.inf).max()) <= tolerance
