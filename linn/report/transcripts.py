"""Which transcripts a person should look at, cut and cleaned.

What a model wrote is hostile text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from linn.report.files import Row, StageFiles, number, text
from linn.report.numbers import format_score
from linn.terminal import visible

EACH = 2
"""Transcripts of a sort in a stage. Of those newly wrong one per domain, where there are more."""
NEWLY_WRONG, NEWLY_RIGHT = "Newly wrong", "Newly right"
"""The titles of the prompts that a stage lost, and of those that it got right."""
TURNED = 0.5
"""A prompt has become right or wrong when its reward moved at least this far."""


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
    """At most `EACH`; of those newly wrong at least one per domain that has any."""

    @property
    def are_losses(self) -> bool:
        """Whether these are the prompts that a stage lost."""
        return self.title == NEWLY_WRONG

    @property
    def are_gains(self) -> bool:
        """Whether these are the prompts that a stage got right."""
        return self.title == NEWLY_RIGHT


def clean(raw: str) -> str:
    """Text whose every character can be seen and written.

    What is invisible or not text becomes its code, as `<U+202E>`.
    """

    return visible(raw.replace("\r\n", "\n"))


def label(raw: str) -> str:
    """A name as it is shown: cleaned, and not longer than a name is."""
    return clean(raw)[:80]


def cut(raw: str, room: int) -> str:
    """Cleaned text of at most about `room` bytes of HTML.

    Of a longer one the beginning and the end, and between them how much was left out.
    """
    if len(raw) <= room:
        whole = clean(raw)
        if len(escape(whole).encode()) <= room:
            return whole

    # No character takes less than a byte, so what lies further in than the room is never shown.
    head = _fill(raw[:room], room * 2 // 3)
    tail = _fill(raw[-room:][::-1], room // 3)
    left_out = f"… {len(raw) - head - tail:,} characters left out …"

    return f"{clean(raw[:head])}\n{left_out}\n{clean(raw[len(raw) - tail :])}"


def _fill(raw: str, room: int) -> int:
    """How many characters of `raw` fit into `room` bytes of HTML."""
    used = 0
    for count, character in enumerate(raw):
        used += len(escape(clean(character)).encode())
        if used > room:
            return count
    return len(raw)


def transcripts(stage: StageFiles, parent: StageFiles | None, room: int) -> list[Sort]:
    """Best and worst of the stage, and what turned against its parent on the same prompts.

    Best and worst are of its last rollouts, else of its evaluation. `room`: bytes per text.
    """
    name = _evaluation(stage, parent)
    after = stage.evals(name) if name else {}
    step, rows = stage.rollouts()
    origin = f"of {len(rows):,} rollouts of {step}"

    if not rows:
        rows = list(after.values())
        origin = f"of {len(after):,} prompts of {name}"

    sorts = _extremes([row for row in rows if number(row, "reward") is not None], origin, room)
    if parent is not None and after:
        before = parent.evals(name)
        sorts += _turned(_Graded(stage.name, after), _Graded(parent.name, before), name, room)

    return sorts


def _evaluation(stage: StageFiles, parent: StageFiles | None) -> str:
    """The evaluation to look at; empty where there is none.

    One that the parent has too, test before validation, greedy before sampled.
    """
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
            title="Best",
            note=f"highest reward, shortest first, {origin}",
            shown=tuple(_one(row, room) for row in _pick(best)),
        ),
        Sort(
            title="Worst",
            note=f"lowest reward, longest first, {origin}",
            shown=tuple(_one(row, room) for row in _pick(worst)),
        ),
    ]


@dataclass(frozen=True)
class _Graded:
    """One stage's evaluation."""

    stage: str
    """The stage's name."""
    rows: Mapping[tuple[str, str], Row]
    """(domain, prompt id) -> row."""


class _Pair(NamedTuple):
    """One prompt under two stages."""

    old: Row
    new: Row

    @property
    def rise(self) -> float:
        return _reward(self.new) - _reward(self.old)


def _turned(
    after: _Graded,
    before: _Graded,
    name: str,
    room: int,
) -> list[Sort]:
    """Prompts whose reward moved by `TURNED` or more, the furthest first."""
    pairs = []
    for key, new in after.rows.items():
        old = before.rows.get(key)
        if old is None or number(new, "reward") is None or number(old, "reward") is None:
            continue
        pairs.append(_Pair(old, new))
    if not pairs:  # the parent was not measured, or on other prompts
        return []

    right = sorted((p for p in pairs if p.rise >= TURNED), key=lambda p: -p.rise)
    wrong = sorted((p for p in pairs if -p.rise >= TURNED), key=lambda p: p.rise)
    sorts = []

    for title, turned in ((NEWLY_RIGHT, right), (NEWLY_WRONG, wrong)):
        domains = Counter(text(pair.new, "domain") for pair in turned).most_common()
        note = f"{len(turned):,} of {len(pairs):,} prompts of {name}, against {before.stage}"
        if domains:
            note += ": " + ", ".join(f"{domain} {count}" for domain, count in domains)
        old_of = {id(pair.new): pair.old for pair in turned}
        # Each domain that a stage cost something shows what was lost.
        most = max(EACH, len(domains)) if title == NEWLY_WRONG else EACH
        chosen = _pick([pair.new for pair in turned], most)
        shown = tuple(
            _both(before.stage, old_of[id(new)], after.stage, new, room) for new in chosen
        )
        sorts.append(Sort(title, note, shown))

    return sorts


def _pick(rows: Sequence[Row], most: int = EACH) -> list[Row]:
    """The first `most`, from as many domains as there are."""
    first_of = {text(row, "domain"): row for row in reversed(rows)}
    firsts = [row for row in rows if first_of[text(row, "domain")] is row]
    others = [row for row in rows if first_of[text(row, "domain")] is not row]
    return [*firsts, *others][:most]


def _one(row: Row, room: int) -> Shown:
    return _shown(row, format_score(_reward(row)), (("", cut(text(row, "text"), room)),))


def _both(parent: str, old: Row, stage: str, new: Row, room: int) -> Shown:
    """The same prompt before and after."""
    old_note = clean(text(old, "note"))[:300]
    rewards = f"{format_score(_reward(old))} → {format_score(_reward(new))}"
    texts = (
        (f"{parent}: {old_note}", cut(text(old, "text"), room)),
        (stage, cut(text(new, "text"), room)),
    )
    return _shown(new, rewards, texts)


def _shown(row: Row, reward: str, texts: tuple[tuple[str, str], ...]) -> Shown:
    parts = (text(row, "status"), text(row, "error"))
    status = " ".join(part for part in parts if part and part != "ok")
    return Shown(
        domain=label(text(row, "domain")),
        prompt_id=label(text(row, "prompt_id")),
        reward=reward,
        status=clean(status)[:300],
        note=clean(text(row, "note"))[:300],
        gold=cut(text(row, "gold"), 600),
        texts=texts,
    )


def _reward(row: Row) -> float:
    return number(row, "reward") or 0.0
