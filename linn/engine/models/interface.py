"""What every model family offers to the sampler and to the trainer.

Letters of shapes: B rows of a running batch, R packed rows of width W, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from linn.engine.protocol import SHARD_BYTES


class State(Protocol):
    """Caches of B running sequences (keys and values, conv and SSM states).

    With `move`, the old states are of no use afterwards: of each layer they are freed as soon as it
    is copied, so that no more than one layer stands in memory twice.
    """

    def select(self, rows: Tensor, move: bool = False) -> State:
        """A new state that holds these rows (int64 [B']), in this order.

        Rows may repeat (siblings of one prompt) or be left out (finished sequences).
        """
        ...

    def join(self, *others: State, move: bool = False, rows: Tensor | None = None) -> State:
        """A new state: this one's rows followed by the others', each copied once.

        rows: of this one's, these alone, as if they had been selected before.
        """
        ...


class CausalLM(Protocol):
    """A causal language model, always a `torch.nn.Module`.

    The trainer uses the packed forward (`hidden`, `head`), the sampler uses `prefill` and `decode`.
    """

    vocab: int
    """Size V of the head's output."""
    absent: Tensor | None
    """int64: ids that the tokenizer does not have and that the head gives no probability; None:
    there are none."""
    positions: int | None
    """Tokens of the longest sequence that can be computed; None: any number."""
    packs: bool
    """Whether several samples in one row are computed exactly as each alone."""
    recompute: bool
    """Whether `hidden` keeps for the backward pass nothing of a layer but its inputs."""

    @property
    def shares(self) -> bool:
        """Whether `hidden` takes segments that go on from a prompt in the same row."""
        ...

    def hidden(self, ids: Tensor, segments: Tensor, continues: Tensor | None = None) -> Tensor:
        """Final normed hidden states [R, W, H] of packed rows.

        ids, segments: int64 [R, W]. A segment is one sample; -1 marks padding at a row's end.

        continues: int64 [R, W], the segment that a token's own segment goes on from, -1 where it
        begins anew. Segments that go on from one (replies to a prompt) stand right behind it, and
        are computed as if each came after its own copy of it. For models that `shares` alone.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in float32 of hidden states [..., H], `NEVER` at the `absent` ids."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, State]:
        """Logits [B, V] after each prompt, and the state to continue from. Without gradients."""
        ...

    def siblings(self, state: State, owners: Tensor) -> State:
        """A state whose row b goes on from row owners[b] (int64 [B]) of the state after a prefill.

        What siblings have in common may be kept once. The old state is of no use afterwards.
        """
        ...

    def decode(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed one token per row (int64 [B]); logits [B, V] and the new state. No gradients."""
        ...

    @property
    def extends(self) -> bool:
        """Whether `extend` may be called; where not, `decode` feeds one token at a time."""
        ...

    def extend(self, tokens: Sequence[Sequence[int]], state: State) -> tuple[Tensor, State]:
        """Feed several tokens, one at least, to each row in one pass. Without gradients.

        Hidden states [T, H] of all these tokens, row by row, as `head` takes them, and a new state;
        the old one stays as it is.
        """
        ...

    def row_bytes(self, columns: int) -> int:
        """Bytes that one row's state takes after `columns` tokens; 0 where it takes next to none.

        What a family could save by a sliding window is not taken off.
        """
        ...

    def save(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Write config.json and the weights, in the dtype they have, in Hugging Face layout.

        The config is the base's own but for class and dtype. Weights above `shard_bytes` become
        shards with an index. The same weights give the same bytes. A tied head is written once
        where transformers ties it too.
        """
        ...
