"""Batched sampling on a GPU: rows at fixed places, steps that are replayed, stops learnt later.

`SlotBatch` is used as `LiveBatch` is. The host sends the device a round of a few steps, and then
reads what the round before brought. So the device never waits for the host, and a request that
stops is computed for nothing for at most two rounds. Its result does not depend on that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from linn.engine.models.interface import CausalLM, State
from linn.engine.models.slots import SlotDecoder
from linn.engine.sampling.rows import NOT_FINITE, Advance, Live
from linn.engine.sampling.slot_step import Kind, SlotStep, Told, asked_by
from linn.engine.sampling.waiting import Request, Waiting
from linn.errors import RunFailed

STEPS = 4
"""Steps of a round."""
SIZES = (1, 8, 32, 64, 128, 256, 512, 1024)
"""Rows that are computed together: a recording is made for each size that is met."""
LEAST_COLUMNS = 128
"""Columns of the shortest recording."""

_ROUND = 16


@dataclass
class _Seat:
    """A request that has a slot."""

    live: Live
    slot: int
    fed: int
    """Tokens fed at most, with all rounds that were sent."""
    left: int
    """Tokens that rounds not yet sent may bring it, forced ones included."""

    def need(self, steps: int) -> int:
        """Columns for so many more steps: one more than are filled, where a closed row writes."""
        return min(self.fed + steps + 1, self.live.reach)


@dataclass(frozen=True)
class _Round:
    """What was sent to the device and not yet read."""

    steps: int
    told: Told
    rows: list[tuple[int, _Seat, int]]
    """Row of the results, whose it is, and how many of its first tokens are forced."""


class SlotBatch:
    """The requests that one model is decoding in slots, and those that wait for one.

    What `advance` gives is a function of the weights and of the calls made, never of timing. What a
    request gets is that of `LiveBatch`, up to the rounding of the model's own arithmetic.
    """

    def __init__(
        self,
        model: CausalLM,
        capacity: int = 256,
        prefill_tokens: int = 16384,
        slack: int | None = None,
        cache_bytes: int | None = None,
        steps: int = STEPS,
        record: bool = True,
    ) -> None:
        """`steps`: of a round; no result depends on it. The others as in `LiveBatch`.

        `record`: False makes plain calls of all steps, as on a CPU.
        """
        assert isinstance(model, SlotDecoder), model
        self._decoder: SlotDecoder = model
        self.model = model
        self.capacity = capacity
        self.steps = steps
        self._waiting = Waiting(model, capacity, prefill_tokens, slack, cache_bytes)
        self.device = self._waiting.device
        self._step = SlotStep(model, capacity, steps, record)
        self._seats: dict[int, _Seat] = {}
        """By request, in the order in which they began."""
        self._sent: deque[_Round] = deque()
        self._ready: deque[Advance] = deque()
        """Steps that were read and not yet told."""

    @property
    def idle(self) -> bool:
        """Whether no request waits or is being decoded."""
        return not self._waiting.queue and not self._seats and not self._ready

    def admit(self, requests: Sequence[Request], known: Sequence[int] = ()) -> list[int]:
        """Queue requests behind those that wait; see `LiveBatch.admit`."""
        return self._waiting.admit(requests, known)

    def advance(self) -> Advance:
        """The next step of the rows, as `LiveBatch.advance`; rows that begin have one of their own.

        Whatever it raises, every waiting and live request is dropped then, and the slots are freed.
        """
        try:
            with torch.inference_mode():
                while not self._ready and not self.idle:
                    self._turn()
        except BaseException:
            self._waiting.queue.clear()
            self._seats.clear()
            self.release()
            raise
        return self._ready.popleft() if self._ready else Advance({}, {})

    def drop(self, ids: Collection[int]) -> None:
        """Forget these requests, waiting, live or finished; see `LiveBatch.drop`."""
        self._waiting.drop(ids)
        for request in set(ids) & self._seats.keys():
            self._step.close(self._seats.pop(request).slot)

        ready = self._ready
        self._ready = deque()
        for step in ready:
            for told in (step.tokens, step.completions, step.tops):
                for request in set(ids) & told.keys():
                    told.pop(request)
            self._tell(step)

    def forget(self) -> None:
        """Free the kept states of finished requests; see `LiveBatch.forget`."""
        self._waiting.kept.clear()

    def release(self) -> None:
        """Free the slots and the recordings; no request may be live. They are made again."""
        assert not self._seats, "requests are being decoded"
        self._sent.clear()
        self._ready.clear()
        self._step.release()

    # ------------------------------------------------------------ one turn

    def _turn(self) -> None:
        """Begin what can begin, send a round, and read the one before."""
        if not self._seats:
            self._sent.clear()  # rounds that were sent before anybody knew of the last stop
            self._step.check_weights()
        self._join_waiting()
        sent = self._send()
        if len(self._sent) > 1 or not sent:
            self._read()

    def _send(self) -> bool:
        """Send the next round; False where no row has anything left to be sent."""
        going = [seat for seat in self._seats.values() if seat.left > 0]
        if not going:
            return False
        self._close_up()
        steps = min(self.steps, max(seat.left for seat in going))
        columns = max(seat.need(steps) for seat in self._seats.values())
        self._fit(len(self._seats), columns)
        kind = self._kind(going, columns)

        rows = []
        forced = {}
        for seat in going:
            feed = seat.live.feed
            ahead = [feed.popleft() for _ in range(min(steps, len(feed)))]
            if ahead:
                forced[seat.slot] = ahead
            rows.append((seat.slot, seat, len(ahead)))
            seat.fed += steps
            seat.left -= steps
        told = self._step.round(kind, steps, forced)
        self._sent.append(_Round(steps, told, rows))
        return True

    def _kind(self, going: Sequence[_Seat], columns: int) -> Kind:
        slots = self._step.slots
        assert slots is not None
        how = [seat.live.how for seat in going]
        top = max(one.top for one in how)
        if top:  # a few sizes, so that not every request makes a recording
            top = min(_power_of_two(max(top, 8)), self.model.vocab)
        rows = _size_for(1 + max(seat.slot for seat in self._seats.values()))
        return Kind(
            rows=min(rows, slots.rows),
            columns=min(_bound(columns), slots.columns),
            asked=asked_by(how),
            top=top,
        )

    def _close_up(self) -> None:
        """Move the last rows to the front where fewer can be computed then.

        While requests wait the free slots are theirs.
        """
        count = len(self._seats)
        highest = 1 + max(seat.slot for seat in self._seats.values())
        if not self._waiting.queue and _size_for(count) < _size_for(highest):
            self._pack(_size_for(count))

    def _pack(self, rows: int) -> None:
        """Bring all rows into the first slots, so many as there are to be."""
        late = [seat for seat in self._seats.values() if seat.slot >= rows]
        if not late:
            return
        free = self._free(rows)[: len(late)]
        self._step.move([seat.slot for seat in late], free)
        for seat, slot in zip(late, free, strict=True):
            seat.slot = slot

    def _free(self, rows: int) -> list[int]:
        """The free ones of the first slots."""
        taken = {seat.slot for seat in self._seats.values()}
        return [slot for slot in range(rows) if slot not in taken]

    # ------------------------------------------------------------ reading

    def _read(self) -> None:
        """Take in the oldest round that was sent."""
        round = self._sent.popleft()
        round.told.wait()
        tokens, logprobs = round.told.tokens.tolist(), round.told.logprobs.tolist()
        tops = None
        if round.told.tops is not None:
            tops = [tensor.tolist() for tensor in round.told.tops]

        ended: list[_Seat] = []
        for place in range(round.steps):
            step = Advance({}, {})
            for row, seat, forced in round.rows:
                live = seat.live
                # It has ended or was dropped, or this token is one that it was fed.
                if live.id not in self._seats or place < forced:
                    continue
                token, logprob = tokens[row][place], logprobs[row][place]
                if not math.isfinite(logprob):
                    raise RunFailed(NOT_FINITE)
                step.tokens[live.id] = token, logprob
                if live.how.top and tops is not None:
                    values, ids = tops[0][row][place], tops[1][row][place]
                    most = list(zip(ids, values, strict=True))
                    step.tops[live.id] = most[: live.how.top]

                live.ids.append(token)
                live.logprobs.append(logprob)
                if not live.is_done():
                    # Known now and not when it was fed: what came after is thrown away.
                    self._decoder.check_length(len(live.prompt) + len(live.ids))
                else:
                    step.completions[live.id] = live.completion()
                    ended.append(self._seats.pop(live.id))
            self._tell(step)
        self._keep([seat for seat in ended if seat.live.how.more])

    def _tell(self, step: Advance) -> None:
        if step.tokens:
            self._ready.append(step)

    def _keep(self, ended: Sequence[_Seat]) -> None:
        """Keep the states of requests that have ended: their rows were closed then."""
        if not ended:
            return
        assert self._step.slots is not None
        conversations = [(*seat.live.prompt, *seat.live.ids) for seat in ended]
        part = self._step.slots.take(
            torch.tensor([seat.slot for seat in ended], device=self.device),
            longest=max(len(tokens) for tokens in conversations) - 1,
        )
        self._waiting.kept.add(part, [seat.live.id for seat in ended], conversations)

    # ------------------------------------------------------------ requests that start

    def _join_waiting(self) -> None:
        """Give free slots to requests that wait."""
        lives = [seat.live for seat in self._seats.values()]
        if not self._waiting.can_start(lives):
            return

        fresh, going_on = self._waiting.take(lives)
        if fresh:
            self._begin(fresh)
        if going_on:
            self._go_on(going_on)

    def _begin(self, lives: Sequence[Live]) -> None:
        logits, state, owners = self._waiting.prefill(lives)
        # What is drawn now is the first of their tokens.
        seats = self._seat(lives, state, owners, drawn=1)
        told = self._step.begin(
            [seat.slot for seat in seats],
            how=[live.how for live in lives],
            seeds=[live.seed for live in lives],
            logits=logits.index_select(0, owners),
        )
        rows = [(row, seat, 0) for row, seat in enumerate(seats)]
        self._sent.append(_Round(1, told, rows))

    def _go_on(self, lives: Sequence[Live]) -> None:
        state = self._waiting.resume(lives)
        owners = torch.arange(len(lives), device=self.device)
        seats = self._seat(lives, state, owners, drawn=0)
        self._step.go_on(
            [seat.slot for seat in seats],
            how=[live.how for live in lives],
            seeds=[live.seed for live in lives],
            tokens=[live.feed.popleft() for live in lives],
        )
        for seat in seats:
            # Its prompt ends with what is to be fed; the state has read the rest.
            seat.left += len(seat.live.feed)
            seat.fed -= 1 + len(seat.live.feed)

    def _seat(
        self, lives: Sequence[Live], state: State, owners: torch.Tensor, drawn: int
    ) -> list[_Seat]:
        """Give requests slots, and write the rows of a state there."""
        fed = [len(live.prompt) for live in lives]
        rows = len(self._seats) + len(lives)
        columns = [
            min(tokens + self.steps + 1, live.reach)
            for live, tokens in zip(lives, fed, strict=True)
        ]
        self._fit(rows, max(columns), state, [live.reach for live in lives])

        assert self._step.slots is not None
        free = self._free(self._step.slots.rows)
        seats = []
        for live, tokens, slot in zip(lives, fed, free, strict=False):
            seats.append(_Seat(live, slot, tokens, live.how.max_tokens - drawn))
        self._step.put([seat.slot for seat in seats], state, owners)
        self._seats |= {seat.live.id: seat for seat in seats}
        return seats

    def _fit(
        self,
        rows: int,
        columns: int,
        like: State | None = None,
        reach: Sequence[int] = (),
    ) -> None:
        """Have at least so many slots of so many columns; reach: of requests yet to be seated.

        rows: with those that have one. Slots that are made hold all that wait, if the cache allows
        it.
        """
        # Newcomers may need fewer than the rows that go on beside them.
        columns = max([columns, *(seat.need(0) for seat in self._seats.values())])
        slots = self._step.slots
        if slots is not None and slots.rows >= rows and slots.columns >= columns:
            return
        longest = max([*reach, *(seat.live.reach for seat in self._seats.values())])
        wanted = _size_for(rows + len(self._waiting.queue))
        made = max(rows, min(wanted, self._waiting.most_rows(longest)))
        new = made, self._columns(made, columns, longest)

        if slots is not None:
            grown = max(slots.rows, new[0]), max(slots.columns, new[1])
            if self._allowed(*grown):
                new = grown
            else:
                # Rows or columns are given up: those that no request needs.
                self._pack(made)
        self._step.fit(like, *new)

    def _columns(self, rows: int, least: int, longest: int) -> int:
        """Columns to be made where `least` are needed now, and `longest` are at most.

        A round number if the cache has room: products are faster over rows that begin at one.
        """
        rounded = -(-longest // _ROUND) * _ROUND
        for columns in (_bound(least), min(_bound(least), rounded)):
            if self._allowed(rows, columns):
                return columns
        return max(least, min(_bound(least), longest))

    def _allowed(self, rows: int, columns: int) -> bool:
        limit = self._waiting.cache_bytes
        return limit is None or rows * self.model.row_bytes(columns) <= limit


def _size_for(rows: int) -> int:
    """The size of recordings that hold so many rows."""
    for size in SIZES:
        if size >= rows:
            return size
    return rows


def _bound(columns: int) -> int:
    """The columns of recordings that hold so many: powers of two, and one and a half times them."""
    power = LEAST_COLUMNS
    while power < columns:
        if power + power // 2 >= columns:
            return power + power // 2
        power *= 2
    return power


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
