"""Rollouts of benchmarks on disk: what was played once is not played again.

`WHERE/WEIGHTS/NAME-IDENTITY.jsonl`: a line a rollout, then a line that says that its batch is
whole. Lines after the last such line are of a batch that a kill cut short, and are made again: so
a resumed measurement samples in the batches of one that was never stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from linn import files
from linn.domains.base import content_key
from linn.errors import UserError
from linn.play.conversation import sampled_tokens, transcript
from linn.types import Prompt, Rollout

PLACE = Path("runs") / ".evals"
"""Where `linn eval` keeps rollouts."""

_DECIDES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model")
"""Files of a checkpoint that decide what it samples."""
_BLOCK = 2**22


@dataclass(frozen=True)
class Record:
    """What is kept of a rollout, and all that scores are made of."""

    prompt: str
    """The prompt's id."""
    key: str
    """A hash of what it asks: another wording is another prompt."""
    sibling: int
    """Which sample of it."""
    reward: float
    """Its verdict."""
    status: str
    """`ok`, `truncated` or `failed`."""
    error: str
    """Why it is not `ok`."""
    note: str
    """What the grader says."""
    tokens: int
    """Sampled tokens."""
    undecided: bool = False
    """Whether no judge's answer could be read."""
    answer: str | None = None
    """What a vote counts; None: no answer."""
    reply: str = ""
    """What the grader read."""
    text: str = ""
    """The conversation, for people."""

    @property
    def is_judged(self) -> bool:
        """Whether its reward is a judgement."""
        return self.status != "failed" and not self.undecided


def record_of(rollout: Rollout, answer: str | None) -> Record:
    """What is kept of a rollout; `answer`: its vote."""
    return Record(
        prompt=rollout.prompt.id,
        key=content_key(rollout.prompt),
        sibling=rollout.sibling,
        reward=rollout.verdict.reward,
        status=rollout.status,
        error=rollout.error,
        note=rollout.verdict.note,
        tokens=sampled_tokens(rollout),
        undecided=rollout.verdict.undecided,
        answer=answer,
        reply=rollout.reply.text,
        text=transcript(rollout),
    )


class Kept:
    """The rollouts of one model under one protocol, on disk."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist yet. UserError where another process plays into it."""
        self.path = path
        self._lock = _locked(path)
        _cut_to_whole(path)
        self._records = _read(path)

    def get(self, prompt: Prompt, sibling: int) -> Record | None:
        """The rollout of a prompt, if it was judged before."""
        return self._records.get((content_key(prompt), prompt.id, sibling))

    def add(self, records: Sequence[Record]) -> None:
        """Keep a whole batch. What nobody judged is not kept: it is played again next time."""
        judged = [record for record in records if record.is_judged]
        if not judged:
            return
        text = "".join(files.json_line(asdict(record)) for record in judged)
        with open(self.path, "ab") as file:
            file.write(text.encode())
            file.write(files.json_line({"whole": len(judged)}).encode())
            # On the disk before anybody counts it, since a kill may come next.
            file.flush()
            os.fsync(file.fileno())
        for record in judged:
            self._records[record.key, record.prompt, record.sibling] = record

    def forget(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self._records = {}


def _locked(path: Path) -> TextIO:
    """The lock of a file of rollouts, held while the object lives: it goes with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path.with_name(f".{path.name}.lock"), "w")  # noqa: SIM115 - stays open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(
            f"{path}: another linn plays into it; wait for it, or give --cache another folder"
        ) from None
    return file


def _read(path: Path) -> dict[tuple[str, str, int], Record]:
    """The records of whole batches."""
    names = {field.name for field in fields(Record)}
    kept: dict[tuple[str, str, int], Record] = {}
    batch: list[Record] = []
    for row in files.json_objects(path):
        if "whole" in row:
            kept.update({(one.key, one.prompt, one.sibling): one for one in batch})
            batch = []
        elif row.keys() <= names:
            try:
                batch.append(Record(**row))
            except TypeError:  # a line of another version
                continue
    return kept


def _end_of_whole(path: Path) -> int:
    """The byte behind the last line that says that a batch is whole; 0 where there is none."""
    end = place = 0
    try:
        with path.open("rb") as file:
            for line in file:
                place += len(line)
                # A line without its newline was being written when the kill came.
                if line.startswith(b'{"whole":') and line.endswith(b"\n"):
                    end = place
    except OSError:
        return 0
    return end


def _cut_to_whole(path: Path) -> None:
    """Take away what a kill left of a batch, so that the next one does not stand behind it."""
    if path.exists():
        with open(path, "r+b") as file:
            file.truncate(_end_of_whole(path))


# ---------------------------------------------------------------- which weights


def weights_digest(folder: Path) -> str:
    """16 hexadecimal digits of everything in a checkpoint that decides what it samples."""
    digest = hashlib.blake2b(digest_size=8)
    # In the order of their names: a file system lists them in any.
    paths = {path for pattern in _DECIDES for path in folder.glob(pattern)}
    for path in sorted(paths):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def served_digest(url: str, model: str) -> str:
    """The same of a served model, of which no more is known than where it is and its name."""
    return hashlib.blake2b(f"{url}#{model}".encode(), digest_size=8).hexdigest()


def write_protocol(path: Path, keys: Mapping[str, Any]) -> None:
    """Put beside a file of rollouts what its name stands for."""
    files.write_json(path, dict(keys))


def votes_of(records: Iterable[Record]) -> list[str | None]:
    """What a vote counts of each rollout: all right answers are one."""
    return ["\0right" if one.reward >= 1 - 1e-9 else one.answer for one in records]
