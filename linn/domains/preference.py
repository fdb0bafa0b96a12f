"""RLHF: a judge compares siblings pair by pair, with group-relative length control (paper §4.4)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from linn.chat.request import request_of
from linn.domains.base import Domain
from linn.domains.common.pairs import Pair
from linn.domains.common.why_questions import (
    RAMBLE,
    ProgramJudge,
    WhyFact,
    full_answer,
    why_fact,
    why_prompt,
)
from linn.errors import UserError
from linn.judges.pairwise import (
    Comparison,
    Order,
    Pairs,
    Shaping,
    base_rewards,
    comparison_question,
    genrm_question,
    group_rewards,
    pairs_of,
    score_question,
)
from linn.judges.text import Question, shown, unthought
from linn.types import Message, Prompt, Reply, Verdict

_THOUGHT = "reason, example."
_NEEDS_A_JUDGE = (
    "only a judge can compare answers to rows; name a model under domains.preference.judge, "
    "or --judge"
)
_SCORE, _SHOWN_FIRST, _SHOWN_SECOND = "score", "shown first", "shown second"
"""What is asked about a reply alone: its score, or which is better, it or the reference."""


@dataclass(frozen=True)
class RowExtras:
    """What a released row gives the judge besides the conversation; the prompt's `hidden`."""

    reference: str = ""
    """An answer that a lone reply is compared with, as ArenaHard does; empty: it is scored."""
    principle: str | None = None
    """What alone counts; None: the domain's own principle."""


class Preference(Domain):
    """Why-questions on sixty topics, judged by a program; or released rows, judged by a model.

    `judge` rewards a group by pairwise comparison. A reply alone is compared with the row's
    reference reply in both orders, or scored; `verify` scores that of a generated prompt.
    """

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
        """`pairs`: all or circular; `order`: random, both or given.

        `judged`: by a model instead of the program. `layout`: `plain` asks a general model in
        words, `genrm` shows a generative reward model turns of the roles `response_1` and
        `response_2`. `principle`: what alone counts, for rows that name none of their own.
        """
        super().__init__(level, rows)
        pairs_of(2, pairs, order)  # a wrong word is the user's mistake now, not in the first step
        if layout not in ("plain", "genrm"):
            raise UserError(f"domain preference: layout is {layout!r}; allowed: plain, genrm")
        if rows is not None and not judged:  # now, and not at every row
            raise UserError(f"domain preference: rows {rows}: {_NEEDS_A_JUDGE}")
        self.judged = judged
        self.pairs = pairs
        self.order = order
        self.shaping = shaping or Shaping()
        self.layout = layout
        self.principle = principle
        self._program = ProgramJudge()

    def make(self, rng: random.Random) -> Prompt:
        """A topic, a way of asking and a wish."""
        return why_prompt(self.name, rng)

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Absolute quality by the program judge, in [0, 1]: (score - 1) / 4.

        A program knows nothing of the questions of rows: these are a judge's.
        """
        if not isinstance(prompt.hidden, WhyFact):
            return Verdict(0.0, self.unjudged(prompt) or "a judge decides", undecided=True)
        score = self._program.score(prompt, reply.text)
        return Verdict((score - 1) / 4, f"score {score} of 5")

    def unjudged(self, prompt: Prompt) -> str:
        """See `Domain`."""
        row = prompt.hidden
        if not isinstance(row, RowExtras) or row.reference.strip() or self.layout != "genrm":
            return ""
        return (
            "a reward model that only compares (layout: genrm) needs a reference reply in the row "
            "(reference, chosen, or response1 and response2 with overall_preference)"
        )

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """A group: one comparison per pair.

        A reply alone: compared with the row's reference, both ways; without a reference its
        score (`plain` only).
        """
        texts = [shown(reply.text) for reply in replies]
        if not self.judged or not any(texts):  # empty answers are equal without a judge
            return ()
        if len(texts) == 1:
            return self._questions_alone(prompt, texts[0])

        questions = []
        for pair in self._pairs(prompt, len(texts)):
            first, second = pair
            questions.append(self._comparison(prompt, texts[first], texts[second], pair))
        return questions

    def _questions_alone(self, prompt: Prompt, text: str) -> Sequence[Question]:
        alone = (0,)
        reference = ""
        if isinstance(prompt.hidden, RowExtras):
            reference = shown(prompt.hidden.reference)

        if reference:
            # Once in each place, so that a judge's liking for a place cancels out.
            return [
                self._comparison(prompt, text, reference, alone, _SHOWN_FIRST),
                self._comparison(prompt, reference, text, alone, _SHOWN_SECOND),
            ]
        if self.layout == "genrm":  # a model that only compares leaves it to `verify`
            return ()
        return [
            score_question(prompt.messages, text, alone, self._principle(prompt), _SCORE),
        ]

    def _comparison(
        self, prompt: Prompt, first: str, second: str, replies: tuple[int, ...], label: str = ""
    ) -> Question:
        ask = genrm_question if self.layout == "genrm" else comparison_question
        return ask(prompt.messages, first, second, replies, self._principle(prompt), label)

    def question_count(self, siblings: int) -> int:
        """See `Domain`; a reply to a row counts as one with a reference, in both orders."""
        if not self.judged:
            return 0
        if siblings == 1:
            if self.has_rows:
                return 2
            return int(self.layout == "plain")
        return len(pairs_of(siblings, self.pairs, self.order))

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """Rewards R_i of a group (paper §4.4); they may leave [0, 1].

        The judge sees the answers; the length terms count the thoughts too. A reply alone that a
        model judges gets (score - 1) / 4, or the share of comparisons that it won against the
        reference, a tie counting half.
        """
        # A group of one cannot be compared with itself.
        if self.judged and len(replies) == 1:
            return self._alone(replies[0], answers)

        if self.judged:
            pairs, comparisons = _compared(answers)
        else:
            pairs = self._pairs(prompt, len(replies))
            comparisons = []
            for first, second in pairs:
                comparisons.append(
                    self._program.compare(prompt, replies[first].text, replies[second].text)
                )

        # Without a question (all replies are empty) nobody was compared: 3 for each.
        base = base_rewards(len(replies), pairs, comparisons)
        decided = list(range(len(replies)))
        if answers:
            decided = sorted({place for pair in pairs for place in pair})

        # Lengths are weighed among those alone whose answers the judge compared: otherwise a judge
        # that says nothing readable would train brevity.
        rewards = group_rewards(
            [base[place] for place in decided],
            thoughts=[replies[place].reasoning for place in decided],
            answers=[replies[place].text for place in decided],
            shaping=self.shaping,
        )
        verdicts = [_undecided(3.0)] * len(replies)
        for place, reward in zip(decided, rewards, strict=True):
            verdicts[place] = _verdict(replies[place], reward, base[place])
        return verdicts

    def _alone(self, reply: Reply, answers: Sequence[tuple[Question, str]]) -> list[Verdict] | None:
        if not reply.text.strip():
            return [Verdict(0.0, "no answer")]
        if not answers:
            return None
        by_label = {question.label: question.read(answer) for question, answer in answers}
        if _SCORE in by_label:
            score = by_label[_SCORE]
            if score is None:
                return [_undecided(0.5)]
            return [Verdict((score - 1) / 4, f"score {score:g} of 5")]
        return [_against_reference(by_label[_SHOWN_FIRST], by_label[_SHOWN_SECOND])]

    def _pairs(self, prompt: Prompt, count: int) -> list[tuple[int, int]]:
        return pairs_of(count, self.pairs, self.order, prompt.id)

    def _principle(self, prompt: Prompt) -> str:
        if isinstance(prompt.hidden, RowExtras) and prompt.hidden.principle is not None:
            return prompt.hidden.principle
        return self.principle

    # -------------------------------------------------- gold, demonstrations, rows

    def gold(self, prompt: Prompt) -> Reply:
        """The fact with its reason and its example.

        UserError for a row: nothing is known to be the best answer to it.
        """
        if isinstance(prompt.hidden, WhyFact):
            return Reply(full_answer(prompt.hidden), _THOUGHT)
        raise UserError(f"prompt {prompt.id}: a row of preferences holds no gold answer")

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: no example, and a filler said twice in its place."""
        answer = full_answer(why_fact(prompt))
        if faulty:
            fact = answer.partition(" for example")[0]
            answer = f"{fact} {RAMBLE} {RAMBLE}"
        return (Message("assistant", answer, reasoning=_THOUGHT),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`responses_create_params.input`; the judge decides, and without one it is a UserError.

        Optional: `reference` (an answer to compare with) and `principle`. Of rows with `chosen` and
        `rejected`, the chosen answer is the reference; of HelpSteer3's, the one that people
        preferred, or the first of two equal ones.
        """
        if not self.judged:
            raise UserError(f"row {index}: {_NEEDS_A_JUDGE}")
        row = _with_reference(row, index)
        for key in ("reference", "principle"):
            value = row.get(key)
            if value is not None and not isinstance(value, str):
                raise UserError(f"row {index}: {key} is {type(value).__name__}; allowed: text")

        hidden = RowExtras(
            reference=unthought(row.get("reference") or ""),
            principle=row.get("principle"),
        )
        request = request_of(row, index)
        return request.prompt(self.name, str(row.get("id", row.get("uuid", index))), hidden)


def _with_reference(row: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """The row, its better answer as the reference where it has no other."""
    if row.get("reference") is not None:
        return row
    if row.get("chosen") is None:
        preference = row.get("overall_preference")
        if not isinstance(preference, int | float):
            return row
        better = row.get("response2" if preference > 0 else "response1")
        return {**row, "reference": better}
    pair = Pair.of_row(row, f"row {index}")
    return {**row, "messages": pair.prompt, "reference": pair.chosen}


def _compared(
    answers: Sequence[tuple[Question, str]],
) -> tuple[list[tuple[int, int]], list[Comparison]]:
    """Which replies a judge compared readably, and what it said of each pair."""
    pairs, comparisons = [], []
    for question, answer in answers:
        comparison = question.read(answer)
        if comparison is not None:
            first, second = question.replies
            pairs.append((first, second))
            comparisons.append(comparison)
    return pairs, comparisons


def _undecided(reward: float) -> Verdict:
    """Of a reply about which the judge said nothing readable; the reward stands in the middle."""
    return Verdict(reward, "no answer of the judge is readable", undecided=True)


def _verdict(reply: Reply, reward: float, score: float) -> Verdict:
    """One sibling's verdict; `score` is its base reward, by the judge alone."""
    metrics = {
        "judge_score": score,
        "answer_chars": float(len(reply.text.strip())),
        "think_chars": float(len(reply.reasoning.strip())),
    }
    note = f"judge {score:.2f}, length terms and bonuses {reward - score:+.2f}"
    return Verdict(reward, note, metrics)


def _against_reference(shown_first: Comparison | None, shown_second: Comparison | None) -> Verdict:
    """The verdict on a reply that was shown in both places: going by the place gives half.

    A comparison that could not be read leaves the mean.
    """
    first, second = _share_won(shown_first), _share_won(shown_second)
    shares, parts = [], []
    if first is not None:
        shares.append(first)
        parts.append(f"{first:g} shown first")
    if second is not None:
        shares.append(1 - second)
        parts.append(f"{1 - second:g} shown second")
    if not shares:
        return _undecided(0.5)
    note = f"won {' and '.join(parts)}, against the reference"
    if len(shares) == 2 and abs(shares[0] - shares[1]) == 1:
        note += ": its place decided, a tie"
    return Verdict(sum(shares) / len(shares), note)


def _share_won(comparison: Comparison | None) -> float | None:
    """1 if the first is better, 0 if the second is, 0.5 for a tie in scores and ranking."""
    if comparison is None:
        return None
    first, second = base_rewards(2, [(0, 1)], [comparison])
    if first == second:
        return 0.5
    return float(first > second)
