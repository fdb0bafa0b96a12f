"""One decode step of rows at fixed places, from a token fed to the next one drawn.

All of it happens on the device: the model's step, the draw, the stops. So a step can be recorded
and replayed, and several follow one another before anybody asks what they brought. A row that has
ended is closed: it is computed on, but nothing of it changes any more, so that its state is the
state at its end whenever the host gets to know of it.

Letters of shapes: R slots at most, B the first of them that are computed, K steps of a round,
S stopping tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from linn.engine.models.interface import State
from linn.engine.models.slots import SlotDecoder, Slots
from linn.engine.sampling.draw import Asked, Draws, draw, top_of
from linn.engine.sampling.graphs import Graphs
from linn.types import Sampling

_NOBODY = Sampling(max_tokens=1)


@dataclass(frozen=True)
class Kind:
    """Steps of one kind are one recording. The host knows all of it without asking the device."""

    rows: int
    """B: slots that are computed."""
    columns: int
    """More than the length of any open row."""
    asked: Asked
    """By any of the rows."""
    top: int
    """How many of the most likely tokens are told; 0: none."""


@dataclass(frozen=True)
class Told:
    """What a round brought, on its way to the host."""

    tokens: Tensor
    """int64 [B, K]."""
    logprobs: Tensor
    """float32 [B, K]."""
    tops: tuple[Tensor, Tensor] | None
    """Log-probs and ids [B, K, top] of the most likely tokens."""
    arrived: torch.cuda.Event | None
    """Passed when the host's tensors are filled; None: they are."""

    def wait(self) -> None:
        """Return when the tensors may be read."""
        if self.arrived is not None:
            self.arrived.synchronize()


class SlotStep:
    """The rows of a batch on the device, and the step that moves them on."""

    def __init__(self, model: SlotDecoder, capacity: int, steps: int, record: bool) -> None:
        """capacity: R; steps: K. record: whether steps are recorded where there are graphs."""
        self.model = model
        self.steps = steps
        self.slots: Slots | None = None
        self.device: torch.device = next(model.parameters()).device  # type: ignore[attr-defined]
        self._graphs = Graphs(self.device, record)
        self._basis: list[object] = []
        """What the recordings stand on: `check_weights`."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=self.device)

        self._token = zeros(capacity)
        """int64 [R]: drawn last and still to be fed."""
        self.is_open = zeros(capacity, dtype=torch.bool)
        """bool [R]: whether the row's request goes on."""
        self._draws = Draws.begin([_NOBODY] * capacity, [0] * capacity, self.device)
        self._limit = zeros(capacity)
        """int64 [R]: tokens to be drawn at most."""
        self._stop = zeros(capacity, 8) - 1
        """int64 [R, S]; -1 fills up."""
        self._feed = zeros(capacity, steps) - 1
        """int64 [R, K]: tokens that take the place of what is drawn; -1: none."""
        self._feeds = False
        self._tick = zeros(1)
        """Place of the step in its round."""
        self._tokens = zeros(capacity, steps)
        self._logprobs = zeros(capacity, steps, dtype=torch.float32)
        self._tops: dict[int, tuple[Tensor, Tensor]] = {}
        """By `Kind.top`: log-probs and ids [R, K, top]."""

    # ------------------------------------------------------------ places

    def fit(self, like: State | None, rows: int, columns: int) -> None:
        """Make slots, or other ones of this size. like: a state that says what they hold."""
        self._graphs.clear()
        if self.slots is None:
            assert like is not None, "the first rows bring a state"
            self.slots = self.model.new_slots(like, rows, columns)
        else:
            self.slots.resize(rows, columns)

    def release(self) -> None:
        """Free the slots and all that was recorded."""
        self._graphs.clear()
        self.slots = None

    def check_weights(self) -> None:
        """Start anew where the weights are other tensors, or other products are taken of them.

        Weights that are changed in place, as an optimiser does, are what the recordings read.
        """
        module: torch.nn.Module = self.model  # type: ignore[assignment]
        basis: list[object] = [_autocast(self.device)]
        for tensor in (*module.parameters(), *module.buffers()):
            basis.append(tensor.data_ptr())
        if basis != self._basis:
            self.release()
            self._basis = basis

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Move rows to other slots; no slot is in both."""
        assert self.slots is not None
        old, new = self._index(source), self._index(target)
        self.slots.move(old, new)
        for rows in (self._token, self.is_open, self._limit, self._stop):
            rows.index_copy_(0, new, rows.index_select(0, old))
        self._draws.put(new, self._draws.select(old))
        self.is_open.index_fill_(0, old, False)

    # ------------------------------------------------------------ rows that begin

    def put(self, slots: Sequence[int], state: State, rows: Tensor) -> None:
        """Write rows of a state into slots."""
        assert self.slots is not None
        self.slots.put(self._index(slots), state, rows)

    def begin(
        self,
        slots: Sequence[int],
        how: Sequence[Sampling],
        seeds: Sequence[int],
        logits: Tensor,
    ) -> Told:
        """Rows whose states are in their slots draw from `logits` [B', V]; what they drew."""
        draws = Draws.begin(how, seeds, self.device)
        token, logprob = draw(logits, draws, asked_by(how))
        top = max(one.top for one in how)
        tops = None
        if top:
            values, ids = top_of(logits, draws.temperature, top)
            tops = (values[:, None], ids[:, None])

        draws.drawn += 1
        self._write(slots, how, draws, token)
        index = self._index(slots)
        ends = self._ends(token, draws.drawn, self._stop[index], self._limit[index])
        self.is_open.index_copy_(0, index, ~ends)
        return self._told(token[:, None], logprob[:, None], tops)

    def go_on(
        self,
        slots: Sequence[int],
        how: Sequence[Sampling],
        seeds: Sequence[int],
        tokens: Sequence[int],
    ) -> None:
        """Rows whose states are in their slots are fed these tokens next."""
        draws = Draws.begin(how, seeds, self.device)
        self._write(slots, how, draws, torch.tensor(tokens, device=self.device))
        self.is_open.index_fill_(0, self._index(slots), True)

    def close(self, slot: int) -> None:
        """Nobody wants what this row would draw."""
        self.is_open[slot].fill_(False)

    def _write(
        self, slots: Sequence[int], how: Sequence[Sampling], draws: Draws, token: Tensor
    ) -> None:
        index = self._index(slots)
        self._token.index_copy_(0, index, token)
        self._draws.put(index, draws)
        limits = torch.tensor([one.max_tokens for one in how])
        self._limit.index_copy_(0, index, limits.to(self.device))

        most = max(len(one.stop) for one in how)
        if most > self._stop.shape[1]:
            # Rare: the recordings know the old place.
            self._graphs.clear()
            wider = self._stop.new_full((len(self._stop), 2 * most), -1)
            wider[:, : self._stop.shape[1]] = self._stop
            self._stop = wider
        stop = torch.full((len(how), self._stop.shape[1]), -1)
        for row, one in enumerate(how):
            stop[row, : len(one.stop)] = torch.tensor(one.stop, dtype=torch.int64)
        self._stop.index_copy_(0, index, stop.to(self.device))

    # ------------------------------------------------------------ rounds

    def round(self, kind: Kind, steps: int, forced: dict[int, list[int]]) -> Told:
        """Some steps of one kind (K at most); what they drew.

        forced: by slot, the tokens that its first steps are to have drawn.
        """
        self._write_feed(forced)
        self._tick.zero_()
        for _ in range(steps):
            self._graphs.run(kind, lambda: self._step(kind))

        rows = kind.rows
        tops = None
        if kind.top:
            values, ids = self._ring(kind.top)
            tops = (values[:rows, :steps], ids[:rows, :steps])
        return self._told(self._tokens[:rows, :steps], self._logprobs[:rows, :steps], tops)

    def _step(self, kind: Kind) -> None:
        """One step of the first rows; the places of all that it reads and writes are fixed."""
        device = self.device.type
        dtype = _autocast(self.device)
        # A weight that autocast keeps rounded would be the rounded weight of another day.
        with torch.autocast(device, dtype, enabled=dtype is not None, cache_enabled=False):
            self._advance(kind)

    def _advance(self, kind: Kind) -> None:
        assert self.slots is not None
        rows = kind.rows
        token, is_open = self._token[:rows], self.is_open[:rows]
        draws = self._draws.first(rows)

        logits = self.model.decode_slots(token, self.slots, is_open, kind.columns)
        new, logprob = draw(logits, draws, kind.asked)
        forced = self._feed[:rows].index_select(1, self._tick)[:, 0]
        is_forced = forced >= 0
        new = torch.where(is_forced, forced, new)

        self._tokens[:rows].index_copy_(1, self._tick, new[:, None])
        self._logprobs[:rows].index_copy_(1, self._tick, logprob[:, None])
        if kind.top:
            told = top_of(logits, draws.temperature, kind.top)
            for ring, value in zip(self._ring(kind.top), told, strict=True):
                ring[:rows].index_copy_(1, self._tick, value[:, None])

        # A closed row keeps its last token, its count and its state.
        token.copy_(torch.where(is_open, new, token))
        draws.drawn.add_(is_open & ~is_forced)
        ends = self._ends(new, draws.drawn, self._stop[:rows], self._limit[:rows])
        is_open.logical_and_(is_forced | ~ends)
        self._tick.add_(1)

    def _ends(self, token: Tensor, drawn: Tensor, stop: Tensor, limit: Tensor) -> Tensor:
        """bool [B]: whether a row's new token was its last, as `Live.is_done` has it."""
        return (token[:, None] == stop).any(1) | (drawn >= limit)

    def _ring(self, top: int) -> tuple[Tensor, Tensor]:
        """Where a round notes the most likely tokens, [R, K, top]."""
        if top not in self._tops:
            shape = (*self._tokens.shape, top)
            self._tops[top] = (self._logprobs.new_zeros(shape), self._tokens.new_zeros(shape))
        return self._tops[top]

    def _write_feed(self, forced: dict[int, list[int]]) -> None:
        if not forced and not self._feeds:
            return
        feed = torch.full(self._feed.shape, -1)
        for slot, tokens in forced.items():
            feed[slot, : len(tokens)] = torch.tensor(tokens)
        if self.device.type == "cuda":
            feed = feed.pin_memory()  # or the copy would wait for the round before
        self._feed.copy_(feed, non_blocking=True)
        self._feeds = bool(forced)

    # ------------------------------------------------------------ to and from the device

    def _index(self, slots: Sequence[int]) -> Tensor:
        return torch.tensor(slots, device=self.device)

    def _told(self, tokens: Tensor, logprobs: Tensor, tops: tuple[Tensor, Tensor] | None) -> Told:
        """Copies on the host, which are filled when the device has come so far."""
        tensors = [tokens, logprobs, *(tops or ())]
        copies = []
        arrived = None
        for tensor in tensors:
            if self.device.type == "cuda":
                # The next round writes where this one did, so the copy is one of the device's own.
                pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                copies.append(pinned.copy_(tensor.contiguous(), non_blocking=True))
            else:
                copies.append(tensor.clone())
        if self.device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record()
        kept = (copies[2], copies[3]) if tops else None
        return Told(copies[0], copies[1], kept, arrived)


def asked_by(how: Sequence[Sampling]) -> Asked:
    """What any of these requests asks of a draw.

    A division by 1 costs a GPU nothing, so a temperature makes no recording of its own.
    """
    return replace(Asked.by(how), temperature=True)


def _autocast(device: torch.device) -> torch.dtype | None:
    """The dtype that products are taken in around here; None: that of their factors."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)
