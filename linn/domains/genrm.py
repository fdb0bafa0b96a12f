"""Training a generative reward model: compare two responses as people did (paper §4.4).

Its answers have the format that `preference` reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

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
from linn.judges.pairwise import Comparison, genrm_turns, read_comparison
from linn.judges.text import Question, inert, shown, unthought
from linn.types import Message, Prompt, Reply, Split, Verdict, seed_of

_RANKING = {-3: 1.0, -2: 2.0, -1: 3.0, 0: 3.5, 1: 4.0, 2: 5.0, 3: 6.0}
"""`overall_preference` of HelpSteer3 (-3: the first is far better) as a ranking."""


@dataclass(frozen=True)
class HumanVerdict:
    """What people (or the program) said of a pair; the prompt's `hidden`."""

    score_1: float | None
    """How good the first is, 1 to 5; None in rows without scores."""
    score_2: float | None
    """The same of the second."""
    ranking: float
    """1: the first is far better … 6: the second is far better."""

    def swapped(self) -> HumanVerdict:
        """The same of the pair the other way round."""
        return HumanVerdict(self.score_2, self.score_1, 7 - self.ranking)


class GenRM(Domain):
    """A conversation and two responses, in turns of the roles `response_1` and `response_2`.

    The answer ends with scores and a ranking. Reward in training (Eq. 1 of Nemotron 3 Nano):
    R = -C1 if no verdict can be read, else -|Δscore_1| - |Δscore_2| - C2·|Δranking|. `verify`,
    which evaluation uses, gives the same error as a share:
    1 - (|Δscore_1| + |Δscore_2| + |Δranking|) / 13, and 0 for C1. A row without scores has the
    ranking's error alone, of at most 5. Every pair stands in each split twice, once each way round.
    """

    name: ClassVar[str] = "genrm"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        c1: float = 10.0,
        c2: float = 1.0,
        principle: str = "",
    ) -> None:
        """`c1`: cost of an unreadable verdict; `c2`: weight of the ranking's error.

        `principle`: shown for rows that have none of their own.
        """
        super().__init__(level, rows)
        if c1 < 0 or c2 < 0:
            raise UserError(f"domain genrm: c1 is {c1:g}, c2 is {c2:g}; allowed: 0 or more")
        self.c1, self.c2, self.principle = c1, c2, principle
        self._program = ProgramJudge()

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """See `Domain`; each pair is followed by itself the other way round."""
        for prompt in super().prompts(split, seed):
            yield prompt
            yield swapped(prompt)

    def make(self, rng: random.Random) -> Prompt:
        """A why-question with two different answers and what the program judge says of them."""
        question = why_prompt(self.name, rng)
        first = second = ""
        comparison = self._program.compare(question, first, second)
        while comparison == swap(comparison):  # a tie teaches nothing
            first = _answer(why_fact(question), rng)
            second = _answer(why_fact(question), rng)
            comparison = self._program.compare(question, first, second)
        return _prompt(question.messages, first, second, "", _whole(comparison))

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict]:
        """R of each reply; none depends on the others."""
        return [self._verdict(prompt, reply, as_share=False) for reply in replies]

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """The error as a share, in [0, 1]."""
        return self._verdict(prompt, reply, as_share=True)

    def _verdict(self, prompt: Prompt, reply: Reply, as_share: bool) -> Verdict:
        """`as_share`: 1 less the error's share of the largest error, else minus the error."""
        comparison = read_comparison(reply.text)
        true = human_verdict(prompt)
        if comparison is None:
            worst = 0.0 if as_share else -self.c1
            return Verdict(worst, "no verdict can be read", {"readable": 0.0})

        # A score is off by 4 at most, a ranking by 5.
        scores_off: float = 0
        largest = 5
        if true.score_1 is not None:
            scores_off += abs(comparison.score_1 - true.score_1)
            largest += 4
        if true.score_2 is not None:
            scores_off += abs(comparison.score_2 - true.score_2)
            largest += 4
        ranking_off = abs(comparison.ranking - true.ranking)

        # Evaluation wants a share that can be compared between rows with and without scores.
        if as_share:
            reward = 1 - (scores_off + ranking_off) / largest
        else:
            reward = -scores_off - self.c2 * ranking_off
        note = f"scores off by {scores_off:g}, ranking by {ranking_off:g}"
        same_side = _side(comparison.ranking) == _side(true.ranking)
        metrics = {"readable": 1.0, "side": float(same_side)}
        return Verdict(reward, note, metrics)

    def gold(self, prompt: Prompt) -> Reply:
        """What people (or the program) said."""
        verdict = human_verdict(prompt)
        return Reply(_written(verdict), _thought(verdict))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the place decides, what is shown first is called far better."""
        true = human_verdict(prompt)
        verdict = true
        if faulty:
            verdict = HumanVerdict(5, 1, 1.0)
            # Where that happens to be true, the second place decides.
            if verdict.ranking == true.ranking and true.score_1 == 5:
                verdict = HumanVerdict(1, 5, 6.0)
        return (Message("assistant", _written(verdict), reasoning=_thought(verdict)),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """HelpSteer3's layout.

        `context` (or `responses_create_params.input`), `response1`, `response2`,
        `overall_preference` (-3 to 3). Optional: `score_1` and `score_2` (1 to 5), without which
        the ranking alone counts, and `principle`. Rows of `chosen` and `rejected` are read as well:
        which of the two is shown first is drawn by their texts, and the chosen one is better (2).
        """
        row = _with_responses(row, index)
        first = _text(row.get("response1"), "response1", index)
        second = _text(row.get("response2"), "response2", index)
        ranking = _ranking(row, index)
        verdict = HumanVerdict(
            score_1=_score(row, "score_1", index),
            score_2=_score(row, "score_2", index),
            ranking=ranking,
        )
        principle = _text(row.get("principle") or self.principle, "principle", index)
        request = request_of(row, index)
        if request.tools or any(message.tool_calls for message in request.messages):
            raise UserError(
                f"row {index}: tools: a reward model is shown neither tools nor calls (paper §4.4)"
            )
        prompt = _prompt(
            request.messages,
            unthought(first),
            unthought(second),
            principle,
            verdict,
        )
        return replace(prompt, id=str(row.get("id", index)), thinking=request.thinking)


def _with_responses(row: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """A row of `chosen` and `rejected` as HelpSteer3 has it; others as they are."""
    if row.get("chosen") is None or row.get("response1") is not None:
        return row
    pair = Pair.of_row(row, f"row {index}")
    # Chosen first in every row would be learnt as the rule.
    chosen_first = seed_of("genrm", pair.chosen, pair.rejected) % 2 == 0
    answers = [pair.chosen, pair.rejected]
    if not chosen_first:
        answers.reverse()
    return {
        **row,
        "context": row.get("context") or pair.prompt,
        "prompt": None,
        "messages": None,
        "response1": answers[0],
        "response2": answers[1],
        "overall_preference": -2 if chosen_first else 2,
    }


def _text(value: object, key: str, index: int) -> str:
    if not isinstance(value, str):
        raise UserError(f"row {index}: {key} is {type(value).__name__}; allowed: text")
    return value


def _ranking(row: Mapping[str, Any], index: int) -> float:
    preference = row.get("overall_preference")
    is_whole = isinstance(preference, int) and not isinstance(preference, bool)
    if not is_whole or preference not in _RANKING:
        raise UserError(
            f"row {index}: overall_preference is {preference!r}; "
            "allowed: a whole number from -3 to 3"
        )
    return _RANKING[preference]


def _score(row: Mapping[str, Any], key: str, index: int) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= 5:
        raise UserError(f"row {index}: {key} is {value!r}; allowed: a number from 1 to 5")
    score: float = value
    return score


def _prompt(
    messages: Sequence[Message], first: str, second: str, principle: str, verdict: HumanVerdict
) -> Prompt:
    """What the reward model reads is what `preference` shows it."""
    # Marks are broken here as `ask` breaks them: training must look like being asked.
    turns = genrm_turns(messages, shown(first), shown(second), principle)
    quoted = tuple(replace(turn, content=inert(turn.content)) for turn in turns)
    return Prompt("genrm", "", quoted, hidden=verdict)


def swapped(prompt: Prompt) -> Prompt:
    """The same pair the other way round."""
    *others, first, second = prompt.messages
    turns = (*others, replace(second, role="response_1"), replace(first, role="response_2"))
    verdict = human_verdict(prompt).swapped()
    return replace(prompt, id=f"{prompt.id}.swapped", messages=turns, hidden=verdict)


def human_verdict(prompt: Prompt) -> HumanVerdict:
    """What people (or the program) said of a prompt's pair."""
    assert isinstance(prompt.hidden, HumanVerdict), prompt.hidden
    return prompt.hidden


def swap(comparison: Comparison) -> Comparison:
    """What was said, of the pair the other way round."""
    return Comparison(comparison.score_2, comparison.score_1, 7 - comparison.ranking)


def _side(ranking: float) -> int:
    """-1: the first is better, 1: the second is, 0: neither."""
    return (ranking > 3.5) - (ranking < 3.5)


def _whole(comparison: Comparison) -> HumanVerdict:
    """The program's verdict as a person would give it.

    Whole scores, and a whole ranking on the better one's side.
    """
    difference = int(abs(comparison.score_1 - comparison.score_2))
    distance = {0: 0.5, 1: 0.5, 2: 1.5}.get(difference, 2.5)
    if comparison.ranking < 3.5:
        distance = -distance
    ranking = 3.5 + distance
    return HumanVerdict(int(comparison.score_1), int(comparison.score_2), ranking)


def _answer(fact: WhyFact, rng: random.Random) -> str:
    """An answer of some quality: whole, without its example or its reason, padded, off topic."""
    # Each flaw is one that the program judge takes a point for.
    whole = full_answer(fact)
    reasoned, _, example = whole.partition(" for example")
    return rng.choice(
        [
            whole,
            reasoned,
            f"{fact.topic}. for example{example}",
            f"{fact.topic}.",
            f"{whole} {RAMBLE} {RAMBLE}",
            f"{reasoned} {RAMBLE} {RAMBLE}",
            RAMBLE,
        ]
    )


def _written(verdict: HumanVerdict) -> str:
    """The JSON object that `preference` reads; whole numbers without a point."""
    # A row without scores still has to answer in the format: 3 stands for "no opinion".
    numbers = {
        "score_1": verdict.score_1 or 3,
        "score_2": verdict.score_2 or 3,
        "ranking": verdict.ranking,
    }
    for key, value in numbers.items():
        if value == int(value):
            numbers[key] = int(value)
    return json.dumps(numbers)


def _thought(verdict: HumanVerdict) -> str:
    return f"{verdict.score_1 or 3:g} and {verdict.score_2 or 3:g}."
