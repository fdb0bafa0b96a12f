"""Strategies at test time: coroutines that sample, grade and sample again inside a running loop."""

import asyncio
import random
from dataclasses import replace

import pytest
from support.codec import END, Letters
from support.scripted import Scripted

from linn.domains.arithmetic import Arithmetic
from linn.errors import InfrastructureError
from linn.play.rollout import Job, play
from linn.types import Message, Prompt, Rollout, Sampling, seed_of

DOMAIN = Arithmetic()
DOMAINS = {DOMAIN.name: DOMAIN}
HINT = "the answer is not"


def problems(count: int) -> list[Prompt]:
    rng = random.Random(0)
    return [replace(DOMAIN.make(rng), id=f"p{i}", thinking=False) for i in range(count)]


async def best_of(prompt: Prompt, sampler: Scripted, n: int, seed: int) -> Rollout:
    """The best of n replies; if none is right, the best of n more that are told what was wrong."""
    how = Sampling(max_tokens=40)

    async def round_of(prompt: Prompt, number: int) -> list[Rollout]:
        jobs = [Job(prompt, k, how, seed_of(seed, number, k)) for k in range(n)]
        return await play(jobs, DOMAINS, sampler, Letters())

    first = await round_of(prompt, 1)
    best = max(first, key=lambda rollout: rollout.verdict.reward)
    if best.verdict.reward == 1:
        return best

    wrong = sorted({rollout.reply.text for rollout in first})
    hint = Message("user", f" {HINT} {', '.join(wrong)}")
    second = await round_of(replace(prompt, messages=(*prompt.messages, hint)), 2)
    return max(second, key=lambda rollout: rollout.verdict.reward)


def learner() -> Scripted:
    """A policy that is right only once it was told what is wrong."""
    golds = {p.messages[-1].content: DOMAIN.gold(p).text for p in problems(8)}

    def reply(text: str, seed: int) -> str:
        question = next(question for question in golds if text.startswith(question))
        right = HINT in text
        return (golds[question] if right else "no idea") + END

    return Scripted(Letters(), reply)


def test_a_strategy_samples_grades_and_samples_again_twice_in_one_loop():
    sampler = learner()
    one, two = problems(2)

    async def both() -> list[Rollout]:
        return await asyncio.gather(best_of(one, sampler, 3, 1), best_of(two, sampler, 3, 2))

    first, second = asyncio.run(both())
    assert first.verdict.reward == second.verdict.reward == 1.0
    assert (first.prompt.id, second.prompt.id) == ("p0", "p1")
    assert HINT in first.prompt.messages[-1].content
    seeds = [seed for batch in sampler.batches for seed in batch]
    assert len(seeds) == len(set(seeds)) == 2 * 2 * 3, "two rounds of three, twice"


def test_many_strategies_over_one_sampler_get_their_own_replies_in_order():
    sampler = learner()

    async def all_of_them() -> list[Rollout]:
        runs = [best_of(prompt, sampler, 4, i) for i, prompt in enumerate(problems(8))]
        return await asyncio.gather(*runs)

    rollouts = asyncio.run(all_of_them())
    assert [r.prompt.id for r in rollouts] == [f"p{i}" for i in range(8)]
    assert all(r.verdict.reward == 1.0 for r in rollouts)


def test_a_strategy_that_breaks_leaves_the_other_alone():
    """The sampler fails for one call's request only; the other call, on the same loop, goes on."""
    one, two = problems(2)

    class Half(Scripted):
        async def generate(self, ids, how, seed):
            if seed == seed_of(13, 0):
                raise InfrastructureError("this request was lost")
            return await super().generate(ids, how, seed)

    sampler = Half(Letters(), learner().reply)

    async def both() -> list[object]:
        lost = [Job(one, 0, Sampling(40), 13), Job(one, 1, Sampling(40), 14)]
        return await asyncio.gather(
            play(lost, DOMAINS, sampler, Letters()),
            best_of(two, sampler, 2, 1),
            return_exceptions=True,
        )

    broken, fine = asyncio.run(both())
    assert isinstance(broken, InfrastructureError), broken
    assert isinstance(fine, Rollout) and fine.verdict.reward == 1.0


def test_a_cancelled_strategy_takes_its_conversations_with_it():
    class Deaf(Scripted):
        def flush(self) -> None:
            """It never answers, as a server that is busy with others."""

    sampler = Deaf(Letters(), learner().reply)

    async def scenario() -> int:
        strategy = asyncio.create_task(best_of(problems(1)[0], sampler, 3, 1))
        while len(sampler.queue) < 3:
            await asyncio.sleep(0)
        strategy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await strategy
        assert all(future.cancelled() for *_, future in sampler.queue), "a request was left behind"
        return len(asyncio.all_tasks())

    assert asyncio.run(scenario()) == 1, "tasks of the strategy are still alive"
