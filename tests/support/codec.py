"""A codec a person can read: tokens are characters."""

from collections.abc import Sequence
from typing import Any

from linn.chat.template import Nemotron, Spans
from linn.types import Message, Prompt

END = "<|im_end|>"


class Letters:
    """A codec whose tokens are characters; `<|im_end|>` is one token."""

    eos = 0
    stops = (0,)
    broken = 0
    template = Nemotron()

    def encode(self, text: str) -> list[int]:
        return [0 if c == "\0" else ord(c) for c in text.replace(END, "\0")]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(END if i == 0 else chr(i) for i in ids)

    def reply(self, ids: Sequence[int]) -> str:
        return self.decode(ids[:-1] if ids and ids[-1] == 0 else ids)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        return self.encode("".join(m.content for m in prompt.messages) + ":")

    def spans(self, *conversation: Any, **options: Any) -> Spans:
        return self.template.spans(*conversation, **options)

    def samples(self, *conversation: Any, **options: Any) -> list[Spans]:
        return self.template.samples(*conversation, **options)

    def continuation_ids(
        self, prompt: Prompt, turns: Sequence[Message], answers: Sequence[Message]
    ) -> list[int]:
        return self.encode(Nemotron().continuation(turns, answers, thinking=prompt.thinking))
