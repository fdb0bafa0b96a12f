r"""Right answers in unusual forms, which must earn, and wrong ones beside them, which must not.

Graders that are too strict cost as much as graders that are too lax. The right ones earned nothing
before, and many of the wrong ones earned.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from linn.domains.instruct.checkers import follows
from linn.domains.math import Math
from linn.domains.mcqa import Choice, Mode, MultipleChoice
from linn.domains.structured import documents
from linn.types import Prompt, Reply

pytestmark = pytest.mark.slow

# ---------------------------------------------------------------- mcqa

ELEMENTS = {"A": "carbon", "B": "Nitrogen gas", "C": "helium", "D": "the sum of A and C"}
ODD_WORDS = {"A": "E. coli", "B": "vitamin A", "C": "x = 2", "D": "1.5", "E": "both A and C"}


def chosen(text: str, expected: str, mode: Mode, options: dict[str, str] = ELEMENTS) -> float:
    domain = MultipleChoice()
    prompt = Prompt("mcqa", "", (), hidden=Choice(options, expected, mode))
    return domain.verify(prompt, Reply(text)).reward


SET = r"""
    \,B\,
    ~B~
    \quad B
    \left(B\right)
    \bigl(B\bigr)
    \{B\}
    \(B\)
    \boldsymbol{B}
    \texttt{B}
    \underline{B}
    {\bf B}
    \Large B
    \textcolor{red}{B}
    B!
    #B
    → B
    B ✓
    B\checkmark
    【B】
    （B）
    B。
    B\\
    B (Nitrogen gas)
    B = Nitrogen gas
    B -> Nitrogen gas
    B: $N_2$, as A and C are wrong
"""


@pytest.mark.parametrize("box", SET.strip().split("\n"))
def test_a_letter_in_a_box_may_be_set_in_any_way(box: str) -> None:
    for mode in ("strict_single_letter_boxed", "lenient_boxed"):
        assert chosen(f"so \\boxed{{{box.strip()}}}.", "B", mode) == 1.0


DENIED = r"""
    \lnot B
    ¬B
    !B
    ≠ B
    \neq B
    ✗ B
    -B
    B'
    B?
    \overline{B}
    \cancel{B}
    ~~B~~
    \sqrt{B}
    \hat{B}
    B^c
    B = 2
    B: or A
    B, maybe A
    B: or is it A?
    B: unless C
    A: carbon B: Nitrogen gas
    B \to A
    \text{B}\quad\text{A}
    not B
    not Nitrogen gas
    anything but nitrogen gas
"""


@pytest.mark.parametrize("box", [*DENIED.strip().split("\n"), "B\u0336", "\u202eB", "B\nA"])
def test_a_letter_that_is_denied_doubted_or_part_of_a_formula_is_no_answer(box: str) -> None:
    for mode in ("strict_single_letter_boxed", "lenient_boxed"):
        assert chosen(f"so \\boxed{{{box.strip()}}}.", "B", mode) == 0.0


@pytest.mark.parametrize(
    ("line", "reward"),
    [
        ("B (A, C and D are incorrect)", 1),
        ("B — A and C are ruled out", 1),
        ("**Nitrogen gas**", 1),
        ("Not C, D or A, so B", 1),
        ("B, as A, C, and D are all false", 1),
        ("B. A and C are solids.", 1),
        ("B, not A or C", 1),
        ("anything but B", 0),
        ("it cannot be B", 0),
        ("not A or B", 0),
        ("B excluded", 0),
        ("B, no, A", 0),
        ("B... actually A", 0),
        ("B -> A", 0),
        ("B..D", 0),
        ("B was my first guess but it is A", 0),
        ("B as well as D", 0),
        ("B, otherwise D", 0),
        ("B? D?", 0),
        ("the wrong one is B", 0),
        ("A) carbon B) Nitrogen gas", 0),
    ],
)
def test_a_line_of_prose_names_one_letter(line: str, reward: float) -> None:
    assert chosen(f"Answer: {line}", "B", "lenient_answer_colon_md") == reward


@pytest.mark.parametrize(
    ("line", "reward"),
    [
        ("Answer: B: Nitrogen gas", 1),
        ("Answer: (B) Nitrogen gas", 1),
        ("Answer: option B", 1),
        ("**Answer:** B", 1),
        ("**Answer: B**", 1),
        ("Answer: nitrogen gas.", 1),
        ("Answer: B ✓", 1),
        ("Answer: B or C", 0),
        ("Answer: not B", 0),
        ("Answer: B (or A)", 0),
    ],
)
def test_an_answer_line_holds_a_letter_its_words_or_both(line: str, reward: float) -> None:
    assert chosen(line, "B", "lenient_answer_colon") == reward


@pytest.mark.parametrize(
    ("text", "expected", "mode", "reward"),
    [
        (r"\boxed{E: both A and C}", "E", "strict_single_letter_boxed", 1),
        (r"\boxed{E. coli}", "E", "strict_single_letter_boxed", 0),
        (r"\boxed{A: \textit{E. coli}}", "A", "strict_single_letter_boxed", 1),
        (r"\boxed{1.5.1}", "D", "lenient_boxed", 0),
        (r"\boxed{-1.5}", "D", "lenient_boxed", 0),
        (r"\boxed{\textit{E. coli}}", "A", "lenient_boxed", 1),
        ("Answer: A, E. coli", "A", "lenient_answer_colon_md", 1),
        ("Answer: vitamin A", "B", "lenient_answer_colon_md", 1),
        ("Answer: E (both A and C)", "E", "lenient_answer_colon_md", 1),
    ],
)
def test_letters_in_the_words_of_options(
    text: str, expected: str, mode: Mode, reward: float
) -> None:
    assert chosen(text, expected, mode, ODD_WORDS) == reward


# ---------------------------------------------------------------- math


@pytest.fixture(scope="module")
def mathematics() -> Iterator[Math]:
    with contextlib.closing(Math()) as domain:
        yield domain


@pytest.mark.parametrize(
    ("expected", "box", "reward"),
    [
        ("14", "14.", 1),
        ("14", r"14~\mathrm{cm}", 1),
        ("14", r"\text{Answer: }14", 1),
        ("14", r"\text{14 apples}", 1),
        ("14", r"\textcolor{red}{14}", 1),
        ("14", r"14 \frac{\text{km}}{\text{h}}", 1),
        ("14", r"14 \pmod{20}", 1),
        ("14", "1.4e1", 1),
        ("1400", r"1\,400", 1),
        ("0.5", "0{.}5", 1),
        (r"\frac{1}{3}", r"0.\overline{3}", 1),
        (r"\frac{1}{7}", r"0.\dot{1}4285\dot{7}", 1),
        (r"0.1\overline{6}", r"\frac{1}{6}", 1),
        ("(1,2)", r"\big(1,\,2\big)", 1),
        ("[0,1)", r"0 \le x < 1", 1),
        ("45", r"45\degree", 1),
        (r"\frac{\sqrt{2}}{2}", r"\sin 45^\circ", 1),
        ("3+4i", r"3 + 4\mathrm{i}", 1),
        (r"\frac{3-i}{2}", "1.5-0.5i", 1),
        (r"1.6\times10^{-19}", "1.6e-19", 1),
        (r"\emptyset", r"\varnothing", 1),
        ("yes", r"\text{Yes.}", 1),
        ("7" * 150, "7" * 150, 1),
        (", ".join(map(str, range(100, 230))), ", ".join(map(str, range(100, 230))), 1),
        ("14", r"14 \text{ is wrong}", 0),
        ("14", r"\le 14", 0),
        ("14", r"\text{14 or 15}", 0),
        ("14", "14e2", 0),
        ("14", r"34 \pmod{20}", 0),
        ("1400", r"1\,40", 0),
        (r"\frac{1}{3}", r"0.\overline{34}", 0),
        (r"\frac{1}{3}", r"0.3\overline{4}", 0),
        ("[0,1)", r"0 \le x \le 1", 0),
        ("3+4i", "3 + 5 i", 0),
    ],
)
def test_math_reads_an_answer_as_it_is_meant(
    mathematics: Math, expected: str, box: str, reward: float
) -> None:
    prompt = mathematics.from_row({"question": "q", "expected_answer": expected}, 0)
    assert mathematics.verify(prompt, Reply(f"It is $\\boxed{{{box}}}$.")).reward == reward


# ---------------------------------------------------------------- structured


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
OPTIONAL = {"type": ["integer", "null"]}
DATE = {"type": "string", "format": "date"}


@pytest.mark.parametrize(
    ("kind", "schema", "text", "is_valid"),
    [
        ("yaml", of(d=DATE), "d: 2024-01-05", True),
        ("yaml", of(t=TEXT), "t: 12:30", True),
        ("yaml", of(c=TEXT), "c: NO", True),
        ("yaml", of(x=NUMBER), "x: 1e3", True),
        ("yaml", of(x=WHOLE), "x: 0o17", True),
        ("yaml", of(on={"type": "boolean"}), "on: true", True),
        ("yaml", of(ok={"type": "boolean"}), "ok: yes", True),
        ("yaml", of(ok={"type": "boolean"}, c=TEXT), "ok: yes\nc: no", False),
        ("yaml", of(d=WHOLE), "d: 2024-01-05", False),
        ("yaml", of(x=TEXT), "x: 1.5", False),
        ("yaml", of(x=WHOLE), "x: 1\nx: 2", False),
        ("toml", of(d=DATE), "d = 2024-01-05", True),
        ("toml", of(t={"type": "string", "format": "date-time"}), "t = 2024-01-05T10:00:00Z", True),
        ("toml", of(d=WHOLE), "d = 2024-01-05", False),
        ("xml", of(p=of(x=NUMBER)), "<p><x>.5</x></p>", True),
        ("xml", of(p=of(x=NUMBER)), "<p><x>.</x></p>", False),
        ("xml", of(p=of(x=WHOLE)), '\n\n<?xml version="1.0"?>\n<p><x>5</x></p>', True),
        ("xml", of(n=TEXT, x=WHOLE), "<any><n>a</n><x>5</x></any>", True),
        ("xml", of(n=TEXT, x=WHOLE), "<any><n>a</n><x>b</x></any>", False),
        ("xml", of(p=of(x=WHOLE)), "<q><p><x>5</x></p></q>", False),
        ("csv", {"type": "array", "items": of(n=TEXT, x=NUMBER)}, "\nn,x\na,.5\n", True),
        ("csv", {"type": "array", "items": of(n=TEXT, x=OPTIONAL)}, "n,x\na,\n", True),
        ("csv", {"type": "array", "items": of(n=TEXT, x=OPTIONAL)}, "n,x\na\n", False),
    ],
)
def test_documents_are_read_as_their_formats_have_them(
    kind: str, schema: Any, text: str, is_valid: bool
) -> None:
    why = documents.check(kind, text, json.dumps(schema))
    assert (not why) == is_valid, why


# ---------------------------------------------------------------- instruct

FRENCH = "BONJOUR, JE VOUDRAIS UNE TASSE DE CAFÉ ET UN CROISSANT, S'IL VOUS PLAÎT."


@pytest.mark.parametrize(
    ("instruction", "arguments", "text", "is_followed"),
    [
        ("keywords:existence", {"keywords": ["$100"]}, "It costs $100.", True),
        ("keywords:existence", {"keywords": ["a+b+c"]}, "Compute a+b+c.", True),
        ("keywords:existence", {"keywords": ["C++"]}, "I like cats.", False),
        ("keywords:existence", {"keywords": ["what?"]}, "Say wha.", False),
        ("keywords:forbidden_words", {"forbidden_words": ["a.b"]}, "acb is fine", True),
        ("keywords:forbidden_words", {"forbidden_words": ["u.s."]}, "In the U.S. now", False),
        ("keywords:word_once", {"keyword": "C++"}, "I use C++ and cats.", True),
        ("change_case:english_capital", {}, "ROSES ARE RED, VIOLETS ARE BLUE.", True),
        ("change_case:english_capital", {}, FRENCH, False),
        ("change_case:english_lowercase", {}, "roses are red, violets are blue.", True),
        ("language:response_language", {"language": "zh"}, "我喜欢在公园里散步，天气很好。", True),
        ("paragraphs:paragraphs2", {}, "One.\r\n\r\nTwo.", True),
        ("paragraphs:paragraphs2", {}, "One.\n\n\n\nTwo.", True),
        ("first_word:first_word_answer", {"first_word": "now"}, "**Now**, we go.", True),
        ("first_word:first_word_answer", {"first_word": "now"}, "Nowhere we go.", False),
        ("first_word:first_word_sent", {"first_word": "now"}, "Now, we go. “Now” is good.", True),
        ("last_word:last_word_answer", {"last_word": "well-being"}, "It is *well-being*.", True),
        ("last_word:last_word_answer", {"last_word": "being"}, "It is well-being.", False),
        ("format:quotes", {}, "“a ‘b “c” d’ e”", True),
        ("format:emoji", {}, "A flag 🇩🇪. One 1️⃣!", True),
        ("format:emoji", {}, "A flag DE. One 1!", False),
    ],
)
def test_instructions_mean_their_words(
    instruction: str, arguments: dict[str, Any], text: str, is_followed: bool
) -> None:
    assert follows(instruction, arguments, text).followed == is_followed
