"""Judge models: the questions of many groups asked at once, read, asked again where unreadable, and turned into verdicts."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from linn.chat.render import END, THINK, THINK_END, Codec
from linn.domains.base import Domain, Question
from linn.engine.protocol import Sampler
from linn.errors import UserError
from linn.types import Completion, Message, Prompt, Reply, Sampling, Verdict, seed_of

JUDGE_SAMPLING = Sampling(16_384, 0.6, 0.95)
"""How the released judges are sampled (paper §4.4)."""


class Judge(Protocol):
    """A model that is asked, wherever it runs."""

    @property
    def retries(self) -> int:
        """How often an unreadable answer is asked for again."""
        ...

    def answer(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[str]:
        """One answer a conversation, in order, its reasoning removed; empty where it was cut off. InfrastructureError: nobody answers."""
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

    def answer(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[str]:
        """See `Judge`; the judge thinks first."""
        how = replace(self.how, stop=(self.codec.eos,))
        prompts = [
            self.codec.prompt_ids(Prompt("judge", "", tuple(messages)))
            for messages in conversations
        ]

        async def all_of_them() -> list[Completion]:
            asked = zip(prompts, seeds, strict=True)
            tasks = [
                asyncio.ensure_future(self.sampler.generate(ids, how, seed)) for ids, seed in asked
            ]
            try:
                await asyncio.sleep(0)  # every request is queued before the sampler runs
                self.sampler.flush()
                return await asyncio.gather(*tasks)
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise

        done = asyncio.run(all_of_them()) if prompts else []
        return [
            answer_of(self.codec.decode(c.ids), thinking=True) if c.finish == "stop" else ""
            for c in done
        ]


def answer_of(text: str, thinking: bool = False) -> str:
    """What follows a model's reasoning, up to the end of its turn; empty where the reasoning never ends (`thinking`: see `unthought`)."""
    return unthought(text.split(END, 1)[0], thinking)


def unthought(text: str, thinking: bool = False) -> str:
    """A text without its reasoning; empty where that never ends (`thinking`: its opening mark stood in the prompt)."""
    _thought, mark, answer = text.rpartition(THINK_END)
    if not mark and (thinking or answer.lstrip().startswith(THINK)):
        return ""
    return answer.strip()


_MARKS = re.compile(
    r"<(?=[|｜][^<>]{1,64}[|｜]>|/?(?:think|s|tool_call|tool_response|start_of_turn|end_of_turn)>)|\[(?=/?INST\])",
    re.I,
)


def inert(text: str) -> str:
    """The text with every mark that a chat template or a tokenizer gives a meaning to (`<|im_end|>`, `</think>`, …) broken by a space."""
    return _MARKS.sub(lambda mark: mark[0] + " ", text)


def ask(judge: Judge, questions: Sequence[Question], seeds: Sequence[int]) -> tuple[list[str], int]:
    """(answers, how many stayed unreadable); an unreadable answer is asked for `retries` times more, then it is empty.

    Nothing within a message can end it or open another: what was quoted from a policy stays a quotation.
    """
    conversations = [
        [replace(m, content=inert(m.content)) for m in question.messages] for question in questions
    ]
    answers = [""] * len(questions)
    left = list(range(len(questions)))
    for attempt in range(judge.retries + 1):
        if not left:
            break
        said = judge.answer(
            [conversations[i] for i in left], [seed_of(seeds[i], attempt) for i in left]
        )
        fine = {i: text for i, text in zip(left, said, strict=True) if questions[i].readable(text)}
        for i, text in fine.items():
            answers[i] = text
        left = [i for i in left if i not in fine]
    return answers, len(left)


@dataclass(frozen=True)
class Siblings:
    """Replies to one prompt that are judged together."""

    domain: Domain
    """Asks and judges."""
    prompt: Prompt
    """What they answer."""
    replies: Sequence[Reply]
    """One or more."""


@dataclass
class Judges:
    """Who judges which domain, and what asking them has taken since the last `figures`."""

    by_domain: Mapping[str, Judge] = field(default_factory=dict)
    """A judge for every domain that a model judges; domains may share one."""
    questions: int = 0
    """Asked, each counted once however often it was asked again."""
    unreadable: int = 0
    """Of these, those that never got a readable answer."""
    seconds: float = 0.0
    """Spent waiting for judges."""

    def verdicts(self, groups: Sequence[Siblings], seed: int) -> list[list[Verdict] | None]:
        """One verdict a reply of every group, or None where the domain leaves each to `verify`.

        All questions to one judge are asked in one go; seeds follow from (seed, place of the group, place of the question). Raises
        UserError where a judged domain has no judge.
        """
        asked: dict[int, tuple[Judge, list[tuple[int, int]]]] = {}
        questions: list[Sequence[Question]] = []
        for place, group in enumerate(groups):
            mine = (
                group.domain.questions(group.prompt, group.replies) if group.domain.judged else ()
            )
            questions.append(mine)
            if not mine:
                continue
            name = group.domain.name
            if name not in self.by_domain:
                raise UserError(
                    f"domain {name} is judged by a model; name it under domains.{name}.judge, or --judge"
                )
            judge = self.by_domain[name]
            asked.setdefault(id(judge), (judge, []))[1].extend(
                (place, number) for number in range(len(mine))
            )
        began = time.monotonic()
        answers = [[""] * len(mine) for mine in questions]
        for judge, places in asked.values():
            said, unreadable = ask(
                judge,
                [questions[p][n] for p, n in places],
                [seed_of(seed, "judge", p, n) for p, n in places],
            )
            for (place, number), text in zip(places, said, strict=True):
                answers[place][number] = text
            self.questions += len(places)
            self.unreadable += unreadable
        self.seconds += time.monotonic() - began
        found = [
            g.domain.judge(g.prompt, g.replies, mine)
            if mine
            else g.domain.judge(g.prompt, g.replies)
            for g, mine in zip(groups, answers, strict=True)
        ]
        assert all(math.isfinite(v.reward) for verdicts in found if verdicts for v in verdicts), (
            found
        )
        return found

    def figures(self) -> dict[str, float]:
        """For the metrics: `judge_questions`, the share `judge_unreadable` of them, `judge_s`; none where nobody was asked. Counts anew."""
        asked, unreadable, seconds = self.questions, self.unreadable, self.seconds
        self.questions, self.unreadable, self.seconds = 0, 0, 0.0
        return (
            {
                "judge_questions": float(asked),
                "judge_unreadable": unreadable / asked,
                "judge_s": seconds,
            }
            if asked
            else {}
        )
