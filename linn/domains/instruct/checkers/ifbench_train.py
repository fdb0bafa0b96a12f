"""The 29 instructions that IFBench's training set adds to IFEval's; the released IF-RL rows use
both.

Where Open-Instruct's checkers, which the released rows were graded with, miss what the instruction
asks, `as_released.py` holds theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from linn.domains.instruct.checkers import ifeval
from linn.domains.instruct.checkers.text import (
    Relation,
    closes_with,
    compare,
    divided,
    occurrences,
    opens_with,
    paragraphs,
    plain_words,
    punkt_sentences,
    same,
    sentences,
    tokens,
    words_of,
)

_DOTS = frozenset(".\u2024\u3002\ufe12\ufe52\uff0e\uff61")
_EXCLAMATIONS = frozenset("!\u203c\u203d\u2048\u2049\ufe15\ufe57\uff01")
"""Full stops and exclamation marks that a reader takes for one."""


# ---------------------------------------------------------------- copying


def _repeat_phrase(text: str, *, phrase: str, small_n: int) -> bool:
    """Every run from the phrase's first to its last word differs from it in exactly one word."""
    words = phrase.split()
    changes = [_changes(run, words) for run in _runs(text, words[0], words[-1])]
    return len(changes) == small_n and all(change == 1 for change in changes)


def _changes(run: list[str], words: list[str]) -> int:
    """How many words differ; all of them where one is missing or too many."""
    if len(run) != len(words):
        return len(words)
    return sum(a != b for a, b in zip(run, words, strict=True))


def _runs(text: str, first: str, last: str) -> list[list[str]]:
    """Words of the shortest stretches of a line from `first` to the next `last`, in order."""
    runs = []
    for line in text.split("\n"):
        start = line.find(first + " ")
        while start >= 0:
            end = line.find(" " + last, start + len(first) + 1)
            if end < 0:
                break
            end += 1 + len(last)
            runs.append(line[start:end].split())
            # The next run begins behind this one: they never share a word.
            start = line.find(first + " ", end)

    return runs


def _copy(text: str, *, prompt_to_repeat: str) -> bool:
    return same(text, prompt_to_repeat)


def _copy_span_idx(text: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    return same(text, prompt_to_repeat[n_start:n_end])


def _copying_multiple(text: str, *, prompt_to_repeat: str, N: int) -> bool:
    parts = text.split("******")
    return len(parts) == N and all(same(part, prompt_to_repeat) for part in parts)


# ---------------------------------------------------------------- format


def _sentence_hyphens(text: str) -> bool:
    """The pieces between hyphens are the sentences, in order, with no space around; compared as far
    as the shorter list goes.
    """
    pieces = text.split("-")
    return all(
        piece == wanted == piece.strip()
        for piece, wanted in zip(pieces, sentences(text.replace("-", " ")), strict=False)
    )


def _square_brackets(text: str) -> bool:
    return all(word.startswith("[") and word.endswith("]") for word in text.split())


def _bigram_wrapping(text: str) -> bool:
    words = text.split()
    pairs = zip(words[::2], words[1::2], strict=False)
    return len(words) > 1 and all(a.startswith("<<") and b.endswith(">>") for a, b in pairs)


def _paragraphs(text: str) -> bool:
    return paragraphs(divided(text)) == 2


def _paragraphs2(text: str) -> bool:
    parts = re.split(r"\n[^\S\n]*\n", text)
    return sum(bool(part.strip()) for part in parts) == 2


def _no_dot(text: str) -> bool:
    return _DOTS.isdisjoint(text)


def _no_exclamation(text: str) -> bool:
    return _EXCLAMATIONS.isdisjoint(text)


# ---------------------------------------------------------------- keywords and positions


def _no_adjacent_consecutive(text: str) -> bool:
    """No word's first character is the successor (by code point, small letters) of the word's
    before.
    """
    firsts = [word[0].lower() for word in text.split()]
    if len(firsts) > 1 and any(
        len(first) != 1 for first in firsts
    ):  # a capital whose small form is two characters
        return False
    return all(ord(b) - ord(a) != 1 for a, b in pairwise(firsts))


def _word_once(text: str, *, keyword: str) -> bool:
    return occurrences(keyword, text) == 1


def _word_count(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return compare(occurrences(keyword, text), relation, frequency)


def _exclude_word(text: str, *, keyword: str, instruction: str = "") -> bool:
    """The word stands nowhere, in any case; `instruction` is where the rows' maker drew it from."""
    pattern = rf"(?<!\w){re.escape(keyword.strip())}(?!\w)"
    return re.search(pattern, text, re.IGNORECASE) is None


def _palindrome(text: str) -> bool:
    """A word of three letters or more that reads the same backwards."""
    words = plain_words(text)
    return any(len(word) > 2 and word == word[::-1] for word in words)


def keyword_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    """Word `m` of sentence `n`, from 1 on, is the keyword; punctuation marks are no words."""
    if n < 1 or m < 1:
        raise ValueError(f"sentence {n}, word {m}: both count from 1")
    wanted = [words_of(sentence)[m - 1 : m] for sentence in punkt_sentences(text)[n - 1 : n]]
    return any(same(word, keyword) for words in wanted for word in words)


def _start_end(text: str) -> bool:
    words = tokens(text)
    return len(words) > 1 and words[0].lower() == words[-1].lower()


def _first_word_sent(text: str, *, first_word: str) -> bool:
    return all(opens_with(sentence, first_word) for sentence in sentences(text))


def _first_word_answer(text: str, *, first_word: str) -> bool:
    return opens_with(text, first_word)


def _last_word_sent(text: str, *, last_word: str) -> bool:
    return all(closes_with(sentence, last_word) for sentence in sentences(text))


def _last_word_answer(text: str, *, last_word: str) -> bool:
    return closes_with(text, last_word)


# ---------------------------------------------------------------- counts


def _lowercase_counting(text: str, *, N: int) -> bool:
    return len(re.findall(r"\b[a-z]+\b", text)) <= N


def _letter_counting(text: str, *, N: int, relation: Relation) -> bool:
    return compare(len(re.findall("[a-zA-Z]", text)), relation, N)


def _counting_composition(text: str, *, n_sent: int, n_words: int) -> bool:
    """Three parts between `***`, each of `n_sent` sentences of `n_words` words."""
    parts = divided(text)
    if len(parts) != 3:
        return False
    for part in parts:
        cut = sentences(part)
        if len(cut) != n_sent or any(len(words_of(sentence)) != n_words for sentence in cut):
            return False

    return True


def _count_unique(text: str) -> bool:
    found = [word.lower() for word in words_of(text)]
    return len(found) == len(set(found))


def _count_increment_word(text: str, *, keyword1: str, keyword2: str) -> bool:
    return occurrences(keyword1, text) == 1 and occurrences(keyword2, text) == 2


CHECKERS: Mapping[str, Callable[..., bool]] = {
    "copy:repeat_phrase": _repeat_phrase,
    "copy:copy": _copy,
    "copy:copying_simple": _copy,
    "copy:copying_multiple": _copying_multiple,
    "new:copy_span_idx": _copy_span_idx,
    "detectable_format:sentence_hyphens": _sentence_hyphens,
    "detectable_format:square_brackets": _square_brackets,
    "detectable_format:bigram_wrapping": _bigram_wrapping,
    "paragraphs:paragraphs": _paragraphs,
    "paragraphs:paragraphs2": _paragraphs2,
    "punctuation:punctuation_dot": _no_dot,
    "punctuation:punctuation_exclamation": _no_exclamation,
    "keywords:no_adjacent_consecutive": _no_adjacent_consecutive,
    "keywords:word_once": _word_once,
    "keywords:word_count_different_numbers": _word_count,
    "keywords:exclude_word_harder": _exclude_word,
    "keywords:palindrome": _palindrome,
    "keywords:keyword_specific_position": keyword_position,
    "keywords:start_end": _start_end,
    "first_word:first_word_sent": _first_word_sent,
    "first_word:first_word_answer": _first_word_answer,
    "last_word:last_word_sent": _last_word_sent,
    "last_word:last_word_answer": _last_word_answer,
    "count:lowercase_counting": _lowercase_counting,
    "letters:letter_counting": _letter_counting,
    "letters:letter_counting2": ifeval.CHECKERS["keywords:letter_frequency"],
    "count:counting_composition": _counting_composition,
    "count:count_unique": _count_unique,
    "count:count_increment_word": _count_increment_word,
}
"""The 29 instruction ids that IFBench's training set adds."""
