"""Decontamination: which training prompts share a run of n words with an evaluation set.

Words are compared after normalisation: compatibility forms unified (NFKD), case folded, accents and invisible marks dropped, punctuation
and underscores taken as gaps; every Chinese or Japanese character is a word of its own. Only what a model is asked (user turns) is compared.
Memory grows with the evaluation side alone: one 64-bit hash an n-gram.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from linn.chat.request import to_messages
from linn.data.rows import BadRow
from linn.errors import UserError

COMMON = 10
"""An n-gram that more evaluation prompts than this share is their template's wording, not content: it is no sign of contamination."""
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_WORD = re.compile(
    r"[\u2e80-\u2fff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W_\u2e80-\u2fff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def words_of(text: str) -> list[str]:
    """The words of a text, normalised."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Cf"))
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class Hit:
    """Where a training prompt meets an evaluation set."""

    name: str
    """The evaluation set."""
    ngram: int
    """Words of an n-gram."""
    words: str
    """The first words they share, normalised."""
    grams: int
    """n-grams of the prompt that the evaluation set holds."""


class Evaluated:
    """The n-grams of one evaluation set."""

    def __init__(self, name: str, prompts: Iterable[Sequence[str]], n: int) -> None:
        """`prompts`: the texts of each prompt's turns. A text of fewer than n words is met only by a turn that is the same as a whole."""
        self.name, self.n = name, n
        self.prompts = 0
        """Different prompts read."""
        counts: dict[int, int] = {}
        self._short: set[int] = set()
        seen: set[int] = set()
        for texts in prompts:
            turns = [words_of(text) for text in texts]
            whole = hash(tuple(map(tuple, turns)))
            if whole in seen:
                continue
            seen.add(whole)
            self.prompts += 1
            for gram in {gram for words in turns for gram in _grams(words, n)}:
                counts[gram] = counts.get(gram, 0) + 1
            self._short |= {hash(tuple(words)) for words in turns if 0 < len(words) < n}
        self._grams = {gram for gram, count in counts.items() if count <= COMMON}
        self.common = len(counts) - len(self._grams)
        """n-grams left out because more than COMMON prompts share them."""

    @property
    def grams(self) -> int:
        """Different n-grams compared with."""
        return len(self._grams)

    def hit(self, turns: Sequence[Sequence[str]]) -> Hit | None:
        """Where a prompt of these turns, each a list of words, meets the set; None where it does not."""
        met, first = 0, ""
        for words in turns:
            if 0 < len(words) < self.n and hash(tuple(words)) in self._short:
                met, first = met + 1, first or " ".join(words)
            if self._grams.isdisjoint(_grams(words, self.n)):
                continue
            for start, gram in enumerate(_grams(words, self.n)):
                if gram in self._grams:
                    met, first = met + 1, first or " ".join(words[start : start + self.n])
        return Hit(self.name, self.n, first, met) if met else None


def _grams(words: Sequence[str], n: int) -> Iterable[int]:
    return map(hash, zip(*(islice(words, i, None) for i in range(n)), strict=False))


_PLAIN = ("prompt", "question", "problem", "problem_statement", "input", "text")


def asked(row: Mapping[str, Any]) -> list[str]:
    """What a row asks, a text a user turn: `responses_create_params.input`, `messages`, or else the first of `prompt`, `question`,
    `problem`, `problem_statement`, `input`, `text` in the row or its `metadata`. BadRow where there is none of them."""
    params, metadata = row.get("responses_create_params"), row.get("metadata")
    fields = [params.get("input") if isinstance(params, Mapping) else None, row.get("messages")]
    for place in (row, metadata if isinstance(metadata, Mapping) else {}):
        fields += [place.get(key) for key in _PLAIN]
    turns = next((value for value in fields if isinstance(value, (str, list)) and value), None)
    if turns is None:
        raise BadRow(
            f"nothing asked: none of responses_create_params.input, messages, {', '.join(_PLAIN)} holds text",
            "nothing asked",
        )
    try:
        return [m.content for m in to_messages(turns) if m.role == "user"]
    except UserError as error:
        raise BadRow(str(error), "nothing asked") from None
