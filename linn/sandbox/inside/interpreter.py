"""A Python interpreter that keeps its state: a line of JSON in for each call, a line out.

This file's text is passed to a sandboxed `python -c`, so it imports nothing of linn.
"""

from __future__ import annotations

import ast
import io
import json
import linecache
import os
import random
import sys
import traceback
import types
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

_TAIL_LINES = 15
_LONGEST_LINE = 500


class Ends(io.TextIOBase):
    """A text stream that keeps the first and the last `most // 2` characters."""

    def __init__(self, most: int) -> None:
        self.half = most // 2
        self.first, self.last = "", ""
        self.left_out = 0

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def write(self, text: str) -> int:
        """Take a text, and let go of the middle."""
        room = max(0, self.half - len(self.first))
        self.first += text[:room]
        self.last += text[room:]
        over = len(self.last) - self.half
        if over > 0:
            self.last = self.last[over:]
            self.left_out += over
        return len(text)

    def text(self) -> str:
        """What is kept, with a mark where something is left out."""
        mark = f"\n... {self.left_out} characters left out ...\n" if self.left_out else ""
        return self.first + mark + self.last


def trace_of(error: BaseException) -> str:
    """The end of the traceback, from the caller's own code on.

    Never raises, however hostile the error.
    """
    try:
        # The frames before are this file's own.
        place = error.__traceback__
        while place is not None and not place.tb_frame.f_code.co_filename.startswith("<cell"):
            place = place.tb_next
        trace = traceback.format_exception(type(error), error, place)
        lines = "".join(trace).splitlines()
        return "\n".join(line[:_LONGEST_LINE] for line in lines[-_TAIL_LINES:])
    except BaseException:
        return f"{type(error).__name__}: its message cannot be shown"


def execute(code: str, name: str, space: dict[str, Any], out: Ends) -> bool:
    """Run a cell; whether it ran to its end.

    What it prints, its last expression's value and its traceback go to `out`.
    """
    # Tracebacks look up the source lines here.
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        tree = ast.parse(code, name)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, name, "exec"), space)

        # As at a prompt: the value of a last expression is shown, unless it is None.
        if isinstance(last, ast.Expr):
            expression = ast.Expression(last.value)
            value = eval(compile(expression, name, "eval"), space)
            if value is not None:
                out.write(f"{value!r}\n")

    except BaseException as error:
        out.write(trace_of(error) + "\n")
        return False
    return True


def say(fd: int, answer: dict[str, Any]) -> None:
    """Write one line, whole."""
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def serve(most: int, *paths: str) -> None:
    """Answer calls until stdin closes.

    `most`: characters of an answer. `paths`: folders to import from besides the standard library.
    """
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    # The code's own standard streams lead nowhere; what it prints is caught in Python.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)

    sys.path[:] = [*paths, os.getcwd(), *sys.path]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    random.seed(0)  # so that the same calls say the same each time

    say(answers, {"id": 0, "ok": True, "text": "ready"})
    for number, line in enumerate(requests, 1):
        request = json.loads(line)
        out = Ends(most)

        # The code may break either of the two; the answer goes out by a descriptor of its own.
        with redirect_stdout(out), redirect_stderr(out):
            finished = execute(request["code"], f"<cell {number}>", vars(main), out)
        say(answers, {"id": request["id"], "ok": finished, "text": out.text()})


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
