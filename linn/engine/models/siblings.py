"""Decoding of siblings in families of transformers: a prompt's keys are kept and read once.

Without it every sibling has a copy of its prompt's keys and values, and each step reads all of
them. Here the queries of one prompt's siblings meet its keys in one product; what a row has sampled
itself stands in a cache of its own.

Letters of shapes: B rows, U prompts, S rows of the largest group of siblings, P columns of the
longest prompt, C columns of what was sampled, G query heads per key head, d head size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from linn.engine.models.cache_state import CacheState, joined
from linn.engine.models.columns import columns_at, empty_as
from linn.engine.models.growing_layer import SPARE, GrowingLayer
from linn.engine.models.interface import State
from linn.engine.models.joined_rows import attention_named, check_told
from linn.engine.models.prompt_parts import hidden, parts_of

_NAME = "linn_siblings"
"""What this attention is called in a family's config while a step is computed."""

Decode = Callable[[Tensor, "SiblingState"], Tensor]
"""Hidden states [B, H] of one token more per row (int64 [B]); the state moves on."""

_WASTE = 4
"""Places of groups per row, at most; where groups are more unequal, rows share nothing."""


class SiblingState:
    """B rows, of which each goes on from one of U prompts."""

    def __init__(self, prompts: CacheState, owner: Tensor, own: CacheState) -> None:
        """owner: int64 [B], the prompt of each row. `own`: what was fed after the prompts.

        A row of `own` may be longer than another's; a prompt without rows is of no use.
        """
        prompts, owner = _used(prompts, owner)
        counts = owner.bincount(minlength=1)
        places = len(prompts.lengths) * int(counts.max())
        longest = int((prompts.lengths[owner] + own.lengths).max()) if len(owner) else 0
        apart = len(prompts.lengths) * prompts.columns + len(owner) * own.columns
        if places > _WASTE * len(owner) or apart > len(owner) * longest:
            prompts, owner, own = _as_prompts(prompts, owner, own, longest)
            counts = owner.bincount(minlength=1)
        self.prompts = prompts
        self.owner = owner
        self.own = own
        self.groups = Groups(owner, len(prompts.lengths), int(counts.max()))
        self.parts = parts_of(prompts)
        """Of like lengths, so that a short prompt is not computed to the longest."""

    @classmethod
    def begin(cls, prompts: CacheState, owner: Tensor) -> SiblingState:
        """Rows to which nothing has been fed after their prompts."""
        for layer in prompts.cache.layers:
            layer.begin(_as_read(layer.keys), layer.values, prompts.columns)
        return cls(prompts, owner, _nothing_after(prompts, owner))

    @property
    def lengths(self) -> Tensor:
        """int64 [B]: tokens fed so far, the prompts' among them."""
        return self.prompts.lengths[self.owner] + self.own.lengths

    def select(self, rows: Tensor, move: bool = False) -> SiblingState:
        """A new state of these rows (int64 [B']), in this order."""
        prompts = self._prompts(move)
        return SiblingState(prompts, self.owner[rows], self.own.select(rows, move))

    def join(self, *others: State, move: bool = False, rows: Tensor | None = None) -> SiblingState:
        """A new state: this one's rows (of them `rows`) followed by the others'."""
        states = [self if rows is None else self.select(rows, move)]
        for other in others:
            assert isinstance(other, SiblingState), other
            states.append(other)

        owners, before = [], 0
        for state in states:
            owners.append(state.owner + before)
            before += len(state.prompts.lengths)
        return SiblingState(
            joined([state._prompts(move) for state in states], move),
            torch.cat(owners),
            joined([state.own for state in states], move),
        )

    def _prompts(self, move: bool) -> CacheState:
        """The prompts for another state; where they move, nothing here holds on to them."""
        if not move:
            return copy_of(self.prompts)
        self.parts = []
        return self.prompts


class Groups:
    """Where the rows of a batch stand when siblings are laid side by side."""

    def __init__(self, owner: Tensor, prompts: int, largest: int) -> None:
        """owner: int64 [B], each below `prompts` (U); largest: S."""
        self.shape = prompts, largest
        rows = torch.arange(len(owner), device=owner.device)
        order = owner.argsort(stable=True)
        counts = owner.bincount(minlength=prompts)
        first = (counts.cumsum(0) - counts)[owner[order]]  # of its group, in this order
        places = owner[order] * largest + rows - first
        self.place = torch.empty_like(rows)
        """int64 [B]: of a row among U · S places."""
        self.place[order] = places
        self.row = torch.zeros(prompts * largest, dtype=torch.int64, device=owner.device)
        """int64 [U · S]: the row at a place; any row where a group has fewer."""
        self.row[self.place] = rows
        self.in_order = len(self.row) == len(rows) and bool((self.place == rows).all())
        """Whether the rows stand there as they are."""

    def lay(self, of_rows: Tensor) -> Tensor:
        """[U, S, ...] of [B, ...]."""
        laid = of_rows if self.in_order else of_rows.index_select(0, self.row)
        return laid.view(*self.shape, *of_rows.shape[1:])

    def back(self, laid: Tensor) -> Tensor:
        """[B, ...] of [U, S, ...]."""
        flat = laid.flatten(0, 1)
        return flat if self.in_order else flat.index_select(0, self.place)


def _used(prompts: CacheState, owner: Tensor) -> tuple[CacheState, Tensor]:
    """The prompts that have rows, cut to the longest, and who owns which.

    All of them stay where a copy would save less than a quarter.
    """
    used, new_owner = owner.unique(return_inverse=True)
    longest = int(prompts.lengths[used].max()) if len(used) else 0
    if 4 * len(used) * longest <= 3 * len(prompts.lengths) * prompts.columns:
        return prompts.select(used, move=True), new_owner
    return prompts, owner


def _as_prompts(
    prompts: CacheState, owner: Tensor, own: CacheState, longest: int
) -> tuple[CacheState, Tensor, CacheState]:
    """Rows that share nothing: each becomes a prompt of its own, and nothing comes after it.

    So no more is kept than where rows never shared: `longest` columns each. That of a long prompt
    beside what another row has sampled at length is more.
    """
    before, after = prompts.lengths[owner], own.lengths
    column = torch.arange(longest, device=owner.device)
    token = column - (longest - before - after)[:, None]  # negative in the padding
    of_prompt = prompts.columns - before[:, None] + token
    of_own = prompts.columns + own.columns - after[:, None] + token - before[:, None]
    index = torch.where(token < before[:, None], of_prompt, of_own).clamp_min(0)

    cache = copy.copy(prompts.cache)
    cache.layers = []
    for number, layer in enumerate(prompts.cache.layers):
        new = copy.copy(layer)
        for name in ("keys", "values"):
            old = getattr(layer, name)
            parts = [old[owner], getattr(own.cache.layers[number], name)]
            whole = empty_as(old, len(owner), longest)
            setattr(new, name, whole.copy_(columns_at(torch.cat(parts, dim=2), index)))
        cache.layers.append(new)
        prompts.cache.layers[number] = own.cache.layers[number] = None
    rows = torch.arange(len(owner), device=owner.device)
    state = CacheState(cache, before + after, longest)
    return state, rows, _nothing_after(state, rows)


def _as_read(keys: Tensor) -> Tensor:
    """Keys [B, heads, columns, d] with columns next to each other in memory: a query's product
    with them reads them so, and takes two thirds of the time."""
    rows, heads, columns, size = keys.shape
    # Written out: a single column is contiguous either way, and those to come go by its order.
    return keys.new_empty(rows, heads, size, columns).transpose(2, 3).copy_(keys)


def _nothing_after(prompts: CacheState, owner: Tensor) -> CacheState:
    """What rows have of their own before anything is fed to them."""
    cache = copy.copy(prompts.cache)
    cache.layers = [_empty(layer, len(owner)) for layer in prompts.cache.layers]
    return CacheState(cache, torch.zeros_like(owner), columns=0)


def copy_of(state: CacheState) -> CacheState:
    """The same keys and values; what is emptied in one stays in the other."""
    cache = copy.copy(state.cache)
    cache.layers = list(state.cache.layers)
    return CacheState(cache, state.lengths, state.columns)


def _empty(like: Any, rows: int) -> GrowingLayer:
    """A layer of `rows` rows that has room for the first tokens."""
    layer = copy.copy(like)
    keys, values = (empty_as(tensor, rows, SPARE).zero_() for tensor in (like.keys, like.values))
    layer.begin(keys, values, columns=0)
    assert isinstance(layer, GrowingLayer)
    return layer


# ------------------------------------------------------------ attention


def decoded(decoder: Any, config: Any, ids: Tensor, state: SiblingState) -> Tensor:
    """Hidden states [B, H] of one token more per row (int64 [B]); the state moves on.

    decoder: the family's code; config: the whole model's.
    """
    own, columns = state.own, state.own.columns + 1
    with attention_named(_NAME, config):
        out = decoder(
            input_ids=ids[:, None],
            position_ids=state.lengths[:, None],
            past_key_values=own.cache,
            use_cache=True,
            siblings=state,
            own_hides=hidden(own.lengths + 1, columns),
        )
    own.lengths = own.lengths + 1
    own.columns = columns
    states: Tensor = out.last_hidden_state[:, -1]
    return states


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    *,
    siblings: SiblingState,
    own_hides: Tensor | None,
    **told: Any,
) -> tuple[Tensor, None]:
    """Attention of one token per row, as a family's code asks for it; [B, 1, heads, d].

    query [B, heads, 1, d]; key and value [B, key heads, C, d] of what was sampled, of which
    own_hides [B, 1, 1, C] hides the padding. Raises NotImplementedError where the family tells more
    than this attention does.
    """
    check_told(told | {"attention_mask": attention_mask})
    rows, heads, _, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    q = (query[:, :, 0] * scale).view(rows, key.shape[1], -1, size)
    out = attended(module.layer_idx, q, key, value, siblings, own_hides)
    return out.view(rows, 1, heads, size), None


def attended(
    layer: int,
    q: Tensor,
    key: Tensor,
    value: Tensor,
    siblings: SiblingState,
    own_hides: Tensor | None,
) -> Tensor:
    """What one token per row gets from its prompt and from what its row sampled.

    [B · key heads, G, d] of scaled queries q [B, key heads, G, d]; key, value and own_hides as in
    `_attend`.
    """
    rows, shared, heads, _ = q.shape
    columns = key.shape[2]
    groups = siblings.groups
    prompts, largest = groups.shape

    # Scores over what each row sampled, [U · key heads, S · G, C].
    behind = torch.bmm(q.flatten(0, 1), key.flatten(0, 1).transpose(1, 2))
    behind = behind.view(rows, shared, heads, columns)
    if own_hides is not None:
        behind += own_hides
    behind = _by_prompt(behind, groups)

    # What the prompts give, [U · key heads, S · G, d], and the weights of what rows sampled.
    laid = _by_prompt(q, groups)
    out = torch.empty_like(laid)
    of_own = q.new_empty(prompts, largest, shared, heads, columns)
    for part in siblings.parts:
        front = torch.bmm(laid[part.pairs], part.keys[layer])
        if part.hides is not None:
            front.view(-1, shared, *front.shape[1:]).add_(part.hides)
        weights = torch.cat([front, behind[part.pairs]], dim=-1).softmax(-1)
        of_part, of_rows = weights.split([part.columns, columns], dim=-1)
        torch.bmm(of_part, part.values[layer], out=out[part.pairs])
        of_own[part.prompts] = _split(of_rows, groups, shared)

    out = groups.back(_split(out, groups, shared)).flatten(0, 1)
    return out.baddbmm_(groups.back(of_own).flatten(0, 1), value.flatten(0, 1))


def _by_prompt(of_rows: Tensor, groups: Groups) -> Tensor:
    """[U · key heads, S · G, n] of [B, key heads, G, n]."""
    laid = groups.lay(of_rows).transpose(1, 2)
    return laid.reshape(laid.shape[0] * laid.shape[1], -1, laid.shape[-1])


def _split(laid: Tensor, groups: Groups, shared: int) -> Tensor:
    """[U, S, key heads, G, n] of [U · key heads, S · G, n], also of some prompts alone."""
    largest = groups.shape[1]
    heads = laid.shape[1] // largest
    return laid.view(-1, shared, largest, heads, laid.shape[2]).transpose(1, 2)


AttentionInterface.register(_NAME, _attend)


# ------------------------------------------------------------ which families


@torch.inference_mode()
def agrees(model: Any, decode: Decode, tolerance: float) -> bool:
    """Whether siblings of a `TransformersLM` are decoded as rows with a prompt each are; tried.

    decode: what gives the hidden states of siblings; tolerance: nats that log-probs may differ by.
    """
    prompts = [[1, 2, 3, 4, 5], [6, 7]]
    device = next(model.parameters()).device
    owner = torch.tensor([0, 1, 0, 0], device=device)
    ids = torch.tensor([3, 4, 5, 6], device=device)
    try:
        _, state = model.prefill(prompts)
        shared = SiblingState.begin(copy_of(state), owner)
        state = state.select(owner)
        for _ in range(3):
            right, state = model.decode(ids, state)
            logits = model.head(decode(ids, shared))
            gap = (logits.log_softmax(-1) - right.log_softmax(-1)).abs().nan_to_num(torch.inf)
            if float(gap.max()) > tolerance:
                return False
    except Exception:  # whatever a family's code says of an attention that it does not expect
        return False
    return True
