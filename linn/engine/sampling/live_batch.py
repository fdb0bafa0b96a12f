"""Batched sampling from one model in one process: requests come and go while others are decoded.

`LiveBatch` is for whoever streams or serves; `BatchSampler` runs closed lists of requests.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from linn.engine.models.interface import CausalLM, State
from linn.engine.models.vocabulary import check_tokens
from linn.engine.sampling.draw import draw, most_likely
from linn.engine.sampling.kept_states import KeptStates, gather
from linn.engine.sampling.rows import Live, Rows, by_prompt
from linn.errors import RunFailed
from linn.types import Completion, Sampling

Request = tuple[Sequence[int], Sampling, int]
"""Prompt ids, how to sample, seed."""


@dataclass(frozen=True)
class Advance:
    """What one decode step brought."""

    tokens: dict[int, tuple[int, float]]
    """By request: the new token and its log-prob, the last token of a finished request included."""
    completions: dict[int, Completion]
    """By request: those that finished in this step."""
    tops: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    """By request with `Sampling.top`: the most likely tokens of this step, with log-probs."""


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
        self.prefill_tokens = prefill_tokens
        self.cache_bytes = cache_bytes
        self.slack = max(1, capacity // 8) if slack is None else slack
        if not 1 <= self.slack <= capacity:
            raise ValueError(f"slack is {self.slack}; allowed: 1 to the capacity, {capacity}")
        self.device: torch.device = next(model.parameters()).device  # type: ignore[attr-defined]
        self._next_id = 0
        self._queue: deque[Live] = deque()
        self._rows: Rows | None = None
        self._kept = KeptStates()

    @property
    def idle(self) -> bool:
        """Whether no request waits or is being decoded."""
        return not self._queue and self._rows is None

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
        lives = []
        for number, (ids, how, seed) in enumerate(requests, self._next_id):
            check_request(ids, how, self.model.vocab)
            lives.append(Live(number, tuple(ids), how, seed))

        for live, length in zip(lives, known, strict=bool(known)):
            if not 0 <= length <= len(live.prompt):
                raise ValueError(f"known is {length} of {len(live.prompt)} prompt tokens")
            if length:
                live.kept = self._kept[live.prompt[:length]]
                # The kept state has not read the last token of its conversation.
                live.feed.extend(live.prompt[length - 1 :])

        self._next_id += len(lives)
        self._queue.extend(by_prompt(lives))
        return [live.id for live in lives]

    def advance(self) -> Advance:
        """One decode step of all rows, after waiting requests have taken the rows that are free.

        Every live request gets one token, except those that are still fed what came after their
        kept state. Raises RunFailed where a log-prob is not finite. Whatever it raises, every
        waiting and live request is dropped then: some rows may have moved on and others not.
        """
        try:
            return self._step()
        except BaseException:
            self._queue.clear()
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
        self._queue = deque(live for live in self._queue if live.id not in ids)
        self._kept.drop(ids)
        if self._rows is not None:
            self._rows.drop(ids)
        self._free_if_empty()

    def forget(self) -> None:
        """Free the kept states of finished requests; those admitted to go on still do.

        Call it when the weights change, while the batch is idle.
        """
        self._kept.clear()

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

        # Compaction copies every state, so it waits until it pays: until requests that wait
        # can take the rows, or a quarter of the rows are computed for nothing.
        enough = self._least_room() if self._queue else max(1, size // 4)
        if size - len(alive) >= enough:
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
            raise RunFailed(
                "the model's logits are not finite: its weights are broken, "
                "or its dtype is too small for them"
            )

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
            self._kept.add(
                part=rows.state.select(index),
                owners=[live.id for _, live in kept],
                conversations=[(*live.prompt, *live.ids) for _, live in kept],
            )
        self._free_if_empty()
        return step

    # ------------------------------------------------------------ requests that start

    def _join_waiting(self, logits: Tensor | None) -> Tensor | None:
        """Give free rows to requests that wait; returns `logits`, those of the new rows behind."""
        used = 0 if self._rows is None else len(self._rows.lives)
        if not self._queue or self._most_rows() - used < self._least_room():
            return logits

        fresh, going_on = self._take(used)
        new_logits, state = self._start(fresh, going_on)
        new_rows = Rows.begin(fresh + going_on, state, self.device)

        if self._rows is None or logits is None:
            self._rows = new_rows
            return new_logits
        self._rows = self._rows.join(new_rows)
        return torch.cat([logits, new_logits])

    def _most_rows(self, longest: int = 0) -> int:
        """Rows that may be decoded together: live ones, the next that waits, others of `longest`.

        Every row has as many columns as the longest of them.
        """
        if self.cache_bytes is None:
            return self.capacity
        if self._queue:
            longest = max(longest, self._queue[0].reach)
        if self._rows is not None:
            longest = max([longest, *(live.reach for _, live in self._rows.live())])
        if self.model.positions is not None:
            longest = min(longest, self.model.positions)
        fit = self.cache_bytes // max(1, self.model.row_bytes(longest))
        return min(self.capacity, max(1, fit))

    def _least_room(self) -> int:
        """Rows that must be free before waiting requests take them: the same share of fewer."""
        return max(1, self.slack * self._most_rows() // self.capacity)

    def _take(self, used: int) -> tuple[list[Live], list[Live]]:
        """The next requests of the queue: those to prefill, and those that go on.

        They end where no row is free beside the `used` ones, or the budget of prompt tokens is
        used up.
        """
        fresh: list[Live] = []
        going_on: list[Live] = []
        prompts: set[tuple[int, ...]] = set()
        size, longest = 0, 0
        while self._queue:
            live = self._queue[0]
            if used + len(fresh) + len(going_on) >= self._most_rows(longest):
                break
            longest = max(longest, live.reach)
            if live.kept is not None:
                going_on.append(live)
            elif live.prompt in prompts:
                fresh.append(live)
            else:
                size += len(live.prompt)
                # The first prompt starts however long it is.
                if prompts and size > self.prefill_tokens:
                    break
                prompts.add(live.prompt)
                fresh.append(live)
            self._queue.popleft()
        return fresh, going_on

    def _start(self, fresh: list[Live], going_on: list[Live]) -> tuple[Tensor, State]:
        """Logits and state of new rows, `fresh` ones first."""
        if not going_on:
            return self._prefill(fresh)

        kept = [live.kept for live in going_on if live.kept is not None]
        state = gather(kept, self.device)
        for live in going_on:
            live.kept = None  # the rows hold a copy
        # Nothing is drawn from these: the first token of a row that goes on is always forced.
        logits = torch.zeros(len(going_on), self.model.vocab, device=self.device)
        if not fresh:
            return logits, state

        fresh_logits, fresh_state = self._prefill(fresh)
        return torch.cat([fresh_logits, logits]), fresh_state.join(state)

    def _prefill(self, lives: list[Live]) -> tuple[Tensor, State]:
        """Logits and state after each prompt; equal prompts are computed once."""
        places: dict[tuple[int, ...], int] = {}
        owners = [places.setdefault(live.prompt, len(places)) for live in lives]
        logits, state = self.model.prefill(list(places))

        if len(owners) > len(places):
            siblings = torch.tensor(owners, device=self.device)
            logits = logits.index_select(0, siblings)
            state = state.select(siblings)
        return logits, state


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
    ) -> None:
        """`capacity`, `prefill_tokens` and `cache_bytes` as in `LiveBatch`."""
        self._batch = LiveBatch(model, capacity, prefill_tokens, cache_bytes=cache_bytes)

    def forget(self) -> None:
        """The weights change: states of unfinished conversations are of no use any more."""
        self._batch.forget()

    def generate(self, requests: Sequence[Request], known: Sequence[int] = ()) -> list[Completion]:
        """One completion per request, in their order.

        `known` as in `LiveBatch.admit`; only states of the call before are kept.
        """
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


def check_request(ids: Sequence[int], how: Sampling, vocab: int) -> None:
    """Refuse a request that a model with `vocab` embeddings cannot sample.

    Raises ValueError, or UserError for a token that it has no embedding for.
    """
    can_sample = how.max_tokens >= 1 and how.temperature >= 0 and 0 < how.top_p <= 1
    if not len(ids) or not can_sample:
        raise ValueError(f"cannot sample: {len(ids)} prompt tokens, {how}")

    # Found out in the model, it would end the other requests of the batch too.
    if min(ids) < 0:
        raise ValueError(f"cannot sample: a prompt token is {min(ids)}")
    check_tokens(ids, vocab)


def _next_forced(rows: Rows) -> dict[int, int]:
    """By row: the next token of those that are still fed what came after their kept state."""
    forced = {}
    for row, live in rows.live():
        if live.feed:
            forced[row] = live.feed.popleft()
    return forced
