"""Batched sampling from one model in one process: shared prefills, rows that leave when done, prompts that take their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from linn.engine.models.interface import CausalLM, State
from linn.engine.training.losses import score
from linn.errors import RunFailed
from linn.types import Completion, Sampling

Request = tuple[Sequence[int], Sampling, int]
"""Prompt ids, how to sample, seed."""

_BLOCK = 32
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


@dataclass
class _Rows:
    """The live batch, one entry a row."""

    request: Tensor
    """int64: index of the request; -1 once the row is done."""
    key: Tensor
    """int64: hashed seed."""
    drawn: Tensor
    """int64: tokens sampled so far."""
    limit: Tensor
    """int64: max_tokens."""
    temperature: Tensor
    """float32; 1 for greedy rows."""
    greedy: Tensor
    """bool: temperature 0."""
    top_p: Tensor
    """float64."""
    stop: Tensor
    """int64 [B, S]: stopping ids, -1 in padding."""
    more: Tensor
    """bool: another turn may follow, so its state is kept when it is done."""
    forced: Tensor
    """int64 [B, F]: tokens to feed before anything is sampled: what came after a kept turn."""
    feeding: Tensor
    """int64: how many of them are still to be fed; the last ones of the row."""

    def select(self, rows: Tensor) -> _Rows:
        return _Rows(*(getattr(self, f.name).index_select(0, rows) for f in fields(self)))

    def join(self, other: _Rows) -> _Rows:
        return _Rows(
            *(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )


class BatchSampler:
    """Samples from `model`. What comes back is a function of the weights and the list of requests alone."""

    def __init__(
        self, model: CausalLM, capacity: int = 256, width: int = 2048, prefill_tokens: int = 16384
    ) -> None:
        """`capacity`: rows decoded together. `width`: of packed rows in `score`. `prefill_tokens`: prompt tokens computed at once."""
        self.model, self.capacity, self.width, self.prefill_tokens = (
            model,
            capacity,
            width,
            prefill_tokens,
        )
        self.device: torch.device = next(model.parameters()).device  # type: ignore[attr-defined]
        self._kept: dict[tuple[int, ...], tuple[State, int]] = {}

    def forget(self) -> None:
        """The weights change: states of unfinished conversations are of no use any more."""
        self._kept = {}

    def score(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Log-prob of every token given those before it, entry 0 being 0.0; the same path as training."""
        return score(self.model, sequences, temperature, self.width)

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], known: Sequence[int] = ()) -> list[Completion]:
        """One completion a request, in their order. Requests with equal ids share one prefill where they start together.

        known[i] leading tokens of request i are a request and its completion of the call before, made with `Sampling.more`: it goes on from
        its kept state and only what came after is fed. 0, or no entry: nothing is known.
        """
        for ids, how, _ in requests:
            if not len(ids) or how.max_tokens < 1 or how.temperature < 0 or not 0 < how.top_p <= 1:
                raise ValueError(f"cannot sample: {len(ids)} prompt tokens, {how}")
        if not requests:
            return []
        known = known or [0] * len(requests)
        self._old, self._kept = self._kept, {}
        queue = _by_prompt(requests)
        slack = max(
            1, self.capacity // 8
        )  # a join or a select copies every state, so wait until it pays
        logits, state, rows = self._start(requests, known, queue)
        log: list[tuple[Tensor, Tensor, Tensor]] = []
        finished: list[tuple[Tensor, State]] = []
        while len(rows.request):
            token, logp = _draw(logits, rows)
            fed = rows.feeding > 0
            if bool(fed.any()):
                token = torch.where(
                    fed,
                    rows.forced.gather(
                        1, (-rows.feeding % max(1, rows.forced.shape[1])).unsqueeze(1)
                    ).squeeze(1),
                    token,
                )
                rows.feeding = rows.feeding - fed.long()
            log.append((rows.request.masked_fill(fed, -1), token, logp))
            rows.drawn = rows.drawn + (~fed).long()
            done = ~fed & ((token.unsqueeze(1) == rows.stop).any(1) | (rows.drawn >= rows.limit))
            keep = (done & rows.more & (rows.request >= 0)).nonzero().squeeze(1)
            if len(keep):
                finished.append((rows.request.index_select(0, keep), state.select(keep)))
            rows.request = rows.request.masked_fill(done, -1)
            alive = (rows.request >= 0).nonzero().squeeze(1)
            dead = len(rows.request) - len(alive)
            if len(alive) == 0 or dead >= (slack if queue else max(1, len(rows.request) // 4)):
                token, rows = token.index_select(0, alive), rows.select(alive)
                state = state.select(alive) if len(alive) else state
            if len(alive):
                logits, state = self.model.decode(token, state)
            if queue and self.capacity - len(rows.request) >= slack:
                fresh, fresh_state, fresh_rows = self._start(
                    requests, known, queue, self.capacity - len(rows.request)
                )
                if len(alive):
                    logits, state, rows = (
                        torch.cat([logits, fresh]),
                        state.join(fresh_state),
                        rows.join(fresh_rows),
                    )
                else:
                    logits, state, rows = fresh, fresh_state, fresh_rows
        self._old = {}
        completions = _collect(requests, log)
        for request, part in finished:
            for row, index in enumerate(request.tolist()):
                self._kept[(*requests[index][0], *completions[index].ids)] = (part, row)
        return completions

    def _start(
        self,
        requests: Sequence[Request],
        known: Sequence[int],
        queue: list[int],
        room: int | None = None,
    ) -> tuple[Tensor, State, _Rows]:
        """Take requests off the queue's end until `room` rows or the prefill budget are full; prefill each prompt once, go on from kept states."""
        prompts: dict[tuple[int, ...], int] = {}
        taken: list[int] = []
        owner: list[int] = []
        going_on: list[int] = []
        size = 0
        while queue and len(taken) + len(going_on) < (self.capacity if room is None else room):
            ids = tuple(requests[queue[-1]][0])
            if known[queue[-1]]:
                going_on.append(queue.pop())
                continue
            if ids not in prompts:
                if prompts and size + len(ids) > self.prefill_tokens:
                    break
                prompts[ids] = len(prompts)
                size += len(ids)
            owner.append(prompts[ids])
            taken.append(queue.pop())
        parts: list[tuple[Tensor, State]] = []
        if prompts:
            logits, state = self.model.prefill(list(prompts))
            if len(owner) > len(prompts):
                siblings = torch.tensor(owner, device=self.device)
                logits, state = logits.index_select(0, siblings), state.select(siblings)
            parts.append((logits, state))
        if going_on:
            state = self._go_on([tuple(requests[i][0][: known[i]]) for i in going_on])
            parts.append((torch.zeros(len(going_on), self.model.vocab, device=self.device), state))
        logits, state = (
            parts[0]
            if len(parts) == 1
            else (torch.cat([parts[0][0], parts[1][0]]), parts[0][1].join(parts[1][1]))
        )
        return logits, state, self._rows(requests, known, [*taken, *going_on])

    def _go_on(self, keys: list[tuple[int, ...]]) -> State:
        """The kept states of these conversations as one state, in their order; each has read all but its last token."""
        by_part: dict[int, tuple[State, list[int], list[int]]] = {}
        for place, key in enumerate(keys):
            part, row = self._old[key]
            _, rows, places = by_part.setdefault(id(part), (part, [], []))
            rows.append(row)
            places.append(place)
        states = [
            part.select(torch.tensor(rows, device=self.device))
            for part, rows, _ in by_part.values()
        ]
        while len(states) > 1:  # pairwise, so that a row is copied log(parts) times
            states = [
                states[i].join(states[i + 1]) if i + 1 < len(states) else states[i]
                for i in range(0, len(states), 2)
            ]
        order = torch.tensor([place for _, _, places in by_part.values() for place in places])
        return states[0].select(order.argsort().to(self.device))

    def _rows(self, requests: Sequence[Request], known: Sequence[int], taken: list[int]) -> _Rows:
        hows = [requests[i][1] for i in taken]
        longest = max(
            1, *(len(how.stop) for _, how, _ in requests)
        )  # over all requests, so that rows can be joined
        deepest = max(
            (len(ids) - old + 1 for (ids, _, _), old in zip(requests, known, strict=True) if old),
            default=1,
        )
        forced = [list(requests[i][0][known[i] - 1 :]) if known[i] else [] for i in taken]
        seeds = [(requests[i][2] + 2**63) % 2**64 - 2**63 for i in taken]
        made = _Rows(
            request=torch.tensor(taken),
            key=_mix(torch.tensor(seeds)),
            drawn=torch.zeros(len(taken), dtype=torch.int64),
            limit=torch.tensor([how.max_tokens for how in hows]),
            temperature=torch.tensor([how.temperature or 1.0 for how in hows], dtype=torch.float32),
            greedy=torch.tensor([how.temperature == 0 for how in hows]),
            top_p=torch.tensor([how.top_p for how in hows], dtype=torch.float64),
            stop=torch.tensor([list(how.stop) + [-1] * (longest - len(how.stop)) for how in hows]),
            more=torch.tensor([how.more for how in hows]),
            forced=torch.tensor([[0] * (deepest - len(tokens)) + tokens for tokens in forced]),
            feeding=torch.tensor([len(tokens) for tokens in forced]),
        )
        return _Rows(*(getattr(made, f.name).to(self.device) for f in fields(made)))


def _by_prompt(requests: Sequence[Request]) -> list[int]:
    """Request indices with equal prompts together, longest prompts first (rows of one length decode together cheaply); reversed, to be popped."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (ids, _, _) in enumerate(requests):
        groups.setdefault(tuple(ids), []).append(index)
    longest_first = sorted(
        groups, key=len, reverse=True
    )  # stable: equal lengths stay in order of first appearance
    return [index for ids in longest_first for index in groups[ids]][::-1]


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 (products wrap; shifts are made logical by masking)."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _MIX_1
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _MIX_2
    return z ^ ((z >> 31) & (2**33 - 1))


def uniform(key: Tensor, position: Tensor) -> Tensor:
    """float64 in [0, 1), a function of (hashed seed, position) alone; 52 bits, so u·x < x for every x > 0."""
    bits = _mix(key + (position + 1) * _GOLDEN)
    return ((bits >> 12) & (2**52 - 1)).to(torch.float64) * 2.0**-52


def _draw(logits: Tensor, rows: _Rows) -> tuple[Tensor, Tensor]:
    """One token a row by inverse CDF, and its log-prob under the tempered, untruncated distribution (temperature 1 for greedy rows)."""
    scaled = logits.float() / rows.temperature.unsqueeze(1)
    top = scaled.amax(-1, keepdim=True)
    batch, vocab = scaled.shape
    # Mass relative to the likeliest token, in blocks: one pass over the vocabulary, then a search among blocks and one inside a block.
    mass = scaled.new_zeros(batch, -(-vocab // _BLOCK) * _BLOCK)
    torch.sub(scaled, top, out=mass[:, :vocab]).exp_()
    blocks = mass.view(batch, -1, _BLOCK)
    log_total = blocks.sum(-1).sum(-1, dtype=torch.float64).log()
    if bool((rows.top_p < 1).any()):
        blocks = _nucleus(mass, rows.top_p).view(batch, -1, _BLOCK)
    before = blocks.sum(-1).cumsum(-1, dtype=torch.float64)
    point = uniform(rows.key, rows.drawn).unsqueeze(1) * before[:, -1:]
    # `right`: the first entry above the point, so never one of mass 0. The clamps act on NaN logits only, which `_collect` refuses.
    block = torch.searchsorted(before, point, right=True).clamp_(max=before.shape[1] - 1)
    inside = (
        blocks.gather(1, block.unsqueeze(2).expand(-1, -1, _BLOCK))
        .squeeze(1)
        .cumsum(-1, dtype=torch.float64)
    )
    rest = point - torch.where(block > 0, before.gather(1, (block - 1).clamp(min=0)), 0.0)
    rest = torch.minimum(
        rest, inside[:, -1:] * (1 - 2.0**-52)
    )  # the two sums may differ in their last bits
    token = (
        (block * _BLOCK + torch.searchsorted(inside, rest, right=True))
        .clamp_(max=vocab - 1)
        .squeeze(1)
    )
    if bool(rows.greedy.any()):
        token = torch.where(rows.greedy, logits.argmax(-1), token)
    logp = (scaled.gather(1, token.unsqueeze(1)) - top).squeeze(1).double() - log_total
    return token, logp.float()


def _nucleus(mass: Tensor, top_p: Tensor) -> Tensor:
    """Zero everything outside the smallest set of most likely tokens that holds the share top_p of the mass."""
    ordered, index = torch.sort(mass, dim=-1, descending=True, stable=True)
    sums = ordered.cumsum(-1, dtype=torch.float64)
    keep = (sums - ordered < top_p.unsqueeze(1) * sums[:, -1:]) | (top_p.unsqueeze(1) >= 1)
    return torch.zeros_like(mass).scatter_(1, index, ordered * keep)


def _collect(
    requests: Sequence[Request], log: list[tuple[Tensor, Tensor, Tensor]]
) -> list[Completion]:
    """Tokens logged step by step, gathered by request."""
    request, token, logp = (torch.cat(part).cpu() for part in zip(*log, strict=True))
    if not bool(logp[request >= 0].isfinite().all()):
        raise RunFailed(
            "the model's logits are not finite: its weights are broken, or its dtype is too small for them"
        )
    order = request.argsort(stable=True)
    counts = torch.bincount(request[request >= 0], minlength=len(requests)).tolist()
    order = order[len(order) - sum(counts) :]
    ids = torch.split(token[order], counts)
    logprobs = torch.split(logp[order].double(), counts)
    out = []
    for (_, how, _), own, values in zip(requests, ids, logprobs, strict=True):
        tokens = tuple(own.tolist())
        out.append(
            Completion(
                tokens, tuple(values.tolist()), "stop" if tokens[-1] in how.stop else "length"
            )
        )
    return out
