"""Conversations over an endpoint: the same turns, environments and graders as `play`, by messages.

The server owns template and tokenizer, so what is kept of a turn is its text, and its length as
the server counts it. Such rollouts can be graded and counted, but not trained on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from linn.chat.render import THINK_END, parse, quoted
from linn.domains.base import Domain
from linn.endpoint.answer import Answer
from linn.endpoint.client import BadRequest, Endpoint
from linn.errors import task_group
from linn.play.conversation import ENV_THREADS, Conversation, Job, threads
from linn.types import Message, Rollout, Turn, seed_of

_LIMIT_WORDS = ("context", "too long", "maximum", "max_tokens", "max_model_len", "length")
"""What servers say of a conversation that has outgrown the model."""


async def play_remote(
    jobs: Sequence[Job],
    domains: Mapping[str, Domain],
    client: Endpoint,
    on_done: Callable[[int], None] = lambda done: None,
    asks_mode: bool = True,
) -> list[Rollout]:
    """Hold conversations with a served model and grade them; rollouts in the order of `jobs`.

    At most `client.concurrency` conversations are held at once: each has its environment open.
    `on_done` is called with the number of those that are over. `asks_mode`: the request says
    whether to think (`chat_template_kwargs.enable_thinking`), which strict servers refuse.

    A request that the server refuses for itself alone ends its conversation: as truncated where it
    outgrew the model, else as failed. A server that is gone raises InfrastructureError and cancels
    the others.
    """
    if not jobs:
        return []

    done = 0
    live = asyncio.Semaphore(client.concurrency)
    async with AsyncExitStack() as stack:
        # The threads end after the conversations: leaving the stack goes the other way round.
        env_threads = await stack.enter_async_context(threads(ENV_THREADS))
        grader_threads = {}
        for name in {job.prompt.domain for job in jobs}:
            count = domains[name].workers
            grader_threads[name] = await stack.enter_async_context(threads(count))
        await stack.enter_async_context(client)
        group = await stack.enter_async_context(task_group())

        async def hold(job: Job) -> Rollout:
            nonlocal done
            name = job.prompt.domain
            conversation = _Remote(job, domains[name], client, asks_mode)
            async with live:
                await conversation.hold(env_threads)
            rollout = await conversation.graded(grader_threads[name])
            done += 1
            on_done(done)
            return rollout

        tasks = [group.create_task(hold(job)) for job in jobs]
    return [task.result() for task in tasks]


class _Remote(Conversation):
    """A conversation as messages."""

    def __init__(self, job: Job, domain: Domain, client: Endpoint, asks_mode: bool) -> None:
        super().__init__(job, domain)
        self.client = client
        self.extra: dict[str, Any] = {}
        """Keys of a request beside the protocol's."""
        if asks_mode:
            self.extra["chat_template_kwargs"] = {"enable_thinking": job.prompt.thinking}
        self.tools = [_nested(tool) for tool in job.prompt.tools]
        self.used = 0
        """Tokens of the conversation so far, by the server's account."""
        for message in job.prompt.messages:
            self.turns.append(Turn((), None, f"[{message.role}]\n{message.content}\n"))

    async def sample_turn(self, number: int) -> None:
        """One assistant turn, as long as its own limit and that of the conversation allow."""
        how, limit = self.job.how, self.job.how.max_tokens
        room = limit
        if self.job.max_sequence is not None:
            room = min(limit, self.job.max_sequence - self.used)
        if room < 1:
            self.truncate_at_sequence()
            return

        try:
            answer = await self.client.complete(
                (*self.prompt.messages, *self.messages),
                replace(how, max_tokens=room),
                seed_of(self.job.seed, number),
                tools=self.tools or None,
                extra=self.extra or None,
            )
        except BadRequest as error:
            self._refused(str(error))
            return

        # Servers differ in what they parse: a thought or a call may still stand in the text.
        message = message_of(answer, self.prompt.tools)
        self.messages.append(message)
        self.turns.append(Turn((), None, _shown(answer), told=answer.completion_tokens))
        said = message.content or message.tool_calls
        self.unclosed = bool(message.reasoning and not said and answer.is_cut_off)
        self.used = (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)

        # Which limit came first decides what is told: that of the conversation or of the turn.
        if answer.is_cut_off and room < limit:
            self.truncate_at_sequence()
        elif answer.is_cut_off:
            self.truncate(f"turn {number + 1} reached {limit} tokens")

    def _refused(self, cause: str) -> None:
        """End a conversation that the server does not go on with."""
        if any(word in cause.lower() for word in _LIMIT_WORDS):
            self.truncate(f"the conversation outgrew the served model: {cause}")
        else:
            self.fail(f"endpoint: {cause}")

    def quoted(self, answers: Sequence[Message]) -> list[Message]:
        """See `Conversation`; by the marks of ChatML and its kin, since the server's own template
        is not known."""
        return [replace(message, content=quoted(message.content)) for message in answers]

    def append(self, answers: Sequence[Message]) -> None:
        """See `Conversation`; the next request sends them."""
        for message in answers:
            self.turns.append(Turn((), None, f"\n[{message.role}]\n{message.content}\n"))

    async def graded(self, grader_threads: ThreadPoolExecutor) -> Rollout:
        """The rollout with its verdict."""
        return await self.rollout(self.begin_grading(grader_threads))


def message_of(answer: Answer, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
    """A served answer as a turn: a thought or calls that the server left in its text are read.

    A text without any mark of a thought is an answer, also where the limit cut it off.
    """
    if answer.reasoning is not None and answer.tool_calls:
        return answer.message
    message = parse(answer.content, thinking=False, tools=tools)
    if answer.reasoning is not None:
        # The server has told thought and text apart: a mark in the text is text.
        content = answer.content.strip() if THINK_END in answer.content else message.content
        message = replace(message, content=content, reasoning=answer.reasoning)
    if answer.tool_calls:
        message = replace(message, tool_calls=answer.tool_calls)
    return message


def _nested(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A definition as chat completions take it; rows of the Responses API have it flat."""
    if "function" in tool:
        return tool
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _shown(answer: Answer) -> str:
    """An answer as transcripts show it."""
    thought = f"<think>\n{answer.reasoning}\n</think>\n" if answer.reasoning else ""
    calls = "".join(f"\n[call] {call.name} {call.arguments}" for call in answer.tool_calls)
    return f"\n[assistant]\n{thought}{answer.content}{calls}\n"
