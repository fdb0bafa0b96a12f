"""A Python interpreter that keeps its state: a line of JSON in for each call, a line out. Its text is passed to a sandboxed `python -c`."""

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


class Kept(io.TextIOBase):
    """A text stream that keeps the first and the last `most // 2` characters."""

    def __init__(self, most: int) -> None:
        self.half, self.first, self.last, self.left_out = most // 2, "", "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        room = self.half - len(self.first)
        self.first += text[:room] if room > 0 else ""
        self.last += text[max(0, room) :]
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
    """The end of the traceback, from the caller's own code on; never raises, however hostile the error."""
    try:
        place = error.__traceback__
        while place is not None and not place.tb_frame.f_code.co_filename.startswith("<cell"):
            place = place.tb_next
        lines = "".join(traceback.format_exception(type(error), error, place)).splitlines()
        return "\n".join(line[:500] for line in lines[-_TAIL_LINES:])
    except BaseException:
        return f"{type(error).__name__}: its message cannot be shown"


def execute(code: str, name: str, space: dict[str, Any], out: Kept) -> bool:
    """Run a cell; what it prints, its last expression's value and its traceback go to `out`. Whether it ran to its end."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
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
    """Answer calls until stdin closes. `paths`: folders to import from besides the standard library."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
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
        out = Kept(most)
        with redirect_stdout(out), redirect_stderr(out):
            finished = execute(request["code"], f"<cell {number}>", vars(main), out)
        say(answers, {"id": request["id"], "ok": finished, "text": out.text()})


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
