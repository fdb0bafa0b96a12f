"""Decontamination: which training prompts share a run of n words with an evaluation set.

Words are compared after normalisation: compatibility forms unified (NFKD), case folded, accents and
invisible marks dropped, punctuation and underscores taken as gaps. Every Chinese or Japanese
character is a word of its own. Only what a model is asked (user turns) is compared. Memory grows
with the evaluation side alone: one 64-bit hash per n-gram.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from linn.chat.turns import to_messages
from linn.data.rows import BadRow
from linn.errors import UserError

COMMON = 10
"""An n-gram that more evaluation prompts than this share is their template's wording.

It is not content, and no sign of contamination."""
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_HAN_AND_KANA = r"\u2e80-\u2fff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN_AND_KANA}]|[^\W_{_HAN_AND_KANA}]+")


def words_of(text: str) -> list[str]:
    """The words of a text, normalised."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    text = unicodedata.normalize("NFKD", text)
    # Accents are marks of their own now (Mn); Cf are invisible, as soft hyphens are.
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

    def __init__(
        self,
        name: str,
        prompts: Iterable[Sequence[str]],
        n: int,
    ) -> None:
        """`prompts`: the texts of each prompt's turns.

        A text of fewer than n words is met only by a turn that is the same as a whole.
        """
        self.name = name
        self.n = n
        self.prompts = 0
        """Different prompts read."""
        self._short: set[int] = set()
        """Hashes of whole turns of fewer than n words."""
        counts: dict[int, int] = {}
        seen: set[int] = set()

        for texts in prompts:
            turns = [words_of(text) for text in texts]
            # A prompt that stands twice in a set must not make its words look common.
            whole = hash(tuple(map(tuple, turns)))
            if whole not in seen:
                seen.add(whole)
                self._add(turns, counts)

        self._grams = {gram for gram, count in counts.items() if count <= COMMON}
        self.common = len(counts) - len(self._grams)
        """n-grams left out because more than COMMON prompts share them."""

    def _add(self, turns: Sequence[Sequence[str]], counts: dict[int, int]) -> None:
        """Count a prompt, and each of its n-grams once."""
        self.prompts += 1
        grams: set[int] = set()
        for words in turns:
            grams.update(_grams(words, self.n))
            if 0 < len(words) < self.n:
                self._short.add(hash(tuple(words)))
        for gram in grams:
            counts[gram] = counts.get(gram, 0) + 1

    @property
    def grams(self) -> int:
        """Different n-grams compared with."""
        return len(self._grams)

    def hit(self, turns: Sequence[Sequence[str]]) -> Hit | None:
        """Where a prompt of these turns, each a list of words, meets the set; None: nowhere."""
        shared, first = 0, ""
        for words in turns:
            starts = self._shared(words)
            if starts and not first:
                first = " ".join(words[starts[0] : starts[0] + self.n])
            shared += len(starts)
        if shared == 0:
            return None
        return Hit(
            name=self.name,
            ngram=self.n,
            words=first,
            grams=shared,
        )

    def _shared(self, words: Sequence[str]) -> list[int]:
        """Where the runs of n words of one turn begin that the set holds; 0 for a short turn."""
        if len(words) < self.n:
            known = len(words) > 0 and hash(tuple(words)) in self._short
            return [0] if known else []

        # Most turns share nothing, and this says so without a loop in Python.
        if self._grams.isdisjoint(_grams(words, self.n)):
            return []
        starts = []
        for start, gram in enumerate(_grams(words, self.n)):
            if gram in self._grams:
                starts.append(start)

        return starts


def _grams(words: Sequence[str], n: int) -> Iterable[int]:
    """The hash of every run of n words."""
    shifted = [islice(words, start, None) for start in range(n)]
    return map(hash, zip(*shifted, strict=False))


_PLAIN = ("prompt", "question", "problem", "problem_statement", "input", "text")
"""Fields in which evaluation sets keep their question."""


def asked(row: Mapping[str, Any]) -> list[str]:
    """The texts of a row's user turns; BadRow where it asks nothing.

    They come from `responses_create_params.input`, `messages`, or else the first of `prompt`,
    `question`, `problem`, `problem_statement`, `input`, `text` in the row or its `metadata`.
    """
    params, metadata = row.get("responses_create_params"), row.get("metadata")
    places = [row.get("messages")]
    if isinstance(params, Mapping):
        places.insert(0, params.get("input"))
    for place in (row, metadata):
        if isinstance(place, Mapping):
            places += [place.get(key) for key in _PLAIN]

    for turns in places:
        if isinstance(turns, (str, list)) and turns:
            break
    else:
        raise BadRow(
            "nothing asked: none of responses_create_params.input, messages, "
            f"{', '.join(_PLAIN)} holds text",
            "nothing asked",
        )

    try:
        return [message.content for message in to_messages(turns) if message.role == "user"]
    except UserError as error:
        raise BadRow(str(error), "nothing asked") from None
