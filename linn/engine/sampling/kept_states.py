"""States of finished conversations that may go on, so that a further turn is not prefilled anew."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from linn.engine.models.interface import State


@dataclass(frozen=True)
class Kept:
    """The state of one finished request. It has read all tokens but the last."""

    owner: int
    """The request's id."""
    part: State
    """States of all requests that finished in the same step."""
    row: int
    """This one's row in `part`."""


class KeptStates:
    """Kept states by the tokens (prompt and completion) of their conversations.

    Requests that said the same keep a state each, so that dropping one leaves the others'.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], dict[int, Kept]] = {}

    def __getitem__(self, conversation: tuple[int, ...]) -> Kept:
        """The state that was kept last; raises KeyError where nothing is kept."""
        by_owner = self._kept[conversation]
        return by_owner[max(by_owner)]

    def add(
        self, part: State, owners: Sequence[int], conversations: Sequence[tuple[int, ...]]
    ) -> None:
        """Keep the rows of `part`, one per conversation."""
        pairs = zip(owners, conversations, strict=True)
        for row, (owner, conversation) in enumerate(pairs):
            self._kept.setdefault(conversation, {})[owner] = Kept(owner, part, row)

    def drop(self, owners: Collection[int]) -> None:
        """Forget what these requests left. A part is freed with the last of its rows."""
        for conversation, by_owner in list(self._kept.items()):
            for owner in by_owner.keys() & set(owners):
                del by_owner[owner]
            if not by_owner:
                del self._kept[conversation]

    def clear(self) -> None:
        """Forget all."""
        self._kept = {}


def gather(kept: Sequence[Kept], device: torch.device) -> State:
    """One state whose rows are these, in their order."""
    by_part: dict[int, list[tuple[int, Kept]]] = {}
    for place, one in enumerate(kept):
        by_part.setdefault(id(one.part), []).append((place, one))

    # One copy per part, not one per row.
    states: list[State] = []
    places = []
    for members in by_part.values():
        rows = torch.tensor([one.row for _, one in members], device=device)
        part = members[0][1].part
        states.append(part.select(rows))
        places += [place for place, _ in members]
    first, *others = states
    joined = first.join(*others, move=True) if others else first

    # The rows stand part by part now: bring them back into the order that was asked for.
    order = torch.tensor(places).argsort()
    return joined.select(order.to(device))
