"""recipes/tir: what its demonstrations show is what Python gives, in the prompts of `tir`."""

import itertools
import random
from pathlib import Path

import pytest

from linn.domains.base import Domain
from linn.domains.load import load
from linn.solve.tir import TirRules, WithPython
from linn.types import Reply

FOLDER = Path(__file__).parents[1] / "recipes" / "tir"


@pytest.fixture(params=["math", "code"])
def pair(request) -> tuple[Domain, Domain]:
    tooled = load(str(FOLDER / f"{request.param}_python.py"))
    plain = load(request.param)
    yield tooled, plain
    tooled.close()
    plain.close()


def test_the_prompts_are_those_that_tir_asks_and_what_is_held_out_stays_so(pair):
    tooled, plain = pair
    as_solved = WithPython(plain, TirRules())
    for split in ("train", "test"):
        pairs = zip(tooled.prompts(split), plain.prompts(split), strict=False)
        for prompt, other in itertools.islice(pairs, 20):
            asked = as_solved.equipped(other)
            assert (prompt.id, prompt.messages, prompt.tools) == (
                asked.id,
                asked.messages,
                asked.tools,
            )
            assert (prompt.domain, asked.domain) == (tooled.name, plain.name)


def test_demonstrations_show_what_python_gives_and_earn_what_they_should(pair):
    tooled, _ = pair
    for index, prompt in enumerate(itertools.islice(tooled.prompts("train"), 6)):
        faulty = index % 2 == 1
        call, given, answer = tooled.demonstrate(prompt, random.Random(index), faulty)
        env = tooled.env(prompt)
        try:
            assert env.step(call) == (given,)
            assert env.step(answer) is None
        finally:
            env.close()
        assert tooled.verify(prompt, Reply(answer.content)).reward == float(not faulty)


def test_every_turn_of_a_demonstration_opens_with_a_thought_as_the_prompt_does(pair):
    tooled, _ = pair
    prompt = next(iter(tooled.prompts("train")))
    turns = tooled.demonstrate(prompt, random.Random(0), False)
    assert all(turn.reasoning for turn in turns if turn.role == "assistant")
