"""What a model offers that decodes rows at fixed places: nothing moves while rows come and go.

On a GPU one step of decoding is some thousand small launches. Recorded once as a CUDA graph they
are replayed as one; but a graph reads and writes the addresses that it was recorded with. So the
states of all rows stand in slots of buffers that stay where they are.

Letters of shapes: R slots, B the first of them that are computed, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from linn.engine.models.interface import State


class Slots(Protocol):
    """Buffers for the states of R sequences of at most `columns` tokens."""

    rows: int
    columns: int
    lengths: Tensor
    """int64 [R]: tokens fed so far."""

    def put(self, slots: Tensor, state: State, rows: Tensor) -> None:
        """Write rows of a state (int64 [B'], may repeat) into as many slots."""
        ...

    def take(self, slots: Tensor, longest: int) -> State:
        """A copy of these slots (int64 [B']), none longer than `longest`."""
        ...

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy some slots over others; no slot is in both (int64 [B'] each)."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """New buffers that hold what fits of the old ones. Every address changes."""
        ...


@runtime_checkable
class SlotDecoder(Protocol):
    """A `CausalLM` that decodes in slots. Its decode step asks nothing back from the device."""

    @property
    def has_slots(self) -> bool:
        """Whether this one can: a class of many families can for some."""
        ...

    def check_length(self, tokens: int) -> None:
        """Raise UserError where the model has not so many positions."""
        ...

    def new_slots(self, like: State, rows: int, columns: int) -> Slots:
        """Empty slots for states such as `like`: its dtypes, its device."""
        ...

    def decode_slots(self, ids: Tensor, slots: Slots, is_open: Tensor, columns: int) -> Tensor:
        """Feed one token to each of the first B slots (int64 [B]); logits [B, V].

        is_open: bool [B]. What stands in a closed slot stays as it is, up to a column behind its
        last token, and its logits mean nothing. columns: more than the length of any open slot.
        """
        ...
