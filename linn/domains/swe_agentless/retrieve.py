"""Which files an issue is about: BM25 over words, parts of identifiers, and words of the path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from linn.errors import UserError

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PATH_WEIGHT = 3
"""How often a path's words count."""
_LONGEST = 400_000
"""Characters of one file that are read; generated tables are longer."""
_COMMON = frozenset(
    "a an and are as at be but by def do does for from has have i if import in is it its not of on "
    "or return self should so that the then there this to was we when with you".split()
)
"""Words that tell nothing about a file."""


def tokens(text: str) -> Iterator[str]:
    """Words in lower case: every identifier whole, and its parts where it has several.

    So `parseHTTPHeader` and `parse_header` both give `header`.
    """
    for word in _WORD.findall(text[:_LONGEST]):
        yield from _of_word(word)


@lru_cache(maxsize=1 << 17)
def _of_word(word: str) -> tuple[str, ...]:
    candidates = [word.lower().strip("_")]
    parts = [part.lower() for part in _PARTS.findall(word)]
    if len(parts) > 1:
        candidates += [part for part in parts if len(part) > 1]
    return tuple(token for token in candidates if token and token not in _COMMON)


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
        corpus = []
        for path in self.paths:
            path_words = list(tokens(path.removesuffix(".py").replace("/", " ")))
            corpus.append([*tokens(files[path]), *(_PATH_WEIGHT * path_words)])

        # The library cannot index files without a single word.
        self._index = bm25s.BM25() if any(corpus) else None
        if self._index is not None:
            self._index.index(corpus, show_progress=False)

    def ranked(self, issue: str) -> list[str]:
        """The paths, the likeliest first; equal scores in the paths' order."""
        if self._index is None:
            return list(self.paths)
        vocabulary = self._index.vocab_dict
        words = [token for token in tokens(issue) if token in vocabulary]
        if not words:
            return list(self.paths)

        # The sort is stable, and the paths are in order.
        scores = self._index.get_scores(words)
        likelihood = dict(zip(self.paths, map(float, scores), strict=True))
        return sorted(self.paths, key=lambda path: -likelihood[path])
