"""A judge as linn sees it: the protocol, a checkpoint as judge, and asking until it is readable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from linn.chat.codec import Codec
from linn.engine.protocol import Sampler
from linn.errors import task_group
from linn.judges.text import Question, inert
from linn.types import Completion, Message, Prompt, Sampling, seed_of

JUDGE_SAMPLING = Sampling(16_384, 0.6, 0.95)
"""How the released judges are sampled (paper §4.4)."""


@dataclass(frozen=True)
class JudgeAnswer:
    """What a judge said to one question."""

    text: str = ""
    """Its answer, its reasoning removed."""
    missing: str = ""
    """Why there is no text: it was cut off, withheld, refused."""
    final: bool = False
    """Asked again, it would be missing again."""

    @property
    def in_words(self) -> str:
        """Why nobody could read it, in one line."""
        if self.missing:
            return self.missing
        line = " ".join(self.text.split())[:120]
        if not line:
            return "an empty answer"
        return repr("".join(char if char.isprintable() else "\ufffd" for char in line))


class Judge(Protocol):
    """A model that judges, wherever it runs."""

    @property
    def retries(self) -> int:
        """How often an unreadable answer is asked for again."""
        ...

    async def answer(
        self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]
    ) -> list[JudgeAnswer]:
        """One answer per conversation, in order.

        Raises InfrastructureError if the judge does not answer.
        """
        ...


@dataclass(frozen=True)
class SamplerJudge:
    """A checkpoint as judge: all conversations are one deterministic batch of its sampler."""

    sampler: Sampler
    """Samples from the judge's weights."""
    codec: Codec
    """The judge's own tokenizer."""
    how: Sampling = JUDGE_SAMPLING
    """`stop` is filled in with the end-of-turn token."""
    retries: int = 3
    """See `Judge`."""

    async def answer(
        self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]
    ) -> list[JudgeAnswer]:
        """See `Judge`; the judge thinks first."""
        if not conversations:
            return []
        how = replace(self.how, stop=self.codec.stops)
        tasks = []
        async with task_group() as group:
            for messages, seed in zip(conversations, seeds, strict=True):
                prompt = Prompt("judge", "", tuple(messages))
                ids = self.codec.prompt_ids(prompt)
                request = self.sampler.generate(ids, how, seed)
                tasks.append(group.create_task(request))

            await asyncio.sleep(0)  # every request is queued before the sampler runs
            self.sampler.flush()
        return [self._answer(task.result()) for task in tasks]

    def _answer(self, completion: Completion) -> JudgeAnswer:
        if completion.finish == "length":  # whatever it says is no verdict yet
            return cut_off(self.how.max_tokens)
        text = self.codec.decode(completion.ids)
        return JudgeAnswer(self.codec.template.answer(text, thinking=True))


def cut_off(max_tokens: int) -> JudgeAnswer:
    """Of a judge that did not come to its verdict."""
    return JudgeAnswer(missing=f"cut off by its max_tokens of {max_tokens:,}")


async def ask(
    judge: Judge, questions: Sequence[Question], seeds: Sequence[int]
) -> tuple[list[str], dict[int, str]]:
    """(answers, by question why its last answer could not be read).

    An unreadable answer is asked for again up to `retries` times, each time with another seed;
    if it stays unreadable it is empty.
    """
    conversations = [_quoted(question.messages) for question in questions]
    answers = [""] * len(questions)
    unread: dict[int, str] = {}
    open_questions = list(range(len(questions)))

    for attempt in range(judge.retries + 1):
        if not open_questions:
            break
        said = await judge.answer(
            [conversations[i] for i in open_questions],
            [seed_of(seeds[i], attempt) for i in open_questions],
        )

        # Only what cannot be read goes into the next, smaller batch.
        again = []
        for i, answer in zip(open_questions, said, strict=True):
            if questions[i].read(answer.text) is not None:
                answers[i] = answer.text
                unread.pop(i, None)
                continue
            unread[i] = answer.in_words
            if not answer.final:
                again.append(i)
        open_questions = again
    return answers, unread


def _quoted(messages: Sequence[Message]) -> list[Message]:
    """The messages without marks of a chat template.

    What they quote from a policy must not end a message or open another.
    """
    return [replace(message, content=inert(message.content)) for message in messages]
