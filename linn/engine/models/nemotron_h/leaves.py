"""The segments of a layout that somebody may go on from, and where their tokens stand.

Letters of shapes: L leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Leaves:
    """L segments that are no other's prompt, each behind the prompt that it goes on from."""

    segments: Tensor
    """int64 [L]: their numbers."""
    starts: Tensor
    """int64 [L]: the first token of each."""
    ends: Tensor
    """int64 [L]: the last."""
    before: Tensor
    """int64 [L]: tokens of its prompt; 0 where it begins anew."""
    prompt_starts: Tensor
    """int64 [L]: the first token of that prompt."""
    handed: Tensor | None
    """int64 [L]: which of `Handover.prompts` it is; 0 where there is none. None: as they stand."""
    longest: int
    """Tokens of the longest, its prompt's included."""

    def to(self, device: torch.device) -> Leaves:
        """The same on another device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
        return replace(self, **moved)

    @property
    def lengths(self) -> Tensor:
        """int64 [L]: tokens of each, its prompt's included."""
        return self.before + self.ends - self.starts + 1

    def behind(self, before: Tensor) -> Leaves:
        """The same, each behind a state that has read `before` tokens, int64 [L]."""
        longest = int((before + self.ends - self.starts + 1).max())
        return replace(self, before=before, handed=None, longest=longest)

    def tokens(self, columns: Tensor) -> Tensor:
        """The tokens at these columns of the leaves, a prompt's coming first; both int64 [L, n]."""
        own = self.starts[:, None] + columns - self.before[:, None]
        return torch.where(
            columns < self.before[:, None], self.prompt_starts[:, None] + columns, own
        )


def leaves_of(lengths: Sequence[int], prompts: Sequence[int] | None) -> Leaves:
    """`Segments.leaves` of segments of these lengths, on the host."""
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    prompt_of = torch.full_like(sizes, -1) if prompts is None else torch.tensor(prompts)

    # In the order in which replies come, as `hand_over` takes them.
    handing = list(dict.fromkeys(prompt_of[prompt_of >= 0].tolist()))
    place = torch.zeros_like(sizes)
    place[handing] = torch.arange(len(handing))
    is_leaf = torch.ones(len(sizes), dtype=torch.bool)
    is_leaf[handing] = False

    segments = is_leaf.nonzero().flatten()
    prompt = prompt_of[segments]
    begins_anew = prompt < 0
    leaves = Leaves(
        segments=segments,
        starts=starts[segments],
        ends=(starts + sizes - 1)[segments],
        before=sizes[prompt].masked_fill(begins_anew, 0),
        prompt_starts=starts[prompt].masked_fill(begins_anew, 0),
        handed=place[prompt].masked_fill(begins_anew, 0),
        longest=0,
    )
    return replace(leaves, longest=int(leaves.lengths.max()))
