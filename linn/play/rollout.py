"""Conversations: prompts in, graded rollouts out.

Every conversation is one coroutine. The sampler runs only when every live conversation waits for it, and then in the order (prompt,
sibling): so the speed of a tool or a grader never changes a token. A conversation that has ended leaves before it is graded: replies are
verified, each domain's in a queue of its own, while others are still sampled. What was sampled is what is trained: turns are token ids that
grow by appending; a reply is never tokenised again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from linn.chat import render as chat
from linn.domains.base import Domain
from linn.engine.protocol import Sampler
from linn.errors import InfrastructureError
from linn.types import (
    Completion,
    Message,
    Prompt,
    Reply,
    Rollout,
    Sampling,
    Turn,
    Verdict,
    seed_of,
)

_TURNS_AT_ONCE = 8


@dataclass(frozen=True)
class Job:
    """One conversation to hold."""

    prompt: Prompt
    """Where it starts."""
    sibling: int
    """Index among the rollouts of the same prompt."""
    how: Sampling
    """Sampling of every assistant turn; `stop` is filled in with the end-of-turn token."""
    seed: int
    """Seed of the conversation; turns derive theirs from it."""
    model: Sampler | None = None
    """Who answers, where it isn't the policy."""
    max_turns: int | None = None
    """Assistant turns at most, in a multi-turn domain; None: the domain's own."""
    max_sequence: int | None = None
    """Tokens of the whole conversation at most, prompt and environment turns included; None: no limit."""


class _Gate:
    """Collects requests until every live conversation waits, then hands them on in order and lets the sampler run."""

    def __init__(self, sampler: Sampler, live: int) -> None:
        self.sampler = sampler
        self.busy = live
        self.closed = False
        """A conversation raised: nobody is waited for any more, and the sampler runs no batch for those that are about to be cancelled."""
        self.waiting: dict[
            tuple[int, int], tuple[Sequence[int], Sampling, int, asyncio.Future[Completion]]
        ] = {}

    async def generate(
        self, key: tuple[int, int], ids: Sequence[int], how: Sampling, seed: int
    ) -> Completion:
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self.waiting[key] = (ids, how, seed, future)
        await self.leave()
        return await future

    async def leave(self) -> None:
        """A conversation waits or is over; the last one to do so lets the sampler run."""
        self.busy -= 1
        if self.busy == 0 and self.waiting and not self.closed:
            batch = [self.waiting[key] for key in sorted(self.waiting)]
            self.waiting = {}
            self.busy = len(batch)
            tasks = [asyncio.ensure_future(self._ask(*entry)) for entry in batch]
            await asyncio.sleep(0)  # every request is queued before the sampler runs
            self.sampler.flush()
            del tasks

    async def _ask(
        self, ids: Sequence[int], how: Sampling, seed: int, future: asyncio.Future[Completion]
    ) -> None:
        try:
            done = await self.sampler.generate(ids, how, seed)
        except Exception as error:
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: the conversation that let the sampler run raises it too
        else:
            if not future.done():  # a cancelled conversation no longer waits
                future.set_result(done)


def play(
    jobs: Sequence[Job],
    domains: Mapping[str, Domain],
    sampler: Sampler,
    codec: chat.Codec,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Rollout]:
    """Hold all conversations at once and grade them; rollouts in the order of `jobs`. `on_done` hears how many are over."""
    if not jobs:
        return []

    async def all_of_them() -> list[Rollout]:
        gate = _Gate(sampler, len(jobs))
        done = 0

        async def one(index: int, job: Job) -> Rollout:
            nonlocal done
            try:
                domain = domains[job.prompt.domain]
                rollout = await _converse(
                    index, job, domain, gate, codec, turns, graders[domain.name]
                )
            except BaseException:
                gate.closed = True
                raise
            done += 1
            on_done(done)
            return rollout

        with contextlib.ExitStack() as stack:
            turns = stack.enter_context(ThreadPoolExecutor(_TURNS_AT_ONCE))
            used = {job.prompt.domain: domains[job.prompt.domain] for job in jobs}
            graders = {
                domain.name: stack.enter_context(ThreadPoolExecutor(domain.workers))
                for domain in used.values()
            }
            tasks = [asyncio.create_task(one(index, job)) for index, job in enumerate(jobs)]
            try:
                return list(await asyncio.gather(*tasks))
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise

    return asyncio.run(all_of_them())


async def _converse(
    index: int,
    job: Job,
    domain: Domain,
    gate: _Gate,
    codec: chat.Codec,
    turns_pool: ThreadPoolExecutor,
    graders: ThreadPoolExecutor,
) -> Rollout:
    loop = asyncio.get_running_loop()
    prompt = job.prompt
    ids = codec.prompt_ids(prompt)
    turns = [Turn(tuple(ids), None, codec.decode(ids))]
    said: list[Message] = []
    limit = min(job.how.max_tokens, prompt.max_tokens or job.how.max_tokens)
    how = Sampling(
        limit, job.how.temperature, job.how.top_p, (codec.eos,), more=domain.max_turns > 1
    )
    most = domain.max_turns if domain.max_turns == 1 else job.max_turns or domain.max_turns
    status, error = "ok", ""
    env = domain.env(prompt) if domain.max_turns > 1 else None
    try:
        for number in range(most):
            room = limit if job.max_sequence is None else min(limit, job.max_sequence - len(ids))
            if room < 1:
                status, error = "truncated", f"the conversation reached {job.max_sequence} tokens"
                break
            done = await gate.generate(
                (index, number), ids, replace(how, max_tokens=room), seed_of(job.seed, number)
            )
            text = codec.decode(done.ids)
            turns.append(Turn(done.ids, done.logprobs, text))
            said.append(chat.parse(text, prompt.thinking, prompt.tools))
            if done.finish == "length":
                what = (
                    f"turn {number + 1} reached {limit}"
                    if room == limit
                    else f"the conversation reached {job.max_sequence}"
                )
                status, error = "truncated", f"{what} tokens"
                break
            if env is None:
                break
            answers, broke = await loop.run_in_executor(turns_pool, _tried, env.step, said[-1])
            if broke:  # a bad reply is data; what it broke is named
                status, error = "failed", f"environment: {broke}"
                break
            if answers is None:
                break
            answers = tuple(replace(m, content=chat.quoted(m.content)) for m in answers)
            said += answers
            if number + 1 == most:
                break
            more = codec.encode(chat.continuation(answers, prompt.thinking))
            if (
                job.max_sequence is not None
                and len(ids) + len(done.ids) + len(more) >= job.max_sequence
            ):  # no room for a reply
                status, error = "truncated", f"the conversation reached {job.max_sequence} tokens"
                break
            turns.append(Turn(tuple(more), None, codec.decode(more)))
            ids = [*ids, *done.ids, *more]
    finally:
        if env is not None:
            env.close()
    reply = reply_of(said, finished=status != "truncated")
    graded = (
        None
        if status == "failed"
        else loop.run_in_executor(graders, _graded, domain, prompt, reply, time.monotonic())
    )
    await gate.leave()  # nobody waits for a verdict
    verdict, broke = None, ""
    if graded is not None:
        verdict, broke = await graded
        if not broke and not math.isfinite(verdict.reward):
            broke = f"reward is {verdict.reward}"
        if broke:
            status, error = "failed", f"grader: {broke}"
    if status == "failed":
        verdict = Verdict(0.0, error)
    return Rollout(prompt, job.sibling, tuple(turns), reply, verdict, status, error)  # type: ignore[arg-type]


def _graded(domain: Domain, prompt: Prompt, reply: Reply, queued: float) -> tuple[Any, str]:
    began = time.monotonic()
    try:
        return _tried(domain.verify, prompt, reply)
    finally:
        domain.grading.add(verified=1.0, waited=began - queued, seconds=time.monotonic() - began)


def _tried(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """(result, "") or (None, the exception in words): a future cannot carry every exception (StopIteration would hang it)."""
    try:
        return call(*arguments), ""
    except InfrastructureError:
        raise
    except Exception as bug:
        return None, f"{type(bug).__name__}: {bug}"


def reply_of(said: Sequence[Message], finished: bool = True) -> Reply:
    """What the grader sees of the turns after a prompt."""
    spoken = [m for m in said if m.role == "assistant"]
    last = said[-1].content if said and said[-1].role == "assistant" else ""
    thoughts = "\n".join(m.reasoning for m in spoken if m.reasoning)
    return Reply(last, thoughts, tuple(said), finished)


def transcript(rollout: Rollout) -> str:
    """The whole conversation as the model read and wrote it."""
    return "".join(turn.text for turn in rollout.turns)
