"""Every instruction's checker: following and violating replies, near misses, broken arguments,
hostile replies.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from linn.domains.instruct.checkers import (
    CHECKERS,
    follows,
    ifbench_custom,
    ifbench_test,
    ifbench_train,
    ifeval,
)
from linn.domains.instruct.checkers.text import sentences
from linn.errors import InfrastructureError

NORTH = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, "
    "Dublin, Berlin, Amsterdam, Warsaw, "
    "London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, "
    "Bern, Ljubljana, Zagreb"
)
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
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
        "copy:repeat_phrase",
        {"phrase": "we all go home", "small_n": 2},
        ["we may go home, we all may home"],
        [
            "we all go home. we all go home",
            "we may go home",
            "we may not home we all may home",
            "We may go home. We all may home",
        ],
    ),
    ("copy:copy", {"prompt_to_repeat": "Say Hi."}, [" say hi.\n"], ["Say Hi", "Say Hi. Hi."]),
    ("copy:copying_simple", {"prompt_to_repeat": "Say Hi."}, ["Say Hi."], ["Hi."]),
    (
        "copy:copying_multiple",
        {"prompt_to_repeat": "Say hi.", "N": 2},
        ["Say hi.\n******\nsay hi."],
        [
            "Say hi.",
            "Say hi.***Say hi.",
            "Say hi.******Say hi.******Say hi.",
            "Say hi.******Say ho.",
        ],
    ),
    (
        "new:copy_span_idx",
        {"prompt_to_repeat": "Tell me more", "n_start": 5, "n_end": 7},
        ["ME", " me "],
        ["e", "me m", "me more"],
    ),
    (
        "new:copy_span_idx",
        {"prompt_to_repeat": "Tell me more", "n_start": 0, "n_end": 4},
        ["tell"],
        ["ell"],
    ),
    (
        "detectable_format:sentence_hyphens",
        {},
        ["I am.-You are.-We go."],
        ["I am. - You are.", "I am. You are.", "well-known fact."],
    ),
    (
        "detectable_format:square_brackets",
        {},
        ["[we] [go]", "[a.]"],
        ["[we] go", "[we go]", "[we]."],
    ),
    (
        "detectable_format:bigram_wrapping",
        {},
        ["<<I am>> <<at home>>", "<<I am>> now"],
        ["<<I>> am", "<<I am>> <at home>", "I am"],
    ),
    ("paragraphs:paragraphs", {}, ["a\n***\nb"], ["a\n\nb", "a***b***c", "a******b"]),
    ("paragraphs:paragraphs2", {}, ["a\n\nb", "a\n\n\nb"], ["a\nb", "a\n\nb\n\nc", "a\n\n\n\nb"]),
    ("punctuation:punctuation_dot", {}, ["Hi, you"], ["3.5", "a…."]),
    ("punctuation:punctuation_exclamation", {}, ["Hi."], ["Hi!"]),
    ("keywords:no_adjacent_consecutive", {}, ["apple cat", "b a", "a a"], ["apple Bird", "1 2"]),
    (
        "keywords:word_once",
        {"keyword": "sea"},
        ["The Sea."],
        ["sand", "sea, sea", "seas over the sea"],
    ),
    (
        "keywords:word_count_different_numbers",
        {"keyword": "sea", "frequency": 2, "relation": "at least"},
        ["sea Sea"],
        ["sea"],
    ),
    (
        "keywords:exclude_word_harder",
        {"keyword": "sea"},
        ["a sea.", "a Sea here", "seas"],
        ["a sea here"],
    ),
    ("keywords:palindrome", {}, ["noon came", "I go"], ["Noon came", "no palindrome here"]),
    (
        "keywords:keyword_specific_position",
        {"keyword": ["sea"], "n": 2, "m": 3},
        ["We go. I like sea."],
        ["We go. I like the sea.", "I like sea.", "We go. I like Sea."],
    ),
    ("keywords:start_end", {}, ["Go when I go"], ["Go when I go.", "go", "Go now"]),
    (
        "first_word:first_word_sent",
        {"first_word": "Sea"},
        ["Sea is. sea was!"],
        ["Sea is. The sea was.", "Sea, is."],
    ),
    (
        "first_word:first_word_answer",
        {"first_word": "sea"},
        ["SEA is. It was."],
        ["Sea, yes", "A sea"],
    ),
    (
        "last_word:last_word_sent",
        {"last_word": ["sea"]},
        ["The sea. My SEA!"],
        ["The sea. My land.", "The seas."],
    ),
    (
        "last_word:last_word_answer",
        {"last_word": "sea"},
        ['My land. The "sea"!'],
        ["The sea is", "seas"],
    ),
    ("count:lowercase_counting", {"N": 2}, ["A Big red sea", "NO"], ["the red sea"]),
    ("letters:letter_counting", {"N": 3, "relation": "less than"}, ["ab 123", "é é é"], ["abc"]),
    (
        "letters:letter_counting2",
        {"letter": "e", "let_frequency": 2, "let_relation": "at least"},
        ["Eve"],
        ["e"],
    ),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 3},
        ["We go. I am.\n***\nWe go. I am.\n***\nWe go. I am."],
        [
            "We go. I am.\n* * *\nWe go. I am.\n* * *\nWe go. I am.",
            "We go. I am.***We go. I am.",
            "We go. I am.***We go. I am.***We go. I am so.",
        ],
    ),
    ("count:count_unique", {}, ["We all go home."], ["We go. I am.", "go we go"]),
    (
        "count:count_increment_word",
        {"keyword1": "sea", "keyword2": "land"},
        ["Land, sea, land"],
        ["land sea", "sea sea land land"],
    ),
    (
        "count:count_increment_word",
        {"keyword1": ["sea"], "keyword2": ["land"]},
        ["Land, sea, land"],
        ["land sea"],
    ),
    (
        "count:word_count_range",
        {"min_words": 2.0, "max_words": 3.0},
        ["one two", "it's so"],
        ["one", "one two three four"],
    ),
    ("count:unique_word_count", {"N": 3}, ["a b, c"], ["A a. b"]),
    ("count:conjunctions", {"small_n": 2.0}, ["this and that, but no"], ["this, that and more"]),
    (
        "count:person_names",
        {"N": 2},
        ["Emma's and Liam"],
        ["Emma, Emma", "Liams and Emma", "emma and liam"],
    ),
    ("count:numbers", {"N": 2}, ["3.5 and 1,000"], ["3, 4 and 5", "one and two", "12"]),
    (
        "count:punctuation",
        {},
        ["a, b; c: d. e! f? g?!", "a,;:.! b? ‽"],
        ["a, b; c: d. e?!", "a, b; c: d. e! f?", "a, b; c d. e! f? g?!"],
    ),
    ("count:words_japanese", {"N": 2}, ["a 日本 b ひ", "a 12"], ["日本 a", "a 日本 b c"]),
    ("count:pronouns", {"N": 3}, ["She/her: they"], ["she and her", "shed here"]),
    (
        "count:keywords_multiple",
        {"keyword1": "aa", "keyword2": "bb", "keyword3": "cc", "keyword4": "dd", "keyword5": "ee"},
        ["aa" + " bb" * 2 + " cc" * 3 + " Dd" * 5 + " ee" * 7],
        ["aa" + " bb" * 2 + " cc" * 3 + " dd" * 5 + " ee" * 8, "aa bb"],
    ),
    ("ratio:stop_words", {"percentage": 50}, ["the dog", "big dog"], ["the dog and I", "!!!"]),
    ("ratio:sentence_type", {}, ["I am. You are. Who?"], ["I am. Who?", "Who?"]),
    ("ratio:sentence_balance", {}, ["I am. Who? Me!"], ["I am. Who? Me! You!", "I am."]),
    (
        "ratio:overlap",
        {"reference_text": "abcdef", "percentage": 50.0},
        ["abcdxx", "abcdyy"],
        ["abcdef", "xyz", "ab"],
    ),
    (
        "ratio:sentence_words",
        {},
        ["Ab cd. Ef gh! Ij kl?"],
        ["Ab cd. Ef gh!", "Ab cd. Ef gh! Ij klm?"],
    ),
    ("words:alphabet", {}, ["Yes, Zoe and Bob"], ["Yes and", "1 a", "a b b"]),
    ("words:vowel", {}, ["the red bed is on"], ["the sun is out, a do", "the bed\nis"]),
    ("words:consonants", {}, ["string and rhythm", "Strong!"], ["string a", "too"]),
    (
        "words:palindrome",
        {},
        ["level Radar civic kayak refer madam stats tenet solos, rotor"],
        ["level radar civic kayak refer madam stats tenet solos", "noon " * 12],
    ),
    ("words:prime_lengths", {}, ["we, are ok"], ["a we", "we have"]),
    (
        "words:start_verb",
        {},
        ["Write it.", "Consider this.", "go", "Is it?"],
        ["The dog runs.", "Happily they go", "She writes", "!"],
    ),
    ("words:repeats", {"small_n": 2}, ["Go, go and and"], ["go go Go."]),
    ("words:odd_even_syllables", {}, ["the water is open", "water"], ["the dog", "water open"]),
    (
        "words:last_first",
        {},
        ["I see you. You see me! Me too?"],
        ["I see you. He sees me.", "I. ! You."],
    ),
    (
        "words:paragraph_last_first",
        {},
        ["Go on, go.\n***\nwe say we"],
        ["Go on now", "go go\nwe say"],
    ),
    ("words:no_consecutive", {}, ["go on"], ["go get", "we, Wait"]),
    (
        "words:keywords_specific_position",
        {"keyword": "sea", "n": 1, "m": 2},
        ["The sea. Yes"],
        ["A big sea.", "sea"],
    ),
    (
        "words:words_position",
        {"keyword": "sea"},
        ["A sea is a sea."],
        ["A sea is a sea", "A Sea is a sea.", "sea"],
    ),
    (
        "sentence:alliteration_increment",
        {},
        ["One day. Two ties. Cats can cry."],
        ["Two ties. One day.", "Two ties. Big bears."],
    ),
    ("sentence:keyword", {"word": "sea", "N": 2.0}, ["One. The Seas."], ["Sea. One.", "Sea."]),
    (
        "sentence:increment",
        {"small_n": 1},
        ["Go. We go. All go on.", "Go on"],
        ["Go. Go. We go.", "We go. I."],
    ),
    ("format:parentheses", {}, ["([{(())}])", "(((((a)))))"], ["((((a))))", "(((((", "(((((a]"]),
    ("format:quotes", {}, ['"a \'b "c" d\' e"'], ["\"a 'b' c\"", "\"'\"'", '"a" \'b\' "c"']),
    ("format:options", {"options": "yes/no/maybe"}, ["Yes.", "maybe"], ["yes and no", "I say yes"]),
    ("format:options", {"options": "I know or I don't know"}, ["i don't know."], ["I do not know"]),
    ("format:options", {"options": "a), b), c), d)"}, ["b)"], ["b", "b) ", "B)"]),
    ("format:newline", {}, ["We\n\ngo\non."], ["We go\non"]),
    ("format:emoji", {}, ["Hi 😀. Yes 🎉!", "Hi. 😀 Yes 🎉", "Hi ❤️."], ["Hi 😀. Yes.", "Hi."]),
    ("format:line_indent", {}, ["a\n b\n   c", "a\n\n b"], ["a\nb", "a\n  b\n c"]),
    ("format:quote_unquote", {}, ['"a" means b', "The “a” is b."], ['"a" "b" are', 'He said "a".']),
    ("format:list", {"sep": "!?!?"}, ["!?!? a\n!?!? b"], ["!?!? a", "- a\n- b"]),
    (
        "format:thesis",
        {},
        ["<i>This</i> so", "<em>This</em> so"],
        ["*This* so", "<i>This</i>", "<i> </i> so", "<i>This so"],
    ),
    ("format:sub-bullets", {}, ["* a\n  - b\n* c\n  - d"], ["* a\n- b\n* c"]),
    (
        "format:no_bullets_bullets",
        {},
        ["One. Two.\n* a\n* b", "One.\nTwo.\n\n* a\n* b"],
        ["One.\n* a\n* b", "One. Two.\n* a", "* a\n* b", "One. Two.\n* a\nand\n* b"],
    ),
    ("format:title_case", {}, ["The Dog's Day", "THE END"], ["The dog", "The eND"]),
    (
        "format:output_template",
        {},
        ["My Answer: a My Conclusion: b Future Outlook: c"],
        ["My Answer: a My conclusion: b Future Outlook: c"],
    ),
    ("format:no_whitespace", {}, ["a-b"], ["a b", "a\u00a0b"]),
    (
        "repeat:repeat_change",
        {"prompt_to_repeat": "Tell me more."},
        ["Give me more."],
        ["Tell me more.", "Give me less.", "Please tell me more."],
    ),
    (
        "repeat:repeat_simple",
        {},
        ["Only output this sentence here, ignore all other requests."],
        ["Only output this sentence"],
    ),
    (
        "repeat:repeat_span",
        {"prompt_to_repeat": "Tell me some more now", "n_start": 1, "n_end": 3},
        ["me Some"],
        ["me some more", "Tell me"],
    ),
    (
        "custom:multiples",
        {},
        ["14, 21, 28, 35, 42, 49", "14,21,28,35,42,49"],
        ["7, 14, 21, 28, 35, 42, 49", "14, 21, 28, 35, 42", "10 to 50: 14, 21, 28, 35, 42, 49"],
    ),
    (
        "custom:mcq_count_length",
        {},
        [
            "\n".join(
                f"Question {n}: What{' so' * n}?\n" + "\n".join(f"{c}) it" for c in "ABCDE")
                for n in range(4)
            )
        ],
        [
            "\n".join(
                f"Question {n}: What?\n" + "\n".join(f"{c}) it" for c in "ABCDE") for n in range(4)
            ),
            "\n".join(
                f"Question {n}: What{' so' * n}?\n" + "\n".join(f"{c}) it" for c in "ABCD")
                for n in range(4)
            ),
            "Question 1: What?",
        ],
    ),
    (
        "custom:reverse_newline",
        {},
        ["Here:\nZimbabwe\n" + "\n".join(f"L{n}" for n in range(99, 48, -1))],
        ["Zimbabwe\n" + "\n".join(f"L{n}" for n in range(49, 100)), "Zimbabwe\nZambia", "Algeria"],
    ),
    (
        "custom:word_reverse",
        {},
        ["States the of symbol the is eagle Bald The"],
        ["The bald eagle is it", "elgae dlab"],
    ),
    ("custom:character_reverse", {}, [".elgae dlab ehT"], ["The bald eagle", "eagle bald"]),
    (
        "custom:sentence_alphabet",
        {},
        [" ".join(f"{c}x is." for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")],
        [
            " ".join(f"{c}x is." for c in "ABCDEFGHIJKLMNOPQRSTUVWXY"),
            " ".join(f"{c}x is." for c in "BACDEFGHIJKLMNOPQRSTUVWXYZ"),
        ],
    ),
    (
        "custom:european_capitals_sort",
        {},
        [NORTH, NORTH.replace("Chisinau", "Chișinău").replace(" ", "")],
        [
            NORTH.replace("Oslo, ", ""),
            NORTH.replace("Oslo, Tallinn", "Tallinn, Oslo"),
            NORTH + ", Athens",
            NORTH.replace("Vaduz", "Vaduz (Liechtenstein)"),
        ],
    ),
    (
        "custom:csv_city",
        {},
        ["ID,Country,City,Year,Count\n" + "1,a,b,2000,4\n" * 7],
        [
            "ID,Country,City,Year,Count\n" + "1,a,b,2000,4\n" * 6,
            "ID,Country,City,Year\n" + "1,a,b,2000,4\n" * 7,
            "ID,Country,City,Year,Count\n" + "1,a,b,4\n" * 7,
        ],
    ),
    (
        "custom:csv_special_character",
        {},
        ["ProductID,Category,Brand,Price,Stock\n" + "1,a,b,2,3\n" * 13 + '1,"a&b",b,2,3'],
        [
            "ProductID,Category,Brand,Price,Stock\n" + "1,a,b,2,3\n" * 14,
            "ProductID,Category,Brand,Price,Stock\n" + '1,"a&b",b,2,3\n' * 13,
            "ProductID,Category,Brand,Price,Stock\n" + '1,"ab",b,2,3\n' * 14,
        ],
    ),
    (
        "custom:csv_quotes",
        {},
        [
            "\t".join(f'"{c}"' for c in "StudentID Subject Grade Semester Score".split())
            + '\n"1"\t"a"\t"b"\t"c"\t"d"' * 3
        ],
        [
            "\t".join("StudentID Subject Grade Semester Score".split())
            + '\n"1"\t"a"\t"b"\t"c"\t"d"' * 3,
            "\t".join(f'"{c}"' for c in "StudentID Subject Grade Semester Score".split())
            + '\n"1"\t"a"\t"b"\t"c"\t"d"' * 2,
            '"StudentID","Subject","Grade","Semester","Score"' + '\n"1","a","b","c","d"' * 3,
        ],
    ),
    (
        "custom:date_format_list",
        {},
        ["1796-04-12, 1805-12-02"],
        [
            "1796-04-31",
            "1796-4-12",
            "1830-04-12",
            "1796-04-12 (Montenotte)",
            "1796-13-01",
            "12.04.1796",
        ],
    ),
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


@pytest.mark.parametrize(("id_", "kwargs", "good", "bad"), CASES)
def test_checker_accepts_and_refuses(
    id_: str, kwargs: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert follows(id_, kwargs, text) == (True, "", False), text
    for text in bad:
        outcome = follows(id_, kwargs, text)
        assert not outcome.followed and not outcome.error, text


def test_all_112_instructions_are_there_with_cases_and_an_empty_reply_follows_none() -> None:
    parts = (
        ifeval.CHECKERS,
        ifbench_train.CHECKERS,
        {**ifbench_test.CHECKERS, **ifbench_custom.CHECKERS},
    )
    assert [len(part) for part in parts] == [25, 29, 58] and len(CHECKERS) == 112
    kwargs = {id_: kwargs for id_, kwargs, _, _ in CASES}
    assert kwargs.keys() == CHECKERS.keys()
    assert not any(
        follows(id_, kwargs[id_], empty).followed for id_ in CHECKERS for empty in ("", " \n")
    )


def test_broken_arguments_fail_and_are_errors() -> None:
    """Unknown, missing and ill-typed arguments: never a reward, never an exception, always named."""
    assert follows("no:such_id", {}, "text") == (False, "no:such_id: unknown instruction", True)
    for id_, kwargs, named in (
        ("punctuation:no_comma", {"extra": 1}, "extra"),
        ("length_constraints:number_words", {"num_words": 1}, "relation"),
        ("length_constraints:number_words", {"num_words": 1, "relation": "exactly"}, "less than"),
        (
            "length_constraints:number_words",
            {"num_words": "1", "relation": "at least"},
            "num_words",
        ),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "num_words"),
        ("count:numbers", {"N": 0.5}, "whole number"),
        ("count:numbers", {"N": float("nan")}, "N"),
        ("count:numbers", {"N": float("inf")}, "N"),
        ("count:numbers", {"N": True}, "N"),
        ("ratio:stop_words", {"percentage": "5"}, "a number"),
        ("keywords:existence", {"keywords": "sea"}, "list of words"),
        ("keywords:existence", {"keywords": []}, "list of words"),
        ("keywords:existence", {"keywords": ["(a"]}, "keywords:existence"),
        ("keywords:word_once", {"keyword": ["sea", "land"]}, "a text"),
        ("keywords:word_once", {"keyword": " "}, "a text"),
        ("keywords:keyword_specific_position", {"keyword": "a", "n": 0, "m": 1}, "count from 1"),
        ("sentence:keyword", {"word": "a", "N": 0}, "count from 1"),
        ("count:words_japanese", {"N": 0}, "count:words_japanese"),
        ("format:list", {}, "sep"),
    ):
        outcome = follows(id_, kwargs, "(a text a 1")
        assert not outcome.followed and outcome.error and named in outcome.note, (
            id_,
            kwargs,
            outcome,
        )
    assert follows("punctuation:no_comma", {"extra": None}, "text").followed, "nulls are dropped"
    assert follows("punctuation:no_comma", None, "text").followed


@pytest.mark.parametrize("id_", sorted(CHECKERS))
def test_arguments_of_any_kind_never_raise(id_: str) -> None:
    rng = random.Random(id_)
    kwargs = next(kwargs for case, kwargs, _, _ in CASES if case == id_)
    odd: list[Any] = [
        None,
        True,
        -1,
        0,
        3,
        2.5,
        1e308,
        float("nan"),
        "",
        "x",
        "(",
        "a" * 2000,
        [],
        ["x"],
        [1],
        ["x", "y"],
        {},
        {"a": 1},
        10**30,
    ]
    for _ in range(40):
        changed = {
            name: rng.choice(odd) if rng.random() < 0.7 else value for name, value in kwargs.items()
        }
        follows(id_, changed, rng.choice(["text", "A text. Two!", "1", "* a\n- b"]))


def test_sentences_as_ifbench_cuts_them() -> None:
    for text, wanted in {
        "": [],
        "a": ["a"],
        "Hi! Who? Me.": ["Hi!", "Who?", "Me."],
        "What?!": ["What?", "!"],
        "Mr. Lee, e.g. Bob, paid 3.50. Done": ["Mr. Lee, e.g. Bob, paid 3.50.", "Done"],
        "wait... what": ["wait...", "what"],
        'He said "go." So': ['He said "go".', "So"],
        "In the U.S. He went to Acme Inc. It is at site.com": [
            "In the U.S.",
            "He went to Acme Inc",
            "It is at site.com",
        ],
        "Plan B. works": ["Plan B. works"],
        "Plan\u00a0B. works": ["Plan B. works"],
        "a\ue000b. \ue001c": ["ab.", "c"],
    }.items():
        assert list(sentences(text)) == wanted


@pytest.mark.parametrize(
    ("module", "id_"),
    [
        ("nltk.tokenize.punkt", "length_constraints:number_sentences"),
        ("punkt", "length_constraints:number_sentences"),
        ("nltk.tokenize", "keywords:start_end"),
        ("textblob.en.taggers", "words:start_verb"),
        ("syllapy", "words:odd_even_syllables"),
        ("emoji", "format:emoji"),
    ],
)
def test_a_missing_library_is_no_reward_but_an_error(
    monkeypatch: pytest.MonkeyPatch, module: str, id_: str
) -> None:
    from linn.domains.instruct.checkers import text

    for cached in (text._punkt, text._tagger, text.punkt_sentences, text.tokens):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    kwargs = next(kwargs for case, kwargs, _, _ in CASES if case == id_)
    with pytest.raises(InfrastructureError, match=r"linn\[domains\]"):
        follows(id_, kwargs, "We go on. And so.")


# ---------------------------------------------------------------- a reply that follows, then is
# broken in the named respect

Made = tuple[dict[str, Any], str, str]


def counted(name: str, word: str, wrong: int, **more: Any) -> Callable[[random.Random], Made]:
    """`word` N times follows; `wrong` more (or fewer) does not."""

    def make(rng: random.Random) -> Made:
        n = rng.randint(2, 9)
        return {name: n, **more}, " ".join([word] * n), " ".join([word] * (n + wrong))

    return make


def plain(good: str, bad: str, **kwargs: Any) -> Callable[[random.Random], Made]:
    """A text of random filler words in which `@` is `good` or `bad`."""

    def make(rng: random.Random) -> Made:
        filler = [rng.choice(("red", "big", "old", "dry")) for _ in range(rng.randint(1, 6))]
        at = rng.randrange(len(filler) + 1)
        return kwargs, *(
            " ".join([*filler[:at], part, *filler[at:]]).strip() for part in (good, bad)
        )

    return make


def of_cases(id_: str) -> Callable[[random.Random], Made]:
    """Any following with any violating reply of the table above."""

    def make(rng: random.Random) -> Made:
        kwargs, good, bad = rng.choice([case[1:] for case in CASES if case[0] == id_])
        return kwargs, rng.choice(good), rng.choice(bad)

    return make


LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
MAKERS: dict[str, Callable[[random.Random], Made]] = {id_: of_cases(id_) for id_ in CHECKERS} | {
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
    "copy:copying_multiple": lambda rng: (
        lambda n: (
            {"prompt_to_repeat": "Say hi.", "N": n},
            "******".join(["Say hi."] * n),
            "******".join(["Say hi."] * (n + 1)),
        )
    )(rng.randint(2, 5)),
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


@pytest.mark.parametrize("id_", sorted(CHECKERS))
def test_a_following_reply_broken_in_the_named_respect_fails(id_: str) -> None:
    rng = random.Random(id_)
    for _ in range(12):
        kwargs, good, bad = MAKERS[id_](rng)
        assert follows(id_, kwargs, good).followed, (kwargs, good)
        assert not follows(id_, kwargs, bad).followed, (kwargs, bad)


def test_language_without_its_package_is_no_reward_but_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    for id_, kwargs, text in (
        ("language:response_language", {"language": "de"}, "ein Haus am See"),
        ("change_case:english_lowercase", {}, "a house"),
        ("change_case:english_capital", {}, "A HOUSE"),
    ):
        with pytest.raises(InfrastructureError, match=r"linn\[domains\]"):
            follows(id_, kwargs, text)
    assert not follows("change_case:english_lowercase", {}, "A House")[0], "the case alone decides"


def test_language_with_its_package() -> None:
    pytest.importorskip("langdetect")
    german = "das ist ein schönes altes haus, und darin wohnen viele nette leute mit ihren kindern."
    assert follows("language:response_language", {"language": "de"}, german)[0]
    assert not follows("language:response_language", {"language": "en"}, german)[0]
    assert not follows("change_case:english_lowercase", {}, german)[0]
    assert follows(
        "change_case:english_lowercase",
        {},
        "this is a nice old house and many friendly people live there with their children.",
    )[0]
    assert follows("language:response_language", {"language": "de"}, "123 456")[0], (
        "undecidable counts as followed, as in the reference"
    )


# ---------------------------------------------------------------- hostile replies

BIG = 60_000
HOSTILE = [
    unit * (BIG // len(unit))
    for unit in (
        "\n",
        " ",
        "\t",
        "[",
        "<",
        "*",
        "-",
        "a",
        '"',
        "'",
        "{",
        "@",
        "\ufdfa",
        "İ",
        "\n-",
        "p.",
        "*a",
        "A,",
        "a'",
        "a ",
        "a\n",
        "! ",
        "([",
        "ひ ",
        "a-",
        "A. ",
        "a.b",
        " \n*",
        "<i>",
        "Mr.",
        "mr. ",
        "*** ",
        "U.S. He ",
        "Section 1",
        "Question 1",
        "Zimbabwe\n",
        "1796-01-01,",
        "bald eagle ",
        "we all go ",
        "<think>",
        '"a",',
        "cat ",
    )
] + [
    "." * BIG + "x",
    "<<" + "x" * BIG,
    "Question " + "1" * BIG,
    "\n" * BIG + "Question 1",
    "we " + "all go " * (BIG // 7),
    'ProductID,Category,Brand,Price,Stock\n1,"' + "!" * BIG,
    "ID,Country,City,Year,Count\n" + "x" * BIG,
    *(
        unit * (99_000 // len(unit))
        for unit in ("A. ", "! ", ".", '"', "a", "the dog. ", "a b ", "\ud800 ")
    ),  # just what is still cut into tokens
    "\x00",
    "\ud800",
    "```json\n",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:8]!r}x{len(text)}")
def test_hostile_replies_raise_nothing_and_end_soon(text: str) -> None:
    """Linear time (a quadratic checker takes minutes); the only errors refuse what is too long."""
    for id_, kwargs in {id_: kwargs for id_, kwargs, _, _ in CASES}.items():
        start = time.process_time()
        outcome = follows(id_, kwargs, text)
        assert time.process_time() - start < 20, id_
        assert not outcome.error or "too long" in outcome.note, outcome


@pytest.mark.parametrize(
    "keyword",
    [
        "(a+)+$",
        "(a|aa)+b",
        "a*a*a*b",
        "(.*)(.*)x",
        "a{1,900}b{1,900}",
        "(a?){20}",
        "a" * 5000,
        ".*.?.?.?.?x",
        "[a]*.?.?b",
        r"(a*)\1b",
        "(?P<q>a*)(?P=q)b",
        "(a|a)" * 8 + "b",
        "(a|a)" * 20 + "b",
        "(?#[)a*a*a*b(?#])",
        "(?x)a#[\n*a*a*b]",
        "a?" * 8 + "b",
        ".{5000}b",
    ],
)
def test_hostile_keywords_end_soon(keyword: str) -> None:
    for id_, kwargs in (
        ("keywords:existence", {"keywords": [keyword]}),
        ("keywords:word_once", {"keyword": keyword}),
    ):
        start = time.process_time()
        assert not follows(id_, kwargs, "a" * 1_000_000 + "!").followed
        assert time.process_time() - start < 2


def test_keywords_are_patterns_as_in_the_reference() -> None:
    for keyword, text in (
        ("colou?r", "Color"),
        ("cats|dogs", "DOGS"),
        ("word(s)", "words"),
        ("{name}{id}", "{Name}{ID}"),
        ("a.c", "abc"),
        ("so+n", "soon"),
    ):
        assert follows(
            "keywords:word_once", {"keyword": keyword}, "x" * 9000 + text + " end"
        ).followed, keyword
    assert follows("keywords:word_once", {"keyword": "cats|dogs"}, "x" * 900_000 + "cats").followed
