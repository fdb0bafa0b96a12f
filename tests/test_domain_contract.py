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

COUNT = {"tiny": 60, "full": 6}
"""Prompts per split: a full-level prompt may take a tenth of a second."""


def levels_of(name: str) -> tuple[str, ...]:
    domain = load(name)
    domain.close()
    return domain.levels


NEED_ROWS = {("swe_agentic", "full")}
"""These have no generator: their rows are made by `linn tasks` (tests/test_domain_swe_agentic.py)."""
CASES = [
    (name, level) for name in NAMES for level in levels_of(name) if (name, level) not in NEED_ROWS
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def domain(request: pytest.FixtureRequest) -> Iterator[Domain]:
    name, level = request.param
    domain = load(name, {"level": level})
    yield domain
    domain.close()


@pytest.fixture(scope="module")
def prompts(domain: Domain) -> dict[str, list[Prompt]]:
    count = COUNT[domain.level]
    return {split: list(itertools.islice(domain.prompts(split), count)) for split in SPLITS}


def demonstrated(domain: Domain, prompt: Prompt, seed: int, faulty: bool) -> Reply:
    """The reply of a demonstration, as a rollout would hand it to the grader."""
    turns = domain.demonstrate(prompt, random.Random(seed), faulty)
    return reply_of(turns)


def test_every_split_has_prompts_of_its_own(prompts: dict[str, list[Prompt]]) -> None:
    texts = {split: {prompt.messages for prompt in prompts[split]} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not texts[one] & texts[other], (one, other)
    for split in ("validation", "test"):
        assert len(texts[split]) == len({prompt.id for prompt in prompts[split]}), split
    assert all(len(prompts[split]) >= 6 for split in SPLITS)


def test_the_stream_is_a_function_of_its_seed(
    domain: Domain, prompts: dict[str, list[Prompt]]
) -> None:
    count = min(20, len(prompts["train"]))
    first = prompts["train"][:count]
    assert list(itertools.islice(domain.prompts("train"), count)) == first
    assert list(itertools.islice(domain.prompts("train", seed=1), count)) != first
    held_out = prompts["test"][:5]
    assert list(itertools.islice(domain.prompts("test", seed=1), 5)) == held_out


def test_gold_and_clean_demonstrations_earn_all_and_faulty_ones_never(
    domain: Domain, prompts: dict[str, list[Prompt]]
) -> None:
    for seed, prompt in enumerate(prompts["train"]):
        assert domain.verify(prompt, domain.gold(prompt)).reward >= 1, prompt
        clean = domain.verify(prompt, demonstrated(domain, prompt, seed, faulty=False))
        assert clean.reward >= 1, (prompt, clean)
        faulty = domain.verify(prompt, demonstrated(domain, prompt, seed, faulty=True))
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
    findings = check(domain, count=6 if domain.level == "full" else 12)
    assert not [finding for finding in findings if not finding.ok]
