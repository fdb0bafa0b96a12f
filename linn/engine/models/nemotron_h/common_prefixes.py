"""Prompts that begin alike (a system message, a domain's tools): that is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Prompt = Sequence[int]

_LEAST_PREFIX = 16
"""Tokens of a common beginning, at least. What it hands over has a price of its own."""
_LEAST_SAVED = 0.1
"""Share of all prompts' tokens that common beginnings must save, to be made use of."""


@dataclass(frozen=True)
class Tree:
    """Prompts that are computed together."""

    members: tuple[int, ...]
    """Their indices."""
    prefix: int
    """Tokens that all of them begin with, computed once; each has more. 0: there are none."""

    def tokens(self, prompts: Sequence[Prompt]) -> int:
        """Tokens that are computed."""
        return self.prefix + sum(len(prompts[index]) - self.prefix for index in self.members)


def common_prefixes(prompts: Sequence[Prompt]) -> list[Tree]:
    """All prompts, those with a common beginning in one tree; in their order where none has one."""
    # Next to each other stand those that have most in common.
    order = sorted(range(len(prompts)), key=lambda index: tuple(prompts[index]))
    trees: list[Tree] = []
    for index in order:
        grown = _grown(trees[-1], index, prompts) if trees else None
        if grown is None:
            trees.append(Tree((index,), 0))
        else:
            trees[-1] = grown

    whole = sum(map(len, prompts))
    if sum(tree.tokens(prompts) for tree in trees) > (1 - _LEAST_SAVED) * whole:
        return lone(prompts)
    return trees


def lone(prompts: Sequence[Prompt]) -> list[Tree]:
    """Every prompt by itself, in their order."""
    return [Tree((index,), 0) for index in range(len(prompts))]


def _grown(tree: Tree, index: int, prompts: Sequence[Prompt]) -> Tree | None:
    """The tree with one prompt more; None where it would not save more tokens than it does."""
    last = prompts[tree.members[-1]]
    prefix = _common(last, prompts[index])
    if len(tree.members) > 1:
        prefix = min(prefix, tree.prefix)
    # A prompt has a token of its own, from which the first reply token is drawn.
    prefix = min(prefix, len(last) - 1, len(prompts[index]) - 1)
    saved = tree.prefix * (len(tree.members) - 1)
    if prefix < _LEAST_PREFIX or prefix * len(tree.members) <= saved:
        return None
    return Tree((*tree.members, index), prefix)


def _common(one: Prompt, two: Prompt) -> int:
    """Tokens that both begin with."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        # What came before is known to be equal.
        if tuple(one[low:middle]) == tuple(two[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def passes(trees: Sequence[Tree], prompts: Sequence[Prompt], most: int) -> Iterator[list[Tree]]:
    """The trees in parts of at most `most` tokens each, or of one prompt that is longer.

    A tree may be cut: both parts then compute its prefix. So behind a long prefix there is room for
    half of `most`, however long it is: else each prompt would compute it again.
    """
    part: list[Tree] = []
    size = 0
    for tree in trees:
        for index in tree.members:
            own = len(prompts[index])
            # Whoever goes on from the prefix of the tree before it is cheaper.
            follows = bool(part) and tree.prefix > 0 and part[-1].members[-1] in tree.members
            cost = own - tree.prefix if follows else own
            room = most
            if follows and len(part) == 1:
                room = max(most, tree.prefix + most // 2)
            if part and size + cost > room:
                yield part
                part, size, follows, cost = [], 0, False, own
            if follows:
                part[-1] = Tree((*part[-1].members, index), tree.prefix)
            else:
                part.append(Tree((index,), 0))
            size += cost
    if part:
        yield part
