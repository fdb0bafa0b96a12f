"""Long texts with something hidden in them: needles and variable chains (the tasks of RULER)."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PIECE = re.compile(r"\d|[^\W\d_]{1,8}|[^\w\s]|_")


def tokens_in(text: str) -> int:
    """An estimate of a text's tokens without a tokenizer.

    One per digit or punctuation mark, and one per started group of eight letters. A longer text
    never has fewer, and the estimates of two parts with white space between them add up.
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


# ---------------------------------------------------------------- filler


_ADJECTIVES = (
    "amber brave crisp dusty eager faint gentle hollow icy jolly keen lively mellow narrow olive "
    "proud quiet rusty silent tender upper vivid weary young zesty bitter curved distant early "
    "frozen golden humble inner kindly lonely modest noble plain rapid smooth"
).split()
_NOUNS = (
    "anchor basket candle drawer engine feather garden hammer island jacket kettle ladder mirror "
    "needle orchard pencil quarry ribbon saddle tunnel umbrella valley window yard zipper barrel "
    "castle donkey easel falcon goblet harbor icicle jungle kitten lantern meadow napkin oyster"
).split()
_WHO = (
    "a baker|the old sailor|my neighbour|one of the clerks|a tired doctor|the youngest pupil|"
    "our guide|a painter|the night guard|some farmer"
).split("|")
_DID = (
    "walked past|talked about|looked for|repaired|remembered|drew|sold|forgot|polished|carried|"
    "praised|counted|borrowed|dreamt of"
).split("|")
_WHERE = (
    "near the bridge|in the rain|before noon|at the market|behind the school|on a quiet evening|"
    "after the concert|by the lake|without a word"
).split("|")


def filler(rng: random.Random) -> str:
    """A sentence that says nothing of use."""
    thing = f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"
    sentence = f"{rng.choice(_WHO)} {rng.choice(_DID)} the {thing} {rng.choice(_WHERE)}."
    return sentence.capitalize()


def _filler_lines(rng: random.Random, room: int) -> list[str]:
    """As many sentences as fit into `room` tokens."""
    lines: list[str] = []
    while True:
        line = filler(rng)
        room -= tokens_in(line)
        if room < 0:
            return lines
        lines.append(line)


def _hidden_among(
    rng: random.Random, needles: Sequence[str], room: int, ordered: bool = False
) -> str:
    """The needles at uniform depths among filler, `room` tokens in all.

    `ordered` keeps their order.
    """
    # The estimates of lines add up, so the whole comes out as long as it should.
    own = sum(map(tokens_in, needles))
    lines = _filler_lines(rng, room - own)
    depths = [rng.randint(0, len(lines)) for _ in needles]
    if ordered:
        depths.sort()

    # Needles of one depth stay in their order.
    at_depth: dict[int, list[str]] = {}
    for depth, needle in zip(depths, needles, strict=True):
        at_depth.setdefault(depth, []).append(needle)

    # Depth d is the place before filler line d; the last one is behind all filler.
    context: list[str] = []
    for depth in range(len(lines) + 1):
        context += at_depth.get(depth, [])
        context += lines[depth : depth + 1]
    return "\n".join(context)


# ---------------------------------------------------------------- needles


def _names(rng: random.Random, count: int) -> list[str]:
    """Distinct names, none of which is part of another."""
    possible = len(_ADJECTIVES) * len(_NOUNS)
    # A number stands for a pair, so that distinct numbers are distinct names.
    names = []
    for number in rng.sample(range(possible), min(count, possible)):
        adjective, noun = divmod(number, len(_NOUNS))
        names.append(f"{_ADJECTIVES[adjective]} {_NOUNS[noun]}")
    return names


def _codes(rng: random.Random, count: int) -> list[str]:
    return [str(number) for number in rng.sample(range(1_000_000, 10_000_000), count)]


_OTHER_NUMBERS = (
    "The {} was sold for {}.",
    "The {} has the weight {}.",
    "Somebody counted the {} as number {}.",
    "The {} was listed on page {}.",
)
"""Numbers that are no codes, of as many digits."""


def _needles(
    rng: random.Random, tokens: int, count: int, values: int, asked: int, others: int = 0
) -> Task:
    """`count` names with `values` codes each; the question is for all codes of `asked` names.

    `others`: numbers that are no codes, the first of them about a name that is asked for.
    """
    names = _names(rng, count)
    codes = _codes(rng, len(names) * values)

    # The first `values` codes are the first name's, and so on.
    lines = []
    for number, code in enumerate(codes):
        owner = names[number // values]
        lines.append(f"A code of the {owner} is {code}.")

    # The first names are asked for, so the evidence is taken before the lines are mixed.
    needed = asked * values
    evidence = "\n".join(lines[:needed])
    decoys = [number for number in _codes(rng, len(codes) + others) if number not in codes]
    decoys = decoys[:others]
    for number, (decoy, owner) in enumerate(zip(decoys, _owners(rng, names, others), strict=True)):
        sentence = _OTHER_NUMBERS[number % len(_OTHER_NUMBERS)]
        lines.append(sentence.format(owner, decoy))
    rng.shuffle(lines)

    question = _code_question(names[:asked], needed)
    context = _hidden_among(rng, lines, tokens - tokens_in(question))
    return Task(
        text=f"{context}\n\n{question}",
        items=tuple(codes[:needed]),
        evidence=evidence,
        wrong=(*codes[needed:], *decoys),
    )


def _owners(rng: random.Random, names: Sequence[str], count: int) -> list[str]:
    """Whom the other numbers are about: the first name, then any but the names."""
    strangers = [name for name in _names(rng, len(names) + count) if name not in names]
    return [*names[:1], *strangers][:count]


def _code_question(names: Sequence[str], codes: int) -> str:
    """Asks for all codes of the names; there are so many `codes`."""
    subject, verb = names[0], "has"
    if len(names) > 1:
        subject = ", ".join(names[:-1]) + f" and {names[-1]}"
        verb = "have"
    if codes == 1:
        return f"Which code {verb} the {subject}? Answer with the number alone."
    return (
        f"Which codes {verb} the {subject}? "
        "Answer with all the numbers and nothing else, with commas between."
    )


def _distractors(tokens: int) -> int:
    """Names beside those asked for: more in a longer text."""
    return max(4, min(400, tokens // 250))


def needle(rng: random.Random, tokens: int) -> Task:
    """One code among filler that holds other numbers: the only number would be the answer."""
    return _needles(rng, tokens, count=1, values=1, asked=1, others=_distractors(tokens))


def multikey(rng: random.Random, tokens: int) -> Task:
    """One code among filler and other names' codes."""
    return _needles(rng, tokens, count=1 + _distractors(tokens), values=1, asked=1)


def multivalue(rng: random.Random, tokens: int) -> Task:
    """All four codes of one name, among others'."""
    return _needles(rng, tokens, count=4, values=4, asked=1)


def multiquery(rng: random.Random, tokens: int) -> Task:
    """The codes of four names, among others'."""
    return _needles(rng, tokens, count=4 + _distractors(tokens) // 2, values=1, asked=4)


# ---------------------------------------------------------------- variable chains

_CHAIN = 5
"""Variables of a chain: each but the first is assigned from the one before."""
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Of variables' names; I and O look like digits."""


def tracking(rng: random.Random, tokens: int) -> Task:
    """All variables that came by one value through a chain, among chains of other values."""
    count = 2 + min(60, tokens // 2_000)
    names = _variables(rng, count * _CHAIN)

    # Values differ, so that no other chain ends in the one that is asked for.
    values = rng.sample(range(10_000, 100_000), count)
    chains = []
    for number, value in enumerate(values):
        first = number * _CHAIN
        own = names[first : first + _CHAIN]
        chains.append(_assignments(own, value))

    # The first chain is the one that is asked for.
    question = (
        f"Which variables have the value {values[0]} in the end? "
        "Answer with all their names and nothing else, with commas between."
    )
    lines = _interleaved(rng, chains)
    room = tokens - tokens_in(question)
    context = _hidden_among(rng, lines, room, ordered=True)
    return Task(
        text=f"{context}\n\n{question}",
        items=tuple(names[:_CHAIN]),
        evidence="\n".join(chains[0]),
        wrong=tuple(names[_CHAIN:]),
    )


def _variables(rng: random.Random, count: int) -> list[str]:
    """Distinct names of five letters."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(rng.choice(_LETTERS) for _ in range(5))] = None
    return list(names)


def _assignments(names: Sequence[str], value: int) -> list[str]:
    """The first variable gets the value, every other one what the one before it has."""
    lines = [f"VAR {names[0]} = {value}"]
    for before, after in itertools.pairwise(names):
        lines.append(f"VAR {after} = VAR {before}")
    return lines


def _interleaved(rng: random.Random, chains: Sequence[Sequence[str]]) -> list[str]:
    """The lines of all chains, mixed; each chain keeps its own order."""
    waiting = [list(chain) for chain in chains]
    lines = []
    while waiting:
        chain = rng.choice(waiting)
        lines.append(chain.pop(0))
        waiting = [chain for chain in waiting if chain]
    return lines


NEEDLES: dict[str, Callable[[random.Random, int], Task]] = {
    "needle": needle,
    "multikey": multikey,
    "multivalue": multivalue,
    "multiquery": multiquery,
    "tracking": tracking,
}
"""The tasks by name: (rng, tokens) -> task; `tokens` by `tokens_in`."""
