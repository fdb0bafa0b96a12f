"""When two replies give the same answer: what majority voting counts."""

from __future__ import annotations

import ast
import re
import warnings
from fractions import Fraction

from linn.domains.code.programs import program_of
from linn.domains.common.boxes import outer_boxes

_SPACING = re.compile(r"\\[,;:! ]|\\quad|\\qquad|~|\s+")
_STYLE = re.compile(r"\\(?:left|right|big|Big|displaystyle|limits)(?![A-Za-z])")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d+)\}\{(\d+)\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"[+-]?\d{1,400}(?:\.\d{1,400})?(?:/\d{1,400})?")
_DEGREES = re.compile(r"\^\{?\\circ\}?|\\degree|°")


def answer_key(text: str) -> str:
    """What an answer says, in a form that is equal for replies that agree; empty: nothing.

    It is the last box of a text, as mathematics; else its last program; else the text itself,
    whatever its case and spacing.
    """
    boxes = outer_boxes(text)
    if boxes:
        return normal_mathematics(boxes[-1].inner)
    if "```" in text or "def " in text:
        program = normal_program(program_of(text, "any")[1])
        if program:
            return program
    return " ".join(text.casefold().split())


def normal_mathematics(formula: str) -> str:
    """A formula without what changes its looks alone; a plain number by its value."""
    formula = _WRAPPED.sub(r"\1", formula.replace("$", ""))
    formula = formula.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    formula = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", formula)
    formula = _SPACING.sub("", _STYLE.sub("", formula))
    formula = _DEGREES.sub("", formula).rstrip(".").replace("\\%", "%").casefold()

    number = _THOUSANDS.sub("", formula)
    # `x=5` and `5` are one answer to a question for x.
    _, sign, right = number.rpartition("=")
    if sign and _NUMBER.fullmatch(right):
        number = right
    fraction = _FRACTION.fullmatch(number)
    if fraction:
        sign, above, below = fraction.groups()
        number = f"{sign}{above}/{below}".replace("--", "")
    if not _NUMBER.fullmatch(number):
        return formula
    try:
        return str(Fraction(number))
    except (ValueError, ZeroDivisionError):
        return formula


def normal_program(program: str) -> str:
    """A Python program without comments, docstrings and layout, its variables by order of use.

    Of another language, or where it does not parse, its words.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(program)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return " ".join(program.split())
    try:
        return ast.unparse(_Renamed().visit(tree))
    except RecursionError:
        return " ".join(program.split())


class _Renamed(ast.NodeTransformer):
    """Arguments of functions renamed by their place; docstrings taken out."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        parameters = [*node.args.posonlyargs, *node.args.args]
        names = {each.arg: f"_{place}" for place, each in enumerate(parameters)}

        # Annotations and argument names say nothing of what a function does.
        for each in ast.walk(node):
            if isinstance(each, ast.arg):
                each.arg = names.get(each.arg, each.arg)
                each.annotation = None
            elif isinstance(each, ast.Name):
                each.id = names.get(each.id, each.id)
        node.returns = None

        # A docstring that is all there is stays: a body cannot be empty.
        has_text = isinstance(node.body[0], ast.Expr) and ast.get_docstring(node) is not None
        if has_text and len(node.body) > 1:
            node.body = node.body[1:]
        return self.generic_visit(node)
