"""What every domain that comes with linn promises, at each of its levels."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from linn.domains.base import Domain
from linn.domains.check import SPLITS, check, hostile_replies
from linn.domains.load import NAMES, load
from linn.play.rollout import reply_of
from linn.types import Prompt, Reply

HELD_OUT = {"tiny": 450, "full": 6}
"""Prompts of the validation and of the test split that are looked at, per level."""
QUICK, SANDBOXED, FULL = 400, 60, 6
"""Training prompts that are graded: at the tiny level, at the tiny level of a domain that starts
programs, at the full level, where one prompt may take a tenth of a second.
"""
STARTS_PROGRAMS = ("code", "structured", "swe_agentic", "swe_agentless")


def levels_of(name: str) -> tuple[str, ...]:
    domain = load(name)
    domain.close()
    return domain.levels


def marks_of(name: str, level: str) -> tuple[pytest.MarkDecorator, ...]:
    is_slow = level == "full" or name in STARTS_PROGRAMS
    return (pytest.mark.slow,) if is_slow else ()


NEED_ROWS = {("swe_agentic", "full")}
"""No generator: their rows are made by `linn tasks` (tests/test_domain_swe_agentic.py)."""
CASES = [
    pytest.param((name, level), id=f"{name}-{level}", marks=marks_of(name, level))
    for name in NAMES
    for level in levels_of(name)
    if (name, level) not in NEED_ROWS
]


@pytest.fixture(scope="module", params=CASES)
def domain(request: pytest.FixtureRequest) -> Iterator[Domain]:
    name, level = request.param
    domain = load(name, {"level": level})
    yield domain
    domain.close()


def count_of(domain: Domain, split: str) -> int:
    if split != "train":
        return HELD_OUT[domain.level]
    if domain.level == "full":
        return FULL
    return SANDBOXED if domain.name in STARTS_PROGRAMS else QUICK


@pytest.fixture(scope="module")
def prompts(domain: Domain) -> dict[str, list[Prompt]]:
    return {split: take(domain, split, count_of(domain, split)) for split in SPLITS}


def take(domain: Domain, split: str, count: int, **options: int) -> list[Prompt]:
    return list(itertools.islice(domain.prompts(split, **options), count))


def demonstrate(domain: Domain, prompt: Prompt, seed: int, faulty: bool) -> Reply:
    """The reply of a demonstration, as a rollout would hand it to the grader."""
    turns = domain.demonstrate(prompt, random.Random(seed), faulty)
    return reply_of(turns)


@pytest.mark.slow
def test_splits_hold_enough_prompts_and_do_not_overlap(
    domain: Domain, prompts: dict[str, list[Prompt]], request: pytest.FixtureRequest
) -> None:
    if domain.name == "genrm":
        reason = "a pair in the other order is a prompt of its own, and may lie in another split"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    texts = {split: {prompt.messages for prompt in prompts[split]} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not texts[one] & texts[other], (one, other)
    for split in ("validation", "test"):
        count = HELD_OUT[domain.level]
        assert len(texts[split]) == count, split
        assert len({prompt.id for prompt in prompts[split]}) == count, split


def test_the_stream_is_a_function_of_its_seed(
    domain: Domain, prompts: dict[str, list[Prompt]]
) -> None:
    first = prompts["train"][:20]
    assert take(domain, "train", len(first)) == first
    assert take(domain, "train", len(first), seed=1) != first
    assert take(domain, "test", 5, seed=1) == prompts["test"][:5], "held-out prompts have no seed"


def test_gold_and_clean_demonstrations_earn_all_and_faulty_ones_never(
    domain: Domain, prompts: dict[str, list[Prompt]]
) -> None:
    for seed, prompt in enumerate(prompts["train"]):
        assert domain.verify(prompt, domain.gold(prompt)).reward >= 1, prompt
        clean = domain.verify(prompt, demonstrate(domain, prompt, seed, faulty=False))
        assert clean.reward >= 1, (prompt, clean)
        faulty = domain.verify(prompt, demonstrate(domain, prompt, seed, faulty=True))
        assert faulty.reward < 1, (prompt, faulty)


def test_a_verdict_gives_a_reason_whenever_it_takes_something(
    domain: Domain, prompts: dict[str, list[Prompt]]
) -> None:
    for prompt in prompts["test"][:10]:
        for reply in (Reply(""), Reply("I do not know."), Reply("", finished=False)):
            verdict = domain.verify(prompt, reply)
            assert verdict.reward < 1 and verdict.note, (prompt, reply, verdict)


def test_grading_twice_gives_the_same_verdict(
    domain: Domain, prompts: dict[str, list[Prompt]]
) -> None:
    prompt = prompts["test"][0]
    gold = domain.gold(prompt)
    for reply in [gold, *(reply for _, reply in hostile_replies(gold))][:6]:
        assert domain.verify(prompt, reply) == domain.verify(prompt, reply)


@pytest.mark.slow
def test_the_domain_proves_itself(domain: Domain) -> None:
    """`linn check`: also hostile replies, another prompt's gold, and time limits."""
    findings = check(domain, count=4 if domain.level == "full" else 12)
    assert not [finding for finding in findings if not finding.ok]
