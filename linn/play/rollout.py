"""Conversations: prompts in, graded rollouts out.

Every conversation is one coroutine. The sampler runs only when every live conversation waits for
it, and then in the order (prompt, sibling): so the speed of a tool or a grader never changes a
token. A conversation that has ended leaves before it is graded: replies are verified, each domain's
in a queue of its own, while others are still sampled. What was sampled is what is trained: turns
are token ids that grow by appending; a reply is never tokenised again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from linn.chat.codec import Codec
from linn.domains.base import Domain, Env
from linn.engine.protocol import Sampler
from linn.errors import InfrastructureError, task_group
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

_ENV_THREADS = 8
"""Environment turns that run at once."""


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
    max_turns: int | None = None
    """Most assistant turns in a multi-turn domain; None: the domain's own limit."""
    max_sequence: int | None = None
    """Most tokens of the whole conversation, prompt and environment turns included."""


async def play(
    jobs: Sequence[Job],
    domains: Mapping[str, Domain],
    sampler: Sampler,
    codec: Codec,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Rollout]:
    """Hold all conversations at once and grade them; rollouts in the order of `jobs`.

    `on_done` is called with the number of conversations that are over. An exception in one
    conversation (InfrastructureError, a sampler that fails) cancels the others and is raised;
    whatever a bad reply breaks is a failed rollout instead.

    Several calls may run in one event loop, also over one sampler; each call keeps its own order.
    """
    if not jobs:
        return []

    done = 0
    async with AsyncExitStack() as stack:
        # The threads end after the conversations: leaving the stack goes the other way round.
        env_threads = await stack.enter_async_context(_threads(_ENV_THREADS))
        grader_threads = {}
        for name in {job.prompt.domain for job in jobs}:
            count = domains[name].workers
            grader_threads[name] = await stack.enter_async_context(_threads(count))
        group = await stack.enter_async_context(task_group())
        gate = _Gate(sampler, group, live=len(jobs))

        async def hold(index: int, job: Job) -> Rollout:
            nonlocal done
            name = job.prompt.domain
            try:
                conversation = _Conversation(index, job, domains[name], codec)
                await conversation.hold(gate, env_threads)
                rollout = await conversation.graded(gate, grader_threads[name])
            except BaseException:
                # The group cancels the others a moment later; no batch may run until then.
                gate.closed = True
                raise
            done += 1
            on_done(done)
            return rollout

        tasks = [group.create_task(hold(index, job)) for index, job in enumerate(jobs)]
    return [task.result() for task in tasks]


@asynccontextmanager
async def _threads(count: int) -> AsyncIterator[ThreadPoolExecutor]:
    """Worker threads; at the end, those still at work are waited for outside the event loop."""
    executor = ThreadPoolExecutor(count)
    try:
        yield executor
    finally:
        await asyncio.to_thread(executor.shutdown)


# ---------------------------------------------------------------- the sampler's gate


@dataclass(frozen=True)
class _Request:
    """What a conversation asks of the sampler."""

    ids: Sequence[int]
    how: Sampling
    seed: int
    answer: asyncio.Future[Completion]
    """Where the conversation waits."""


class _Gate:
    """Collects requests until every live conversation waits, then lets the sampler run.

    Requests reach the sampler in the order of their keys (conversation, turn).
    """

    def __init__(self, sampler: Sampler, group: asyncio.TaskGroup, live: int) -> None:
        self.sampler = sampler
        self.group = group
        self.busy = live
        """Conversations that neither wait for the sampler nor are over."""
        self.waiting: dict[tuple[int, int], _Request] = {}
        self.closed = False
        """A conversation raised, so the others are about to be cancelled: no batch for them."""

    async def generate(
        self, key: tuple[int, int], ids: Sequence[int], how: Sampling, seed: int
    ) -> Completion:
        """The sampler's answer, once all conversations wait."""
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self.waiting[key] = _Request(ids, how, seed, answer)
        await self.leave()
        return await answer

    async def leave(self) -> None:
        """Called when a conversation waits or is over; the last one lets the sampler run."""
        self.busy -= 1
        if self.busy or not self.waiting or self.closed:
            return

        # Whoever answered first last time, the order of the batch is that of the keys.
        requests = [self.waiting[key] for key in sorted(self.waiting)]
        self.waiting = {}
        self.busy = len(requests)
        for request in requests:
            self.group.create_task(self._ask(request))

        await asyncio.sleep(0)  # every request is queued before the sampler runs
        if not self.closed:
            self.sampler.flush()

    async def _ask(self, request: _Request) -> None:
        """Pass a request on, and its answer or error back to the conversation."""
        answer = request.answer
        try:
            completion = await self.sampler.generate(request.ids, request.how, request.seed)
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
                # Marks it as seen: the conversation that let the sampler run raises it too.
                answer.exception()
            return
        if not answer.done():  # a cancelled conversation no longer waits
            answer.set_result(completion)


# ---------------------------------------------------------------- one conversation


class _Conversation:
    """One conversation while it is held: its tokens, its messages, and how it stands."""

    def __init__(self, index: int, job: Job, domain: Domain, codec: Codec) -> None:
        self.index = index
        """Place among the conversations held together: the sampler's order."""
        self.job = job
        self.prompt = job.prompt
        self.domain = domain
        self.codec = codec
        self.how = replace(job.how, stop=codec.stops, more=domain.max_turns > 1)
        """Sampling of every assistant turn."""

        # A single-turn domain stays one; of others a stage may shorten or lengthen the talk.
        self.max_turns = domain.max_turns
        if domain.max_turns > 1 and job.max_turns:
            self.max_turns = job.max_turns

        self.ids = codec.prompt_ids(job.prompt)
        """All tokens so far; they only grow."""
        self.turns: list[Turn] = []
        """The same tokens by their origin."""
        self.messages: list[Message] = []
        """Every turn after the prompt, parsed."""
        self.status: Literal["ok", "truncated", "failed"] = "ok"
        """See `Rollout`."""
        self.error = ""
        """Why it is not `ok`."""
        self.step: Future[tuple[Any, str]] | None = None
        """The environment's last step, in its thread."""
        self.unclosed = False
        """See `Rollout`."""
        self.rewritten = False
        """See `Rollout`."""

        self._add_turn(self.ids)

    async def hold(self, gate: _Gate, env_threads: ThreadPoolExecutor) -> None:
        """Alternate assistant and environment turns until the conversation is over."""
        env = None
        if self.domain.max_turns > 1:
            env = self.domain.env(self.prompt)
        try:
            for number in range(self.max_turns):
                await self._sample_turn(number, gate)
                if env is None or self.status != "ok":
                    break
                answers = await self._step(env, env_threads)
                if answers is None:
                    break
                # After the last turn nobody reads the environment's answers as tokens.
                if number + 1 < self.max_turns:
                    self._append_env_turn(answers)
                if self.status != "ok":
                    break
        except BaseException:
            if env is not None:
                self._close_after_step(env)
            raise
        if env is not None:
            self._close(env)

    def _close(self, env: Env) -> None:
        """Free the environment; one that cannot be freed fails its own conversation alone."""
        _, cause = _result_or_cause(env.close)
        if cause:
            self._fail(f"environment: close: {cause}")

    def _close_after_step(self, env: Env) -> None:
        """Free the environment of a conversation that is given up.

        Its last step may still be at work in its thread, which nobody can stop: then that thread
        closes it, as soon as the step is over.
        """

        def close(step: object = None) -> None:
            # Whatever closing says now, the first error says more.
            with contextlib.suppress(Exception):
                env.close()

        if self.step is None or self.step.done():
            close()
        else:
            self.step.add_done_callback(close)

    async def _sample_turn(self, number: int, gate: _Gate) -> None:
        """One assistant turn, as long as its own limit and that of the conversation allow."""
        limit = self.how.max_tokens
        room = limit
        if self.job.max_sequence is not None:
            room = min(limit, self.job.max_sequence - len(self.ids))
        if room < 1:
            self._truncate_at_sequence()
            return

        completion = await gate.generate(
            key=(self.index, number),
            ids=self.ids,
            how=replace(self.how, max_tokens=room),
            seed=seed_of(self.job.seed, number),
        )

        self.ids = [*self.ids, *completion.ids]
        self._add_turn(completion.ids, completion.logprobs)
        text = self.codec.reply(completion.ids)
        message = self.codec.template.parse(text, self.prompt.thinking, self.prompt.tools)
        self.messages.append(message)
        said = message.content or message.tool_calls
        end = self.codec.template.thought_end
        self.unclosed = bool(message.reasoning and not said and end not in text)

        # Which of the two limits a turn ran into shows in the room that it had.
        if completion.finish == "length" and room < limit:
            self._truncate_at_sequence()
        elif completion.finish == "length":
            self._truncate(f"turn {number + 1} reached {limit} tokens")

    async def _step(self, env: Env, env_threads: ThreadPoolExecutor) -> list[Message] | None:
        """The environment's answers to the last turn; None if the conversation is over."""
        last = self.messages[-1]
        self.step = env_threads.submit(_result_or_cause, env.step, last)
        answers, cause = await asyncio.wrap_future(self.step)
        if cause:  # a bad reply is data: what it broke is named
            self._fail(f"environment: {cause}")
            return None
        if answers is None:
            return None

        # A tool's output must not open a turn: marks of the template are broken up.
        quoted = []
        for message in answers:
            content = self.codec.template.quoted(message.content)
            quoted.append(replace(message, content=content))
        messages = (*self.prompt.messages, *self.messages)
        self.rewritten |= self.codec.template.rewrites(
            messages, quoted, self.prompt.tools, self.prompt.thinking
        )
        self.messages += quoted
        return quoted

    def _append_env_turn(self, answers: Sequence[Message]) -> None:
        """The answers as tokens, with the opening of the next assistant turn."""
        sampled = self.messages[: len(self.messages) - len(answers)]
        ids = self.codec.continuation_ids(self.prompt, sampled, answers)
        limit = self.job.max_sequence
        if limit is not None and len(self.ids) + len(ids) >= limit:  # no room for a reply
            self._truncate_at_sequence()
            return
        self.ids = [*self.ids, *ids]
        self._add_turn(ids)

    def _add_turn(self, ids: Sequence[int], logprobs: tuple[float, ...] | None = None) -> str:
        """Record tokens of one origin; gives their text."""
        text = self.codec.decode(ids)
        self.turns.append(Turn(tuple(ids), logprobs, text))
        return text

    async def graded(self, gate: _Gate, grader_threads: ThreadPoolExecutor) -> Rollout:
        """The rollout with its verdict; a failed conversation is not graded."""
        reply = reply_of(self.messages, finished=self.status != "truncated")
        grading = None
        if self.status != "failed":
            loop = asyncio.get_running_loop()
            queued = time.monotonic()
            grading = loop.run_in_executor(
                grader_threads, _verify, self.domain, self.prompt, reply, queued
            )
        # Only now: the grader is at work before the sampler may block the loop, and the sampler
        # does not wait for a verdict.
        await gate.leave()

        verdict = None
        if grading is not None:
            verdict, cause = await grading
            if not cause and not math.isfinite(verdict.reward):
                cause = f"reward is {verdict.reward}"
            if cause:
                self._fail(f"grader: {cause}")
        if verdict is None or self.status == "failed":
            verdict = Verdict(0.0, self.error)
        return Rollout(
            prompt=self.prompt,
            sibling=self.job.sibling,
            turns=tuple(self.turns),
            reply=reply,
            verdict=verdict,
            status=self.status,
            error=self.error,
            unclosed=self.unclosed,
            rewritten=self.rewritten,
        )

    def _truncate_at_sequence(self) -> None:
        self._truncate(f"the conversation reached {self.job.max_sequence} tokens")

    def _truncate(self, error: str) -> None:
        self.status, self.error = "truncated", error

    def _fail(self, error: str) -> None:
        self.status, self.error = "failed", error


def _verify(domain: Domain, prompt: Prompt, reply: Reply, queued: float) -> tuple[Any, str]:
    """(verdict, "") or (None, cause); the time it took and waited goes to `domain.grading`."""
    began = time.monotonic()
    try:
        return _result_or_cause(domain.verify, prompt, reply)
    finally:
        seconds = time.monotonic() - began
        domain.grading.add(verified=1.0, waited=began - queued, seconds=seconds)


def _result_or_cause(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """(result, "") or (None, the exception in words).

    A future cannot carry every exception: StopIteration would hang it.
    """
    try:
        return call(*arguments), ""
    except InfrastructureError:
        raise
    except Exception as bug:
        return None, f"{type(bug).__name__}: {bug}"


# ---------------------------------------------------------------- results


def reply_of(messages: Sequence[Message], finished: bool = True) -> Reply:
    """What the grader sees of the turns after a prompt."""
    text = ""
    if messages and messages[-1].role == "assistant":
        text = messages[-1].content
    thoughts = [m.reasoning for m in messages if m.role == "assistant" and m.reasoning]
    return Reply(text, "\n".join(thoughts), tuple(messages), finished)


def transcript(rollout: Rollout) -> str:
    """The whole conversation as the model read and wrote it."""
    return "".join(turn.text for turn in rollout.turns)
