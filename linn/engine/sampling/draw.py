"""Draws one token per row: counter-based, so that a request's seed alone decides its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linn.types import Sampling

_BLOCK = 32
"""Entries of the vocabulary that are summed together before the search."""
_FEW = 64
"""Tokens of the vocabulary among which a nucleus is looked for first."""

# SplitMix64's constants as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class Asked:
    """What some rows may ask of a draw beside the plain one. It spares work and changes no result.

    True where none of the rows asks for it any more costs time alone.
    """

    temperature: bool
    """One other than 1."""
    cut: bool
    """A top-p below 1."""
    greedy: bool
    """Temperature 0."""

    @classmethod
    def by(cls, how: Sequence[Sampling]) -> Asked:
        """What these ask for."""
        return cls(
            temperature=any(one.temperature not in (0, 1) for one in how),
            cut=any(one.top_p < 1 for one in how),
            greedy=any(one.temperature == 0 for one in how),
        )

    def __or__(self, other: Asked) -> Asked:
        return Asked(
            temperature=self.temperature or other.temperature,
            cut=self.cut or other.cut,
            greedy=self.greedy or other.greedy,
        )


@dataclass
class Draws:
    """How each of B rows draws its next token."""

    asked: Asked
    """By any of the rows."""
    key: Tensor
    """int64 [B]: hashed seed."""
    drawn: Tensor
    """int64 [B]: tokens sampled so far; with `key` it decides the next uniform number."""
    temperature: Tensor
    """float32 [B]; 1 for greedy rows."""
    greedy: Tensor
    """bool [B]: temperature 0."""
    top_p: Tensor
    """float64 [B]."""

    @classmethod
    def begin(cls, how: Sequence[Sampling], seeds: Sequence[int], device: torch.device) -> Draws:
        """Rows that have drawn nothing yet. A seed counts modulo 2**64."""
        signed = [(seed + 2**63) % 2**64 - 2**63 for seed in seeds]
        temperatures = [one.temperature for one in how]
        greedy = [value == 0 for value in temperatures]

        # Made on the CPU and moved as they are: the same numbers on every device.
        draws = cls(
            asked=Asked.by(how),
            key=_mix(torch.tensor(signed)),
            drawn=torch.zeros(len(how), dtype=torch.int64),
            temperature=torch.tensor(
                [value or 1.0 for value in temperatures],
                dtype=torch.float32,
            ),
            greedy=torch.tensor(greedy),
            top_p=torch.tensor(
                [one.top_p for one in how],
                dtype=torch.float64,
            ),
        )
        return draws._with(value.to(device) for value in draws._tensors())

    def select(self, rows: Tensor) -> Draws:
        """These rows (int64 [B']), in this order."""
        return self._with(value.index_select(0, rows) for value in self._tensors())

    def join(self, other: Draws) -> Draws:
        """These rows followed by the other's."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        joined = self._with(torch.cat(pair) for pair in pairs)
        joined.asked |= other.asked
        return joined

    def first(self, rows: int) -> Draws:
        """The first rows, as views: what is written there is written here."""
        return self._with(value[:rows] for value in self._tensors())

    def put(self, rows: Tensor, other: Draws) -> None:
        """Write the other's rows over these ones (int64 [B'])."""
        for own, new in zip(self._tensors(), other._tensors(), strict=True):
            own.index_copy_(0, rows, new)
        self.asked |= other.asked

    def _tensors(self) -> list[Tensor]:
        return [self.key, self.drawn, self.temperature, self.greedy, self.top_p]

    def _with(self, tensors: Iterable[Tensor]) -> Draws:
        """The same with these tensors, in the order of `_tensors`."""
        return Draws(self.asked, *tensors)


def draw(logits: Tensor, draws: Draws, asked: Asked | None = None) -> tuple[Tensor, Tensor]:
    """One token per row by inverse CDF of `logits` [B, V], and its log-prob (float32 [B]).

    asked: by any of the rows; all rows are then computed alike, and a GPU is not stopped for the
    question which of them have a cut. None: as `draws` knows it, and that question is asked.

    The log-prob is that of the tempered, untruncated distribution (temperature 1 for greedy rows).
    It is NaN where the logits are not finite.
    """
    vocab = logits.shape[1]
    scaled = logits.float()
    known = asked or draws.asked
    if known.temperature:
        scaled = scaled / draws.temperature.unsqueeze(1)
    top = scaled.amax(-1, keepdim=True)
    mass = _relative_mass(scaled, top)
    sums = _block_sums(mass)
    log_total = sums.sum(-1, dtype=torch.float64).log()

    # The cut comes after the total: what is reported is the probability before any top-p cut.
    if known.cut:
        if asked:
            mass = _nucleus(mass, draws.top_p)
        else:
            # Sorting is the dearest part of a draw, and in a mixed batch few rows may need it.
            rows = (draws.top_p < 1).nonzero().squeeze(1)
            if len(rows):
                mass[rows] = _nucleus(mass[rows], draws.top_p[rows])
        sums = _block_sums(mass)
    token = _inverse_cdf(mass, sums, uniform(draws.key, draws.drawn)).clamp_(max=vocab - 1)
    if known.greedy:
        token = torch.where(draws.greedy, logits.argmax(-1), token)

    chosen = scaled.gather(1, token.unsqueeze(1))
    logprob = (chosen - top).squeeze(1).double() - log_total
    return token, logprob.float()


def most_likely(
    logits: Tensor, draws: Draws, asked: Sequence[tuple[int, int]]
) -> list[list[tuple[int, float]]]:
    """The most likely tokens of some rows of `logits` [B, V], with their log-probs.

    asked: (row, how many) each. The log-probs are of the distribution that `draw` reports.
    """
    rows = torch.tensor([row for row, _ in asked], device=logits.device)
    values, ids = top_of(
        logits.index_select(0, rows),
        draws.temperature.index_select(0, rows),
        most=max(count for _, count in asked),
    )

    found = []
    for (_, count), row_ids, row_values in zip(asked, ids.tolist(), values.tolist(), strict=True):
        found.append(list(zip(row_ids[:count], row_values[:count], strict=True)))
    return found


def top_of(logits: Tensor, temperature: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Log-probs and ids [B, most] of the most likely tokens of `logits` [B, V], best first.

    Fewer than `most` where the vocabulary has fewer.
    """
    scaled = logits.float() / temperature.unsqueeze(1)
    values, ids = scaled.log_softmax(-1).topk(min(most, logits.shape[1]), dim=-1)
    return values, ids


def uniform(key: Tensor, position: Tensor) -> Tensor:
    """float64 in [0, 1): a function of (hashed seed, position) alone.

    It has 52 bits, so that u·x < x for every x > 0.
    """
    bits = _mix(key + (position + 1) * _GOLDEN)
    return ((bits >> 12) & (2**52 - 1)).to(torch.float64) * 2.0**-52


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64: products wrap, and a mask makes the shifts logical."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _MIX_1
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _MIX_2
    return z ^ ((z >> 31) & (2**33 - 1))


def _relative_mass(scaled: Tensor, top: Tensor) -> Tensor:
    """exp(scaled - top) [B, V'], where zeros fill the last block of the vocabulary."""
    batch, vocab = scaled.shape
    padded = -(-vocab // _BLOCK) * _BLOCK
    mass = scaled.new_empty(batch, padded)
    torch.sub(scaled, top, out=mass[:, :vocab]).exp_()
    mass[:, vocab:] = 0
    return mass


def _block_sums(mass: Tensor) -> Tensor:
    return mass.view(len(mass), -1, _BLOCK).sum(-1)


def _inverse_cdf(mass: Tensor, sums: Tensor, u: Tensor) -> Tensor:
    """The entry (int64 [B]) at which the cumulated `mass` [B, V'] of a row passes u times its sum.

    sums: of its blocks. The search runs among blocks, and inside one of them.
    """
    ends = sums.cumsum(-1, dtype=torch.float64)
    last_block = ends.shape[1] - 1
    point = u.unsqueeze(1) * ends[:, -1:]

    # `right` finds the first entry above the point, so never one of mass 0.
    # The clamp acts on NaN alone, which the caller refuses.
    block = torch.searchsorted(ends, point, right=True)
    block = block.clamp_(max=last_block)
    previous = (block - 1).clamp(min=0)
    start = ends.gather(1, previous).masked_fill(block == 0, 0.0)

    blocks = mass.view(len(mass), -1, _BLOCK)
    index = block.unsqueeze(2).expand(-1, -1, _BLOCK)
    entries = blocks.gather(1, index).squeeze(1)
    inside = entries.cumsum(-1, dtype=torch.float64)

    # The two sums may differ in their last bits: stay below the end of the block.
    just_below = 1 - 2.0**-52
    rest = torch.minimum(point - start, inside[:, -1:] * just_below)
    entry = torch.searchsorted(inside, rest, right=True)
    return (block * _BLOCK + entry).squeeze(1)


def _nucleus(mass: Tensor, top_p: Tensor) -> Tensor:
    """Zero what is outside the smallest set of most likely tokens with the share top_p."""
    if mass.device.type != "cpu" or mass.shape[1] <= _FEW:
        return _cut(mass, top_p, *torch.sort(mass, dim=-1, descending=True, stable=True))

    # To find a few takes a fifth of the time that sorting takes, and seldom more are needed.
    most, index = mass.topk(_FEW)
    cut = _cut(mass, top_p, most, index)
    total = mass.sum(-1, dtype=torch.float64)
    needs_more = (most.sum(-1, dtype=torch.float64) < top_p * total) | (top_p >= 1)
    rows = needs_more.nonzero().squeeze(1)
    if len(rows):
        whole = mass[rows]
        ordered = torch.sort(whole, dim=-1, descending=True, stable=True)
        cut[rows] = _cut(whole, top_p[rows], *ordered)
    return cut


def _cut(mass: Tensor, top_p: Tensor, ordered: Tensor, index: Tensor) -> Tensor:
    """`_nucleus`, which has none but the tokens at `index` [B, n]; their masses, descending."""
    sums = ordered.cumsum(-1, dtype=torch.float64)
    total = mass.sum(-1, keepdim=True, dtype=torch.float64)
    inside = (sums - ordered < top_p.unsqueeze(1) * total) | (top_p.unsqueeze(1) >= 1)
    return torch.zeros_like(mass).scatter_(1, index, ordered * inside)
