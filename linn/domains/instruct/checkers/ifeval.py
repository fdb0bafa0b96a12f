"""IFEval's 25 instructions.

Written so that time grows linearly with the reply: the obvious patterns (`\\s*-`, `\\[.*?\\]`) are
quadratic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from linn.domains.instruct.checkers.text import (
    Relation,
    compare,
    divided,
    may_be_english,
    occurrences,
    opens_with,
    paragraphs,
    punkt_sentences,
    tokens,
)
from linn.domains.instruct.checkers.text import language as detected

_COMMAS = frozenset(",\u060c\u3001\ufe10\ufe11\ufe50\ufe51\uff0c\uff64")
"""Commas of every script that a reader takes for one."""


def _existence(text: str, *, keywords: list[str]) -> bool:
    return all(occurrences(keyword, text) > 0 for keyword in keywords)


def _frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return compare(occurrences(keyword, text), relation, frequency)


def _forbidden(text: str, *, forbidden_words: list[str]) -> bool:
    whole = (rf"(?<!\w){re.escape(word.strip())}(?!\w)" for word in forbidden_words)
    return not any(re.search(pattern, text, re.IGNORECASE) for pattern in whole)


def _letter_frequency(
    text: str, *, letter: str, let_frequency: int, let_relation: Relation
) -> bool:
    if len(letter) != 1:
        raise ValueError(f"letter {letter!r}")
    return compare(text.lower().count(letter.lower()), let_relation, let_frequency)


def _response_language(text: str, *, language: str) -> bool:
    found = detected(text) or ""
    # The detector tells the two Chinese scripts apart, a row may not.
    return language in (found, found.split("-")[0])


def _number_sentences(text: str, *, num_sentences: int, relation: Relation) -> bool:
    return compare(len(punkt_sentences(text)), relation, num_sentences)


def _number_words(text: str, *, num_words: int, relation: Relation) -> bool:
    return compare(len(re.findall(r"\w+", text)), relation, num_words)


def _number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    return paragraphs(divided(text)) == num_paragraphs


def _nth_paragraph_first_word(
    text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise ValueError(f"paragraph {nth_paragraph} of {num_paragraphs}")
    parts = [part for part in re.split(r"\n[^\S\n]*\n", text) if part.strip()]
    if len(parts) != num_paragraphs:
        return False
    paragraph = parts[nth_paragraph - 1]
    return begins_with(paragraph, first_word) or opens_with(paragraph, first_word)


def begins_with(paragraph: str, word: str) -> bool:
    """Whether a paragraph's first word, less quotation marks and what follows a mark, is `word`."""
    first, *_ = paragraph.split(maxsplit=1)
    bare = first.lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", bare, maxsplit=1)[0].lower() == word.lower()


def _number_placeholders(text: str, *, num_placeholders: int) -> bool:
    count = 0
    for line in text.split("\n"):
        opening = line.find("[")
        while opening >= 0:
            closing = line.find("]", opening)
            if closing < 0:
                break
            count += 1
            opening = line.find("[", closing)
    return compare(count, "at least", num_placeholders)


def _postscript(text: str, *, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker)
    if pattern:
        return bool(re.search(pattern, text.lower()))
    return occurrences(marker, text) > 0


def _number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    lines = [line.lstrip() for line in text.split("\n")]
    count = sum(line.startswith("-") for line in lines)
    index = 0

    while index < len(lines):
        line = lines[index]
        if line == "*":  # a bare star takes the next line as its item
            count += index + 1 < len(lines)
            index += 1
        elif line.startswith("*") and line[1] != "*":
            count += 1

        index += 1

    return count == num_bullets


def _constrained_response(text: str) -> bool:
    return any(f"My answer is {answer}." in text for answer in ("yes", "no", "maybe"))


def _number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    single = sum(bool(part.strip("*").strip()) for part in re.findall(r"\*[^\n*]*\*", text))
    double = sum(bool(part.strip("*").strip()) for part in re.findall(r"\*\*[^\n*]*\*\*", text))
    return compare(single + double, "at least", num_highlights)


def _multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    return compare(
        len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)),
        "at least",
        num_sections,
    )


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _json_format(text: str) -> bool:
    body = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        body = body.removeprefix(fence)
    try:
        json.loads(body.removesuffix("```").strip(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end >= start + 3 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def _repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_checker(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(text: str) -> bool:
    body = text.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


def _capital_word_frequency(
    text: str, *, capital_frequency: int, capital_relation: Relation
) -> bool:
    return compare(
        sum(token.isupper() for token in tokens(text)), capital_relation, capital_frequency
    )


def _english_capital(text: str) -> bool:
    return text.isupper() and may_be_english(text)


def _english_lowercase(text: str) -> bool:
    return text.islower() and may_be_english(text)


def _no_comma(text: str) -> bool:
    return _COMMAS.isdisjoint(text)


CASE_ONLY: Mapping[str, Callable[..., bool]] = {
    "change_case:english_capital": lambda text: text.isupper(),
    "change_case:english_lowercase": lambda text: text.islower(),
}

CHECKERS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}
"""The 25 instruction ids of IFEval."""
