"""Chat templates: what turns messages into the text of a conversation, and sampled text back.

`Template` is the seam. `Nemotron` is linn's own protocol (paper §6), written in `render.py`.
Whoever makes, samples or trains a conversation goes through the template of its `Codec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from linn.chat import certain, render
from linn.types import Message

Tools = Sequence[Mapping[str, Any]]
"""Function definitions as a row gives them."""
Spans = list[tuple[str, bool]]
"""A text in pieces, True on what a model samples or would have sampled."""
TemplateName = Literal["nemotron", "own"]


class Template(Protocol):
    """How conversations are written for one model.

    `thinking` is the mode of the reply that is asked for; a template without modes ignores it.
    UserError where the template refuses a conversation.
    """

    @property
    def name(self) -> TemplateName:
        """`nemotron`: linn's own protocol; `own`: the model folder's chat template."""
        ...

    @property
    def jinja(self) -> str:
        """The template as Jinja, for exported tokenizers."""
        ...

    @property
    def bos(self) -> str:
        """The token's text that every conversation begins with; empty where there is none."""
        ...

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts of the tokens that end a sampled turn; the first is what training writes."""
        ...

    @property
    def marks(self) -> tuple[str, ...]:
        """What the template writes between turns."""
        ...

    @property
    def modes(self) -> tuple[bool, ...]:
        """The values of `thinking` that make a difference; empty where there is one mode only."""
        ...

    @property
    def tools(self) -> bool:
        """Whether definitions, calls and results can be written, and calls can be read."""
        ...

    @property
    def thought_end(self) -> str:
        """What closes a thought in sampled text; empty where the template knows no thoughts."""
        ...

    @property
    def limits(self) -> list[str]:
        """What the template cannot do, a sentence each."""
        ...

    def prompt(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
        keep_thinking: bool = False,
    ) -> Spans:
        """What a model reads before its turn, in the pieces that are cut into tokens apart.

        `keep_thinking` leaves the thoughts of turns before the last user turn in place.
        """
        ...

    def spans(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
        keep_thinking: bool = False,
    ) -> Spans:
        """A whole conversation whose last turn is the assistant's."""
        ...

    def samples(
        self, messages: Sequence[Message], tools: Tools = (), thinking: bool = True
    ) -> list[Spans]:
        """The conversation as training texts, in which every assistant turn is trained once.

        There it stands as it would be sampled. A template that writes history otherwise than it
        was sampled needs several texts.
        """
        ...

    def continuation(
        self,
        messages: Sequence[Message],
        answers: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
    ) -> str:
        """The text between a sampled turn that ended and the next sampled turn.

        `messages`: the conversation up to that turn, which is its last; `answers`: what follows it.
        """
        ...

    def rewrites(
        self,
        messages: Sequence[Message],
        answers: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
    ) -> bool:
        """Whether the template would write `messages` otherwise once `answers` follow.

        `messages`: as `continuation` takes them. A rollout keeps what the model saw, so it then
        holds something else than the template would write, as a rule a thought more.
        """
        ...

    def parse(self, text: str, thinking: bool = True, tools: Tools = ()) -> Message:
        """A sampled turn as a message; never raises, in time linear in the text."""
        ...

    def read(self, text: str, thinking: bool = True, tools: Tools = ()) -> Message:
        """As `parse`, but as it can be told while the text comes: what was told stays so.

        For whoever streams; graders use `parse`. The two differ in linn's protocol where a thought
        is closed twice: a stream ends it at the first mark.
        """
        ...

    def certain(self, text: str, thinking: bool = True) -> tuple[str, str]:
        """(thought, content) that `read` begins with for every text that begins with this one."""
        ...

    def answer(self, text: str, thinking: bool = True) -> str:
        """What follows the thought of a sampled turn, calls left in it.

        Empty where the thought never ended.
        """
        ...

    def quoted(self, text: str) -> str:
        """A tool's result, without marks that would end its turn or open another's."""
        ...


def text_of(spans: Spans) -> str:
    """The whole text of spans."""
    return "".join(text for text, _ in spans)


class Nemotron:
    """linn's own protocol: ChatML turns, thoughts in `<think>`, calls in XML (paper §6)."""

    name: TemplateName = "nemotron"
    stops: tuple[str, ...] = (render.END,)
    marks: tuple[str, ...] = (render.START, render.END)
    modes: tuple[bool, ...] = (True, False)
    tools = True
    thought_end = render.THINK_END
    limits: list[str] = []  # noqa: RUF012

    def __init__(self, bos: str = "") -> None:
        """`bos`: the text of the token that every conversation of the model begins with."""
        self.bos = bos

    @property
    def jinja(self) -> str:
        """See `Template`."""
        protocol = render.TEMPLATE.read_text(encoding="utf-8")
        return f"{{{{- '{self.bos}' -}}}}{protocol}" if self.bos else protocol

    def prompt(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
        keep_thinking: bool = False,
    ) -> Spans:
        """See `Template`. Earlier turns are cut into tokens as they were when they were sampled."""
        pieces = self.spans(messages, tools, thinking, keep_thinking)
        last, _ = pieces[-1]
        pieces[-1] = (last + render.generation(thinking), False)
        return pieces

    def spans(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
        keep_thinking: bool = False,
    ) -> Spans:
        """See `Template`; the mode of a turn shows in the turn itself."""
        (first, _), *others = render.spans(messages, tools, keep_thinking=keep_thinking)
        return [(self.bos + first, False), *others]

    def samples(
        self, messages: Sequence[Message], tools: Tools = (), thinking: bool = True
    ) -> list[Spans]:
        """See `Template`."""
        found = []
        for (first, _), *others in render.samples(messages, tools):
            found.append([(self.bos + first, False), *others])
        return found

    def continuation(
        self,
        messages: Sequence[Message],
        answers: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
    ) -> str:
        """See `Template`."""
        return render.continuation(answers, thinking)

    def rewrites(
        self,
        messages: Sequence[Message],
        answers: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
    ) -> bool:
        """See `Template`. A tool's result is no user turn here and cuts nothing."""
        # Thoughts before the last user turn were cut already.
        places = [i for i, message in enumerate(messages) if message.role == "user"]
        since = messages[places[-1] :] if places else messages
        thought = any(message.role == "assistant" and message.reasoning for message in since)
        return thought and any(answer.role == "user" for answer in answers)

    def parse(self, text: str, thinking: bool = True, tools: Tools = ()) -> Message:
        """See `Template`."""
        return render.parse(text, thinking, tools)

    def read(self, text: str, thinking: bool = True, tools: Tools = ()) -> Message:
        """See `Template`."""
        return certain.read(text, thinking, tools)

    def certain(self, text: str, thinking: bool = True) -> tuple[str, str]:
        """See `Template`."""
        return certain.certain(text, thinking)

    def answer(self, text: str, thinking: bool = True) -> str:
        """See `Template`."""
        return render.answer_of(text, thinking)

    def quoted(self, text: str) -> str:
        """See `Template`."""
        return render.quoted(text)
