"""What every conversation does, wherever its model runs: turns, environment, verdict.

A subclass says how an assistant turn is asked for and how an environment's answers are appended.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from linn.domains.base import Domain, Env
from linn.errors import InfrastructureError
from linn.types import Message, Prompt, Reply, Rollout, Sampling, Turn, Verdict

ENV_THREADS = 8
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


class Conversation:
    """One conversation while it is held: its messages, and how it stands."""

    def __init__(self, job: Job, domain: Domain) -> None:
        self.job = job
        self.prompt = job.prompt
        self.domain = domain

        # A single-turn domain stays one; of others a stage may shorten or lengthen the talk.
        self.max_turns = domain.max_turns
        if domain.max_turns > 1 and job.max_turns:
            self.max_turns = job.max_turns

        self.turns: list[Turn] = []
        """Its tokens by their origin."""
        self.messages: list[Message] = []
        """Every turn after the prompt, parsed."""
        self.status: Literal["ok", "truncated", "failed"] = "ok"
        """See `Rollout`."""
        self.error = ""
        """Why it is not `ok`."""
        self.unclosed = False
        """See `Rollout`."""
        self.rewritten = False
        """See `Rollout`."""
        self._step: Future[tuple[Any, str]] | None = None
        """The environment's last step, in its thread."""

    # -------------------------------------------------- to be written by a subclass

    async def sample_turn(self, number: int) -> None:
        """Add one assistant turn to `messages` and `turns`, as long as the limits allow."""
        raise NotImplementedError

    def quoted(self, answers: Sequence[Message]) -> list[Message]:
        """An environment's answers, without marks that would end a turn or open another."""
        raise NotImplementedError

    def append(self, answers: Sequence[Message]) -> None:
        """Add answers that are in `messages` already to what the model reads next."""
        raise NotImplementedError

    # -------------------------------------------------- holding it

    async def hold(self, env_threads: ThreadPoolExecutor) -> None:
        """Alternate assistant and environment turns until the conversation is over."""
        env = None
        if self.domain.max_turns > 1:
            env = self.domain.env(self.prompt)
        try:
            for number in range(self.max_turns):
                await self.sample_turn(number)
                if env is None or self.status != "ok":
                    break
                answers = await self._answers(env, env_threads)
                if answers is None:
                    break
                # After the last turn nobody reads the environment's answers as tokens.
                if number + 1 < self.max_turns:
                    self.append(answers)
                if self.status != "ok":
                    break
        except BaseException:
            if env is not None:
                self._close_after_step(env)
            raise
        if env is not None:
            self._close(env)

    async def _answers(self, env: Env, env_threads: ThreadPoolExecutor) -> list[Message] | None:
        """The environment's answers to the last turn; None if the conversation is over."""
        last = self.messages[-1]
        self._step = env_threads.submit(_result_or_cause, env.step, last)
        answers, cause = await asyncio.wrap_future(self._step)
        if cause:  # a bad reply is data: what it broke is named
            self.fail(f"environment: {cause}")
            return None
        if answers is None:
            return None
        quoted = self.quoted(answers)
        self.messages += quoted
        return quoted

    def _close(self, env: Env) -> None:
        """Free the environment; one that cannot be freed fails its own conversation alone."""
        _, cause = _result_or_cause(env.close)
        if cause:
            self.fail(f"environment: close: {cause}")

    def _close_after_step(self, env: Env) -> None:
        """Free the environment of a conversation that is given up.

        Its last step may still be at work in its thread, which nobody can stop: then that thread
        closes it, as soon as the step is over.
        """

        def close(step: object = None) -> None:
            # Whatever closing says now, the first error says more.
            with contextlib.suppress(Exception):
                env.close()

        if self._step is None or self._step.done():
            close()
        else:
            self._step.add_done_callback(close)

    def truncate_at_sequence(self) -> None:
        """Say that the conversation as a whole reached its limit."""
        self.truncate(f"the conversation reached {self.job.max_sequence} tokens")

    def truncate(self, error: str) -> None:
        """Say that a limit of tokens was reached."""
        self.status, self.error = "truncated", error

    def fail(self, error: str) -> None:
        """Say that environment or grader broke."""
        self.status, self.error = "failed", error

    # -------------------------------------------------- its verdict

    def begin_grading(self, threads: ThreadPoolExecutor) -> asyncio.Future[tuple[Any, str]] | None:
        """Queue it to be graded; None of a failed conversation, which is not graded."""
        if self.status == "failed":
            return None
        loop = asyncio.get_running_loop()
        reply = reply_of(self.messages, finished=self.status != "truncated")
        queued = time.monotonic()
        return loop.run_in_executor(threads, _verify, self.domain, self.prompt, reply, queued)

    async def rollout(self, grading: asyncio.Future[tuple[Any, str]] | None) -> Rollout:
        """The conversation with its verdict."""
        reply = reply_of(self.messages, finished=self.status != "truncated")
        verdict = None
        if grading is not None:
            verdict, cause = await grading
            if not cause and not math.isfinite(verdict.reward):
                cause = f"reward is {verdict.reward}"
            if cause:
                self.fail(f"grader: {cause}")
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


@asynccontextmanager
async def threads(count: int) -> AsyncIterator[ThreadPoolExecutor]:
    """Worker threads; at the end, those still at work are waited for outside the event loop."""
    executor = ThreadPoolExecutor(count)
    try:
        yield executor
    finally:
        await asyncio.to_thread(executor.shutdown)


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


def sampled_tokens(rollout: Rollout) -> int:
    """Tokens that the model sampled in the conversation; those that no server told count 0."""
    total = 0
    for turn in rollout.turns:
        if turn.logprobs is not None:
            total += len(turn.ids)
        total += turn.told or 0
    return total
