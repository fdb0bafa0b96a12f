"""Edits: what linn and nemo-gym's `swerl_gen` server make of random search/replace answers, and of
the example rows' own.

    python -m bench.agreement.swe_agentless --reference FOLDER [--cases 20000] [--seed 0]

FOLDER: see `reference.py`. Compared are the files after the edits, or that there are none. `as the
reference` is what grading by tests or by a judge does; `strict` is `grading_mode: patch` and the
option `strict`, which refuse what could be meant in two ways.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.agreement.reference import Tally, arguments, examples, load, report
from linn.domains.common import edits

_LINES = (
    "x = 1",
    "x = 16",
    "    x = 1",
    "    return x",
    "def f(x):",
    "def g(x):",
    "",
    "    pass",
    "=======",
    "import os",
    "import os.path",
    "# é",
    "x = 1 ",
)


def _files(rng: random.Random) -> dict[str, str]:
    def content() -> str:
        lines = [rng.choice(_LINES) for _ in range(rng.randint(1, 12))]
        text = "\n".join(lines) + rng.choice(("", "\n"))
        return text.replace("\n", "\r\n") if rng.random() < 0.05 else text

    return {path: content() for path in ("a.py", "b/c.py")}


def _edit(rng: random.Random, files: Mapping[str, str]) -> str:
    path = rng.choice((*files, *files, *files, "new.py", "./a.py", "a.py "))
    lines = files.get(path, "x = 1").splitlines() or [""]
    start = rng.randrange(len(lines))
    old = lines[start : start + rng.randint(1, 3)]
    if rng.random() < 0.1:
        cut = old[0][:-1]
        odd = ([""], [], ["", ""], ["    "], [cut], ["not there"], [*old, "=======", "y"])
        old = rng.choice(odd)
    new = rng.choice(
        (
            [*old, "y = 2"],
            ["y = 2"],
            ["y = 2", "z"],
            old,
            [""],
            [],
            ["    return 2"],
            ["<<<<<<< SEARCH"],
            [line + " " for line in old],
        )
    )
    parts = ["### " + path, "<<<<<<< SEARCH", *old, "=======", *new, ">>>>>>> REPLACE"]
    if rng.random() < 0.12:
        at = rng.randrange(len(parts))
        line = parts[at]
        parts[at] = rng.choice(("", line + " ", "  " + line, line + "\n", line[:-1], "### a.py"))
    odd_fences = (("```", "\n```"), ("text ```py", "```"), ("", ""), ("```diff", ""))
    opening, closing = rng.choice((("```python", "```"),) * 9 + odd_fences)
    return "\n".join([opening, *parts, closing])


def _answer(rng: random.Random, files: Mapping[str, str]) -> str:
    blocks = [_edit(rng, files) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    if rng.random() < 0.05:
        blocks += blocks[:1]
    body = rng.choice(("\n", "\n", "\nand\n", "\n```\nprint()\n```\n")).join(blocks)
    frames = ("<solution>\n%s\n</solution>",) * 9
    more = (
        "%s",
        "<solution>%s",
        "%s</solution>",
        "The <solution>:\n<solution>\n%s\n</solution>",
        "<solution>\n%s\n</solution>\n<solution>\nno\n</solution>",
    )
    return rng.choice(frames + more) % body


def _ours(files: Mapping[str, str], text: str, strict: bool) -> tuple[dict[str, str] | None, str]:
    try:
        return edits.apply(files, edits.parse(text, strict), strict), ""
    except edits.BadEdit as error:
        return None, str(error)


def _theirs(module: Any, files: dict[str, str], text: str) -> dict[str, str] | None:
    """The files after the edits, by the steps of the server; None where it gives up, which it takes
    for reward 0.
    """
    try:
        if module.extract_pred_patch(files, text, False) is None:
            return None
        solution = text.split("<solution>")[1].split("</solution>")[0].strip()
        changes = module.parse_search_replace(solution)
        return {**files, **module.apply_code_change(files, changes)}
    except Exception:
        return None


def _why(
    module: Any, files: Mapping[str, str], text: str, ours: Any, theirs: Any, error: str
) -> str | None:
    """The reason for a difference: linn's error, or that the reference agrees where line ends are
    LF, or what strict reads otherwise.
    """
    for words, reason in _REFUSALS.items():
        if words in error:
            return f"refused: {reason}"
    if ours is not None and _theirs(module, _lf(files), text) == _lf(ours):
        return "files with CR LF line ends: linn finds several lines in them, the reference one"
    if "=======\n>>>>>>> REPLACE" in text:
        return (
            "an edit without new lines: strict takes the old ones away, the reference passes the "
            "block over or reads on"
        )
    if ours is None:
        return None
    for edit in edits.parse(text, True):
        if len(edits.places(_lf(files)[edit.path], edit.old)) > 1:
            return "another place: strict takes whole lines before the beginning of one"
    return None


def _lf(files: Mapping[str, str]) -> dict[str, str]:
    return {path: content.replace("\r\n", "\n") for path, content in files.items()}


_REFUSALS = {
    "is not a plain relative path": "a path that is not plain (`./`, `..`, absolute)",
    "is not one of the files": (
        "an edit of an unknown file, which the reference makes where the search is blank"
    ),
    "must search for something": "a blank search",
    "times in": "a search text found more than once",
    "touch the same line": "edits that overlap",
    "belong to no edit": "a mark within an edit or outside of any",
}


def main() -> int:
    folder, cases, rng = arguments(__doc__, 20_000)
    module = load(folder, "swerl_gen", "eval.process_patch")
    tallies = {
        False: Tally("swe_agentless, as the reference"),
        True: Tally("swe_agentless, strict"),
    }
    for _ in range(cases):
        files = _files(rng)
        _compare(module, files, _answer(rng, files), tallies)
    return report(folder, [*tallies.values(), _examples(module, folder)])


def _compare(module: Any, files: dict[str, str], text: str, tallies: Mapping[bool, Tally]) -> None:
    theirs = _theirs(module, files, text)
    for strict, tally in tallies.items():
        ours, error = _ours(files, text, strict)
        why = partial(_why, module, files, text, ours, theirs, error)
        tally.add(ours, theirs, why, (files, text, error))


def _examples(module: Any, folder: Path) -> Tally:
    """The gold patches of the example rows, written as edits by the reference, read by linn."""
    tally = Tally("swe_agentless, gold patches of the example rows")
    for row in examples(folder, "swerl_gen"):
        files = edits.files_of(row["metadata"]["relevant_file_contents"], "row")
        _, text = module.get_search_replace_pairs(row["instance"]["patch"])
        _compare(module, files, f"<solution>\n{text}\n</solution>", {False: tally})
    return tally


if __name__ == "__main__":
    sys.exit(main())
