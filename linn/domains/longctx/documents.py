"""A made-up country: a document per person, company and town, and questions that need five."""

from __future__ import annotations

import random
from dataclasses import dataclass

from linn.domains.longctx.needles import Task, filler, tokens_in

_FIRST = (
    "Ada Bruno Clara Dario Elsa Fabian Greta Hugo Irma Jonas Karin Leon Mira Nils Olga Pavel "
    "Rosa Simon Tilda Ugo Vera Willem Xenia Yann Zora Anton Berta Cyril Dora Emil Flora Gregor "
    "Hanna Ivan Julia Konrad Lena Marek Nora Otto"
).split()
_LAST = (
    "Abelson Brandt Castor Dorn Ekberg Falk Gruber Holm Ibsen Jansky Keller Lindt Maurer Nordin "
    "Oster Palmer Quist Reuter Sander Thorne Ulmer Vogel Weiss Ziegler Arden Bellini Corvin "
    "Danner Egger Forster Galen Hartwig Imhof Jessen Krantz Lorenz Mertens Novak Orlov Prager "
    "Rossi Stahl Tober Unger Varga Wolff Yilmaz Zander"
).split()
_HEADS = (
    "Alder Birch Cedar Dun Elm Fern Glen Hazel Iron Jade Kings Lark Moss North Oak Pine Quill "
    "Red Stone Thorn Under Vine West Ash Black"
).split()
_TAILS = (
    "bridge burg dale field ford gate ham haven hill hurst mill mouth port ridge stead ton vale "
    "water wick wood"
).split()
_WORKS = (
    "Glass Steel Paper Textiles Motors Foods Optics Timber Chemicals Shipping Pottery "
    "Instruments Brewing Tools Tyres"
).split()
_SCHOOLS = ("Academy College Lyceum Institute Seminary").split()

_DOCUMENT = 75
"""Tokens that a document is planned with; padding makes up the difference."""
_FEWEST, _MOST = 12, 2_900
"""Documents of a text."""


@dataclass(frozen=True)
class _World:
    """Everything that is true."""

    employer: dict[str, str]
    """Company by person."""
    sister: dict[str, str]
    """Person by person."""
    school: dict[str, str]
    """By person."""
    seat: dict[str, str]
    """Town by company."""
    staff: dict[str, int]
    """People employed, by company."""
    mayor: dict[str, str]
    """Person by town."""
    river: dict[str, str]
    """By town."""

    @property
    def people(self) -> list[str]:
        """All names of people."""
        return list(self.employer)

    @property
    def companies(self) -> list[str]:
        """All names of companies."""
        return list(self.seat)

    @property
    def towns(self) -> list[str]:
        """All names of towns."""
        return list(self.mayor)


@dataclass(frozen=True)
class _Problem:
    """A question about the world."""

    question: str
    answer: str
    needed: list[str]
    """The five documents that the answer needs, in the order in which they are used."""
    wrong: list[str]
    """Answers of the same kind that are wrong."""


def _combined(
    rng: random.Random, count: int, heads: list[str], tails: list[str], between: str
) -> list[str]:
    """Distinct names of a head and a tail each."""
    # A number stands for a pair, so that distinct numbers are distinct names.
    names = []
    for number in rng.sample(range(len(heads) * len(tails)), count):
        head, tail = divmod(number, len(tails))
        names.append(f"{heads[head]}{between}{tails[tail]}")
    return names


def _make_world(rng: random.Random, documents: int) -> _World:
    """A world of about so many documents."""
    # A fifth towns, a quarter companies, the rest people, as far as there are names.
    town_count = max(3, min(documents // 5, 400))
    company_count = max(5, min(documents // 4, 600))
    person_count = max(4, min(documents - town_count - company_count, 1_900))

    people = _combined(rng, person_count, _FIRST, _LAST, " ")
    towns = _combined(rng, town_count, _HEADS, _TAILS, "")
    companies = _combined(rng, company_count, _LAST, _WORKS, " ")
    schools = _combined(rng, min(person_count, 120), _HEADS, _SCHOOLS, " ")

    # These draws stay in this order: in another one, seeds would make other worlds.
    employer = {person: rng.choice(companies) for person in people}
    sister = {person: _other_person(rng, people, person) for person in people}
    school = {person: rng.choice(schools) for person in people}
    seat = {company: rng.choice(towns) for company in companies}
    sizes = rng.sample(range(20, 5_000), company_count)
    staff = dict(zip(companies, sizes, strict=True))
    mayor = {town: rng.choice(people) for town in towns}
    river = {town: f"{rng.choice(_HEADS)} River" for town in towns}
    return _World(
        employer=employer,
        sister=sister,
        school=school,
        seat=seat,
        staff=staff,
        mayor=mayor,
        river=river,
    )


def _other_person(rng: random.Random, people: list[str], person: str) -> str:
    # Four are enough to find another: sampling all of them would take a long text for ever.
    candidates = rng.sample(people, min(4, len(people)))
    return rng.choice([other for other in candidates if other != person])


def _documents(world: _World) -> dict[str, str]:
    """The facts of every entity, by its name."""
    # Each fact stands in one document alone, so that none of the five can be left out.
    texts = {}
    for person in world.people:
        texts[person] = (
            f"{person} works for {world.employer[person]}. "
            f"{person} was taught at {world.school[person]}. "
            f"A sister of {person}: {world.sister[person]}."
        )
    for company in world.companies:
        texts[company] = (
            f"{company} has its seat in {world.seat[company]}. "
            f"{company} employs {world.staff[company]} people."
        )
    for town in world.towns:
        texts[town] = (
            f"{town} lies on the {world.river[town]}. The mayor of {town}: {world.mayor[town]}."
        )
    return texts


def _chain(rng: random.Random, world: _World) -> _Problem | None:
    """A chain through five documents; None if it runs in a circle or nothing else is wrong."""
    # Person -> company -> town -> mayor -> sister: each name leads to the next document.
    person = rng.choice(world.people)
    company = world.employer[person]
    town = world.seat[company]
    mayor = world.mayor[town]
    sister = world.sister[mayor]
    answer = world.school[sister]
    wrong = sorted(set(world.school.values()) - {answer})
    if len({person, mayor, sister}) < 3 or not wrong:
        return None
    question = (
        f"{person} works for a company. Take the mayor of the town where that company has its "
        "seat, then the sister of that mayor. At which school was that sister taught? "
        "Answer with the school's name alone."
    )
    return _Problem(
        question=question,
        answer=answer,
        needed=[person, company, town, mayor, sister],
        wrong=wrong,
    )


def _sum(rng: random.Random, world: _World) -> _Problem:
    """A sum over five documents."""
    companies = rng.sample(world.companies, 5)
    *others, last = companies
    question = (
        f"How many people do {', '.join(others)} and {last} employ together? "
        "Add up what the documents say. Answer with the number alone."
    )

    sizes = [world.staff[company] for company in companies]
    total = sum(sizes)

    # Wrong by one company, wrong by one, or one company's number alone.
    wrong = [total - sizes[-1], total + 1, *sizes]
    return _Problem(
        question=question,
        answer=str(total),
        needed=companies,
        wrong=[str(number) for number in wrong],
    )


def documents_task(rng: random.Random, tokens: int) -> Task:
    """A question over many documents that needs five of them, wherever they stand.

    `tokens` by `needles.tokens_in`.
    """
    count = max(_FEWEST, min(_MOST, tokens // _DOCUMENT))
    problem = None
    while problem is None:  # a chain that runs in a circle wants another world
        world = _make_world(rng, count)
        if rng.random() < 0.5:
            problem = _chain(rng, world)
        else:
            problem = _sum(rng, world)

    facts = _documents(world)
    names = list(facts)
    rng.shuffle(names)
    texts = []
    for number, name in enumerate(names, 1):
        texts.append(f"Document {number}: {name}\n{facts[name]}")

    room = tokens - tokens_in(problem.question) - sum(map(tokens_in, texts))
    context = "\n\n".join(_padded(rng, texts, room))
    return Task(
        text=f"{context}\n\n{problem.question}",
        items=(problem.answer,),
        evidence="\n".join(facts[name] for name in problem.needed),
        wrong=tuple(problem.wrong),
    )


def _padded(rng: random.Random, texts: list[str], room: int) -> list[str]:
    """The documents, with so many tokens of filler spread over them."""
    padded = [[text] for text in texts]
    while True:
        line = filler(rng)
        room -= tokens_in(line)
        if room < 0:
            return [" ".join(parts) for parts in padded]
        rng.choice(padded).append(line)
