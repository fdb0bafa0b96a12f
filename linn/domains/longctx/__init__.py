"""Long context: a number among boxes, needles and chains, questions over documents (paper §4.5)."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_of
from linn.domains.base import Domain, content_key
from linn.domains.common.boxes import flat_boxes
from linn.domains.longctx.documents import documents_task
from linn.domains.longctx.needles import NEEDLES
from linn.domains.longctx.rows import (
    Accepted,
    Outputs,
    accepted_answers,
    normal,
    outputs_of,
    question_of,
)
from linn.errors import UserError
from linn.judges.equivalence import equivalence_question
from linn.judges.text import Question, shown
from linn.types import Message, Prompt, Reply, Split, Verdict, seed_of

_KEYS = (
    "red blue green black white pink gold gray brown round big small old new cold hot wet dry soft "
    "hard fast slow long short wide thin flat deep high low dark light clean plain sweet sour loud "
    "calm warm cool"
).split()
_LONGEST_ANSWER = 2_000
"""Characters; a longer answer to a look-up is wrong whatever it says."""
TASKS = {**NEEDLES, "documents": documents_task}
"""The tasks of `level: full`, by name."""
_SHORTEST = 600
"""Tokens; documents and chains need that much room."""
_WHOLE_REPLY, _FINAL_LINE = "whole reply", "final line"
"""The parts of a reply that a judge is asked about."""


# ---------------------------------------------------------------- what a prompt hides


@dataclass(frozen=True)
class Box:
    """`level: tiny`: the box that is asked for."""

    key: str
    """Its name."""
    number: str
    """What is in it."""
    neighbour: str
    """The number on the line beside it."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The one right answer."""
        return (self.number,)

    @property
    def line(self) -> str:
        """The line of the listing that holds the answer."""
        return f"box {self.key} {self.number}"


@dataclass(frozen=True)
class Items:
    """`level: full`: a set of items to find."""

    task: str
    """Its name in `TASKS`."""
    items: tuple[str, ...]
    """The whole answer, in any order."""
    evidence: str
    """The lines of the context that hold it."""
    wrong: str
    """Another value of the context."""


# ---------------------------------------------------------------- the domain


class LongContext(Domain):
    """`tiny`: lines `box KEY NUMBER` and a question for one. `full`: texts of `tokens` tokens.

    Reward 1 iff the answer is what is asked for and nothing else. Rows: questions over documents;
    with a judge model, an answer that is not exact is compared with the expected one for
    equivalence.
    """

    name: ClassVar[str] = "longctx"
    levels: ClassVar[tuple[str, ...]] = ("tiny", "full")

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        lines: int | None = None,
        tokens: int = 32_000,
        task: str | None = None,
        swap: bool = False,
        partial: float = 0.0,
        judged: bool = False,
        reference: bool = False,
    ) -> None:
        """`lines`: boxes of a tiny prompt (default: 5 to 8).

        With more lines keys grow to several words, numbers to several digits. `tokens`: length of
        a full prompt, by `needles.tokens_in`; `task`: one of `TASKS`, default: any. With a judge:
        `swap` asks with the answers exchanged too, and both must hold; `partial`: what an answer
        is worth of which only the whole reply, not its last line (or box), is equivalent; 0: the
        whole reply decides. `reference`: RULER's outputs count inside longer words and numbers too,
        as in nemo-gym.
        """
        super().__init__(level, rows)
        if lines is not None and lines < 2:
            raise UserError(f"domain longctx: lines is {lines}; allowed: 2 or more")
        if tokens < _SHORTEST:
            raise UserError(f"domain longctx: tokens is {tokens}; allowed: {_SHORTEST} or more")
        if task is not None and task not in TASKS:
            raise UserError(f"domain longctx: task is {task!r}; allowed: {', '.join(TASKS)}")
        if not 0 <= partial < 1:
            raise UserError(f"domain longctx: partial is {partial:g}; allowed: 0 to below 1")
        self.lines = lines
        self.tokens = tokens
        self.task = task
        self.swap = swap
        self.partial = partial
        self.judged = judged
        self.reference = reference
        self.questions_per_reply = (2 if swap else 1) * (2 if partial else 1)

    # -------------------------------------------------- prompts

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """See `Domain`. Long texts are drawn split by split.

        Two of them never agree by chance, and nine of ten need not be made to be thrown away.
        """
        from_rows = self.rows is not None or self.splits.file(split) is not None
        if from_rows or self.level == "tiny":
            yield from super().prompts(split, seed)
            return

        # Held-out prompts are the same for every seed.
        order = 0
        if split == "train":
            order = seed
        for index in itertools.count():
            draw = seed_of("prompts", self.name, split, order, index)
            prompt = self.make(random.Random(draw))
            key = content_key(prompt)
            yield replace(prompt, id=f"{key}.{index}")

    def make(self, rng: random.Random) -> Prompt:
        """Keys and numbers are distinct within a prompt, so every distractor's number is wrong."""
        if self.level == "tiny":
            return self._boxes(rng)
        return self._long(rng)

    def _boxes(self, rng: random.Random) -> Prompt:
        """A listing of boxes and a question for one of them."""
        # Numbers grow with the listing, so that all of them can differ.
        count = self.lines or rng.randint(5, 8)
        keys = _distinct_keys(rng, count)
        largest = 10 ** len(str(count))
        numbers = rng.sample(range(largest), count)
        place = rng.randrange(count)

        # The neighbour is the next line's number; the last line has only one before it.
        beside = place + 1
        if beside == count:
            beside = place - 1
        box = Box(
            key=keys[place],
            number=str(numbers[place]),
            neighbour=str(numbers[beside]),
        )

        lines = []
        for key, number in zip(keys, numbers, strict=True):
            lines.append(f"box {key} {number}")
        lines.append(f"which number is in box {box.key}?")
        message = Message("user", "\n".join(lines))
        return Prompt(self.name, "", (message,), hidden=box)

    def _long(self, rng: random.Random) -> Prompt:
        """A text of `tokens` tokens and a question about it."""
        name = self.task or rng.choice(list(TASKS))
        task = TASKS[name](rng, self.tokens)
        hidden = Items(name, task.items, task.evidence, rng.choice(task.wrong))
        return Prompt(self.name, "", (Message("user", task.text),), hidden=hidden)

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Exact, after case, white space, emphasis marks, quotes and a full stop are taken away.

        Of several items, the set of them. Rows of RULER's own layout: the share of `outputs` that
        the answer holds, or whether it holds any (nemo-gym's `ruler`).
        """
        # Who lists all that is in the text has not found anything.
        length = len(reply.text)
        if length > _LONGEST_ANSWER:
            return Verdict(0.0, f"the answer has {length} characters, too many for a look-up")
        hidden = _answer_of(prompt)
        match hidden:
            case Items():
                return _verdict_of_items(hidden, reply.text)
            case Outputs():
                return self._verdict_of_outputs(hidden, reply.text)
            case Box() | Accepted():
                return _verdict_of_answer(hidden.answers, reply.text)

    def _verdict_of_outputs(self, hidden: Outputs, text: str) -> Verdict:
        """The outputs that stand in an answer: what else it says is no matter, but for a copy of
        all that the context offers.
        """
        if not self.reference and _lists_too_much(text, hidden.outputs):
            return Verdict(0.0, f"it lists far more than {len(hidden.outputs)} outputs")
        lower = text.lower()
        holds = str.__contains__ if self.reference else _holds_whole
        count = len(hidden.outputs)
        present = sum(holds(lower, output.lower()) for output in hidden.outputs)
        reward = present / count
        if hidden.any_counts:
            reward = float(present > 0)

        if reward == 1:
            return Verdict(reward)
        excerpt = text.strip()[:60]
        return Verdict(reward, f"{present} of {count} outputs in {excerpt!r}")

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """Whether it is equivalent to the expected answer, for every reply that is inexact."""
        if not self.judged or not isinstance(prompt.hidden, Accepted):
            return []
        # An exact answer needs no judge, and an empty one has nothing to compare.
        questions = []
        for index, reply in enumerate(replies):
            if reply.text.strip() and self.verify(prompt, reply).reward < 1:
                questions += self._questions_about(prompt.hidden, index, reply)
        return questions

    def _questions_about(self, hidden: Accepted, index: int, reply: Reply) -> list[Question]:
        """Whether a reply, and with `partial` its final line, is equivalent to the answer."""
        # All accepted answers are shown: the judge may find any of them.
        expected = "\n".join(hidden.answers)
        parts = {_WHOLE_REPLY: reply.text}
        if self.partial:
            parts = {_FINAL_LINE: final_line(reply.text), **parts}

        questions = []
        for label, text in parts.items():
            answer = shown(text)
            orders = [(answer, expected)]
            if self.swap:  # a judge that goes by the place is then no help
                orders.append((expected, answer))

            for first, second in orders:
                about = (index,)
                questions.append(equivalence_question(hidden.question, first, second, about, label))
        return questions

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """Each reply by itself: 1 if it is exact or equivalent, else `partial` or 0.

        A reply about which no answer could be read is undecided.
        """
        if not self.judged or not isinstance(prompt.hidden, Accepted):
            return None
        # By reply, and by part of it: whether the judge called it equivalent, both ways if `swap`.
        equivalent: dict[int, dict[str, bool]] = {}
        unread: set[int] = set()
        for question, answer in answers:
            parts = equivalent.setdefault(question.replies[0], {})
            says = question.read(answer)
            if says is None:
                unread.add(question.replies[0])
            parts[question.label] = parts.get(question.label, True) and says is True

        verdicts = []
        for index, reply in enumerate(replies):
            if index in unread:
                verdicts.append(Verdict(0.0, "the judge's answer is unreadable", undecided=True))
            elif index in equivalent:
                verdicts.append(self._by_equivalence(equivalent[index]))
            else:
                verdicts.append(self.verify(prompt, reply))
        return verdicts

    def _by_equivalence(self, parts: Mapping[str, bool]) -> Verdict:
        """`parts`: whether the whole reply and, if asked about, its final line are equivalent."""
        whole = parts[_WHOLE_REPLY]
        if parts.get(_FINAL_LINE, whole):
            return Verdict(1.0, "equivalent")
        if whole:
            return Verdict(self.partial, "equivalent in part")
        return Verdict(0.0, "not equivalent, says the judge")

    # -------------------------------------------------- gold, demonstrations, rows

    def gold(self, prompt: Prompt) -> Reply:
        """The first accepted answer, or all items."""
        hidden = _answer_of(prompt)
        match hidden:
            case Box():
                return Reply(hidden.number, hidden.line)
            case Items():
                return Reply(", ".join(hidden.items), hidden.evidence)
            case Accepted():
                return Reply(hidden.answers[0])
            case Outputs():
                return Reply(", ".join(hidden.outputs))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The thought repeats the lines that hold the answer.

        The fault: the answer is a neighbouring line's (`full`: another line's).
        """
        hidden = _answer_of(prompt)

        match hidden:
            case Box():
                answer = hidden.neighbour if faulty else hidden.number
                thought = hidden.line
            case Items():
                items = list(hidden.items)
                if faulty:
                    items[-1] = hidden.wrong
                answer = ", ".join(items)
                thought = hidden.evidence
            case Accepted() | Outputs():
                raise UserError(f"prompt {prompt.id}: a row has no demonstration")

        return (Message("assistant", answer, reasoning=thought),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`responses_create_params.input` and `expected_answer`: a text, or a list of them.

        Optional: `question`, for the judge. Or, as RULER writes them, `outputs` (texts that the
        answer must hold), `subset` (`qa_…`: any of them), and `input`, the prompt.
        """
        hidden: Accepted | Outputs
        # A row with both is of the released layout: `outputs` is then its own business.
        if row.get("outputs") is not None and row.get("expected_answer") is None:
            if isinstance(row.get("input"), str):
                row = {"prompt": row["input"], **row}
            request = request_of(row, index)
            hidden = outputs_of(row, index)
        else:
            answers = accepted_answers(row, index)
            request = request_of(row, index)
            question = question_of(row, index, request.messages[-1].content)
            hidden = Accepted(answers, question)
        return request.prompt(self.name, str(row.get("id", row.get("uuid", index))), hidden)


# ---------------------------------------------------------------- reading answers


def _verdict_of_answer(accepted: tuple[str, ...], text: str) -> Verdict:
    answer = normal(text)
    if answer and answer in {normal(other) for other in accepted}:
        return Verdict(1.0)
    return Verdict(0.0, f"{answer[:40]!r} is not {accepted[0]!r}")


def _answer_of(prompt: Prompt) -> Box | Items | Accepted | Outputs:
    assert isinstance(prompt.hidden, Box | Items | Accepted | Outputs), prompt.hidden
    return prompt.hidden


def _verdict_of_items(hidden: Items, text: str) -> Verdict:
    metric = f"task/{hidden.task}"
    expected = {normal(item) for item in hidden.items}
    if _listed(text, len(hidden.items)) == expected:
        return Verdict(1.0, "", {metric: 1.0})
    note = f"{text.strip()[:60]!r} is not {', '.join(hidden.items)}"
    return Verdict(0.0, note, {metric: 0.0})


def _lists_too_much(text: str, outputs: Sequence[str]) -> bool:
    """Whether an answer names far more numbers of the outputs' kind, or items, than are asked for.

    A number is a word with a digit, of the length of one of the outputs.
    """
    lengths = {len(output) for output in outputs if re.fullmatch(r"[\w-]*\d[\w-]*", output)}
    words = set(re.findall(r"[\w-]*\d[\w-]*", text))
    alike = sum(len(word) in lengths for word in words)
    items = len(re.findall(r"[,;\n]+", text))
    count = len(outputs)
    return alike > 2 * count + 4 or items > 3 * count + 20


def _holds_whole(text: str, part: str) -> bool:
    """Whether a part stands in a text by itself: not inside a longer word or number.

    `10` stands in neither `100` nor `10.5`, nor in `-10`.
    """
    before = after = ""
    if part[:1].isascii() and part[:1].isalnum():
        before = r"(?<!\w)" if part[0].isalpha() else r"(?<![\w])(?<!\d[.,])(?<!(?<!\w)[-−])"
    if part[-1:].isascii() and part[-1:].isalnum():
        after = r"(?!\w)" if part[-1].isalpha() else r"(?!\w)(?![.,]\d)"
    return re.search(before + re.escape(part) + after, text) is not None


def final_line(text: str) -> str:
    """The last box of an answer, else its last line that holds something."""
    boxes = flat_boxes(text[-20_000:])
    if boxes:
        return boxes[-1].inner.strip()
    return text.strip().rpartition("\n")[2].strip()


def _listed(text: str, count: int) -> set[str]:
    """The items of an answer, normalised.

    All of it if one is asked for, else what commas, semicolons, line ends and `and` part.
    """
    if count == 1:
        return {normal(text)}
    parts = re.split(r"[,;\n]|\band\b", text.strip().removesuffix("."))
    return {normal(part) for part in parts} - {""}


def _distinct_keys(rng: random.Random, count: int) -> list[str]:
    """One-word keys while they last, then keys of two words, three, …"""
    # Twice as many as are needed, so that drawing them does not take for ever.
    words = 1
    while len(_KEYS) ** words < 2 * count:
        words += 1
    keys: dict[str, None] = {}
    while len(keys) < count:
        keys[" ".join(rng.choice(_KEYS) for _ in range(words))] = None
    return list(keys)
