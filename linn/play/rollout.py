"""Conversations: prompts in, graded rollouts out.

Every conversation is one coroutine. The sampler runs only when every live conversation waits for
it, and then in the order (prompt, sibling): so the speed of a tool or a grader never changes a
token. A conversation that has ended leaves before it is graded: replies are verified, each domain's
in a queue of its own, while others are still sampled. What was sampled is what is trained: turns
are token ids that grow by appending; a reply is never tokenised again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from linn.chat.codec import Codec
from linn.domains.base import Domain
from linn.engine.protocol import Sampler
from linn.errors import task_group
from linn.play.conversation import ENV_THREADS, Conversation, threads
from linn.play.conversation import Job as Job
from linn.play.conversation import reply_of as reply_of
from linn.play.conversation import transcript as transcript
from linn.types import Completion, Message, Rollout, Sampling, Turn, seed_of


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
        env_threads = await stack.enter_async_context(threads(ENV_THREADS))
        grader_threads = {}
        for name in {job.prompt.domain for job in jobs}:
            count = domains[name].workers
            grader_threads[name] = await stack.enter_async_context(threads(count))
        group = await stack.enter_async_context(task_group())
        gate = _Gate(sampler, group, live=len(jobs))

        async def hold(index: int, job: Job) -> Rollout:
            nonlocal done
            name = job.prompt.domain
            try:
                conversation = _Conversation(index, job, domains[name], codec, gate)
                await conversation.hold(env_threads)
                rollout = await conversation.graded(grader_threads[name])
            except BaseException:
                # The group cancels the others a moment later; no batch may run until then.
                gate.closed = True
                raise
            done += 1
            on_done(done)
            return rollout

        tasks = [group.create_task(hold(index, job)) for index, job in enumerate(jobs)]
    return [task.result() for task in tasks]


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


class _Conversation(Conversation):
    """A conversation as token ids that grow by appending."""

    def __init__(
        self,
        index: int,
        job: Job,
        domain: Domain,
        codec: Codec,
        gate: _Gate,
    ) -> None:
        super().__init__(job, domain)
        self.index = index
        """Place among the conversations held together: the sampler's order."""
        self.codec = codec
        self.gate = gate
        self.how = replace(job.how, stop=codec.stops, more=domain.max_turns > 1)
        """Sampling of every assistant turn."""
        self.ids = codec.prompt_ids(job.prompt)
        """All tokens so far; they only grow."""
        self._add_turn(self.ids)

    async def sample_turn(self, number: int) -> None:
        """One assistant turn, as long as its own limit and that of the conversation allow."""
        limit = self.how.max_tokens
        room = limit
        if self.job.max_sequence is not None:
            room = min(limit, self.job.max_sequence - len(self.ids))
        if room < 1:
            self.truncate_at_sequence()
            return

        completion = await self.gate.generate(
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
            self.truncate_at_sequence()
        elif completion.finish == "length":
            self.truncate(f"turn {number + 1} reached {limit} tokens")

    def quoted(self, answers: Sequence[Message]) -> list[Message]:
        """A tool's output must not open a turn: marks of the template are broken up."""
        template = self.codec.template
        quoted = []
        for message in answers:
            content = template.quoted(message.content)
            quoted.append(replace(message, content=content))
        messages = (*self.prompt.messages, *self.messages)
        self.rewritten |= template.rewrites(
            messages, quoted, self.prompt.tools, self.prompt.thinking
        )
        return quoted

    def append(self, answers: Sequence[Message]) -> None:
        """The answers as tokens, with the opening of the next assistant turn."""
        sampled = self.messages[: len(self.messages) - len(answers)]
        ids = self.codec.continuation_ids(self.prompt, sampled, answers)
        limit = self.job.max_sequence
        if limit is not None and len(self.ids) + len(ids) >= limit:  # no room for a reply
            self.truncate_at_sequence()
            return
        self.ids = [*self.ids, *ids]
        self._add_turn(ids)

    def _add_turn(self, ids: Sequence[int], logprobs: tuple[float, ...] | None = None) -> None:
        """Record tokens of one origin."""
        self.turns.append(Turn(tuple(ids), logprobs, self.codec.decode(ids)))

    async def graded(self, grader_threads: ThreadPoolExecutor) -> Rollout:
        """The rollout with its verdict."""
        grading = self.begin_grading(grader_threads)
        # Only now: the grader is at work before the sampler may block the loop, and the sampler
        # does not wait for a verdict.
        await self.gate.leave()
        return await self.rollout(grading)
