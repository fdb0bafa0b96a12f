"""Replies that follow, and replies that violate, each of IFEval's instructions."""

from typing import Any

Case = tuple[str, dict[str, Any], list[str], list[str]]
"""Id, arguments, replies that follow, replies that do not."""

IFEVAL: list[Case] = [
    ("keywords:existence", {"keywords": ["Sea", "sand"]}, ["seas of SAND"], ["sea", "sad"]),
    ("keywords:existence", {"keywords": ["C++"]}, ["I use c++"], ["I use Java"]),
    (
        "keywords:frequency",
        {"keyword": " day ", "frequency": 2, "relation": "at least"},
        ["Day, today"],
        ["day"],
    ),
    (
        "keywords:frequency",
        {"keyword": "day", "frequency": 2, "relation": "less than"},
        ["day", "no"],
        ["day day"],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, ["concatenate"], ["a CAT."]),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 2, "let_relation": "at least"},
        ["Eve"],
        ["e"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 1, "let_relation": "less than"},
        ["a"],
        ["# a"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two."],
        ["One, two"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        ["Mr. Lee paid 3.50."],
        ["A man! No?", "Who? Me."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a***b***"],
        ["a", "a******b", "a\n\nb"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["it's so"],
        ["so it"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Crash"},
        ["a\n\n'crash, b", "a\n\ncrash's"],
        ["a\n\nb crash", "a\n\ncrash\n\nc", "a\n\n"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] [b]", "[] [[x]"],
        ["[a]", "[a\n] [b]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["bye\np.s. x", "P. S. x"],
        ["PS x"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["P.P.S x", "p. p. s"],
        ["P.S. x"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "* a\n-b", "*\n* a\n- c"],
        ["* a", "* a\n** b\n", "* a\n* b\n* c"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["Well: My answer is no."],
        ["my answer is no."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "*a* **b**"],
        ["*a*", "** ** * *"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1 a SECTION 2 b"],
        ["Section 1 Section 2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['```json\n{"a": 1}\n```', "[1]"],
        ["{a: 1}", 'Here: {"a": 1}'],
    ),
    (
        "detectable_format:title",
        {},
        ["<<a>> x", "x <<y> z>>"],
        ["<<>>", "< <a>>", "<<a\n>>", "<<< >>>"],
    ),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b******"],
        ["a******a", "a", "a******b******c"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say hi."},
        [" say HI. hi"],
        ["hi. Say hi."],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "The end."},
        ["so. the END.", '"the end."\n'],
        ["The end. ok"],
    ),
    ("startend:quotation", {}, [' "a" '], ['"', '"a', "'a'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NO WAY, man", "I CAN"],
        ["No way", "NO-GO"],
    ),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
    (
        "change_case:english_capital",
        {},
        ["THE DOG IS HERE AND WE ALL LIKE IT VERY MUCH."],
        ["THE DOG IS HERE and WE LIKE IT", "DAS IST EIN SCHÖNES HAUS UND WIR SIND ALLE DA."],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["the dog is here and we all like it very much."],
        ["The dog is here and we all like it."],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein schönes altes Haus und wir wohnen alle darin."],
        ["This is a nice old house and we all live in it."],
    ),
]
