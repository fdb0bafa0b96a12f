"""Conversations as token ids and back, with the tokenizer and the template of a model folder.

Ids are the tokenizer's own of the whole text, as far as sampling allows: a reply is cut into tokens
behind its prompt, and what follows a reply behind that. Where tokens would grow together over such
a border they do not, since the sampler never sees them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linn.chat.control import JOINT, Guard
from linn.chat.folder import eos_ids, special_texts, template_of
from linn.chat.template import Nemotron, Spans, Template, TemplateName, Tools, text_of
from linn.errors import UserError
from linn.types import Message, Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NEAR = 400
"""Characters before a border in which a special token is looked for first."""


class Codec:
    """Conversations as token ids and back."""

    def __init__(
        self, tokenizer: Tokenizer, template: Template | None = None, stops: Iterable[int] = ()
    ) -> None:
        """`template`: linn's own protocol unless another is given. `stops`: further ids that end
        a turn.

        UserError when the tokenizer has no token for the end of a turn.
        """
        self.tokenizer = tokenizer
        self.template: Template = template or Nemotron()
        """Writes conversations and reads replies."""

        ids = []
        for text in self.template.stops:
            number = tokenizer.token_to_id(text)
            if number is None:
                raise UserError(
                    f"the tokenizer has no token {text}, which ends a turn: "
                    "add it as a special token, or start from a chat model"
                )
            ids.append(number)
        self.eos: int = ids[0]
        """The id of the token that ends an answer in training."""
        self.stops: tuple[int, ...] = tuple(dict.fromkeys([*ids, *stops]))
        """The ids that end a sampled turn, `eos` among them."""

        self._specials = special_texts(tokenizer)
        self._guard = Guard(self._specials, self.template.marks)
        self._prefixes = self._ids("\na") != self._ids("\n") + self._ids("a")
        """Whether the tokenizer begins a text with something of its own (SentencePiece: `▁`)."""
        self._longest = 0
        """Characters of the longest token; 0: not looked up yet."""

    @classmethod
    def load(cls, folder: str | Path, template: TemplateName | None = None) -> Codec:
        """Read `tokenizer.json` of a model folder; UserError says what to do when that fails.

        `template`: which chat template; None: as the folder needs it.
        """
        from tokenizers import Tokenizer

        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; linn needs a fast tokenizer: "
                "load the tokenizer with transformers and save it with save_pretrained"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise UserError(
                f"{path}: not a tokenizer this version of `tokenizers` reads ({error}); "
                "save it anew or update `tokenizers`"
            ) from None
        try:
            return cls(tokenizer, template_of(folder, tokenizer, template), eos_ids(folder))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @property
    def broken(self) -> int:
        """Marks of the template in the texts of conversations that were broken by a space."""
        return self._guard.broken

    def described(self) -> str:
        """The template, what ends a turn, and what it cannot do, in one line for a log."""
        names = {"own": "the folder's own chat template", "nemotron": "linn's protocol"}
        ends = " ".join(str(self.tokenizer.id_to_token(stop)) for stop in self.stops)
        told = (
            f"template: {self.template.name} ({names[self.template.name]}), turns end with {ends}"
        )
        return "; ".join([told, *self.template.limits])

    # ------------------------------------------------------------ text

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added before or after.

        Halves of surrogate pairs, which are not text, become `?`.
        """
        return self.encode_spans([(text, False)])[0]

    def decode(self, ids: Sequence[int], specials: bool = True) -> str:
        """The text of token ids; `specials=False` leaves out special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not specials))

    def reply(self, ids: Sequence[int]) -> str:
        """The text of a sampled turn, without the token that ended it."""
        if ids and ids[-1] in self.stops:
            ids = ids[:-1]
        return self.decode(ids)

    # ------------------------------------------------------------ conversations

    def prompt_ids(
        self, prompt: Prompt, keep_thinking: bool = False, most: int | None = None
    ) -> list[int]:
        """What the model reads before its first turn; `most`: see `encode_spans`."""
        messages = [self._guard.message(message) for message in prompt.messages]
        tools = self._guard.value(prompt.tools)
        pieces = self.template.prompt(messages, tools, prompt.thinking, keep_thinking=keep_thinking)
        return self.encode_spans(pieces, most)[0]

    def prompt_text(self, prompt: Prompt) -> str:
        """The text of `prompt_ids`."""
        return text_of(self.template.prompt(prompt.messages, prompt.tools, prompt.thinking))

    def continuation_ids(
        self, prompt: Prompt, turns: Sequence[Message], answers: Sequence[Message]
    ) -> list[int]:
        """What the model reads between its last turn and its next.

        `turns`: every turn after the prompt, up to its last; `answers`: what follows that.
        """
        guarded = [self._guard.message(m) for m in (*prompt.messages, *turns, *answers)]
        count = len(guarded) - len(answers)
        tools = self._guard.value(prompt.tools)
        text = self.template.continuation(guarded[:count], guarded[count:], tools, prompt.thinking)
        # Behind the token that ended the turn, as in the whole text.
        end = self.template.stops[0]
        return self.encode_spans([(end, False), (text, False)])[0][1:]

    def samples(
        self, messages: Sequence[Message], tools: Tools = (), thinking: bool = True
    ) -> list[Spans]:
        """A conversation as training texts, its own texts guarded, for `encode_spans`."""
        guarded = [self._guard.message(message) for message in messages]
        return self.template.samples(guarded, self._guard.value(tools), thinking)

    def spans(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        thinking: bool = True,
        keep_thinking: bool = False,
    ) -> Spans:
        """A conversation as one training text, its own texts guarded, for `encode_spans`."""
        guarded = [self._guard.message(message) for message in messages]
        return self.template.spans(guarded, self._guard.value(tools), thinking, keep_thinking)

    # ------------------------------------------------------------ spans as ids

    def encode_spans(
        self, pieces: Iterable[tuple[str, bool]], most: int | None = None
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask of `spans`, of equal length.

        Tokens meet at the borders of pieces, as they do in sampling, and at joints. With `most`, a
        text that has more tokens than that is tokenised only so far that this shows: a megabyte of
        text takes 200 MB.
        """
        ids: list[int] = []
        mask: list[bool] = []
        before, apart = "", False
        for text, trained in pieces:
            if most is not None:
                if len(ids) > most:
                    break
                text = text[: self._characters(most + 1)]
            for number, part in enumerate(text.split(JOINT)):
                if number:
                    # Nothing that stands before a joint may take part in what follows it.
                    before, apart = "", True
                part = part.encode("utf-8", "replace").decode()
                new = self._ids_behind(before, part, apart)
                ids += new
                mask += [trained] * len(new)
                before, apart = self._context(before + part, apart)
        return ids, mask

    def _ids_behind(self, before: str, text: str, apart: bool) -> list[int]:
        """The ids of a text behind another, which keeps the ids it has by itself.

        `apart`: the text before, or without one the text itself, is no beginning.
        """
        ids = self._apart if apart else self._ids
        if not before:
            return ids(text)
        known = ids(before)
        both = ids(before + text)
        if both[: len(known)] == known:
            return both[len(known) :]
        return self._apart(text)

    def _apart(self, text: str) -> list[int]:
        """The ids of a text that does not begin a conversation."""
        if self._prefixes:
            newline = self._ids("\n")
            ids = self._ids("\n" + text)
            if ids[: len(newline)] == newline:
                return ids[len(newline) :]
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _context(self, text: str, apart: bool) -> tuple[str, bool]:
        """(what of a text decides the tokens behind it, whether that is no beginning).

        It begins at the last special token, behind which tokenizers begin anew.
        """
        for near in (text[-_NEAR:], text):
            places = [near.rfind(special) for special in self._specials]
            last = max(places, default=-1)
            if last >= 0:
                cut = len(text) - len(near) + last
                return text[cut:], apart if cut == 0 else False
        return text, apart

    def _characters(self, tokens: int) -> int | None:
        """Characters that are at least `tokens` tokens; None where nothing bounds them."""
        model = self.tokenizer.model
        # A normaliser, or an unknown token, may turn any number of characters into one token.
        if self.tokenizer.normalizer is not None:
            return None
        for attribute in ("unk_token", "unk_id"):
            if getattr(model, attribute, None) is not None:
                return None
        if self._longest == 0:
            self._longest = max(len(token) for token in self.tokenizer.get_vocab())
        return tokens * self._longest
