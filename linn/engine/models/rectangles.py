"""Packed rows as contiguous segments, and rectangles that hold segments of like lengths.

Letters of shapes: R packed rows of width W, T tokens without padding, S segments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

WASTE = 1.25
"""The longest segment of a rectangle may be this many times as long as its shortest."""
GPU_WASTE = 2.0
"""The same where a GPU runs a whole family's code for each rectangle: what it takes to start that
outweighs padding."""
_KEPT_MASK = 2**22
"""Numbers of a mask, at most, that is kept from layer to layer: of a micro-batch of usual size. The
masks of long replies behind long prompts would together take more memory than what is computed."""
REPLY_WASTE = 2.0
"""The same of replies to one prompt: what they read of the prompt outweighs their own padding."""


@dataclass(frozen=True)
class Rectangles:
    """A layout of T contiguous tokens: one segment per row, padded on the right.

    A segment is padded by its own last token. Causal models never look there.
    """

    shapes: tuple[tuple[int, int], ...]
    """(rows, columns) of each rectangle."""
    token_at: Tensor
    """int64: index of the token at each place of the rectangles, laid end to end."""
    place_of: Tensor
    """int64 [T]: each token's own place in the rectangles."""
    prompts: tuple[tuple[int, int] | None, ...]
    """Of each rectangle: the first token, and the number of tokens, of the prompt that all its
    rows go on from; None where they begin anew."""
    _masks: dict[tuple[int, int, torch.dtype], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def mask(self, number: int, dtype: torch.dtype) -> Tensor | None:
        """What a rectangle's queries do not see: -inf, and 0 elsewhere.

        [columns, keys], the prompt's keys first; one of usual size is made once for all layers and
        rectangles. None: it is the causal mask of as many queries as keys.
        """
        prompt = self.prompts[number]
        if prompt is None:
            return None
        columns, before = self.shapes[number][1], prompt[1]
        mask = self._masks.get((columns, before, dtype))
        if mask is None:
            mask = torch.full(
                (columns, before + columns), -torch.inf, dtype=dtype, device=self.token_at.device
            )
            mask.triu_(before + 1)
            if mask.numel() <= _KEPT_MASK:
                self._masks[columns, before, dtype] = mask
        return mask

    def to(self, device: torch.device) -> Rectangles:
        """The same layout on another device."""
        return Rectangles(
            self.shapes, self.token_at.to(device), self.place_of.to(device), self.prompts
        )

    def split(self, laid: Tensor) -> Iterator[Tensor]:
        """Each rectangle's part [rows, columns, ...] of values [places, ...] laid end to end."""
        sizes = [rows * columns for rows, columns in self.shapes]
        for (rows, columns), part in zip(self.shapes, laid.split(sizes), strict=True):
            yield part.view(rows, columns, *laid.shape[1:])


def segment_lengths(segments: Tensor) -> Tensor:
    """Tokens of each segment (int64 [S]), row by row; padding is left out.

    segments: int64 [R, W], contiguous numbers within a row; -1 is padding.
    """
    numbers = _unlike(segments, segments)[segments >= 0]
    return torch.unique_consecutive(numbers, return_counts=True)[1]


def prompts_of(segments: Tensor, continues: Tensor | None) -> list[int] | None:
    """The segment that each one goes on from, row by row; -1 where it begins anew.

    segments, continues: as `CausalLM.hidden` takes them. None: all begin anew.
    """
    if continues is None:
        return None
    is_token = segments >= 0
    numbers, counts = torch.unique_consecutive(
        _unlike(segments, segments)[is_token], return_counts=True
    )
    firsts = counts.cumsum(0) - counts
    before = _unlike(continues, segments)[is_token][firsts]
    # Rows and their segments are numbered upwards.
    found = torch.searchsorted(numbers, before)
    is_anew = continues[is_token][firsts] < 0
    prompts: list[int] = found.masked_fill(is_anew, -1).tolist()
    return prompts


def longest_whole(lengths: Tensor, prompts: Sequence[int] | None) -> int:
    """Tokens of the longest sequence: a segment (int64 [S], on the CPU) behind its prompt."""
    if prompts is None:
        return int(lengths.max())
    prompt = torch.tensor(prompts)
    return int((lengths + lengths[prompt].where(prompt >= 0, 0)).max())


def _unlike(numbers: Tensor, segments: Tensor) -> Tensor:
    """Numbers [R, W] of segments, which start anew in every row, so that no two rows share one."""
    row = torch.arange(len(segments), device=segments.device)[:, None]
    return numbers + row * (segments.max() + 1)


def places_of_tokens(segments: Tensor) -> Tensor:
    """Where tokens stand in packed rows laid end to end: int64 [T], on the CPU.

    segments: int64 [R, W]; -1 is padding.
    """
    return (segments.cpu() >= 0).flatten().nonzero().flatten()


def into_rows(flat: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Values [T, H] of the tokens back in packed rows [R, W, H], zeros in the padding.

    places: int64 [T], as `places_of_tokens` gives them. shape: (R, W).
    """
    if len(flat) == shape.numel():
        return flat.view(*shape, -1)

    rows = flat.new_zeros(shape.numel(), flat.shape[-1])
    return rows.index_copy(0, places, flat).view(*shape, -1)


def rectangles(
    lengths: Tensor, prompts: Sequence[int] | None = None, waste: float = WASTE
) -> Rectangles:
    """Rectangles for contiguous segments of these lengths (int64 [S], on the CPU).

    prompts: the segment that each one goes on from, -1 where it begins anew. waste: how many times
    as long as its shortest the longest segment of a rectangle may be, where none goes on.
    """
    return lay(lengths, _groups(lengths, prompts, waste))


def lay(lengths: Tensor, groups: Iterable[tuple[int, Sequence[int]]]) -> Rectangles:
    """A rectangle per group: the prompt that its segments go on from (-1: none), and these."""
    starts = lengths.cumsum(0) - lengths
    shapes: list[tuple[int, int]] = []
    token_at: list[Tensor] = []
    before: list[tuple[int, int] | None] = []
    place_of = torch.empty(int(lengths.sum()), dtype=torch.int64)
    filled = 0  # places of the rectangles before

    for prompt, group in groups:
        # One row per segment, in the order of the tokens.
        members = torch.tensor(sorted(group))
        start = starts[members, None]  # [rows, 1]
        length = lengths[members, None]
        column = torch.arange(int(length.max()))

        # Beyond a segment's end its last token is repeated.
        token = start + torch.minimum(column, length - 1)  # [rows, columns]
        token = token.flatten()

        # The places that hold a token for the first time are the token's own.
        own = (column < length).flatten()
        place = own.nonzero().flatten()
        place_of[token[place]] = place + filled

        shapes.append((len(members), len(column)))
        token_at.append(token)
        span = None if prompt < 0 else (int(starts[prompt]), int(lengths[prompt]))
        before.append(span)
        filled += len(token)

    return Rectangles(tuple(shapes), torch.cat(token_at), place_of, tuple(before))


def _groups(
    lengths: Tensor, prompts: Sequence[int] | None, anew: float
) -> Iterator[tuple[int, list[int]]]:
    """The prompt (-1: none) and the segments of each rectangle; anew: `waste` of `rectangles`."""
    if prompts is None:
        for group in like_lengths(lengths, anew):
            yield -1, group
        return

    by_prompt: dict[int, list[int]] = defaultdict(list)
    for segment, prompt in enumerate(prompts):
        by_prompt[prompt].append(segment)
    for prompt, members in by_prompt.items():
        waste = anew if prompt < 0 else REPLY_WASTE
        for group in like_lengths(lengths[torch.tensor(members)], waste):
            yield prompt, [members[place] for place in group]


def like_lengths(lengths: Tensor, waste: float) -> list[list[int]]:
    """Segment numbers grouped by length, longest first; lengths of a group are within `waste`."""
    order = lengths.argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    longest = 0
    for segment, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if not groups or length * waste < longest:
            groups.append([])
            longest = length
        groups[-1].append(segment)
    return groups


def prompt_groups(prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[Sequence[int]]]:
    """Prompts in order, in groups of at most `most` tokens.

    A longer prompt is a group of its own.
    """
    group: list[Sequence[int]] = []
    size = 0
    for prompt in prompts:
        assert len(prompt) > 0, "empty prompt"

        if group and size + len(prompt) > most:
            yield group
            group, size = [], 0

        group.append(prompt)
        size += len(prompt)

    if group:
        yield group
