"""A made-up country of people, companies and towns, a document each, and questions that need five of the documents."""

from __future__ import annotations

import random
from dataclasses import dataclass

from linn.domains.longctx.needles import Task, filler, tokens_in

_FIRST = (
    "Ada Bruno Clara Dario Elsa Fabian Greta Hugo Irma Jonas Karin Leon Mira Nils Olga Pavel Rosa Simon Tilda Ugo Vera Willem Xenia Yann Zora "
    "Anton Berta Cyril Dora Emil Flora Gregor Hanna Ivan Julia Konrad Lena Marek Nora Otto"
).split()
_LAST = (
    "Abelson Brandt Castor Dorn Ekberg Falk Gruber Holm Ibsen Jansky Keller Lindt Maurer Nordin Oster Palmer Quist Reuter Sander Thorne Ulmer "
    "Vogel Weiss Ziegler Arden Bellini Corvin Danner Egger Forster Galen Hartwig Imhof Jessen Krantz Lorenz Mertens Novak Orlov Prager Rossi "
    "Stahl Tober Unger Varga Wolff Yilmaz Zander"
).split()
_HEADS = "Alder Birch Cedar Dun Elm Fern Glen Hazel Iron Jade Kings Lark Moss North Oak Pine Quill Red Stone Thorn Under Vine West Ash Black".split()
_TAILS = "bridge burg dale field ford gate ham haven hill hurst mill mouth port ridge stead ton vale water wick wood".split()
_WORKS = "Glass Steel Paper Textiles Motors Foods Optics Timber Chemicals Shipping Pottery Instruments Brewing Tools Tyres".split()
_SCHOOLS = "Academy College Lyceum Institute Seminary".split()

_DOCUMENT = 75
"""Tokens that a document is planned with; padding makes up the difference."""
_LEAST = 12
"""Documents at least."""


@dataclass(frozen=True)
class _World:
    """Everything that is true."""

    people: list[str]
    companies: list[str]
    towns: list[str]
    employer: dict[str, str]
    sister: dict[str, str]
    school: dict[str, str]
    seat: dict[str, str]
    staff: dict[str, int]
    mayor: dict[str, str]
    river: dict[str, str]


def _named(
    rng: random.Random, count: int, heads: list[str], tails: list[str], between: str
) -> list[str]:
    chosen = rng.sample(range(len(heads) * len(tails)), count)
    return [f"{heads[i // len(tails)]}{between}{tails[i % len(tails)]}" for i in chosen]


def _make(rng: random.Random, documents: int) -> _World:
    towns = max(3, min(documents // 5, 400))
    companies = max(5, min(documents // 4, 600))
    people = max(4, min(documents - towns - companies, 1_900))
    who = _named(rng, people, _FIRST, _LAST, " ")
    where = _named(rng, towns, _HEADS, _TAILS, "")
    firms = _named(rng, companies, _LAST, _WORKS, " ")
    schools = _named(rng, min(people, 120), _HEADS, _SCHOOLS, " ")
    return _World(
        who,
        firms,
        where,
        {person: rng.choice(firms) for person in who},
        {
            person: rng.choice([p for p in rng.sample(who, min(4, people)) if p != person])
            for person in who
        },
        {person: rng.choice(schools) for person in who},
        {firm: rng.choice(where) for firm in firms},
        {
            firm: number
            for firm, number in zip(firms, rng.sample(range(20, 5_000), companies), strict=True)
        },
        {town: rng.choice(who) for town in where},
        {town: f"{rng.choice(_HEADS)} River" for town in where},
    )


def _documents(world: _World) -> dict[str, str]:
    """The facts of every entity, by its name."""
    found = {
        p: f"{p} works for {world.employer[p]}. {p} was taught at {world.school[p]}. A sister of {p}: {world.sister[p]}."
        for p in world.people
    }
    found |= {
        c: f"{c} has its seat in {world.seat[c]}. {c} employs {world.staff[c]} people."
        for c in world.companies
    }
    return found | {
        t: f"{t} lies on the {world.river[t]}. The mayor of {t}: {world.mayor[t]}."
        for t in world.towns
    }


def _chain(rng: random.Random, world: _World) -> tuple[str, str, list[str], list[str]] | None:
    """(question, answer, documents it needs, wrong answers) of a chain through five documents; None where it runs in a circle."""
    person = rng.choice(world.people)
    company = world.employer[person]
    town = world.seat[company]
    mayor = world.mayor[town]
    sister = world.sister[mayor]
    if len({person, mayor, sister}) < 3:
        return None
    question = (
        f"{person} works for a company. Take the mayor of the town where that company has its seat, then the sister of that mayor. "
        "At which school was that sister taught? Answer with the school's name alone."
    )
    answer = world.school[sister]
    wrong = sorted(set(world.school.values()) - {answer})
    return (question, answer, [person, company, town, mayor, sister], wrong) if wrong else None


def _sum(rng: random.Random, world: _World) -> tuple[str, str, list[str], list[str]]:
    """The same of a sum over five documents."""
    asked = rng.sample(world.companies, 5)
    question = f"How many people do {', '.join(asked[:-1])} and {asked[-1]} employ together? Add up what the documents say. Answer with the number alone."
    numbers = [world.staff[company] for company in asked]
    return (
        question,
        str(sum(numbers)),
        asked,
        [str(sum(numbers[:-1])), str(sum(numbers) + 1), *map(str, numbers)],
    )


def documents_task(rng: random.Random, tokens: int) -> Task:
    """A question over many documents that needs five of them, wherever they stand; `tokens` by `haystack.tokens_in`."""
    found = None
    while found is None:
        world = _make(rng, max(_LEAST, min(2_900, tokens // _DOCUMENT)))
        found = _chain(rng, world) if rng.random() < 0.5 else _sum(rng, world)
    question, answer, needed, wrong = found
    told = _documents(world)
    order = list(told)
    rng.shuffle(order)
    texts = [f"Document {number}: {name}\n{told[name]}" for number, name in enumerate(order, 1)]
    room = tokens - tokens_in(question) - sum(map(tokens_in, texts))
    padded = [[text] for text in texts]
    while True:
        line = filler(rng)
        room -= tokens_in(line)
        if room < 0:
            break
        rng.choice(padded).append(line)
    context = "\n\n".join(" ".join(parts) for parts in padded)
    evidence = "\n".join(told[name] for name in needed)
    return Task(f"{context}\n\n{question}", (answer,), evidence, tuple(wrong))
