"""Batched sampling from one model in one process: requests come and go while others are decoded.

`LiveBatch` is for whoever streams or serves; `BatchSampler` runs closed lists of requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from linn.engine.models.interface import CausalLM, State
from linn.engine.models.rounded_products import RoundedProducts
from linn.engine.models.slots import SlotDecoder
from linn.engine.sampling.draw import draw, most_likely
from linn.engine.sampling.rows import NOT_FINITE, Advance, Live, Rows
from linn.engine.sampling.slot_batch import SlotBatch
from linn.engine.sampling.waiting import Request as Request
from linn.engine.sampling.waiting import Waiting
from linn.errors import RunFailed
from linn.types import Completion


class LiveBatch:
    """The requests that one model is decoding, and those that wait for a row.

    What `advance` gives is a function of the weights and of the calls made, never of timing. A
    request's tokens depend on its seed alone, up to the rounding of the model's own arithmetic.
    """

    def __init__(
        self,
        model: CausalLM,
        capacity: int = 256,
        prefill_tokens: int = 16384,
        slack: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        """`capacity`: rows decoded together. `prefill_tokens`: prompt tokens computed at once.

        `cache_bytes`: what the states of these rows may take if each comes to its last token; of
        long requests fewer are decoded together, one at least. None: no limit.

        `slack`: rows that must be free before waiting requests take them (default: an eighth of
        the capacity). Joining copies every state, so more slack samples faster and starts later.
        Raises ValueError where no request could ever take a row.
        """
        self.model = model
        self.capacity = capacity
        self._waiting = Waiting(model, capacity, prefill_tokens, slack, cache_bytes)
        self.device = self._waiting.device
        self._rows: Rows | None = None

    @property
    def idle(self) -> bool:
        """Whether no request waits or is being decoded."""
        return not self._waiting.queue and self._rows is None

    def admit(self, requests: Sequence[Request], known: Sequence[int] = ()) -> list[int]:
        """Queue requests behind those that wait; returns their ids, in their order.

        Of one call, equal prompts stand together (one prefill serves them where they start
        together) and the longest prompts come first.

        known[i] leading tokens of request i are the prompt and completion of a finished request
        that was sampled with `Sampling.more`: it goes on from the kept state, and only what comes
        after is fed. 0, or no entry: nothing is known. Raises KeyError where no state is kept, and
        ValueError for a request that cannot be sampled, UserError for a token without an embedding;
        nothing is queued then.
        """
        return self._waiting.admit(requests, known)

    def advance(self) -> Advance:
        """One decode step of all rows, after waiting requests have taken the rows that are free.

        Every live request gets one token, except those that are still fed what came after their
        kept state: models that cannot `extend` take one token a step. Raises RunFailed where a
        log-prob is not finite. Whatever it raises, every waiting and live request is dropped then:
        some rows may have moved on and others not.
        """
        try:
            return self._step()
        except BaseException:
            self._waiting.queue.clear()
            self._rows = None
            raise

    @torch.no_grad()
    def _step(self) -> Advance:
        logits = self._decode()
        logits = self._join_waiting(logits)
        rows = self._rows
        if rows is None or logits is None:
            return Advance({}, {})

        token, logprob = draw(logits, rows.draws)
        # Rows without a request draw on: only a compaction takes them out of the arithmetic.
        rows.draws.drawn += 1
        forced = _next_forced(rows)
        if forced:
            fed = torch.tensor(list(forced), device=self.device)
            values = torch.tensor(list(forced.values()), device=self.device)
            token = token.index_copy(0, fed, values)
            rows.draws.drawn[fed] -= 1
        rows.token = token

        sampled = [(row, live) for row, live in rows.live() if row not in forced]
        asked = {live.id: (row, live.how.top) for row, live in sampled if live.how.top}
        step = self._record(rows, sampled, token.tolist(), logprob.tolist())
        if asked:
            told = most_likely(logits, rows.draws, list(asked.values()))
            step.tops.update(zip(asked, told, strict=True))
        return step

    def drop(self, ids: Collection[int]) -> None:
        """Forget these requests, waiting, live or finished. Ids of no request are ignored.

        A live one's row is free at the next compaction, a finished one's kept state at once.
        """
        self._waiting.drop(ids)
        if self._rows is not None:
            self._rows.drop(ids)
        self._free_if_empty()

    def forget(self) -> None:
        """Free the kept states of finished requests; those admitted to go on still do.

        Call it when the weights change, while the batch is idle.
        """
        self._waiting.kept.clear()

    def _free_if_empty(self) -> None:
        if self._rows is not None and not any(self._rows.lives):
            self._rows = None

    # ------------------------------------------------------------ one step

    def _decode(self) -> Tensor | None:
        """Feed each row its last token; logits [B, V], or None where there are no rows."""
        if self._rows is None:
            return None
        alive = [row for row, _ in self._rows.live()]
        size = len(self._rows.lives)

        # Compaction copies every state, so it waits until it pays: until a quarter of the rows are
        # computed for nothing, if requests that wait do not take them before.
        if size - len(alive) >= max(1, size // 4):
            self._rows = self._rows.select(alive)

        rows = self._rows
        logits, rows.state = self.model.decode(rows.token, rows.state)
        return logits

    def _record(
        self,
        rows: Rows,
        sampled: Sequence[tuple[int, Live]],
        tokens: Sequence[int],
        logprobs: Sequence[float],
    ) -> Advance:
        """Note the token of each sampled row; requests that are done leave their rows."""
        if not all(math.isfinite(logprobs[row]) for row, _ in sampled):
            raise RunFailed(NOT_FINITE)

        step = Advance({}, {})
        kept = []
        # States are selected below, before any row moves: a row's number is its state's too.
        for row, live in sampled:
            live.ids.append(tokens[row])
            live.logprobs.append(logprobs[row])
            step.tokens[live.id] = tokens[row], logprobs[row]
            if not live.is_done():
                continue
            step.completions[live.id] = live.completion()
            rows.lives[row] = None
            if live.how.more:
                kept.append((row, live))

        if kept:
            index = torch.tensor([row for row, _ in kept], device=self.device)
            self._waiting.kept.add(
                part=rows.state.select(index),
                owners=[live.id for _, live in kept],
                conversations=[(*live.prompt, *live.ids) for _, live in kept],
            )
        self._free_if_empty()
        return step

    # ------------------------------------------------------------ requests that start

    def _join_waiting(self, logits: Tensor | None) -> Tensor | None:
        """Give free rows to requests that wait; returns `logits`, those of the new rows behind."""
        lives = self._lives()
        if not self._waiting.can_start(lives):
            return logits

        fresh, going_on = self._waiting.take(lives)
        new_logits, state = self._start(fresh, going_on)
        new_rows = Rows.begin(fresh + going_on, state, self.device)

        if self._rows is None or logits is None:
            self._rows = new_rows
            return new_logits
        alive = [row for row, _ in self._rows.live()]
        self._rows = self._rows.join(new_rows, alive)
        return torch.cat([logits[alive], new_logits])

    def _lives(self) -> list[Live]:
        """The requests that have a row."""
        if self._rows is None:
            return []
        return [live for _, live in self._rows.live()]

    def _start(self, fresh: list[Live], going_on: list[Live]) -> tuple[Tensor, State]:
        """Logits and state of new rows, `fresh` ones first."""
        if not going_on:
            return self._prefill(fresh)

        logits, state = self._go_on(going_on)
        if not fresh:
            return logits, state

        fresh_logits, fresh_state = self._prefill(fresh)
        return torch.cat([fresh_logits, logits]), fresh_state.join(state)

    def _go_on(self, lives: list[Live]) -> tuple[Tensor, State]:
        """Logits and state of rows that go on from kept states."""
        state = self._waiting.resume(lives)
        if not self.model.extends:
            # Nothing is drawn from these: the first token of such a row is always forced.
            return torch.zeros(len(lives), self.model.vocab, device=self.device), state

        feeds = [tuple(live.feed) for live in lives]
        for live in lives:
            live.feed.clear()
        hidden, state = self.model.extend(feeds, state)
        ends = torch.tensor([len(feed) for feed in feeds], device=self.device).cumsum(0) - 1
        return self.model.head(hidden[ends]), state

    def _prefill(self, lives: list[Live]) -> tuple[Tensor, State]:
        """Logits and state after each prompt; equal prompts are computed once."""
        logits, state, owners = self._waiting.prefill(lives)
        if len(owners) > len(logits):
            logits = logits.index_select(0, owners)
        return logits, self.model.siblings(state, owners)


Batch = LiveBatch | SlotBatch
"""Two ways of decoding the same requests; either is used as the other."""


def open_batch(
    model: CausalLM,
    capacity: int = 256,
    prefill_tokens: int = 16384,
    cache_bytes: int | None = None,
) -> Batch:
    """The way of decoding that suits the model and its device: slots on a GPU."""
    if _suits_slots(model):
        return SlotBatch(model, capacity, prefill_tokens, cache_bytes=cache_bytes)
    return LiveBatch(model, capacity, prefill_tokens, cache_bytes=cache_bytes)


def _suits_slots(model: CausalLM) -> bool:
    device: torch.device = next(model.parameters()).device  # type: ignore[attr-defined]
    return device.type == "cuda" and isinstance(model, SlotDecoder) and model.has_slots


class BatchSampler:
    """Samples closed lists of requests from `model`, each list as one batch.

    What comes back is a function of the weights and of the lists so far.
    """

    def __init__(
        self,
        model: CausalLM,
        capacity: int = 256,
        prefill_tokens: int = 16384,
        cache_bytes: int | None = None,
        bfloat16: bool = False,
        batch: Callable[..., Batch] = open_batch,
    ) -> None:
        """`capacity`, `prefill_tokens` and `cache_bytes` as in `LiveBatch`.

        `bfloat16`: products are taken in bfloat16, as in a trainer under autocast, and of weights
        that are rounded once per list. `batch`: makes the batch out of what comes before.
        """
        _suits_slots(model)  # a family tries it once, in full precision; its copy knows
        self._rounded = RoundedProducts(model) if bfloat16 else None
        self._device = next(model.parameters()).device.type  # type: ignore[attr-defined]
        if self._rounded is not None:
            model = self._rounded.model
        self._batch = batch(model, capacity, prefill_tokens, cache_bytes=cache_bytes)

    def forget(self) -> None:
        """The weights change: states of unfinished conversations are of no use any more."""
        self._batch.forget()

    def release(self) -> None:
        """Free what is kept from list to list beside those states: a GPU's slots."""
        if isinstance(self._batch, SlotBatch):
            self._batch.release()

    def generate(self, requests: Sequence[Request], known: Sequence[int] = ()) -> list[Completion]:
        """One completion per request, in their order.

        `known` as in `LiveBatch.admit`; only states of the call before are kept.
        """
        if self._rounded is None:
            return self._generate(requests, known)
        self._rounded.refresh()
        with torch.autocast(self._device, torch.bfloat16):
            return self._generate(requests, known)

    def _generate(self, requests: Sequence[Request], known: Sequence[int]) -> list[Completion]:
        ids = self._batch.admit(requests, known)
        self._batch.forget()  # those who go on hold their states; nobody needs the others again
        completions: dict[int, Completion] = {}
        try:
            while not self._batch.idle:
                completions |= self._batch.advance().completions
        except BaseException:
            self._batch.drop(ids)
            raise
        return [completions[request] for request in ids]


def _next_forced(rows: Rows) -> dict[int, int]:
    """By row: the next token of those that are still fed what came after their kept state."""
    forced = {}
    for row, live in rows.live():
        if live.feed:
            forced[row] = live.feed.popleft()
    return forced
