"""Random replies for every instruction: one that follows, and the same reply broken in the
respect that the instruction names.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from linn.domains.instruct.checkers import CHECKERS
from tests.support.ifbench_cases import TEST, TRAINING
from tests.support.ifeval_cases import IFEVAL

CASES = [*IFEVAL, *TRAINING, *TEST]
Variant = tuple[dict[str, Any], str, str]
"""Arguments, a reply that follows, the same reply broken in the respect that the id names."""
Maker = Callable[[random.Random], Variant]


def counted(name: str, word: str, wrong: int, **more: Any) -> Maker:
    """`word` N times follows; `wrong` more (or fewer) does not."""

    def make(rng: random.Random) -> Variant:
        n = rng.randint(2, 9)
        return {name: n, **more}, " ".join([word] * n), " ".join([word] * (n + wrong))

    return make


def plain(good: str, bad: str, **kwargs: Any) -> Maker:
    """A text of random filler words with `good` or `bad` among them."""

    def make(rng: random.Random) -> Variant:
        filler = [rng.choice(("red", "big", "old", "dry")) for _ in range(rng.randint(1, 6))]
        at = rng.randrange(len(filler) + 1)

        def with_part(part: str) -> str:
            return " ".join([*filler[:at], part, *filler[at:]]).strip()

        return kwargs, with_part(good), with_part(bad)

    return make


def of_cases(id_: str) -> Maker:
    """Any following with any violating reply of `CASES`."""

    def make(rng: random.Random) -> Variant:
        kwargs, good, bad = rng.choice([case[1:] for case in CASES if case[0] == id_])
        return kwargs, rng.choice(good), rng.choice(bad)

    return make


def copies(rng: random.Random) -> Variant:
    """As many copies as asked for, and one more."""
    n = rng.randint(2, 5)
    good, bad = ("******".join(["Say hi."] * count) for count in (n, n + 1))
    return {"prompt_to_repeat": "Say hi.", "N": n}, good, bad


LEAST = {"relation": "at least"}
MAKERS: dict[str, Maker] = {id_: of_cases(id_) for id_ in CHECKERS} | {
    "keywords:existence": plain("sea", "see", keywords=["sea"]),
    "keywords:forbidden_words": plain("seas", "sea", forbidden_words=["sea"]),
    "keywords:frequency": counted("frequency", "sea", -1, keyword="sea", **LEAST),
    "keywords:word_count_different_numbers": counted(
        "frequency", "sea", -1, keyword="sea", **LEAST
    ),
    "keywords:letter_frequency": counted(
        "let_frequency", "e", -1, letter="e", let_relation="at least"
    ),
    "letters:letter_counting2": counted(
        "let_frequency", "e", -1, letter="e", let_relation="at least"
    ),
    "letters:letter_counting": counted("N", "e", -1, **LEAST),
    "length_constraints:number_words": counted("num_words", "word", -1, **LEAST),
    "length_constraints:number_sentences": counted("num_sentences", "So it is.", -1, **LEAST),
    "detectable_content:number_placeholders": counted("num_placeholders", "[name]", -1),
    "detectable_format:number_highlighted_sections": counted("num_highlights", "*so*", -1),
    "change_case:capital_word_frequency": counted(
        "capital_frequency", "BIG", -1, capital_relation="at least"
    ),
    "count:lowercase_counting": counted("N", "word", 1),
    "count:numbers": counted("N", "12", 1),
    "count:pronouns": counted("N", "she", -1),
    "format:list": lambda rng: ({"sep": "-"}, "- a " * rng.randint(2, 9), "- a"),
    "words:repeats": counted("small_n", "go", 1),
    "copy:copying_multiple": copies,
    "punctuation:no_comma": plain("so", "so,"),
    "punctuation:punctuation_dot": plain("so", "so."),
    "punctuation:punctuation_exclamation": plain("so", "so!"),
    "keywords:word_once": plain("sea", "sea sea", keyword="sea"),
    "keywords:exclude_word_harder": plain("Sea", "so sea so", keyword="sea"),
    "keywords:palindrome": plain("noon", "noons"),
    "count:count_increment_word": plain(
        "sea land land", "sea sea land land", keyword1="sea", keyword2="land"
    ),
    "count:person_names": plain("Emma Liam", "Emma Emma", N=2),
    "count:conjunctions": plain("and but", "and so-called", small_n=2),
    "format:parentheses": plain("[[[[[a]]]]]", "[[[[a]]]]"),
    "format:output_template": plain(
        "My Answer: My Conclusion: Future Outlook:", "My Answer: Future Outlook:"
    ),
    "custom:character_reverse": plain("elgae dlab", "elgae dalb"),
    "detectable_format:title": plain("<<sea>>", "<sea>"),
    "detectable_format:constrained_response": plain("My answer is no.", "My answer is never."),
}
