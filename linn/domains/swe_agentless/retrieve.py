"""Which files an issue is about: BM25 over words and parts of identifiers, the path's words among them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from linn.errors import UserError

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PATH_WEIGHT = 3
_LONGEST = 400_000
"""Characters of one file that are read; generated tables are longer."""
_COMMON = frozenset(
    "a an and are as at be but by def do does for from has have i if import in is it its not of on or return self should so that the "
    "then there this to was we when with you".split()
)


def tokens(text: str) -> Iterator[str]:
    """Words in lower case: every identifier whole, and its parts where it has several (`parseHTTPHeader`, `parse_header`)."""
    for word in _WORD.findall(text[:_LONGEST]):
        yield from _of_word(word)


@lru_cache(maxsize=1 << 17)
def _of_word(word: str) -> tuple[str, ...]:
    whole = word.lower().strip("_")
    parts = [part.lower() for part in _PARTS.findall(word)]
    said = [whole, *(part for part in parts if len(part) > 1 and len(parts) > 1)]
    return tuple(token for token in said if token and token not in _COMMON)


class Index:
    """Files ready to be searched."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """UserError where the library is missing."""
        try:
            import bm25s
        except ImportError:
            raise UserError(
                "retrieving files needs the package bm25s; install linn[domains]"
            ) from None

        self.paths = sorted(files)
        corpus = [
            [
                *tokens(files[path]),
                *(_PATH_WEIGHT * list(tokens(path.removesuffix(".py").replace("/", " ")))),
            ]
            for path in self.paths
        ]
        self._index = bm25s.BM25() if any(corpus) else None
        if self._index is not None:
            self._index.index(corpus, show_progress=False)

    def ranked(self, issue: str) -> list[str]:
        """The paths, the likeliest first; equal scores in the paths' order."""
        known = [
            token
            for token in tokens(issue)
            if self._index is not None and token in self._index.vocab_dict
        ]
        if self._index is None or not known:
            return list(self.paths)
        scores = self._index.get_scores(known)
        return [
            path
            for _, path in sorted(zip((-float(score) for score in scores), self.paths, strict=True))
        ]
