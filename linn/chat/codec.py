"""Text to token ids and back, with the tokenizer of a model folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linn.chat.render import END
from linn.chat.template import Nemotron, Template, TemplateName
from linn.errors import UserError
from linn.types import Message, Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Codec:
    """Text to token ids and back, with the tokenizer and the chat template of a model folder."""

    def __init__(self, tokenizer: Tokenizer, template: Template | None = None) -> None:
        """`template`: linn's own protocol unless another is given.

        UserError when the tokenizer has no `<|im_end|>`.
        """
        eos = tokenizer.token_to_id(END)
        if eos is None:
            raise UserError(
                f"the tokenizer has no token {END}; linn speaks ChatML: "
                "add it as a special token, or start from a chat model"
            )
        self.tokenizer = tokenizer
        self.template: Template = template or Nemotron()
        """Writes conversations and reads replies."""
        self.eos: int = eos
        """The id of the token that ends a turn in training."""
        self.stops: tuple[int, ...] = (eos,)
        """The ids that end a sampled turn, `eos` among them."""
        self._longest = 0
        """Characters of the longest token; 0: not looked up yet."""

    @classmethod
    def load(cls, folder: str | Path, template: TemplateName | None = None) -> Codec:
        """Read `tokenizer.json` of a model folder; UserError says what to do when that fails.

        `template`: which chat template; None: as the folder needs it.
        """
        from tokenizers import Tokenizer

        path = Path(folder) / "tokenizer.json"
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
            return cls(tokenizer)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added before or after.

        Halves of surrogate pairs, which are not text, become `?`.
        """
        text = text.encode("utf-8", "replace").decode()
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], specials: bool = True) -> str:
        """The text of token ids; `specials=False` leaves out special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not specials))

    def encode_spans(
        self, pieces: Iterable[tuple[str, bool]], most: int | None = None
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask of `spans`, of equal length.

        Each piece is tokenised by itself, so tokens meet at the borders that sampling has. With
        `most`, a text that has more tokens than that is tokenised only so far that this shows: a
        megabyte of text takes 200 MB.
        """
        ids: list[int] = []
        mask: list[bool] = []
        for text, trained in pieces:
            if most is not None:
                if len(ids) > most:
                    break
                text = text[: self._characters(most + 1)]
            piece = self.encode(text)
            ids += piece
            mask += [trained] * len(piece)
        return ids, mask

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

    def prompt_ids(self, prompt: Prompt, keep_thinking: bool = False) -> list[int]:
        """What the model reads before its first turn."""
        pieces = self.template.prompt(
            prompt.messages, prompt.tools, prompt.thinking, keep_thinking=keep_thinking
        )
        return self.encode_spans(pieces)[0]

    def continuation_ids(
        self, prompt: Prompt, turns: Sequence[Message], answers: Sequence[Message]
    ) -> list[int]:
        """What the model reads between its last turn and its next.

        `turns`: every turn after the prompt, up to its last; `answers`: what follows that.
        """
        messages = (*prompt.messages, *turns)
        text = self.template.continuation(messages, answers, prompt.tools, prompt.thinking)
        return self.encode(text)
