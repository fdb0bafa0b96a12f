"""RLHF: siblings are compared pair by pair by a judge, with group-relative length control (paper §4.4)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from linn.chat.request import request_messages
from linn.domains.base import Domain
from linn.domains.common.why_questions import RAMBLE, ProgramJudge, full_answer, why_prompt
from linn.errors import UserError
from linn.judges.pairwise import (
    UNREADABLE,
    Comparison,
    Order,
    Pairs,
    Shaping,
    base_rewards,
    genrm_question,
    group_rewards,
    judge_question,
    pairs_of,
    read_comparison,
    read_score,
    score_question,
)
from linn.judges.text import Question, shown, unthought
from linn.types import Message, Prompt, Reply, Verdict

_THOUGHT = "reason, example."
_SCORE, _SHOWN_FIRST, _SHOWN_SECOND = "score", "shown first", "shown second"
"""What is asked about a reply alone: its score, or which is better, the reply or the reference."""


class Preference(Domain):
    """Why-questions on sixty topics. `judge` rewards a group by pairwise comparison; `verify` grades one answer alone, for evaluation."""

    name: ClassVar[str] = "preference"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        pairs: Pairs = "all",
        order: Order = "random",
        shaping: Shaping | None = None,
        layout: Literal["plain", "genrm"] = "plain",
        principle: str = "",
        judged: bool = False,
    ) -> None:
        """`pairs`: all or circular; `order`: random, both or given; `judged`: by a model instead of the program.

        `layout`: `plain` asks a general model in words, `genrm` shows a generative reward model turns of the roles `response_1` and
        `response_2`. `principle`: what alone counts, where a row names none of its own.
        """
        super().__init__(level, rows)
        self.judged = judged
        pairs_of(2, pairs, order)  # a wrong word is the user's mistake now, not in the first step
        if layout not in ("plain", "genrm"):
            raise UserError(f"domain preference: layout is {layout!r}; allowed: plain, genrm")
        self.pairs, self.order, self.shaping, self.layout, self.principle = (
            pairs,
            order,
            shaping or Shaping(),
            layout,
            principle,
        )
        self._program = ProgramJudge()

    def make(self, rng: random.Random) -> Prompt:
        """A topic, a way of asking and a wish."""
        return why_prompt(self.name, rng)

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """A group: one comparison a pair. A reply alone: against the row's reference, both ways; else its score (`plain` only)."""
        texts = [shown(r.text) for r in replies]
        if not self.judged or not any(texts):
            return ()
        if len(texts) > 1:
            return [
                self._comparison(prompt, texts[i], texts[j], (i, j))
                for i, j in self._pairs(prompt, len(texts))
            ]
        if reference := shown(prompt.hidden.get("reference", "")):
            return [
                self._comparison(prompt, texts[0], reference, (0,), _SHOWN_FIRST),
                self._comparison(prompt, reference, texts[0], (0,), _SHOWN_SECOND),
            ]
        if self.layout == "genrm":
            return ()
        messages = score_question(prompt.messages, texts[0], self._principle(prompt))
        return [Question(messages, lambda text: read_score(text) is not None, (0,), _SCORE)]

    def question_count(self, siblings: int) -> int:
        """See `Domain`; a reply alone counts as one of a row without a reference."""
        if not self.judged:
            return 0
        if siblings == 1:
            return int(self.layout == "plain")
        return len(pairs_of(siblings, self.pairs, self.order))

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """Rewards R_i of a group (paper §4.4); may leave [0, 1]. The judge sees the answers, the length terms also the thoughts.

        A reply alone that a model judges: (score - 1) / 4, or the share of comparisons won against the reference (a tie counts half).
        """
        if self.judged and len(replies) == 1:
            return self._alone(replies[0], answers)
        pairs: list[tuple[int, int]] = []
        comparisons: list[Comparison] = []
        if self.judged:
            for question, answer in answers:
                first, second = question.replies
                pairs.append((first, second))
                comparisons.append(read_comparison(answer) or UNREADABLE)
        else:
            pairs = self._pairs(prompt, len(replies))
            for first, second in pairs:
                comparisons.append(
                    self._program.compare(prompt, replies[first].text, replies[second].text)
                )
        base = base_rewards(len(replies), pairs, comparisons)
        texts, thoughts = [r.text for r in replies], [r.reasoning for r in replies]
        rewards = group_rewards(base, thoughts, texts, self.shaping)
        verdicts = []
        for reward, of_judge, text, thought in zip(rewards, base, texts, thoughts, strict=True):
            lengths = {
                "answer_chars": float(len(text.strip())),
                "think_chars": float(len(thought.strip())),
            }
            note = f"judge {of_judge:.2f}, length terms and bonuses {reward - of_judge:+.2f}"
            verdicts.append(Verdict(reward, note, {"judge_score": of_judge, **lengths}))
        return verdicts

    def _alone(self, reply: Reply, answers: Sequence[tuple[Question, str]]) -> list[Verdict] | None:
        if not reply.text.strip():
            return [Verdict(0.0, "no answer")]
        if not answers:
            return None
        by_label = {question.label: answer for question, answer in answers}
        if _SCORE in by_label:
            score = read_score(by_label[_SCORE]) or 3.0
            return [Verdict((score - 1) / 4, f"score {score:g} of 5")]
        first = _share_won(read_comparison(by_label[_SHOWN_FIRST]) or UNREADABLE)
        second = 1 - _share_won(read_comparison(by_label[_SHOWN_SECOND]) or UNREADABLE)
        note = f"won {first:g} shown first and {second:g} shown second, against the reference"
        return [Verdict((first + second) / 2, note)]

    def _comparison(
        self,
        prompt: Prompt,
        first: str,
        second: str,
        replies: tuple[int, ...],
        label: str = "",
    ) -> Question:
        ask = genrm_question if self.layout == "genrm" else judge_question
        messages = ask(prompt.messages, first, second, self._principle(prompt))
        return Question(messages, lambda text: read_comparison(text) is not None, replies, label)

    def _pairs(self, prompt: Prompt, count: int) -> list[tuple[int, int]]:
        return pairs_of(count, self.pairs, self.order, prompt.id)

    def _principle(self, prompt: Prompt) -> str:
        return str(prompt.hidden.get("principle", self.principle))

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Absolute quality by the program judge, in [0, 1]: (score - 1) / 4."""
        score = self._program.score(prompt, reply.text)
        return Verdict((score - 1) / 4, f"score {score} of 5")

    def gold(self, prompt: Prompt) -> Reply:
        """The fact with its reason and its example; for a released row, an answer that has every part the program judge looks for."""
        if "topic" in prompt.hidden:
            return Reply(full_answer(prompt), _THOUGHT)
        word = max(
            re.findall(r"\w{4,}", prompt.messages[-1].content[:4_000].lower()), key=len, default=""
        )
        return Reply(f"{word} because it is so. for example {word} as asked.")

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: no example, and a filler said twice in its place."""
        answer = (
            f"{full_answer(prompt).partition(' for example')[0]} {RAMBLE} {RAMBLE}"
            if faulty
            else full_answer(prompt)
        )
        return (Message("assistant", answer, reasoning=_THOUGHT),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`responses_create_params.input`; the judge decides. Optional: `reference` (an answer to compare with) and `principle`."""
        hidden = {}
        for key in ("reference", "principle"):
            if (value := row.get(key)) is not None:
                if not isinstance(value, str):
                    raise UserError(f"row {index}: {key} is {type(value).__name__}; allowed: text")
                hidden[key] = unthought(value) if key == "reference" else value
        return Prompt(
            self.name,
            str(row.get("id", row.get("uuid", index))),
            request_messages(row, index),
            hidden=hidden,
        )


def _share_won(said: Comparison) -> float:
    """1 where the first is better, 0 where the second is, 0.5 for a tie in scores and ranking."""
    first, second = base_rewards(2, [(0, 1)], [said])
    return 0.5 if first == second else float(first > second)
