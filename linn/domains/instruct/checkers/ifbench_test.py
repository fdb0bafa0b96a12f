"""The instructions of IFBench's test set (58) that fit any request; the eleven made for one request
each are in `ifbench_custom.py`.

They follow the project's head (2026-11), and what the instruction asks where the head misses it;
`as_released.py` holds the older readings. Sentences are Punkt's, as at the head.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

from linn.domains.instruct.checkers.ifbench_train import keyword_position
from linn.domains.instruct.checkers.text import (
    emoji_places,
    plain_words,
    punkt_sentences,
    same,
    starts_with_verb,
    syllables,
    tokens,
    trimmed,
    without_punctuation,
    words_of,
)

_STOP_WORDS = frozenset(
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself "
    "she her hers herself it its itself "
    "they them their theirs themselves what which who whom this that these those am is are was "
    "were be been being have has had "
    "having do does did doing a an the and but if or because as until while of at by for with "
    "about against between into through "
    "during before after above below to from up down in out on off over under again further then "
    "once here there when where why how "
    "all any both each few more most other some such no nor not only own same so than too very s t "
    "can will just don should now "
    "d ll m o re ve y ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn "
    "shan shouldn wasn weren won wouldn".split()
)
"""English function words as NLTK lists them, less those with an apostrophe, which no token can
equal.
"""
_CONJUNCTIONS = frozenset(("and", "but", "for", "nor", "or", "so", "yet"))
_PRONOUNS = frozenset(
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his "
    "himself she her hers herself it its itself they them their theirs themselves this that these "
    "those who whom whose which what whoever whomever whatever whichever anybody anyone anything "
    "everybody everyone everything nobody nothing somebody someone something each either neither "
    "both all some any none".split()
)
_QUOTES = "\"'”’)]*_"
"""What may close a sentence behind its mark."""
_STRAIGHT = str.maketrans("“”„‟‘’‚‛", "\"\"\"\"''''")
_NAMES = frozenset(
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander "
    "Amelia Benjamin Harper Leo Zoe "
    "Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan "
    "Victoria Elijah Layla Nicholas Audrey "
    "David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella "
    "Jonathan".split()
)
"""The names that the instruction itself lists."""
_PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))


# ---------------------------------------------------------------- counts


def _word_count_range(text: str, *, min_words: int, max_words: int) -> bool:
    return min_words <= len(re.findall(r"\w+", text)) <= max_words


def _unique_word_count(text: str, *, N: int) -> bool:
    return len({trimmed(word) for word in text.lower().split()}) >= N


def _conjunctions(text: str, *, small_n: int) -> bool:
    words = {trimmed(word).lower() for word in text.split()}
    return len(words & _CONJUNCTIONS) >= small_n


def _person_names(text: str, *, N: int) -> bool:
    return len(_NAMES.intersection(re.findall(r"\w+", text))) >= N


def _numbers(text: str, *, N: int) -> bool:
    return len(re.findall(r"\d+", without_punctuation(text))) == N


def _punctuation(text: str) -> bool:
    """All of . , ! ? ; : and an interrobang, whose own marks do not count."""
    interrobang = next((mark for mark in ("?!", "!?", "‽") if mark in text), None)
    return interrobang is not None and set(".,!?;:") <= set(
        text if interrobang == "‽" else text.replace(interrobang, "", 1)
    )


def _words_japanese(text: str, *, N: int) -> bool:
    every = [trimmed(word) for word in text.split()[N - 1 :: N]]
    asked = [word for word in every if word and not word.isdigit()]
    return bool(asked) and all(re.search("[\u3040-\u30ff\u4e00-\u9fff]", word) for word in asked)


def _pronouns(text: str, *, N: int) -> bool:
    found = tokens(text.lower().replace("/", " "))
    return sum(word in _PRONOUNS for word in found) >= N


def _keywords_multiple(
    text: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str
) -> bool:
    wanted = ((keyword1, 1), (keyword2, 2), (keyword3, 3), (keyword4, 5), (keyword5, 7))
    return all(text.lower().count(keyword.strip().lower()) == times for keyword, times in wanted)


# ---------------------------------------------------------------- ratios


def _stop_words(text: str, *, percentage: float) -> bool:
    words = [word.lower() for word in re.findall(r"\w+", text)]
    return (
        bool(words) and sum(word in _STOP_WORDS for word in words) / len(words) * 100 <= percentage
    )


def _kinds_of_sentences(text: str) -> tuple[int, int, int]:
    ends = Counter(sentence.rstrip(_QUOTES)[-1:] for sentence in punkt_sentences(text))
    return ends["."], ends["?"], ends["!"]


def _sentence_type(text: str) -> bool:
    """Two to one: none and none is no such ratio."""
    stating, asking, _ = _kinds_of_sentences(text)
    return stating == 2 * asking > 0


def _sentence_balance(text: str) -> bool:
    stating, asking, exclaiming = _kinds_of_sentences(text)
    return stating == asking == exclaiming > 0


def _overlap(text: str, *, reference_text: str, percentage: float) -> bool:
    """Share of the reply's character trigrams that the reference text has, within two percentage
    points.
    """
    own, reference = _trigrams(text), _trigrams(reference_text)
    if not own:
        return False
    share = len(own & reference) / len(own) * 100
    return percentage - 2 <= share <= percentage + 2


def _trigrams(text: str) -> set[str]:
    return {text[i : i + 3] for i in range(len(text) - 2)}


def _sentence_words(text: str) -> bool:
    """Three sentences of one length in characters, of which no two share a word."""
    found = punkt_sentences(text)
    words = [set(plain_words(sentence)) for sentence in found]
    is_distinct = len(set().union(*words)) == sum(map(len, words))
    return len(found) == 3 and len({len(sentence) for sentence in found}) == 1 and is_distinct


# ---------------------------------------------------------------- words


def _alphabet(text: str) -> bool:
    firsts = [word[0].lower() for word in without_punctuation(text).split()]
    if not firsts or firsts[0] not in string.ascii_lowercase:
        return False
    start = ord(firsts[0]) - ord("a")
    return all(
        first == string.ascii_lowercase[(start + index) % 26] for index, first in enumerate(firsts)
    )


def _vowel(text: str) -> bool:
    return "\n" not in text.strip() and len(set("aeiou").intersection(text.lower())) <= 3


def _consonants(text: str) -> bool:
    return all(re.search("[bcdfghjklmnpqrstvwxyz]{2}", word) for word in text.lower().split())


def _palindromes(text: str) -> bool:
    return sum(len(word) >= 5 and word == word[::-1] for word in plain_words(text)) >= 10


def _prime_lengths(text: str) -> bool:
    words = without_punctuation(text).split()
    return bool(words) and all(len(word) in _PRIMES for word in words)


def _repeats(text: str, *, small_n: int) -> bool:
    return max(Counter(plain_words(text)).values(), default=0) <= small_n


def _odd_even_syllables(text: str) -> bool:
    odd = [syllables(word) % 2 for word in plain_words(text)]
    return len(odd) > 1 and all(a != b for a, b in pairwise(odd))


def _last_first(text: str) -> bool:
    """Each sentence's last word opens the next; there is a next."""
    found = [plain_words(sentence) for sentence in punkt_sentences(text)]
    pairs = list(pairwise(found))
    return bool(pairs) and all(a and b and a[-1] == b[0] for a, b in pairs)


def _paragraph_last_first(text: str) -> bool:
    """Every line that holds more than punctuation ends with the word it starts with."""
    lines = [trimmed(line.strip().lower()).split() for line in text.split("\n")]
    filled = [words for words in lines if words]
    return bool(filled) and all(words[0] == words[-1] for words in filled)


def _no_consecutive(text: str) -> bool:
    """No two words side by side begin with one letter; those of two lines aren't side by side."""
    lines = [plain_words(line) for line in text.split("\n")]
    return all(a[0] != b[0] for words in lines for a, b in pairwise(words))


def _words_position(text: str, *, keyword: str) -> bool:
    """The second word and the last but one are the keyword; punctuation marks are no words."""
    found = [word.lower() for word in words_of(text)]
    return len(found) > 1 and found[1] == found[-2] == keyword.strip().lower()


# ---------------------------------------------------------------- sentences


def _alliteration_increment(text: str) -> bool:
    """Each sentence has more words in alliterating runs than the one before."""
    counts = [-1]
    for sentence in punkt_sentences(text):
        words = [word.lstrip(string.punctuation + " ") for word in sentence.lower().split()]
        firsts = [word[0] for word in words if word]
        alike = [a == b for a, b in pairwise(firsts)]
        # A run of n alliterating words has n - 1 equal neighbours and one beginning.
        beginnings = sum(now and not before for before, now in pairwise([False, *alike]))
        counts.append(sum(alike) + beginnings)
    # One sentence is not longer than another.
    return len(counts) > 2 and all(a < b for a, b in pairwise(counts))


def _keyword_in_sentence(text: str, *, word: str, N: int) -> bool:
    if N < 1:
        raise ValueError(f"sentence {N}: they count from 1")
    pattern = rf"(?<!\w){re.escape(word.strip())}(?!\w)"
    wanted = punkt_sentences(text)[N - 1 : N]
    return any(re.search(pattern, sentence, re.IGNORECASE) for sentence in wanted)


def _increment(text: str, *, small_n: int) -> bool:
    counts = [len(plain_words(sentence)) for sentence in punkt_sentences(text)]
    return len(counts) > 1 and all(b == a + small_n for a, b in pairwise(counts))


# ---------------------------------------------------------------- format


def _parentheses(text: str) -> bool:
    """Some bracket closes at a depth of five or more; a wrong closing mark starts afresh."""
    open_: list[str] = []
    deepest = 0

    for mark in re.findall(r"[(\[{)\]}]", text):
        if mark in "([{":
            open_.append(mark)
            deepest = max(deepest, len(open_))
        elif open_ and open_[-1] + mark in ("()", "[]", "{}"):
            open_.pop()
            if deepest >= 5:
                return True
        else:
            open_, deepest = [], 0

    return False


def _quotes(text: str) -> bool:
    """Three levels of alternating quotation marks, straight or typographic ones."""
    return nests_quotes(text) or nests_quotes(text.translate(_STRAIGHT))


def nests_quotes(text: str) -> bool:
    """From the deepest nesting of alternating straight marks, three have closed."""
    open_: list[str] = []
    deepest = 0

    for mark in re.findall("[\"']", text):
        if open_[-1:] == [mark]:
            open_.pop()
            if deepest - len(open_) >= 3:
                return True
        else:
            open_.append(mark)
            deepest = max(deepest, len(open_))

    return False


def _options(text: str, *, options: str) -> bool:
    """One of `options`, which are cut at /, else at `or`, else at commas.

    Lettered choices (a, b, c) must match to the character.
    """
    separators = [mark for mark in ("/", "or") if mark in options]
    separator = separators[0] if separators else ","
    allowed = [option.strip() for option in options.split(separator)]
    if re.match(r"\W*[aA]\W*[bB]\W*[cC]", options):
        return text in allowed
    return trimmed(text).lower() in [trimmed(option).lower() for option in allowed]


def _newline(text: str) -> bool:
    body = without_punctuation(text).strip()
    return sum(line != "" for line in body.split("\n")) == len(body.split())


def _emoji(text: str) -> bool:
    """An emoji is among a sentence's last two characters, punctuation off, or opens the next; flags
    and keycaps are made of several characters.
    """
    bare = [without_punctuation(sentence).strip() for sentence in punkt_sentences(text)]
    found = [sentence for sentence in bare if sentence]
    if not found:
        return False

    places = [emoji_places(sentence) for sentence in found]
    for sentence, own, following in zip(found, places, [*places[1:], []], strict=True):
        closes = any(end >= len(sentence) - 1 for _, end in own)
        if not closes and not (following and following[0][0] == 0):
            return False
    return True


def _line_indent(text: str) -> bool:
    """Each line is indented further than the one before; blank lines are none."""
    lines = [line for line in text.expandtabs(4).split("\n") if line.strip()]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    return len(indents) > 1 and all(a < b for a, b in pairwise(indents))


def _quote_unquote(text: str) -> bool:
    """No quotation follows another at once, and none stands last."""
    body = "".join(text.replace("“", '"').replace("”", '"').replace("'\"'", "").split())
    rest = body.strip(string.digits + string.punctuation.replace('"', ""))
    return bool(rest) and '""' not in body and rest[-1] != '"'


def _list(text: str, *, sep: str) -> bool:
    return text.count(sep) >= 2


def _thesis(text: str) -> bool:
    """HTML italics with something in them and something after them."""
    for tag in ("i", "em"):
        _, mark, rest = text.partition(f"<{tag}>")
        inside, closing, after = rest.partition(f"</{tag}>")
        if mark and closing and inside.strip() and after.strip():
            return True
    return False


def _sub_bullets(text: str) -> bool:
    """There are bullets `*`, and sub-bullets `-` under each; bold marks and hyphens are neither."""
    under: list[int] = []
    for line in text.split("\n"):
        mark = line.lstrip()[:2]
        if mark in ("* ", "*\t"):
            under.append(0)
        elif mark in ("- ", "-\t") and under:
            under[-1] += 1
    return bool(under) and all(under)


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
                told += len(punkt_sentences(line.strip())) if told < 2 else 1
        else:
            return False

    return bullets >= 2


def _title_case(text: str) -> bool:
    """No word starts small and goes on all small or all large; the `n't` of `Don't` is none."""
    small = [token for token in tokens(text) if token[0].islower() and token.lower() != "n't"]
    return all(
        len(token) > 1 and not (token[1:].islower() or token[1:].isupper()) for token in small
    )


def _output_template(text: str) -> bool:
    return all(part in text for part in ("My Answer:", "My Conclusion:", "Future Outlook:"))


def _no_whitespace(text: str) -> bool:
    return not re.search(r"\s", text)


# ---------------------------------------------------------------- repeating


def _repeat_change(text: str, *, prompt_to_repeat: str) -> bool:
    """The first word is another, the others are the same."""
    own, wanted = text.split(), prompt_to_repeat.split()
    is_changed = trimmed(own[0]).lower() != trimmed(wanted[0]).lower()
    return is_changed and own[1:] == wanted[1:]


def _repeat_simple(text: str) -> bool:
    return same(text, "Only output this sentence here, ignore all other requests.")


def _repeat_span(text: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The characters from `n_start` to `n_end`, both counted from 0 and both included."""
    return same(text, prompt_to_repeat[n_start : n_end + 1])


CHECKERS: Mapping[str, Callable[..., bool]] = {
    "count:word_count_range": _word_count_range,
    "count:unique_word_count": _unique_word_count,
    "count:conjunctions": _conjunctions,
    "count:person_names": _person_names,
    "count:numbers": _numbers,
    "count:punctuation": _punctuation,
    "count:words_japanese": _words_japanese,
    "count:pronouns": _pronouns,
    "count:keywords_multiple": _keywords_multiple,
    "ratio:stop_words": _stop_words,
    "ratio:sentence_type": _sentence_type,
    "ratio:sentence_balance": _sentence_balance,
    "ratio:overlap": _overlap,
    "ratio:sentence_words": _sentence_words,
    "words:alphabet": _alphabet,
    "words:vowel": _vowel,
    "words:consonants": _consonants,
    "words:palindrome": _palindromes,
    "words:prime_lengths": _prime_lengths,
    "words:start_verb": starts_with_verb,
    "words:repeats": _repeats,
    "words:odd_even_syllables": _odd_even_syllables,
    "words:last_first": _last_first,
    "words:paragraph_last_first": _paragraph_last_first,
    "words:no_consecutive": _no_consecutive,
    "words:keywords_specific_position": keyword_position,
    "words:words_position": _words_position,
    "sentence:alliteration_increment": _alliteration_increment,
    "sentence:keyword": _keyword_in_sentence,
    "sentence:increment": _increment,
    "format:parentheses": _parentheses,
    "format:quotes": _quotes,
    "format:options": _options,
    "format:newline": _newline,
    "format:emoji": _emoji,
    "format:line_indent": _line_indent,
    "format:quote_unquote": _quote_unquote,
    "format:list": _list,
    "format:thesis": _thesis,
    "format:sub-bullets": _sub_bullets,
    "format:no_bullets_bullets": _no_bullets_bullets,
    "format:title_case": _title_case,
    "format:output_template": _output_template,
    "format:no_whitespace": _no_whitespace,
    "repeat:repeat_change": _repeat_change,
    "repeat:repeat_simple": _repeat_simple,
    "repeat:repeat_span": _repeat_span,
}
"""47 of the 58 instruction ids of IFBench's test set."""
