"""What graders used to read wrongly: the right reading, and the reference's by a key.

A line of a table: the answer, its right reward, and what `reference: true` gives.
"""

import json
from typing import Any

import pytest

from linn.domains.code.outputs import same_output
from linn.domains.code.programs import program_of
from linn.domains.common import edits
from linn.domains.common.values import same_value
from linn.domains.instruct.checkers import follows
from linn.domains.longctx import LongContext
from linn.domains.math import Math
from linn.domains.mcqa import MultipleChoice
from linn.domains.structured import documents
from linn.types import Prompt, Reply

METALS = ("iron", "copper", "neon", "zinc", "lead", "tin", "gold", "silver", "nickel", "chrome")


def both(domains: Any, prompt_of: Any, text: str) -> tuple[float, float]:
    """(the reward, the reward with `reference: true`)."""
    rewards = [each.verify(prompt_of(each), Reply(text)).reward for each in domains]
    return rewards[0], rewards[1]


# ---------------------------------------------------------------- mcqa

MCQA = (MultipleChoice(), MultipleChoice(reference=True))


def choice(domain: MultipleChoice, mode: str, expected: str = "C") -> Prompt:
    row = {
        "responses_create_params": {"input": [{"role": "user", "content": "which gas?"}]},
        "options": [{"ABCDEFGHIJ"[at]: word} for at, word in enumerate(METALS)],
        "expected_answer": expected,
        "grading_mode": mode,
    }
    return domain.from_row(row, 0)


@pytest.mark.parametrize(
    ("text", "right", "reference"),
    [
        ("Answer: I think it is C", 1, 0),
        ("Answer: A noble gas, so C", 1, 0),
        ("Answer: I'd say C", 1, 0),
        ("Answer: The answer is C, not B", 1, 0),
        ("Answer: It is C because B boils", 1, 0),
        ("Answer: C, since neither A nor B is a gas", 1, 1),
        ("Answer: C a noble gas", 1, 0),
        ("Answer: neon", 1, 0),
        ("Answer: It is not B, the answer is C", 1, 1),
        ("Answer: C or maybe D", 0, 1),
        ("Answer: B\nAnswer: C or D", 0, 0),
        ("Answer: I", 0, 0),
    ],
)
def test_mcqa_reads_a_letter_from_prose(text: str, right: float, reference: float) -> None:
    def prompt(domain: MultipleChoice) -> Prompt:
        return choice(domain, "lenient_answer_colon_md")

    assert both(MCQA, prompt, text) == (right, reference)


@pytest.mark.parametrize(
    ("box", "right", "reference"),
    [
        ("E_0", 0, 1),
        ("E^2", 0, 1),
        ("E-1", 0, 1),
        ("2E", 0, 1),
        (r"\mathrm{E}", 1, 0),
        (r"\mathbf{(E)}", 1, 0),
        ("(E) lead", 1, 0),
        ("E: lead", 1, 1),
        ("E, F", 0, 0),
        ("$E$", 1, 1),
    ],
)
def test_mcqa_tells_a_letter_in_a_box_from_a_formula(
    box: str, right: float, reference: float
) -> None:
    def prompt(domain: MultipleChoice) -> Prompt:
        return choice(domain, "strict_single_letter_boxed", "E")

    assert both(MCQA, prompt, f"\\boxed{{{box}}}") == (right, reference)


def test_mcqa_finds_an_options_words_as_whole_words() -> None:
    def prompt(domain: MultipleChoice) -> Prompt:
        return choice(domain, "lenient_boxed", "E")

    assert both(MCQA, prompt, "\\boxed{the leading one}") == (0.0, 1.0)
    assert both(MCQA, prompt, "\\boxed{it is lead}") == (1.0, 1.0)


# ---------------------------------------------------------------- math


@pytest.fixture(scope="module")
def maths() -> Any:
    domains = (Math(), Math(reference=True))
    yield domains
    for domain in domains:
        domain.close()


@pytest.mark.parametrize(
    ("expected", "text", "right"),
    [
        ("6", "It could be 3, 4, 5 or 6", 0),
        ("6", "I do not know, but the task mentions 6", 0),
        ("6", "The final answer is 6", 0),
        ("6", r"\boxed{} The answer is 6", 0),
        ("6", r"\boxed{4 = 6}", 0),
        ("6", r"\boxed{5 \to 6}", 0),
        ("6", r"\boxed{2 + 4 = 6}", 1),
        ("6", r"\boxed{x = 6}", 1),
        ("6", r"\boxed{3, 4, 5, 6}", 0),
        ("2, 3", r"\boxed{2} and \boxed{3}", 1),
        (r"\frac{1}{2^{99}}", r"\boxed{\frac{1}{2^{98}}}", 0),
        (r"\frac{1}{2^{99}}", r"\boxed{2^{-99}}", 1),
        (r"1.6 \times 10^{-19}", r"\boxed{9.1 \times 10^{-31}}", 0),
        ("10^{-7}", r"\boxed{0.0000002}", 0),
        ("0", r"\boxed{10^{-30}}", 0),
        ("0", r"\boxed{\sin(\pi)}", 1),
        ("-10^{-20}", r"\boxed{10^{-20}}", 0),
        ("(10^{-20}, 1)", r"\boxed{(2 \cdot 10^{-20}, 1)}", 0),
        ("x = 10^{-18}", r"\boxed{x = 2 \cdot 10^{-18}}", 0),
        (r"\frac13", r"\boxed{0.333333}", 1),
    ],
)
def test_math_wants_one_boxed_answer_and_tells_small_numbers_apart(
    maths: Any, expected: str, text: str, right: float
) -> None:
    row = {"question": "how many?", "expected_answer": expected}
    assert maths[0].verify(maths[0].from_row(row, 0), Reply(text)).reward == right


def test_math_reads_an_answer_without_a_box_where_the_reference_is_asked_for(maths: Any) -> None:
    row = {"question": "how many?", "expected_answer": "6"}
    assert both(maths, lambda domain: domain.from_row(row, 0), "It is 6") == (0.0, 1.0)


# ---------------------------------------------------------------- longctx


@pytest.mark.parametrize(
    ("outputs", "text", "right", "reference"),
    [
        (["10"], "It is 100", 0, 1),
        (["10"], "It is 4710.", 0, 1),
        (["10"], "It is 10.5", 0, 1),
        (["10"], "It is -10", 0, 1),
        (["10"], "It is 10.", 1, 1),
        (["10", "25"], "1025", 0, 1),
        (["10", "25"], "10,25", 0, 1),
        (["10", "25"], "10, 25", 1, 1),
        (["rose"], "prose", 0, 1),
        (["Rose"], "a rose!", 1, 1),
        (["C++"], "C++", 1, 1),
    ],
)
def test_rulers_outputs_are_found_whole(
    outputs: list[str], text: str, right: float, reference: float
) -> None:
    row = {"messages": [{"role": "user", "content": "?"}], "outputs": outputs}
    domains = (LongContext(), LongContext(reference=True))
    assert both(domains, lambda domain: domain.from_row(row, 0), text) == (right, reference)


# ---------------------------------------------------------------- code


@pytest.mark.parametrize(
    ("output", "expected", "right", "exact"),
    [
        ("0.333333", "0.333333333333", True, False),
        ("0.333", "0.333333333333", False, False),
        ("1.41421356 2.2360679", "1.4142135623730951 2.23606797749979", True, False),
        ("1000001", "1000000", False, False),
        ("1000001.0", "1000000", False, False),
        ("1000000.0", "1000000", True, True),
        ("999999.9999999", "1000000", True, False),
        ("YES", "Yes", True, False),
        ("no", "NO", True, False),
        ("YES", "NO", False, False),
        ("Abc", "abc", False, False),
        ("inf", "1.5", False, False),
        ("nan", "1.5", False, False),
        ("1e999999999", "1.5", False, False),
    ],
)
def test_printed_decimals_may_be_near_and_whole_numbers_may_not(
    output: str, expected: str, right: bool, exact: bool
) -> None:
    assert same_output(output, expected) == right
    assert same_output(output, expected, exact=True) == exact


@pytest.mark.parametrize(
    ("value", "expected", "right"),
    [
        (1000001, 1000000, False),
        (1000001.0, 1000000, False),
        (1000000.0, 1000000, True),
        (0.1 + 0.2, 0.3, True),
        ([1000001], [1000000], False),
        pytest.param(10**5000 + 1, 10**5000, False, id="long"),
    ],
)
def test_a_tolerance_is_for_decimals_alone(value: Any, expected: Any, right: bool) -> None:
    assert same_value(value, expected, tolerance=1e-5) == right


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("1. Read.\n   ```python\n   if x:\n       y()\n   ```", "if x:\n    y()\n"),
        ("  ~~~python\n  a = 1\n  ~~~", "a = 1\n"),
        ("~~~python\ns = '```'\n~~~", "s = '```'\n"),
        ('```python\ns = """\n```\nx\n```\n"""\n```\nend', 's = """\n```\nx\n```\n"""\n'),
        ("   ```python\na = 1\n    b\n   ```", "a = 1\n    b\n"),
        ("```python\nbroken(\n```\nthen\n```python\nok()\n```", "ok()\n"),
    ],
)
def test_a_block_loses_its_fences_indentation_and_ends_where_it_is_whole(
    text: str, program: str
) -> None:
    assert program_of(text)[1] == program


# ---------------------------------------------------------------- structured

COUNT = {"type": "integer", "minimum": 0}
CIRCLE = {"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}}
BOX = {"type": "object", "properties": {"kind": {"const": "box"}, "w": {"type": "number"}}}
NAME = {"name": {"type": "string"}}
BASE = {"type": "object", "properties": NAME}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "$defs": {"count": COUNT, "base": BASE}}


@pytest.mark.parametrize(
    ("kind", "schema", "text", "right"),
    [
        ("xml", of(p=of(n={"$ref": "#/$defs/count"})), "<p><n>3</n></p>", True),
        ("xml", of(p=of(n={"$ref": "#/$defs/count"})), "<p><n>-3</n></p>", False),
        ("xml", of(n={"anyOf": [COUNT, {"type": "null"}]}), "<n>3</n>", True),
        ("xml", of(n={"anyOf": [COUNT, {"type": "null"}]}), "<n/>", True),
        ("xml", of(n={"anyOf": [COUNT, {"type": "null"}]}), "<n>x</n>", False),
        ("xml", of(n={"type": ["integer", "null"]}), "<n>3</n>", True),
        ("xml", of(n={"enum": [1, 2]}), "<n>2</n>", True),
        ("xml", of(n={"enum": [1, 2]}), "<n>3</n>", False),
        ("xml", of(n={"enum": ["1", "2"]}), "<n>2</n>", True),
        ("xml", of(n={"const": 2}), "<n>2</n>", True),
        ("xml", of(n={"allOf": [{"$ref": "#/$defs/count"}]}), "<n>2</n>", True),
        ("xml", of(n={"type": "number"}), "<n>nan</n>", False),
        ("xml", of(n={"type": "number"}), "<n>Infinity</n>", False),
        ("xml", of(n={"type": "integer"}), "<n>1_000</n>", False),
        ("xml", of(p={"oneOf": [CIRCLE, BOX]}), "<p><kind>box</kind><w>2</w></p>", True),
        ("xml", of(p={"type": "array", "items": BASE}), "<p><name>a</name></p>", True),
        ("csv", {"type": "array", "items": of(n={"enum": [1, 2]})}, "n\n1\n", True),
        (
            "csv",
            {"type": "array", "items": of(n={"anyOf": [COUNT, {"type": "null"}]})},
            "n\n3\n",
            True,
        ),
        ("csv", {"type": "array", "items": of(n=COUNT, t={"type": "string"})}, "n,t\n3,\n", True),
        ("csv", {"type": "array", "items": of(n={"type": "number"})}, "n\ninf\n", False),
        ("json", of(p={"oneOf": [CIRCLE, BOX]}), '{"p":{"kind":"circle","r":1}}', True),
        ("json", of(p={"oneOf": [CIRCLE, BOX]}), '{"p":{"kind":"circle"}}', False),
        ("json", of(p={"oneOf": [CIRCLE, BOX]}), '{"p":{"kind":"circle","r":1,"x":2}}', False),
        (
            "json",
            of(p={"type": "array", "prefixItems": [BASE]}),
            '{"p":[{"name":"a","x":1}]}',
            False,
        ),
        ("json", {"$ref": "#/$defs/base", "$defs": {"base": BASE}}, '{"name":"a"}', True),
        ("json", {"$ref": "#/$defs/base", "$defs": {"base": BASE}}, '{"name":"a","x":1}', False),
        (
            "json",
            of(p={"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"n": COUNT}}]}),
            '{"p":{"name":"a","n":1}}',
            True,
        ),
        (
            "json",
            of(p={"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"n": COUNT}}]}),
            '{"p":{"name":"a","n":1,"x":1}}',
            False,
        ),
        ("json", of(n={"type": "number"}), '{"n": NaN}', False),
        ("json", of(n={"type": "number"}), '{"n": -Infinity}', False),
        ("yaml", of(n={"type": "number"}), "n: .nan", False),
        ("toml", of(n={"type": "number"}), "n = inf", False),
        ("json", of(properties={"type": "string"}), '{"properties":"a"}', True),
        ("json", of(d={"default": {"properties": {}}}), '{"d":1}', True),
    ],
)
def test_documents_can_keep_every_schema_and_alternatives_are_closed(
    kind: str, schema: Any, text: str, right: bool
) -> None:
    why = documents.check(kind, text, json.dumps(schema))
    assert (not why) == right, why


def test_the_reference_leaves_alternatives_open_and_takes_nan() -> None:
    for kind, schema, text in (
        ("json", of(p={"oneOf": [CIRCLE, BOX]}), '{"p":{"kind":"circle"}}'),
        ("json", of(n={"type": "number"}), '{"n": NaN}'),
    ):
        assert documents.check(kind, text, json.dumps(schema), reference=True) == ""


# ---------------------------------------------------------------- edits

GUIDE = "Install\n=======\n\nRun setup.\n\nAgain\n-------\n"


def edited(old: str, new: str, strict: bool = True, reference: bool = False) -> str:
    """The guide after one edit; raises BadEdit."""
    text = f"<solution>\n{edits.block(edits.Edit('guide.rst', old, new))}\n</solution>"
    files = {"guide.rst": GUIDE}
    found = edits.parse(text, strict, None if reference else files)
    return edits.apply(files, found, strict)["guide.rst"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Install\n=======\n\nRun setup.", "Install\n=======\n\nRun make."),
        ("Run setup.", "Run make.\n\nRemoval\n=======\n\nRun clean."),
        ("-------", "======="),
        ("Run setup.", "    =======\n    Run make."),
        ("Run setup.", "Run make.\n    <<<<<<< SEARCH\n    >>>>>>> REPLACE"),
        ("=======\n\nRun setup.", "=====\n\nRun make."),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_edits_may_hold_lines_of_seven_equal_signs(old: str, new: str, strict: bool) -> None:
    assert edited(old, new, strict) == GUIDE.replace(old, new, 1)


def test_the_reference_divides_an_edit_at_its_first_such_line() -> None:
    old = "Install\n=======\n\nRun setup."
    assert edited(old, "x", strict=False, reference=True) == GUIDE.replace(
        "Install", "\nRun setup.\n=======\nx", 1
    )


# ---------------------------------------------------------------- instruct

PHRASE = {"phrase": "the slow river bends south", "small_n": 2}
SLOW = "the {} river bends south"


@pytest.mark.parametrize(
    ("id_", "kwargs", "text", "right"),
    [
        ("copy:repeat_phrase", PHRASE, f"{SLOW.format('old')}\n{SLOW.format('big')}", True),
        ("copy:repeat_phrase", PHRASE, f"{SLOW.format('slow')}\n{SLOW.format('big')}", False),
        ("words:words_position", {"keyword": "sea"}, "The sea, it is, the Sea bank.", True),
        ("words:words_position", {"keyword": "sea"}, "The sea is the old sea.", False),
        ("words:keywords_specific_position", {"keyword": "sea", "n": 1, "m": 2}, "So, Sea.", True),
        ("sentence:keyword", {"word": "art", "N": 1}, "It starts here.", False),
        ("sentence:keyword", {"word": "art", "N": 1}, "Art is long.", True),
        ("count:pronouns", {"N": 3}, "This is what those do.", True),
        (
            "repeat:repeat_span",
            {"prompt_to_repeat": "a red house", "n_start": 2, "n_end": 4},
            "red",
            True,
        ),
        (
            "repeat:repeat_span",
            {"prompt_to_repeat": "a red house", "n_start": 1, "n_end": 2},
            "red",
            False,
        ),
        ("repeat:repeat_change", {"prompt_to_repeat": "Say  hi"}, "Say hi", False),
        ("repeat:repeat_change", {"prompt_to_repeat": "Say hi"}, "Shout hi", True),
        ("ratio:sentence_type", {}, "What a river!", False),
        ("ratio:sentence_balance", {}, "no marks at all", False),
        ("ratio:sentence_words", {}, "We go on. We go in. We go up.", False),
        ("ratio:sentence_words", {}, "We go on. She rans. It fells.", True),
        ("format:sub-bullets", {}, "* **A** x\n- y\n* b\n  - z", True),
        ("format:sub-bullets", {}, "* a-b\n* c-d", False),
        ("format:sub-bullets", {}, "no bullets", False),
        ("words:no_consecutive", {}, "Rivers bend.\n\nBoats drift.", True),
        ("words:no_consecutive", {}, "Big boats drift.", False),
        ("format:line_indent", {}, "a\n\n\n b\n  c", True),
        ("format:line_indent", {}, "a", False),
        ("format:thesis", {}, "<em></em> and more", False),
        ("format:title_case", {}, "Don't Go There", True),
        ("format:title_case", {}, "This is a House", False),
        ("count:conjunctions", {"small_n": 2}, "And we go, and, we come.", False),
        ("words:last_first", {}, "One sentence alone.", False),
        ("sentence:increment", {"small_n": 1}, "One sentence alone.", False),
        ("words:odd_even_syllables", {}, "water", False),
        ("words:prime_lengths", {}, "!!!", False),
        ("keywords:palindrome", {}, "I saw a dog", False),
        ("keywords:palindrome", {}, "It was Noon.", True),
        ("keywords:exclude_word_harder", {"keyword": "sea"}, "The Sea.", False),
        ("keywords:exclude_word_harder", {"keyword": "sea"}, "A season", True),
        ("count:count_unique", {}, "We go. I am.", True),
        ("count:count_unique", {}, "The end of the day", False),
        (
            "count:counting_composition",
            {"n_sent": 1, "n_words": 2},
            "We go. *** I am. *** She is.",
            True,
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "later"},
            "Early.\n\n\n\nLater it roars.",
            True,
        ),
        ("detectable_format:bigram_wrapping", {}, "alone", False),
        ("detectable_format:json_format", {}, '{"a": NaN}', False),
    ],
)
def test_instructions_are_checked_as_they_are_meant(
    id_: str, kwargs: dict[str, Any], text: str, right: bool
) -> None:
    outcome = follows(id_, kwargs, text)
    assert (outcome.followed, outcome.error) == (right, False), outcome.note
