"""Long texts with something hidden in them, of any length: needles and variable chains among filler (the tasks of RULER)."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PIECE = re.compile(r"\d|[^\W\d_]{1,8}|[^\w\s]|_")


def tokens_in(text: str) -> int:
    """An estimate of a text's tokens without a tokenizer: digits and marks one each, words one for every eight letters begun.

    A longer text never has fewer, and the estimates of two parts with white space between them add up.
    """
    return sum(1 for _ in _PIECE.finditer(text))


@dataclass(frozen=True)
class Task:
    """One task: what is read, what is asked, what is right."""

    text: str
    """The context and the question."""
    items: tuple[str, ...]
    """The whole answer: all of these and nothing else, in any order."""
    evidence: str
    """The lines of the context that the answer needs."""
    wrong: tuple[str, ...]
    """Other values that stand in the context, each an answer somebody in a hurry might give."""


_ADJECTIVES = (
    "amber brave crisp dusty eager faint gentle hollow icy jolly keen lively mellow narrow olive proud quiet rusty silent tender upper vivid "
    "weary young zesty bitter curved distant early frozen golden humble inner kindly lonely modest noble plain rapid smooth"
).split()
_NOUNS = (
    "anchor basket candle drawer engine feather garden hammer island jacket kettle ladder mirror needle orchard pencil quarry ribbon saddle "
    "tunnel umbrella valley window yard zipper barrel castle donkey easel falcon goblet harbor icicle jungle kitten lantern meadow napkin oyster"
).split()
_WHO = "a baker|the old sailor|my neighbour|one of the clerks|a tired doctor|the youngest pupil|our guide|a painter|the night guard|some farmer".split(
    "|"
)
_DID = "walked past|talked about|looked for|repaired|remembered|drew|sold|forgot|polished|carried|praised|counted|borrowed|dreamt of".split(
    "|"
)
_WHERE = "near the bridge|in the rain|before noon|at the market|behind the school|on a quiet evening|after the concert|by the lake|without a word".split(
    "|"
)


def filler(rng: random.Random) -> str:
    """A sentence that says nothing of use."""
    thing = f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"
    return f"{rng.choice(_WHO)} {rng.choice(_DID)} the {thing} {rng.choice(_WHERE)}.".capitalize()


def _hidden_among(
    rng: random.Random, needles: Sequence[str], room: int, ordered: bool = False
) -> str:
    """The needles at uniform depths among as much filler as brings the whole to `room` tokens; `ordered` keeps their order."""
    room -= sum(map(tokens_in, needles))
    lines: list[str] = []
    while True:
        line = filler(rng)
        room -= tokens_in(line)
        if room < 0:
            break
        lines.append(line)
    depths = [rng.randint(0, len(lines)) for _ in needles]
    placed = list(zip(sorted(depths) if ordered else depths, needles, strict=True))
    placed.sort(key=lambda pair: pair[0])  # stable: needles at one depth stay in order
    made: list[str] = []
    done = 0
    for depth, needle in placed:
        made += lines[done:depth]
        made.append(needle)
        done = depth
    return "\n".join([*made, *lines[done:]])


def _keys(rng: random.Random, count: int) -> list[str]:
    """Distinct names of boxes, none of which is part of another."""
    pairs = rng.sample(
        range(len(_ADJECTIVES) * len(_NOUNS)), min(count, len(_ADJECTIVES) * len(_NOUNS))
    )
    return [f"{_ADJECTIVES[i // len(_NOUNS)]} {_NOUNS[i % len(_NOUNS)]}" for i in pairs]


def _codes(rng: random.Random, count: int) -> list[str]:
    return [str(number) for number in rng.sample(range(1_000_000, 10_000_000), count)]


def _said(key: str, code: str) -> str:
    return f"A code of the {key} is {code}."


def _needles(rng: random.Random, tokens: int, keys: int, values: int, asked: int) -> Task:
    """`keys` names with `values` codes each; the codes of `asked` of them are wanted."""
    names = _keys(rng, keys)
    codes = _codes(rng, len(names) * values)
    of = {name: codes[i * values : (i + 1) * values] for i, name in enumerate(names)}
    wanted = names[:asked]
    right = [code for name in wanted for code in of[name]]
    lines = [_said(name, code) for name in names for code in of[name]]
    rng.shuffle(lines)
    which = wanted[0] if asked == 1 else ", ".join(wanted[:-1]) + f" and {wanted[-1]}"
    what = (
        "Which code has"
        if len(right) == 1
        else "Which codes have"
        if asked > 1
        else "Which codes has"
    )
    how = (
        "the number alone"
        if len(right) == 1
        else "all the numbers and nothing else, with commas between"
    )
    question = f"{what} the {which}? Answer with {how}."
    context = _hidden_among(rng, lines, tokens - tokens_in(question))
    evidence = "\n".join(_said(name, code) for name in wanted for code in of[name])
    return Task(
        f"{context}\n\n{question}",
        tuple(right),
        evidence,
        tuple(code for code in codes if code not in right),
    )


def _distractors(tokens: int) -> int:
    """Names beside those asked for: more in a longer text."""
    return max(4, min(400, tokens // 250))


def needle(rng: random.Random, tokens: int) -> Task:
    """One code among filler."""
    return _needles(rng, tokens, 1, 1, 1)


def multikey(rng: random.Random, tokens: int) -> Task:
    """One code among filler and other names' codes."""
    return _needles(rng, tokens, 1 + _distractors(tokens), 1, 1)


def multivalue(rng: random.Random, tokens: int) -> Task:
    """All four codes of one name, among others'."""
    return _needles(rng, tokens, 4, 4, 1)


def multiquery(rng: random.Random, tokens: int) -> Task:
    """The codes of four names, among others'."""
    return _needles(rng, tokens, 4 + _distractors(tokens) // 2, 1, 4)


_HOPS = 4
"""Assignments from one variable to the next in a chain."""


def tracking(rng: random.Random, tokens: int) -> Task:
    """All variables that came by one value through a chain of assignments, among chains of other values."""
    chains = 2 + min(60, tokens // 2_000)
    names: dict[str, None] = {}
    while len(names) < chains * (_HOPS + 1):
        names["".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(5))] = None
    listed, values = list(names), [str(n) for n in rng.sample(range(10_000, 100_000), chains)]
    told: list[list[str]] = []
    for number, value in enumerate(values):
        own = listed[number * (_HOPS + 1) : (number + 1) * (_HOPS + 1)]
        told.append(
            [
                f"VAR {own[0]} = {value}",
                *(f"VAR {after} = VAR {before}" for before, after in itertools.pairwise(own)),
            ]
        )
    evidence, right = "\n".join(told[0]), listed[: _HOPS + 1]
    lines: list[str] = []
    left = [list(chain) for chain in told]
    while left:  # each chain in its own order, the chains mixed
        chain = rng.choice(left)
        lines.append(chain.pop(0))
        left = [c for c in left if c]
    question = f"Which variables have the value {values[0]} in the end? Answer with all their names and nothing else, with commas between."
    context = _hidden_among(rng, lines, tokens - tokens_in(question), ordered=True)
    return Task(f"{context}\n\n{question}", tuple(right), evidence, tuple(listed[_HOPS + 1 :]))


NEEDLES: dict[str, Callable[[random.Random, int], Task]] = {
    "needle": needle,
    "multikey": multikey,
    "multivalue": multivalue,
    "multiquery": multiquery,
    "tracking": tracking,
}
"""The tasks by name: (rng, tokens) -> task; `tokens` by `tokens_in`."""
