"""Which files an issue is about: BM25 over words and parts of identifiers, the path's words among them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

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
        whole = word.lower().strip("_")
        if whole and whole not in _COMMON:
            yield whole
        parts = [part.lower() for part in _PARTS.findall(word)]
        if len(parts) > 1:
            yield from (part for part in parts if len(part) > 1 and part not in _COMMON)


def ranked(issue: str, files: Mapping[str, str]) -> list[str]:
    """The paths, the likeliest first; equal scores in the paths' order."""
    try:
        import bm25s
    except ImportError:
        raise UserError("retrieving files needs the package bm25s; install linn[domains]") from None

    paths = sorted(files)
    corpus = [[*tokens(files[path]), *(_PATH_WEIGHT * list(tokens(path.removesuffix(".py").replace("/", " "))))] for path in paths]
    query = list(tokens(issue))
    if not query or not any(corpus):
        return paths
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    known = [token for token in query if token in index.vocab_dict]
    scores = index.get_scores(known) if known else [0.0] * len(paths)
    return [path for _, path in sorted(zip((-float(score) for score in scores), paths, strict=True))]
