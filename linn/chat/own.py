"""A model folder's own chat template behind linn's seam.

The text is always the template's: a reply is what it writes behind its own generation prompt, up
to the token that ends a turn. Where it never writes what a model would sample (R1 cuts every
thought), linn writes the thought in the template's marks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from linn.chat import jinja
from linn.chat.calls import before_calls, channels, channels_so_far
from linn.chat.control import plain
from linn.chat.own_turns import REMEDY, definition, harmless, turns_of
from linn.chat.probe import Form, Turn
from linn.chat.render import RESULT, RESULT_END
from linn.chat.stream import may_become, settled
from linn.chat.template import Spans, TemplateName, Tools
from linn.errors import UserError
from linn.types import Message, ToolCall

_FRAME = re.compile(r"\[/?[A-Z_]{3,40}\]|<</?[A-Z]{2,20}>>|<[|｜][^<>|｜\s]{1,60}[|｜]>")
"""Marks as families write them between turns."""
_ELSEWHERE = "Zelsewherez"
"""A word that no conversation holds; shows where an answer of the environment begins."""


@dataclass(frozen=True)
class Writer:
    """Renders a folder's Jinja with the names of its special tokens."""

    source: str
    """The template."""
    names: Mapping[str, str]
    """`bos_token`, `eos_token` and the like, with their texts."""

    def __call__(
        self, turns: Sequence[Turn], tools: Tools | None = None, ask: bool = False, **values: Any
    ) -> str:
        """The text of a conversation; `ask` adds the generation prompt.

        UserError where the template refuses.
        """
        given: dict[str, Any] = {**self.names, **values, "messages": list(turns)}
        given |= {"tools": tools, "documents": None, "add_generation_prompt": ask}
        return jinja.render(self.source, given)


@dataclass(frozen=True)
class _Turn:
    """An assistant's turn in its conversation."""

    prompt: str
    """All that the model reads before it."""
    reply: str
    """What it samples, the token that ends the turn included."""
    rest: str
    """What the template writes behind that."""


class Own:
    """See `linn.chat.template.Template`."""

    name: TemplateName = "own"

    def __init__(self, write: Writer, form: Form) -> None:
        self.write = write
        self.form = form
        self.opens = {mode: self._opens_thought(mode) for mode in (True, False)}
        """Whether the generation prompt leaves a thought open, by mode."""
        self._around = ("", "")
        self._around = self._frame()
        """What an answer stands between, within its turn (Cohere)."""

    # ------------------------------------------------------------ what it is

    @property
    def jinja(self) -> str:
        """See `Template`."""
        return self.write.source

    @property
    def bos(self) -> str:
        """See `Template`."""
        name = self.write.names.get("bos_token", "")
        return name if "bos_token" in self.write.source else ""

    @property
    def stops(self) -> tuple[str, ...]:
        """See `Template`."""
        found = (self.form.turn_end, self.form.call_end)
        return tuple(dict.fromkeys(text for text in found if text))

    @property
    def marks(self) -> tuple[str, ...]:
        """See `Template`."""
        return tuple(sorted(set(_FRAME.findall(self.write.source))))

    @property
    def modes(self) -> tuple[bool, ...]:
        """See `Template`."""
        return tuple(self.form.switch)

    @property
    def tools(self) -> bool:
        """See `Template`."""
        return self.form.reader is not None

    @property
    def thought_end(self) -> str:
        """See `Template`."""
        if self.form.channels:
            return "<|channel|>final"
        return self.form.marks[1] if self.form.marks else ""

    @property
    def limits(self) -> list[str]:
        """What the template cannot do, a sentence each."""
        form = self.form
        sentences = []
        if not form.switch:
            sentences.append("one mode only: `thinking` makes no difference")
        if form.marks is None:
            sentences.append("no thoughts: those of rows are trained as <think> text of the answer")
        if form.switch and form.channels:
            sentences.append("thinking: false asks for the least reasoning effort, not for none")
        if not self.tools:
            sentences.append("no tools: calls cannot be written and read")
        if not form.many_turns:
            sentences.append("single-turn: no turn may follow an answer")
        if self._asks_for_nothing():
            sentences.append("no generation prompt: the model writes the opening of its own turn")
        if not form.has_system:
            sentences.append("no system turn: its text opens the first user turn")
        if form.calls_alone:
            sentences.append("calls stand alone: turns that say something beside them are refused")
        if form.cuts_at_user:
            sentences.append("earlier thoughts are cut: SFT takes one sample per assistant turn")
        return sentences

    # ------------------------------------------------------------ messages to text

    def prompt(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
        keep_thinking: bool = False,
    ) -> Spans:
        """See `Template`; one piece, since the tokens are those of the whole text."""
        return [(self._text(messages, tools, thinking, ask=True), False)]

    def spans(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
        keep_thinking: bool = False,
    ) -> Spans:
        """See `Template`. Turns that do not stand here as they would be sampled are not trained."""
        return self._spans(messages, tools, self._modes(messages, thinking), None)[0]

    def samples(
        self, messages: Sequence[Message], tools: Tools = (), thinking: bool = True
    ) -> list[Spans]:
        """See `Template`: every assistant turn is trained once, as it would be sampled.

        A sample holds the last turn that is left and all earlier ones that stand unchanged in it.
        """
        modes = self._modes(messages, thinking)
        left = {i for i, message in enumerate(messages) if message.role == "assistant"}
        # From the end: the last turn stands in the longest text, and takes most others along.
        samples = []
        while left:
            last = max(left)
            spans, trained = self._spans(messages[: last + 1], tools, modes, left)
            samples.append(spans)
            left -= trained
        return samples[::-1]

    def _spans(
        self,
        messages: Sequence[Message],
        tools: Tools,
        modes: Sequence[bool],
        wanted: set[int] | None,
    ) -> tuple[Spans, set[int]]:
        """The conversation, and the places of the turns that are trained in it.

        `wanted`: the turns that may be trained; None: all.
        """
        last = len(messages) - 1
        turn = self._turn(messages, tools, modes[last])
        text = turn.prompt + turn.reply
        trained = {last}
        ends = [(len(turn.prompt), len(text))]
        for i in range(last):
            if messages[i].role != "assistant" or (wanted is not None and i not in wanted):
                continue
            earlier = self._turn(messages[: i + 1], tools, modes[i])
            if text.startswith(earlier.prompt + earlier.reply):
                start = len(earlier.prompt)
                ends.append((start, start + len(earlier.reply)))
                trained.add(i)

        spans: Spans = []
        # What lies between two trained replies is text that the model reads.
        position = 0
        for start, end in sorted(ends):
            spans += [(text[position:start], False), (text[start:end], True)]
            position = end
        spans.append((text[position:] + turn.rest, False))
        return [(piece, flag) for piece, flag in spans if piece], trained

    def _turn(self, messages: Sequence[Message], tools: Tools, thinking: bool) -> _Turn:
        """The last turn, an assistant's, in its conversation."""
        form, message = self.form, messages[-1]
        prompt = self._text(messages[:-1], tools, thinking, ask=True)
        whole = self._text(messages, tools, thinking)
        thought = message.reasoning or ""
        if whole.startswith(prompt) and not (thought and form.thought == "written"):
            body = whole[len(prompt) :]
        else:
            opened = form.opened[thinking]
            # The prompt opened a thought that the template does not write again.
            head = prompt.removesuffix(opened)
            if not whole.startswith(head):
                raise UserError(
                    "the chat template writes this conversation otherwise than it asks for its "
                    f"reply; {REMEDY}"
                )
            # The prompt's own mark may be closed once more in front of an answer (DeepSeek).
            said = whole[len(head) :]
            if opened and form.marks:
                said = said.removeprefix(form.marks[1])
            body = self._thought(thought, opened) + said

        end = form.call_end if message.tool_calls else form.turn_end
        reply, found, rest = body.rpartition(end)
        if not found:
            raise UserError(f"the chat template does not end an answer with {end}; {REMEDY}")
        self._check_reads_back(message, reply, thinking, tools)
        return _Turn(prompt, reply + end, rest)

    def _check_reads_back(self, message: Message, reply: str, thinking: bool, tools: Tools) -> None:
        """UserError where the reply would not be read as the message that it was written for."""
        # Training on a reply that graders would read otherwise teaches something else.
        read = self.parse(reply, thinking, tools)
        parts: list[tuple[str, object, object]] = [
            ("calls", _outline(message.tool_calls), _outline(read.tool_calls))
        ]
        # A call of gpt-oss's has room for one text beside it, which is a thought.
        if not (self.form.channels and message.tool_calls):
            parts.append(("thought", (message.reasoning or "").strip(), read.reasoning or ""))
            parts.append(("answer", message.content.strip(), read.content))
        for part, said, heard in parts:
            if said != heard:
                raise UserError(
                    f"the chat template does not write an assistant's {part} so that it can be "
                    f"read back ({plain(str(said))[:60]!r}); {REMEDY}"
                )

    def _thought(self, thought: str, opened: str) -> str:
        """A thought as a model writes it behind a prompt that ends with `opened`."""
        opening, closing = self.form.marks or ("<think>", "</think>")
        if not opened.rstrip().endswith(opening):
            return f"{opening}\n{thought}\n{closing}\n\n" if thought else ""
        return f"{thought}\n{closing}\n\n"

    def _modes(self, messages: Sequence[Message], thinking: bool) -> list[bool]:
        """The mode of every turn: whether its stretch up to the next user turn holds a thought.

        In the last stretch it is `thinking`, unless it holds a thought all the same.
        """
        # Turns of one stretch were sampled in one mode: calls do not change it.
        bounds = [i for i, message in enumerate(messages) if message.role == "user"]
        modes = [thinking] * len(messages)
        for start, end in zip([0, *bounds], [*bounds, len(messages)], strict=True):
            thinks = any(message.reasoning for message in messages[start:end])
            is_last = end == len(messages)
            for i in range(start, end):
                modes[i] = thinks or (is_last and thinking)
        return modes

    def continuation(
        self,
        messages: Sequence[Message],
        answers: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
    ) -> str:
        """See `Template`."""
        if not self.form.many_turns:
            raise UserError(f"the chat template lets no turn follow an answer; {REMEDY}")
        # Of the history only its shape matters here: what the model saw of it stays as it is.
        history = [harmless(message) for message in messages]
        first = replace(answers[0], content=_ELSEWHERE)
        told = self._text([*history, *answers], tools, thinking, ask=True)
        other = self._text([*history, first, *answers[1:]], tools, thinking, ask=True)
        before = other.partition(_ELSEWHERE)[0]
        ends = {self.form.turn_end, self.form.history_end, self.form.call_end} - {""}
        # Behind the end of the sampled turn; that token is there already.
        cut = max((before.rfind(end) + len(end) for end in ends if end in before), default=0)
        if not cut or told[:cut] != other[:cut]:
            raise UserError(f"the chat template rewrites what came before an answer; {REMEDY}")
        return told[cut:]

    def rewrites(
        self,
        messages: Sequence[Message],
        answers: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
    ) -> bool:
        """See `Template`."""
        try:
            prompt = self._text(messages[:-1], tools, thinking, ask=True)
            later = self._text([*messages, *answers], tools, thinking, ask=True)
            if not later.startswith(prompt.removesuffix(self.form.opened[thinking])):
                return True
            turn = self._turn(messages, tools, thinking)
        except UserError:
            # A reply that the template could not have written has no other form.
            return False
        return not later.startswith(turn.prompt + turn.reply)

    # ------------------------------------------------------------ text to messages

    def parse(self, text: str, thinking: bool = True, tools: Tools = ()) -> Message:
        """See `Template`."""
        text = self._unended(text)
        if self.form.channels:
            thought, answer, calls = channels(text)
            return Message("assistant", answer, thought, calls)
        thought, answer = self._divided(text, thinking)
        calls = ()
        if self.form.reader is not None:
            answer, calls = self.form.reader(answer, tools)
        return Message("assistant", self._unframed(answer), thought or None, calls)

    def read(self, text: str, thinking: bool = True, tools: Tools = ()) -> Message:
        """See `Template`; `parse` ends a thought at the first mark anyway."""
        return self.parse(text, thinking, tools)

    def certain(self, text: str, thinking: bool = True) -> tuple[str, str]:
        """See `Template`."""
        if self.form.channels:
            return channels_so_far(text)
        text = self._without_open_end(text, (*self.stops, self.form.history_end))
        opening, closing = self.form.marks or ("<think>", "</think>")
        inside = text.lstrip()
        if may_become(inside, opening):
            return "", ""
        thought, answer = "", text
        if inside.startswith(opening) or self.opens[thinking]:
            thought, closed, answer = inside.removeprefix(opening).partition(closing)
            if not closed:
                return settled(thought, (closing,)).strip(), ""

        before, after = self._around
        answer = before_calls(answer, self.form.reader).lstrip()
        if may_become(answer, before):
            return thought.strip(), ""
        answer = self._without_open_end(answer.removeprefix(before), (after,))
        return thought.strip(), answer.strip()

    def answer(self, text: str, thinking: bool = True) -> str:
        """See `Template`."""
        text = self._unended(text)
        if self.form.channels:
            return channels(text)[1]
        return self._unframed(self._divided(text, thinking)[1])

    def quoted(self, text: str) -> str:
        """See `Template`. Special tokens in it are read as text, whatever they spell."""
        for mark in (RESULT, RESULT_END):
            text = text.replace(mark, "< " + mark[1:])
        return text

    def _unended(self, text: str) -> str:
        for end in (*self.stops, self.form.history_end):
            text = text.removesuffix(end)
        return text

    def _without_open_end(self, text: str, ends: Sequence[str]) -> str:
        """A text without what may turn out to be its end: `ends`, whole or begun, and space."""
        text = settled(text, ends).rstrip()
        length = -1
        while length != len(text):
            length = len(text)
            for end in ends:
                text = text.removesuffix(end)
            text = text.rstrip()
        return text

    def _divided(self, text: str, thinking: bool) -> tuple[str, str]:
        """(thought, what follows it), the thought stripped of white space."""
        opening, closing = self.form.marks or ("<think>", "</think>")
        # Where the prompt left the thought open, the reply begins inside it.
        inside = text.lstrip()
        opened = inside.startswith(opening)
        if not opened and not self.opens[thinking]:
            return "", text
        thought, closed, answer = inside.removeprefix(opening).partition(closing)
        if not closed:
            return thought.strip(), ""
        return thought.strip(), answer

    def _unframed(self, answer: str) -> str:
        before, after = self._around
        return answer.strip().removeprefix(before).removesuffix(after).strip()

    def _frame(self) -> tuple[str, str]:
        """What stands around the answer of an ordinary turn."""
        messages = [Message("user", "Hi"), Message("assistant", _ELSEWHERE)]
        whole = self._text(messages, (), True)
        # What the template writes around any answer belongs to the form, not to the answer.
        prompt = self._text(messages[:1], (), True, ask=True)
        reply = whole[len(prompt) :].rpartition(self.form.turn_end)[0]
        if not whole.startswith(prompt):
            reply = whole.rpartition(self.form.turn_end)[0]
            reply = _ELSEWHERE + reply.rpartition(_ELSEWHERE)[2]
        answer = self._divided(reply, True)[1]
        before, _, after = answer.partition(_ELSEWHERE)
        return before.strip(), after.strip()

    def _asks_for_nothing(self) -> bool:
        """Whether the template writes no generation prompt, so that a reply opens its own turn."""
        turns = [Message("user", "Hi")]
        same = self._text(turns, (), True, ask=True) == self._text(turns, (), True)
        return same and bool(self._around[0])

    def _opens_thought(self, mode: bool) -> bool:
        if self.form.marks is None:
            return False
        text = self._text([Message("user", "Hi")], (), mode, ask=True)
        return text.rstrip().endswith(self.form.marks[0])

    # ------------------------------------------------------------ the template's own words

    def _text(
        self, messages: Sequence[Message], tools: Tools, thinking: bool, ask: bool = False
    ) -> str:
        if tools and not self.tools:
            raise UserError(f"the chat template cannot write tools and read calls; {REMEDY}")
        for message in messages:
            if message.role not in ("system", "user", "assistant", "tool"):
                raise UserError(f"the chat template knows no role {message.role!r}; {REMEDY}")
            if message.role == "tool" and not self.tools:
                raise UserError(f"the chat template cannot write a tool's result; {REMEDY}")
        values = self.form.switch.get(thinking, {})
        definitions = [definition(tool) for tool in tools] or None
        return self.write(turns_of(messages, self.form), tools=definitions, ask=ask, **values)


def _outline(calls: Sequence[ToolCall]) -> list[tuple[str, list[str]]]:
    """Functions and the names of their arguments: XML values have no types of their own."""
    outline = []
    for call in calls:
        keys = sorted(call.arguments) if isinstance(call.arguments, Mapping) else []
        outline.append((call.name, keys))
    return outline
