"""Long context: a number among boxes, needles and chains, questions over documents (paper §4.5)."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from linn.chat.request import request_messages
from linn.domains.base import Domain, content_key
from linn.domains.longctx.documents import documents_task
from linn.domains.longctx.needles import NEEDLES
from linn.errors import UserError
from linn.judges.equivalence import equivalence_question, read_equivalence
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


@dataclass(frozen=True)
class Accepted:
    """A row with `expected_answer`."""

    answers: tuple[str, ...]
    """Each of them is right."""
    question: str
    """What is asked, for the judge."""


@dataclass(frozen=True)
class Outputs:
    """A row of RULER's own layout."""

    outputs: tuple[str, ...]
    """Texts that the answer must hold."""
    any_counts: bool
    """Whether one of them is enough (`subset: qa_…`)."""


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
    ) -> None:
        """`lines`: boxes of a tiny prompt (default: 5 to 8).

        With more lines keys grow to several words, numbers to several digits. `tokens`: length of
        a full prompt, by `needles.tokens_in`; `task`: one of `TASKS`, default: any. With a judge:
        `swap` asks with the answers exchanged too, and both must hold; `partial`: what an answer
        is worth of which only the whole reply, not its last line (or box), is equivalent; 0: the
        whole reply decides.
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
        self.questions_per_reply = (2 if swap else 1) * (2 if partial else 1)

    # -------------------------------------------------- prompts

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """See `Domain`. Long texts are drawn split by split.

        Two of them never agree by chance, and nine of ten need not be made to be thrown away.
        """
        if self.rows is not None or self.level == "tiny":
            yield from super().prompts(split, seed)
            return
        order = seed if split == "train" else 0
        for index in itertools.count():
            rng = random.Random(seed_of("prompts", self.name, split, order, index))
            prompt = self.make(rng)
            yield replace(prompt, id=f"{content_key(prompt)}.{index}")

    def make(self, rng: random.Random) -> Prompt:
        """Keys and numbers are distinct within a prompt, so every distractor's number is wrong."""
        return self._boxes(rng) if self.level == "tiny" else self._long(rng)

    def _boxes(self, rng: random.Random) -> Prompt:
        count = self.lines or rng.randint(5, 8)
        keys = _distinct_keys(rng, count)
        numbers = rng.sample(range(10 ** len(str(count))), count)
        place = rng.randrange(count)
        is_last = place + 1 == count
        neighbour = numbers[place - 1 if is_last else place + 1]

        lines = [f"box {key} {number}" for key, number in zip(keys, numbers, strict=True)]
        listing = "\n".join(lines)
        question = Message("user", f"{listing}\nwhich number is in box {keys[place]}?")
        box = Box(keys[place], str(numbers[place]), str(neighbour))
        return Prompt(self.name, "", (question,), hidden=box)

    def _long(self, rng: random.Random) -> Prompt:
        name = self.task or rng.choice(list(TASKS))
        task = TASKS[name](rng, self.tokens)
        # A text may hold no other value of the kind: then the next number is the wrong one.
        wrong = rng.choice(task.wrong) if task.wrong else str(int(task.items[0]) + 1)
        hidden = Items(name, task.items, task.evidence, wrong)
        return Prompt(self.name, "", (Message("user", task.text),), hidden=hidden)

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Exact, after case, white space, emphasis marks, quotes and a full stop are taken away.

        Of several items, the set of them. Rows of RULER's own layout: the share of `outputs` that
        the answer holds, or whether it holds any (nemo-gym's `ruler`).
        """
        length = len(reply.text)
        if length > _LONGEST_ANSWER:
            return Verdict(0.0, f"the answer has {length} characters, too many for a look-up")
        match prompt.hidden:
            case Items() as hidden:
                return _verdict_of_items(hidden, reply.text)
            case Outputs() as hidden:
                return _verdict_of_outputs(hidden, reply.text)
        accepted: Box | Accepted = prompt.hidden
        answer = _normal(reply.text)
        if answer and answer in {_normal(text) for text in accepted.answers}:
            return Verdict(1.0)
        return Verdict(0.0, f"{answer[:40]!r} is not {accepted.answers[0]!r}")

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """Whether it is equivalent to the expected answer, for every reply that is inexact."""
        if not self.judged or not isinstance(prompt.hidden, Accepted):
            return []
        questions = []
        for index, reply in enumerate(replies):
            if reply.text.strip() and self.verify(prompt, reply).reward < 1:
                questions += self._questions_about(prompt.hidden, index, reply)
        return questions

    def _questions_about(self, hidden: Accepted, index: int, reply: Reply) -> list[Question]:
        """Whether a reply, and with `partial` its final line, is equivalent to the answer."""
        expected = "\n".join(hidden.answers)
        parts = {_WHOLE_REPLY: reply.text}
        if self.partial:
            parts = {_FINAL_LINE: final_line(reply.text), **parts}

        questions = []
        for label, text in parts.items():
            orders = [(shown(text), expected)]
            if self.swap:
                orders.append((expected, shown(text)))
            for first, second in orders:
                messages = equivalence_question(hidden.question, first, second)
                questions.append(Question(messages, _has_label, (index,), label))
        return questions

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """Each reply by itself: 1 if it is exact or equivalent, else `partial` or 0.

        An unreadable answer counts as "not equivalent".
        """
        if not self.judged or not isinstance(prompt.hidden, Accepted):
            return None
        # By reply and part of it: whether the judge called it equivalent, both ways if `swap`.
        equivalent: dict[int, dict[str, bool]] = {}
        for question, answer in answers:
            parts = equivalent.setdefault(question.replies[0], {})
            says_equal = read_equivalence(answer) is True
            parts[question.label] = parts.get(question.label, True) and says_equal

        verdicts = []
        for index, reply in enumerate(replies):
            if index in equivalent:
                verdicts.append(self._by_equivalence(equivalent[index]))
            else:
                verdicts.append(self.verify(prompt, reply))
        return verdicts

    def _by_equivalence(self, parts: Mapping[str, bool]) -> Verdict:
        """`parts`: whether the whole reply and, if asked about, its final line are equivalent."""
        decisive = _FINAL_LINE if _FINAL_LINE in parts else _WHOLE_REPLY
        if parts[decisive]:
            return Verdict(1.0, "equivalent")
        if parts[_WHOLE_REPLY]:
            return Verdict(self.partial, "equivalent in part")
        return Verdict(0.0, "not equivalent, says the judge")

    # -------------------------------------------------- gold, demonstrations, rows

    def gold(self, prompt: Prompt) -> Reply:
        """The first accepted answer, or all items."""
        match prompt.hidden:
            case Items(items=items, evidence=evidence):
                return Reply(", ".join(items), evidence)
            case Outputs(outputs=outputs):
                return Reply(", ".join(outputs))
            case Box() as box:
                return Reply(box.number, box.line)
        accepted: Accepted = prompt.hidden
        return Reply(accepted.answers[0])

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The thought repeats the lines that hold the answer.

        The fault: the answer is a neighbouring line's (`full`: another line's).
        """
        hidden: Box | Items = prompt.hidden
        if isinstance(hidden, Box):
            number = hidden.neighbour if faulty else hidden.number
            return (Message("assistant", number, reasoning=hidden.line),)
        items = list(hidden.items)
        if faulty:
            items[-1] = hidden.wrong
        return (Message("assistant", ", ".join(items), reasoning=hidden.evidence),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`responses_create_params.input` and `expected_answer`: a text, or a list of them.

        Optional: `question`, for the judge. Or, as RULER writes them, `outputs` (texts that the
        answer must hold) and `subset` (`qa_…`: any of them).
        """
        hidden: Accepted | Outputs
        if row.get("outputs") is not None and row.get("expected_answer") is None:
            messages = request_messages(row, index)
            hidden = _outputs_of(row, index)
        else:
            answers = _accepted_answers(row, index)
            messages = request_messages(row, index)
            hidden = Accepted(answers, _question_of(row, index, messages[-1].content))
        row_id = str(row.get("id", row.get("uuid", index)))
        return Prompt(self.name, row_id, messages, hidden=hidden)


# ---------------------------------------------------------------- reading rows


def _outputs_of(row: Mapping[str, Any], index: int) -> Outputs:
    outputs = row["outputs"]
    if not _are_texts(outputs) or not all(text.strip() for text in outputs):
        raise UserError(
            f"row {index}: outputs is {str(outputs)[:40]}; allowed: a list of texts, at least one"
        )
    return Outputs(tuple(outputs), str(row.get("subset")).startswith("qa_"))


def _accepted_answers(row: Mapping[str, Any], index: int) -> tuple[str, ...]:
    expected = row.get("expected_answer")
    answers = [expected] if isinstance(expected, str) else expected
    if not _are_texts(answers) or not all(_normal(text) for text in answers):
        raise UserError(
            f"row {index}: expected_answer is {expected!r}; allowed: text or a list of texts"
        )
    return tuple(answers)


def _are_texts(value: object) -> TypeGuard[list[str]]:
    """Whether it is a list of texts, at least one."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _question_of(row: Mapping[str, Any], index: int, last_turn: str) -> str:
    """The row's `question`, else what its last turn seems to ask."""
    question = row.get("question")
    if question is not None and not isinstance(question, str):
        raise UserError(f"row {index}: question is {type(question).__name__}; allowed: text")
    return question or _last_question(last_turn)


def _last_question(text: str) -> str:
    """What a long user turn asks.

    The line that begins with QUESTION:, else what follows its `</text>`, else its last paragraph.
    """
    labelled: list[str] = re.findall(r"^QUESTION:[ \t]*(.+)$", text, re.MULTILINE)
    if labelled:
        question = labelled[-1]
    elif "</text>" in text:
        question = text.rpartition("</text>")[2]
    else:
        question = text.rstrip().rpartition("\n\n")[2]
    return question.strip()[-2_000:]


# ---------------------------------------------------------------- reading answers


def _verdict_of_items(hidden: Items, text: str) -> Verdict:
    right = _listed(text, len(hidden.items)) == {_normal(item) for item in hidden.items}
    note = "" if right else f"{text.strip()[:60]!r} is not {', '.join(hidden.items)}"
    return Verdict(float(right), note, {f"task/{hidden.task}": float(right)})


def _verdict_of_outputs(hidden: Outputs, text: str) -> Verdict:
    count = len(hidden.outputs)
    held = sum(output.lower() in text.lower() for output in hidden.outputs)
    reward = float(held > 0) if hidden.any_counts else held / count
    note = "" if reward == 1 else f"{held} of {count} outputs in {text.strip()[:60]!r}"
    return Verdict(reward, note)


def _has_label(answer: str) -> bool:
    return read_equivalence(answer) is not None


def final_line(text: str) -> str:
    """The last box of an answer, else its last line that holds something."""
    boxes: list[str] = re.findall(r"\\boxed\{([^{}]*)\}", text[-20_000:])
    if boxes:
        return boxes[-1].strip()
    return text.strip().rpartition("\n")[2].strip()


def _listed(text: str, count: int) -> set[str]:
    """The items of an answer, normalised.

    All of it if one is asked for, else what commas, semicolons, line ends and `and` part.
    """
    if count == 1:
        return {_normal(text)}
    parts = re.split(r"[,;\n]|\band\b", text.strip().removesuffix("."))
    return {_normal(part) for part in parts} - {""}


def _distinct_keys(rng: random.Random, count: int) -> list[str]:
    """One-word keys while they last, then keys of two words, three, …"""
    words = 1
    while len(_KEYS) ** words < 2 * count:
        words += 1
    keys: dict[str, None] = {}
    while len(keys) < count:
        keys[" ".join(rng.choice(_KEYS) for _ in range(words))] = None
    return list(keys)


def _normal(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip().lower()
    return text.strip("*_`\"' ").removesuffix(".").strip("*_`\"' ")
