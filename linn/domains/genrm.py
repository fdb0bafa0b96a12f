"""Training a generative reward model: compare two responses as people did, in the format that `preference` reads (paper §4.4)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_messages
from linn.domains.base import Domain
from linn.domains.common.why_questions import RAMBLE, ProgramJudge, full_answer, why_prompt
from linn.errors import UserError
from linn.judges.pairwise import Comparison, genrm_question, read_comparison
from linn.judges.text import Question, inert, shown, unthought
from linn.types import Message, Prompt, Reply, Split, Verdict

_RANKING = {-3: 1.0, -2: 2.0, -1: 3.0, 0: 3.5, 1: 4.0, 2: 5.0, 3: 6.0}
"""`overall_preference` of HelpSteer3 (-3: the first is far better) as a ranking."""


class GenRM(Domain):
    """A conversation and two responses, in turns of the roles `response_1` and `response_2`; the answer ends with scores and a ranking.

    Reward in training (Eq. 1 of Nemotron 3 Nano): R = -C1 where no verdict can be read, else -|Δscore_1| - |Δscore_2| - C2·|Δranking|.
    `verify`, which evaluation uses, gives the same error as a share: 1 - (|Δscore_1| + |Δscore_2| + |Δranking|) / 13, and 0 for C1. A row
    without scores has the ranking's error alone, of at most 5. Every pair stands in each split twice, once each way round.
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
        """`c1`: what an unreadable verdict costs; `c2`: weight of the ranking's error; `principle`: shown where a row has none of its own."""
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
        asked = why_prompt(self.name, rng)
        first = second = ""
        while (said := self._program.compare(asked, first, second)) == swap(said):
            first, second = _answer(asked, rng), _answer(asked, rng)
        return _shown(asked.messages, first, second, "", _whole(said))

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict]:
        """R of each reply; none depends on the others."""
        return [self._verdict(prompt, reply, share=False) for reply in replies]

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """The error as a share, in [0, 1]."""
        return self._verdict(prompt, reply, share=True)

    def _verdict(self, prompt: Prompt, reply: Reply, share: bool) -> Verdict:
        said, true = read_comparison(reply.text), prompt.hidden
        if said is None:
            return Verdict(0.0 if share else -self.c1, "no verdict can be read", {"readable": 0.0})
        errors = [
            abs(a - b)
            for a, b in ((said.score_1, true["score_1"]), (said.score_2, true["score_2"]))
            if b is not None
        ]
        scores, farthest = sum(errors), 4 * len(errors) + 5
        ranking = abs(said.ranking - true["ranking"])
        side = (said.ranking < 3.5) == (true["ranking"] < 3.5) and (said.ranking > 3.5) == (
            true["ranking"] > 3.5
        )
        reward = 1 - (scores + ranking) / farthest if share else -scores - self.c2 * ranking
        return Verdict(
            reward,
            f"scores off by {scores:g}, ranking by {ranking:g}",
            {"readable": 1.0, "side": float(side)},
        )

    def gold(self, prompt: Prompt) -> Reply:
        """What people (or the program) said."""
        return Reply(_written(prompt.hidden), _thought(prompt.hidden))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the place decides, what is shown first is called far better."""
        told = {"score_1": 5, "score_2": 1, "ranking": 1.0} if faulty else prompt.hidden
        if faulty and told["ranking"] == prompt.hidden["ranking"] and prompt.hidden["score_1"] == 5:
            told = {"score_1": 1, "score_2": 5, "ranking": 6.0}
        return (Message("assistant", _written(told), reasoning=_thought(told)),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """HelpSteer3's layout: `context` (or `responses_create_params.input`), `response1`, `response2`, `overall_preference` (-3 to 3).

        Optional: `score_1` and `score_2` (1 to 5), without which the ranking alone counts, and `principle`.
        """
        for key in ("response1", "response2"):
            if not isinstance(row.get(key), str):
                raise UserError(
                    f"row {index}: {key} is {type(row.get(key)).__name__}; allowed: text"
                )
        preference = row.get("overall_preference")
        if (
            isinstance(preference, bool)
            or not isinstance(preference, int)
            or preference not in _RANKING
        ):
            raise UserError(
                f"row {index}: overall_preference is {preference!r}; allowed: a whole number from -3 to 3"
            )
        said: dict[str, Any] = {"score_1": None, "score_2": None, "ranking": _RANKING[preference]}
        for key in ("score_1", "score_2"):
            value = row.get(key)
            if value is not None:
                if (
                    isinstance(value, bool)
                    or not isinstance(value, int | float)
                    or not 1 <= value <= 5
                ):
                    raise UserError(
                        f"row {index}: {key} is {value!r}; allowed: a number from 1 to 5"
                    )
                said[key] = value
        principle = row.get("principle") or self.principle
        if not isinstance(principle, str):
            raise UserError(f"row {index}: principle is {type(principle).__name__}; allowed: text")
        first, second = unthought(row["response1"]), unthought(row["response2"])
        made = _shown(request_messages(row, index), first, second, principle, said)
        return replace(made, id=str(row.get("id", index)))


def _shown(
    messages: Sequence[Message], first: str, second: str, principle: str, said: Mapping[str, Any]
) -> Prompt:
    """What the reward model reads is what `preference` shows it."""
    turns = genrm_question(messages, shown(first), shown(second), principle)
    return Prompt(
        "genrm", "", tuple(replace(m, content=inert(m.content)) for m in turns), hidden=said
    )


def swapped(prompt: Prompt) -> Prompt:
    """The same pair the other way round."""
    *others, first, second = prompt.messages
    turns = (*others, replace(second, role="response_1"), replace(first, role="response_2"))
    true = prompt.hidden
    said = {"score_1": true["score_2"], "score_2": true["score_1"], "ranking": 7 - true["ranking"]}
    return replace(prompt, id=f"{prompt.id}.swapped", messages=turns, hidden=said)


def swap(said: Comparison) -> Comparison:
    """What was said, of the pair the other way round."""
    return Comparison(said.score_2, said.score_1, 7 - said.ranking)


def _whole(said: Comparison) -> dict[str, Any]:
    """The program's verdict as a person would give it: whole scores, a whole ranking on the better one's side."""
    far = {0: 0.5, 1: 0.5, 2: 1.5}.get(int(abs(said.score_1 - said.score_2)), 2.5)
    return {
        "score_1": int(said.score_1),
        "score_2": int(said.score_2),
        "ranking": 3.5 - far if said.ranking < 3.5 else 3.5 + far,
    }


def _answer(prompt: Prompt, rng: random.Random) -> str:
    """An answer of some quality: whole, without its example or its reason, padded, off the topic."""
    whole = full_answer(prompt)
    fact, _, example = whole.partition(" for example")
    topic = str(prompt.hidden["topic"])
    return rng.choice(
        [
            whole,
            fact,
            f"{topic}. for example{example}",
            f"{topic}.",
            f"{whole} {RAMBLE} {RAMBLE}",
            f"{fact} {RAMBLE} {RAMBLE}",
            RAMBLE,
        ]
    )


def _written(said: Mapping[str, Any]) -> str:
    figures = {
        "score_1": said["score_1"] or 3,
        "score_2": said["score_2"] or 3,
        "ranking": said["ranking"],
    }
    return json.dumps(
        {key: int(value) if value == int(value) else value for key, value in figures.items()}
    )


def _thought(said: Mapping[str, Any]) -> str:
    return f"{said['score_1'] or 3:g} and {said['score_2'] or 3:g}."
