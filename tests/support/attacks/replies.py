"""Replies that try to earn without the work: what each is tried on stands below its table."""

from typing import Any

from linn.types import Message, Reply, ToolCall

ZERO_WIDTH, JOINER, SOFT_HYPHEN, FILLER = "\u200b", "\u2060", "\u00ad", "\u3164"

MATH = {
    "a congruence": ("two numbers in a box", r"\boxed{15 \equiv 14}"),
    "divides": ("two numbers in a box", r"\boxed{15 \mid 14}"),
    "similar": ("two numbers in a box", r"\boxed{15 \sim 14}"),
    "isomorphic": ("two numbers in a box", r"\boxed{15 \cong 14}"),
    "two lines": ("two numbers in a box", r"\boxed{13 \\ 14}"),
    "a disjunction": ("two numbers in a box", r"\boxed{13 \lor 14}"),
    "a questioned sign": ("two numbers in a box", r"\boxed{15 \overset{?}{=} 14}"),
    "an exclaimed sign": ("two numbers in a box", r"\boxed{15 \stackrel{!}{=} 14}"),
    "maps to": ("two numbers in a box", r"\boxed{15 \mapsto 14}"),
    "a long arrow": ("two numbers in a box", r"\boxed{15\longrightarrow 14}"),
    "a wide sign": ("two numbers in a box", "\\boxed{15 \uff1d 14}"),
    "a gap": ("two numbers in a box", r"\boxed{15 \hspace{1em} 14}"),
    "a chain behind a letter": ("two numbers in a box", r"\boxed{x=15=14}"),
    "a chain with words": ("two numbers in a box", r"\boxed{15 \text{ } = \text{ } 14}"),
    "three boxes": ("several boxes", r"\boxed{13} \boxed{14} \boxed{15}"),
    "a box in a list": ("several boxes", r"\boxed{\boxed{14}\boxed{15}}"),
    "denied by a sign": ("a denied number", r"\boxed{\ne 14}"),
    "denied by another sign": ("a denied number", r"\boxed{x \neq 14}"),
    "a set of all": ("everything at once", r"\boxed{\{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\}}"),
    "a range": ("everything at once", r"\boxed{[0, 100]}"),
    "real numbers": ("everything at once", r"\boxed{\mathbb{R}}"),
    "plus or minus": ("everything at once", r"\boxed{14 \pm 0.0}\boxed{\pm 14}"),
    "digits of another script": ("digits", "\\boxed{\u0661\u0664\u0660}"),
    "an integral without end": ("cost", r"\boxed{\int_0^{\infty} e^{-x^{x^{x}}} dx}"),
    "a sum without end": ("cost", r"\boxed{\sum_{k=1}^{10^{12}} \frac{k!}{k^k}}"),
}
"""Boxes where 14 is right: (kind, text)."""

_INVISIBLE = {
    "zero width": ZERO_WIDTH,
    "a joiner": JOINER,
    "a soft hyphen": SOFT_HYPHEN * 9,
    "a filler that counts as a letter": FILLER,
    "an empty pattern of dots": "\u2800",
    "a control character": "\x00\x1f",
    "tags": "\U000e0041\U000e007f",
    "directions": "\u200e\u200f\u202e",
}
INSTRUCT: dict[str, tuple[str, str, dict[str, Any] | None, str]] = {
    **{
        f"nothing to see: {name}": ("invisible", "punctuation:no_comma", None, text)
        for name, text in _INVISIBLE.items()
    },
    "a forbidden word cut": (
        "invisible",
        "keywords:forbidden_words",
        {"forbidden_words": ["river"]},
        f"The ri{ZERO_WIDTH}ver is wide.",
    ),
    "an excluded word cut": (
        "invisible",
        "keywords:exclude_word_harder",
        {"keyword": "river"},
        f"The ri{SOFT_HYPHEN}ver is wide.",
    ),
    "paragraphs of nothing": (
        "invisible",
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 3},
        "***".join([ZERO_WIDTH] * 3),
    ),
    "two answers of nothing": (
        "invisible",
        "combination:two_responses",
        None,
        f"{ZERO_WIDTH}******{JOINER}",
    ),
    "a title of nothing": ("invisible", "detectable_format:title", None, f"<<{ZERO_WIDTH}>>"),
    "highlights of nothing": (
        "invisible",
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        f"*{ZERO_WIDTH}* *{JOINER}*",
    ),
    "a wide comma": ("look-alike", "punctuation:no_comma", None, "Rivers\uff0c lakes"),
    "a listing comma": ("look-alike", "punctuation:no_comma", None, "Rivers\u3001 lakes"),
    "a wide full stop": ("look-alike", "punctuation:punctuation_dot", None, "It ends\uff0e"),
    "a round full stop": ("look-alike", "punctuation:punctuation_dot", None, "It ends\u3002"),
    "a wide exclamation": (
        "look-alike",
        "punctuation:punctuation_exclamation",
        None,
        "It ends\uff01",
    ),
    "digits in every language": (
        "no language",
        "language:response_language",
        {"language": "hi"},
        "123 456",
    ),
    "marks in every language": (
        "no language",
        "language:response_language",
        {"language": "de"},
        "... !",
    ),
    "the instruction quoted": (
        "quoted",
        "startend:end_checker",
        {"end_phrase": "good day"},
        "You asked me to finish with good day but I do not.",
    ),
}
"""(kind, instruction, its arguments, text)."""

STRUCTURED = {
    "a wrong value first": ("duplicate keys", "json", '{"age": "x", "name": "ana", "age": 3}'),
    "a key twice": ("duplicate keys", "json", '{"name": 1, "name": "ana", "age": 3}'),
    "a key twice in YAML": ("duplicate keys", "yaml", "name: 1\nname: ana\nage: 3\n"),
    "a column twice": ("duplicate keys", "csv", "name,age,name\n1,3,ana\n"),
    "merged keys": ("duplicate keys", "yaml", "<<: {name: ana}\nage: x\n"),
    "infinity by overflow": ("numbers", "json", '{"name": "ana", "age": 1e999}'),
    "digits without end": ("numbers", "json", '{"name": "ana", "age": ' + "9" * 5000 + "}"),
    "true for a number": ("numbers", "json", '{"name": "ana", "age": true}'),
    "a comment": ("comments", "json", '{"name": "ana", /* x */ "age": 3}'),
    "a trailing comma": ("comments", "json", '{"name": "ana", "age": 3,}'),
    "a byte order mark": ("invisible", "json", '\ufeff{"name": "ana", "age": 3}'),
    "an invisible key": ("invisible", "json", f'{{"na{ZERO_WIDTH}me": "ana", "age": 3}}'),
    "a schema in place of data": (
        "the schema quoted",
        "json",
        '{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}'
        "}}",
    ),
    "two documents": ("several", "yaml", "name: ana\nage: 3\n---\nname: bob\nage: 4\n"),
    "two objects": ("several", "json", '{"name": "ana", "age": 3}{"name": "ana", "age": 3}'),
    "aliases that explode": (
        "bombs",
        "yaml",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    ),
    "a tag of Python": ("tags", "yaml", "name: !!python/object/apply:os.getcwd []\nage: 3\n"),
    "an entity": (
        "bombs",
        "xml",
        "<!DOCTYPE r [<!ENTITY a 'ana'>]><r><name>&a;</name><age>3</age></r>",
    ),
}
"""Documents of a name (text) and an age (a whole number): (kind, kind of document, text)."""

HEDGES = {
    "all four in a box": r"\boxed{ABCD}",
    "a list": r"\boxed{A, B, C, D}",
    "with words": r"\boxed{A \text{ or } B \text{ or } C \text{ or } D}",
    "by plus": r"\boxed{A+B+C+D}",
    "by dots": r"\boxed{A \cdot B \cdot C \cdot D}",
    "over a line": r"\boxed{\frac{A}{B} \frac{C}{D}}",
    "as a set": r"\boxed{\{A\} \{B\} \{C\} \{D\}}",
    "letters that look alike": "\\boxed{\u0391\u0392\u0421D}",
    "a box for each in a box": r"\boxed{\boxed{A}\boxed{B}\boxed{C}\boxed{D}}",
    "small ones": r"\boxed{a b c d}",
    "the options quoted": "\\boxed{A: otter\nB: apple\nC: blue\nD: hammer}",
    "all by lines": "\\boxed{A\nB\nC\nD}",
    "a range": r"\boxed{A-D}",
    "each of them": r"\boxed{\text{any of A to D}}",
    "a letter that is denied": r"\boxed{\text{not A}}",
}
"""Answers to a question with four options."""

GENRM = {
    "not a number": '{"score_1": NaN, "score_2": NaN, "ranking": NaN}',
    "infinite": '{"score_1": 1e999, "score_2": -1e999, "ranking": 1}',
    "true": '{"score_1": true, "score_2": true, "ranking": true}',
    "texts": '{"score_1": "5", "score_2": "1", "ranking": "1"}',
    "beyond the scale": '{"score_1": 99, "score_2": -99, "ranking": 0}',
    "lists": '{"score_1": [1, 5], "score_2": [1, 5], "ranking": [1, 6]}',
    "inside another": '{"verdict": "score_1 5 score_2 1 ranking 1"}',
}
"""Verdicts that nobody can read."""

PROOFS = {
    "by nothing added": "{x} = {r} + 0 = {r}",
    "by one": "{x} = 1 * {r} = {r}",
    "by zero": "{x} = 0 * {x} + {r} = {r}",
    "by brackets": "{x} = ({r}) = (({r})) = {r}",
    "by a difference": "{x} = {x} + 0 = {x} - 0 = {r}",
    "by many equal numbers": "{x} = {r} - 1 + 1 = {r} - 2 + 2 = {r}",
    "backwards": "{r} = {x}",
    "two proofs": "{x} = {x}\n{r} = {r}",
    "with an invisible step": "{x} = {r}" + ZERO_WIDTH + " = {r}",
    "digits of another script": "{x} = \u0663 + {r} = {r}",
}
"""Derivations of x = r that replace nothing."""


def turns(*calls: ToolCall, text: str = "done") -> Reply:
    """A conversation that makes these calls, one a turn."""
    said = [Message("assistant", "", tool_calls=(call,)) for call in calls]
    return Reply(text, messages=(*said, Message("assistant", text)))
