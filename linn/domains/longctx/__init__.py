"""Long context: a number among boxes, needles and variable chains of any length, and questions over many documents (paper §4.5)."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import request_messages
from linn.domains.base import Domain, content_key
from linn.domains.longctx.documents import documents_task
from linn.domains.longctx.needles import NEEDLES
from linn.errors import UserError
from linn.judges.equivalence import equivalence_question, read_equivalence
from linn.judges.text import Question, shown
from linn.types import Message, Prompt, Reply, Split, Verdict, seed_of

_KEYS = (
    "red blue green black white pink gold gray brown round big small old new cold hot wet dry soft hard "
    "fast slow long short wide thin flat deep high low dark light clean plain sweet sour loud calm warm cool"
).split()
_LONGEST_ANSWER = 2_000
"""Characters; a longer answer to a look-up is wrong whatever it says."""
TASKS = {**NEEDLES, "documents": documents_task}
"""What `level: full` asks, by name."""
_SHORTEST = 600
"""Tokens; documents and chains need that much room."""
_WHOLE_REPLY, _FINAL_LINE = "whole reply", "final line"
"""The parts of a reply that a judge is asked about."""


class LongContext(Domain):
    """`tiny`: a list of lines `box KEY NUMBER` and a question for one of them. `full`: needles, chains and documents of `tokens` tokens.

    Reward 1 iff the answer is what is asked for and nothing else. Rows: questions over documents; with a judge model, an answer that isn't
    exact is compared with the expected one for equivalence.
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
        """`lines`: boxes of a tiny prompt (default: 5 to 8; keys grow to several words, numbers to several digits).

        `tokens`: length of a full prompt (`haystack.tokens_in`); `task`: one of `TASKS`, default: any. With a judge: `swap` asks with the
        answers exchanged too, both must hold; `partial`: what an equivalent answer is worth where only the whole reply, not its last line
        (or box), is equivalent; 0: the whole reply decides.
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
        self.lines, self.tokens, self.task, self.swap, self.partial, self.judged = (
            lines,
            tokens,
            task,
            swap,
            partial,
            judged,
        )
        self.questions_per_reply = (2 if swap else 1) * (2 if partial else 1)

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """See `Domain`. Long texts are drawn split by split: two never agree by chance, and nine of ten need not be made to be thrown away."""
        if self.rows is not None or self.level == "tiny":
            yield from super().prompts(split, seed)
            return
        for index in itertools.count():
            prompt = self.make(
                random.Random(
                    seed_of("prompts", self.name, split, seed if split == "train" else 0, index)
                )
            )
            yield replace(prompt, id=f"{content_key(prompt)}.{index}")

    def make(self, rng: random.Random) -> Prompt:
        """Keys and numbers are distinct within a prompt, so every distractor's number is wrong."""
        return self._boxes(rng) if self.level == "tiny" else self._long(rng)

    def _boxes(self, rng: random.Random) -> Prompt:
        count = self.lines or rng.randint(5, 8)
        keys = _distinct_keys(rng, count)
        numbers = rng.sample(range(10 ** len(str(count))), count)
        asked = rng.randrange(count)
        listing = "\n".join(
            f"box {key} {number}" for key, number in zip(keys, numbers, strict=True)
        )
        question = Message("user", f"{listing}\nwhich number is in box {keys[asked]}?")
        neighbour = numbers[asked + 1 if asked + 1 < count else asked - 1]
        hidden = {"answers": [str(numbers[asked])], "key": keys[asked], "neighbour": str(neighbour)}
        return Prompt(self.name, "", (question,), hidden=hidden)

    def _long(self, rng: random.Random) -> Prompt:
        task = self.task or rng.choice(list(TASKS))
        made = TASKS[task](rng, self.tokens)
        wrong = rng.choice(made.wrong) if made.wrong else str(int(made.items[0]) + 1)
        hidden = {
            "items": list(made.items),
            "evidence": made.evidence,
            "wrong": wrong,
            "task": task,
        }
        return Prompt(self.name, "", (Message("user", made.text),), hidden=hidden)

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Exact after case, white space, emphasis marks, quotes and a full stop are taken away; of several items, the set of them.

        Rows of RULER's own layout: the share of `outputs` that the answer holds, or whether it holds any (nemo-gym's `ruler`).
        """
        task = {f"task/{prompt.hidden['task']}": 1.0} if "task" in prompt.hidden else {}
        if len(reply.text) > _LONGEST_ANSWER:
            return Verdict(
                0.0, f"the answer has {len(reply.text)} characters, too many for a look-up"
            )
        if "items" in prompt.hidden:
            items = prompt.hidden["items"]
            right = _listed(reply.text, len(items)) == {_normal(item) for item in items}
            metrics = {name: float(right) for name in task}
            return Verdict(
                float(right),
                "" if right else f"{reply.text.strip()[:60]!r} is not {', '.join(items)}",
                metrics,
            )
        if "outputs" in prompt.hidden:
            said = reply.text.lower()
            found = [output.lower() in said for output in prompt.hidden["outputs"]]
            reward = float(any(found)) if prompt.hidden["any"] else sum(found) / len(found)
            return Verdict(
                reward,
                ""
                if reward == 1
                else f"{sum(found)} of {len(found)} outputs in {reply.text.strip()[:60]!r}",
            )
        answer = _normal(reply.text)
        right = bool(answer) and answer in {_normal(a) for a in prompt.hidden["answers"]}
        return Verdict(
            float(right), "" if right else f"{answer[:40]!r} is not {prompt.hidden['answers'][0]!r}"
        )

    # -------------------------------------------------- judged by a model

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """For every reply that is neither empty nor exact: whether it is equivalent to the expected answer."""
        if not self.judged or "question" not in prompt.hidden:
            return []
        questions = []
        for index, reply in enumerate(replies):
            if reply.text.strip() and self.verify(prompt, reply).reward < 1:
                questions += self._questions_about(prompt, index, reply)
        return questions

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """Each reply by itself: 1 where it is exact or equivalent, `partial` or 0 elsewhere; an unreadable answer is no equivalence."""
        if not self.judged or "question" not in prompt.hidden:
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

    def _questions_about(self, prompt: Prompt, index: int, reply: Reply) -> list[Question]:
        """Whether a reply, and with `partial` its final line, is equivalent to the answer."""
        expected = "\n".join(prompt.hidden["answers"])
        parts = {_WHOLE_REPLY: reply.text}
        if self.partial:
            parts = {_FINAL_LINE: final_line(reply.text), **parts}

        questions = []
        for label, text in parts.items():
            orders = [(shown(text), expected)]
            if self.swap:
                orders.append((expected, shown(text)))
            for first, second in orders:
                messages = equivalence_question(prompt.hidden["question"], first, second)
                questions.append(Question(messages, _has_label, (index,), label))
        return questions

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
        if "items" in prompt.hidden:
            return Reply(", ".join(prompt.hidden["items"]), prompt.hidden["evidence"])
        if "outputs" in prompt.hidden:
            return Reply(", ".join(prompt.hidden["outputs"]))
        return Reply(prompt.hidden["answers"][0], _line(prompt, prompt.hidden["answers"][0]))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The thought repeats what was asked for. The fault: the answer is a neighbouring line's (`full`: another line's)."""
        if "items" in prompt.hidden:
            items = list(prompt.hidden["items"])
            if faulty:
                items[-1] = prompt.hidden["wrong"]
            return (Message("assistant", ", ".join(items), reasoning=prompt.hidden["evidence"]),)
        right = prompt.hidden["answers"][0]
        return (
            Message(
                "assistant",
                prompt.hidden["neighbour"] if faulty else right,
                reasoning=_line(prompt, right),
            ),
        )

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`responses_create_params.input` and `expected_answer`: a text, or a list of accepted texts. Optional: `question`, for the judge.

        Or, as RULER writes them, `outputs` (texts that the answer must hold) and `subset` (`qa_…`: any of them).
        """
        if row.get("outputs") is not None and row.get("expected_answer") is None:
            outputs, messages = row["outputs"], request_messages(row, index)
            if (
                not isinstance(outputs, list)
                or not outputs
                or not all(isinstance(o, str) and o.strip() for o in outputs)
            ):
                raise UserError(
                    f"row {index}: outputs is {str(outputs)[:40]}; allowed: a list of texts, at least one"
                )
            hidden = {"outputs": outputs, "any": str(row.get("subset")).startswith("qa_")}
            return Prompt(
                self.name, str(row.get("id", row.get("uuid", index))), messages, hidden=hidden
            )
        expected = row.get("expected_answer")
        answers = [expected] if isinstance(expected, str) else expected
        if (
            not isinstance(answers, list)
            or not answers
            or not all(isinstance(a, str) and _normal(a) for a in answers)
        ):
            raise UserError(
                f"row {index}: expected_answer is {expected!r}; allowed: text or a list of texts"
            )
        messages = request_messages(row, index)
        question = row.get("question")
        if question is not None and not isinstance(question, str):
            raise UserError(f"row {index}: question is {type(question).__name__}; allowed: text")
        hidden = {
            "answers": answers,
            "key": "",
            "neighbour": "",
            "question": question or _last_question(messages[-1].content),
        }
        return Prompt(
            self.name, str(row.get("id", row.get("uuid", index))), messages, hidden=hidden
        )


def _has_label(answer: str) -> bool:
    return read_equivalence(answer) is not None


def _last_question(text: str) -> str:
    """What a long user turn asks: the line that begins with QUESTION:, else what follows its `</text>`, else its last paragraph."""
    labelled = re.findall(r"^QUESTION:[ \t]*(.+)$", text, re.MULTILINE)
    after = (
        text.rpartition("</text>")[2] if "</text>" in text else text.rstrip().rpartition("\n\n")[2]
    )
    return str(labelled[-1] if labelled else after).strip()[-2_000:]


def final_line(text: str) -> str:
    """The last box of an answer, else its last line that holds something."""
    boxes: list[str] = re.findall(r"\\boxed\{([^{}]*)\}", text[-20_000:])
    return boxes[-1].strip() if boxes else text.strip().rpartition("\n")[2].strip()


def _listed(text: str, count: int) -> set[str]:
    """The items of an answer: all of it where one is asked for, else what commas, semicolons, line ends and `and` part."""
    if count == 1:
        return {_normal(text)}
    found = [_normal(part) for part in re.split(r"[,;\n]|\band\b", text.strip().removesuffix("."))]
    return {part for part in found if part}


def _distinct_keys(rng: random.Random, count: int) -> list[str]:
    """One-word keys while they last, then keys of two words, three, …"""
    words = 1
    while len(_KEYS) ** words < 2 * count:
        words += 1
    keys: dict[str, None] = {}
    while len(keys) < count:
        keys[" ".join(rng.choice(_KEYS) for _ in range(words))] = None
    return list(keys)


def _line(prompt: Prompt, number: str) -> str:
    return f"box {prompt.hidden['key']} {number}" if prompt.hidden["key"] else ""


def _normal(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip().lower()
    return text.strip("*_`\"' ").removesuffix(".").strip("*_`\"' ")
