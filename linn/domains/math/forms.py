r"""An answer in a form that `math-verify` reads, where it reads none or another.

The library knows no `\,` among the digits of `1\,400`, no `0.\overline{3}`, no stop behind `14.`,
no colour; such answers are right and are written every day. Nothing here changes what an answer
means.
"""

from __future__ import annotations

import re

from linn.domains.common.typesetting import without_colour

_FRAMES = re.compile(
    r"\\(?:underline|boldsymbol|bm|pmb|mathit|mathsf|mathtt|fbox|emph)\s*\{(?P<inner>[^{}]*)\}"
)
_SIZES = re.compile(r"\\[bB]igg?[lrm]?(?![A-Za-z])")
_ENDS = re.compile(
    r"(?:[.,;:\s]|\\(?:quad|qquad|checkmark|blacksquare|square)(?![A-Za-z])|\\[,;:!]|~)+$"
)
_NAMES = (
    (re.compile(r"\\(?:nicefrac|sfrac|flatfrac)(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:degree|textdegree)(?![A-Za-z])|°"), r"^{\\circ}"),
    (re.compile(r"\\varnothing(?![A-Za-z])|∅"), r"\\emptyset"),
    (re.compile(r"\\mathrm\s*\{([ie])\}"), r"\1"),
    (re.compile(r"(?<=\d)\{\.\}(?=\d)"), "."),
)
"""Other names of what the library knows."""
_GROUPS = re.compile(
    r"(?<![\d.,])\d{1,3}(?:(?:\\[,;:! ]|~|\{,\}|,\\!|\{\\,\}|[ \u00a0\u2009\u202f])\d{3})+(?![\d,])"
)
"""A number whose digits stand in groups of three."""
_SPACES = re.compile(r"~|\\[;:! ]")
_EXPONENT = re.compile(r"(?<![A-Za-z\\\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\d.A-Za-z])")
_REPEATING = re.compile(
    r"(?<![\d.])(?P<whole>\d*)\.(?P<first>\d*)"
    r"(?P<again>\\(?:overline|bar)\s*(?:\{\d+\}|\d)|\(\d+\)"
    r"|\\dot\s*(?:\{\d\}|\d)(?:\d*\\dot\s*(?:\{\d\}|\d))?)(?![\d\\(])"
)
_IMAGINARY = re.compile(r"(?<=[\d}])\s+i(?![A-Za-z])")
_COMPLEX = re.compile(r"[\d.+\-\s]*\d\s*i[\d.+\-\s]*")
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_DEGREES = re.compile(
    r"(?P<name>\\(?:sin|cos|tan|cot|sec|csc))\s*(?P<open>[({])?\s*(?P<angle>\d+(?:\.\d+)?)\s*"
    r"\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})(?(open)\s*[)}])"
)
"""The library takes the degrees of a sine for radians."""
_MODULUS = re.compile(
    r"\s*\(?\s*(?:\\pmod\s*(?:\{[^{}]*\}|\w)|\\text\s*\{\s*\(?mod\s*\)?\}\s*\d+"
    r"|\\text\s*\{\s*\(mod\s*\d+\)\s*\})\s*\)?$"
)
_UNIT = re.compile(
    r"(?<=\d)\s*\\[dtc]?frac\s*\{\s*\\(?:text|mathrm)\s*\{[^{}]*\}\s*\}"
    r"\s*\{\s*\\(?:text|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?\s*\}"
)
"""A unit behind a number that is a quotient of units."""
_TEXT = re.compile(r"\\text(?:bf|rm|it|normal)?\s*\{(?P<inner>[^{}]*)\}")
_ANNOUNCED = re.compile(
    r"(?:the\s+|our\s+)?(?:final\s+)?(?:answer|result|solution|value)\s*(?:is|:|=|is\s*:)?\s*",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"(?P<number>[+-]?\d[\d,]*(?:\.\d+)?(?:/\d+)?)\s+(?P<unit>[A-Za-z]+)\.?")
"""A number and one word, a unit: two words could say more (`14 or more`)."""
_LONGEST = 400


def readable(answer: str) -> str:
    """The answer in the library's own forms; as it is where it is too long to be one."""
    if len(answer) > _LONGEST:
        return answer
    text = _without_type(answer)
    # A stop ends the sentence that the box stands in, not the number.
    text = _ENDS.sub("", _of_text(text.strip()))
    # A residue is said with its modulus: the row holds the residue.
    text = _MODULUS.sub("", _UNIT.sub("", text))
    return _with_numbers(text)


def _without_type(text: str) -> str:
    """Without colour, frame and size, and with the library's names."""
    text = _FRAMES.sub(lambda match: match["inner"], without_colour(text))
    text = _SIZES.sub("", text)
    for pattern, name in _NAMES:
        text = pattern.sub(name, text)
    return text


def _with_numbers(text: str) -> str:
    """With numbers, degrees and spaces as the library reads them."""
    text = _GROUPS.sub(_joined, text)
    text = _SPACES.sub(" ", text)
    text = _EXPONENT.sub(r"\1 \\times 10^{\2}", text)
    text = _DEGREES.sub(r"\g<name>(\\frac{\g<angle>\\pi}{180})", text)
    text = _REPEATING.sub(_repeating, text)
    text = _IMAGINARY.sub("i", text)
    # The library never finds a decimal beside `i` equal to a fraction.
    return _DECIMAL.sub(_exact, text) if _COMPLEX.fullmatch(text) else text


def _of_text(text: str) -> str:
    r"""An answer out of its `\text{}`: `\text{Answer: }14`, `\text{14 apples}`, `\text{Yes.}`."""
    begin = _TEXT.match(text)
    if begin is None:
        return text
    inner = begin["inner"].strip()
    # `\text{Answer: }14`: the answer stands behind the text.
    announced = _ANNOUNCED.match(inner)
    if announced is not None and announced.end() == len(inner):
        return text[begin.end() :].strip() or text
    if begin.end() < len(text):
        return text
    # Words alone stay words, whatever ends their sentence.
    amount = _AMOUNT.fullmatch(inner)
    if amount is not None:
        return f"{amount['number']} \\text{{ {amount['unit']}}}"
    return text.replace(begin["inner"], inner.rstrip(".!"))


def _joined(match: re.Match[str]) -> str:
    """The digits of a number without what parts their groups."""
    return "".join(re.findall(r"\d", match[0]))


def _repeating(match: re.Match[str]) -> str:
    r"""A decimal that repeats as the fraction that it is: `0.1\overline{6}` is `\frac{15}{90}`."""
    again = "".join(re.findall(r"\d", match["again"]))
    whole, first = match["whole"] or "0", match["first"]
    above = int(whole + first + again) - int(whole + first)
    below = 10 ** len(first) * (10 ** len(again) - 1)
    return f"\\frac{{{above}}}{{{below}}}"


def _exact(match: re.Match[str]) -> str:
    """A decimal as a fraction of whole numbers."""
    return f"\\frac{{{int(match[1] + match[2])}}}{{{10 ** len(match[2])}}}"
