"""Which transcripts a person should look at, cut and cleaned: what a model wrote is hostile text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from linn.report.files import Row, StageFiles, number, text
from linn.report.tables import short

EACH = 2
"""Transcripts of a sort in a stage."""
TURNED = 0.5
"""A prompt has become right or wrong when its reward moved at least this far."""

# Control characters, lone surrogates, and the marks that reorder or hide what a reader sees (bidi, zero width).
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True)
class Shown:
    """One text on the page, already cleaned; the template escapes it."""

    domain: str
    """Where it came from."""
    prompt_id: str
    """The prompt."""
    reward: str
    """The reward, or both: `0.00 → 1.00`."""
    status: str
    """Other than ok: truncated or failed, with the error."""
    note: str
    """The grader's reason."""
    gold: str
    """The right answer, where the evaluation recorded one."""
    texts: tuple[tuple[str, str], ...]
    """(heading, transcript): one, or before and after."""


@dataclass(frozen=True)
class Sort:
    """The transcripts of one sort in one stage."""

    title: str
    """Best, worst, newly right, newly wrong."""
    note: str
    """Where they were taken from, with counts."""
    shown: tuple[Shown, ...]
    """At most `EACH`."""


def clean(raw: str) -> str:
    """Text whose every character can be seen and written: what is invisible or not text becomes its code, as `<U+202E>`."""
    return _INVISIBLE.sub(lambda found: f"<U+{ord(found.group()):04X}>", raw.replace("\r\n", "\n"))


def cut(raw: str, room: int) -> str:
    """Cleaned text of at most about `room` bytes of HTML: the beginning and the end, and how much was left out between them."""
    if len(raw) <= room and len(escape(whole := clean(raw)).encode()) <= room:
        return whole
    # No character takes less than a byte, so what lies further in than the room can never be shown.
    head, tail = _fill(raw[:room], room * 2 // 3), _fill(raw[-room:][::-1], room // 3)
    left_out = len(raw) - head - tail
    return f"{clean(raw[:head])}\n… {left_out:,} characters left out …\n{clean(raw[len(raw) - tail :])}"


def _fill(raw: str, room: int) -> int:
    """How many characters of `raw` fit into `room` bytes of HTML."""
    used = 0
    for count, character in enumerate(raw):
        used += len(escape(clean(character)).encode())
        if used > room:
            return count
    return len(raw)


def transcripts(stage: StageFiles, parent: StageFiles | None, room: int) -> list[Sort]:
    """Best and worst of the stage's last rollouts (else of its evaluation), and what turned against its parent on the same prompts."""
    name = _evaluation(stage, parent)
    after = stage.evals(name) if name else {}
    step, rows = stage.rollouts()
    origin = f"of {len(rows):,} rollouts of {step}"
    if not rows:
        rows, origin = list(after.values()), f"of {len(after):,} prompts of {name}"
    sorts = _extremes([row for row in rows if number(row, "reward") is not None], origin, room)
    if parent is not None and after:
        sorts += _turned(stage.name, after, parent.name, parent.evals(name), name, room)
    return sorts


def _evaluation(stage: StageFiles, parent: StageFiles | None) -> str:
    """The evaluation to look at: one that the parent has too, test before validation, greedy before sampled."""
    names = stage.eval_names()
    shared = set(names).intersection(parent.eval_names()) if parent is not None else set()
    return min(
        shared or names,
        key=lambda name: (not name.startswith("test"), "greedy" not in name, name),
        default="",
    )


def _extremes(rows: list[Row], origin: str, room: int) -> list[Sort]:
    if not rows:
        return []
    best = sorted(rows, key=lambda row: (-_reward(row), len(text(row, "text"))))
    worst = sorted(rows, key=lambda row: (_reward(row), -len(text(row, "text"))))
    return [
        Sort(
            "Best",
            f"highest reward, shortest first, {origin}",
            tuple(_one(row, room) for row in _pick(best)),
        ),
        Sort(
            "Worst",
            f"lowest reward, longest first, {origin}",
            tuple(_one(row, room) for row in _pick(worst)),
        ),
    ]


Graded = dict[tuple[str, str], Row]


def _turned(
    stage: str, after: Graded, parent: str, before: Graded, name: str, room: int
) -> list[Sort]:
    """Prompts whose reward moved by `TURNED` or more, the furthest first."""
    both = [(row, before[key]) for key, row in after.items() if key in before]
    both = [
        (new, old)
        for new, old in both
        if number(new, "reward") is not None and number(old, "reward") is not None
    ]
    sorts = []
    for title, sign in (("Newly right", 1), ("Newly wrong", -1)):
        turned = [(sign * (_reward(new) - _reward(old)), new, old) for new, old in both]
        turned = sorted(
            (entry for entry in turned if entry[0] >= TURNED), key=lambda entry: -entry[0]
        )
        counts = Counter(text(new, "domain") for _, new, _ in turned).most_common()
        note = f"{len(turned):,} of {len(both):,} prompts of {name}, against {parent}"
        if counts:
            note += ": " + ", ".join(f"{domain} {count}" for domain, count in counts)
        olds = {id(new): old for _, new, old in turned}
        shown = tuple(
            _pair(parent, olds[id(new)], stage, new, room)
            for new in _pick([new for _, new, _ in turned])
        )
        sorts.append(Sort(title, note, shown))
    return sorts


def _pick(rows: Sequence[Row]) -> list[Row]:
    """The first `EACH`, another domain each as long as there is one."""
    firsts = {text(row, "domain"): row for row in reversed(rows)}
    spread = [row for row in rows if firsts[text(row, "domain")] is row]
    return (spread + [row for row in rows if firsts[text(row, "domain")] is not row])[:EACH]


def _one(row: Row, room: int) -> Shown:
    return _shown(row, short(_reward(row)), (("", cut(text(row, "text"), room)),))


def _pair(parent: str, old: Row, stage: str, new: Row, room: int) -> Shown:
    texts = (
        (f"{parent}: {clean(text(old, 'note'))[:300]}", cut(text(old, "text"), room)),
        (stage, cut(text(new, "text"), room)),
    )
    return _shown(new, f"{short(_reward(old))} → {short(_reward(new))}", texts)


def _shown(row: Row, reward: str, texts: tuple[tuple[str, str], ...]) -> Shown:
    status = " ".join(
        part for part in (text(row, "status"), text(row, "error")) if part and part != "ok"
    )
    name, prompt_id = clean(text(row, "domain"))[:80], clean(text(row, "prompt_id"))[:80]
    return Shown(
        name,
        prompt_id,
        reward,
        clean(status)[:300],
        clean(text(row, "note"))[:300],
        cut(text(row, "gold"), 600),
        texts,
    )


def _reward(row: Row) -> float:
    return number(row, "reward") or 0.0
