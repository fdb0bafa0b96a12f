"""A checkpoint as a Hugging Face folder: weights in the wished precision, tokenizer, chat template, and a card with its ledger rows."""

from __future__ import annotations

from pathlib import Path

from linn import files
from linn.checkpoints import resolve
from linn.errors import UserError
from linn.ledger import Ledger
from linn.stages.stage_run import copy_tokenizer
from linn.types import Score


def export_checkpoint(name: str, folder: Path, dtype: str) -> Path:
    """Write `folder` (complete or absent) from `RUN@STAGE[:STEP]`; raises UserError for an unknown name or precision.

    An earlier export in `folder` is replaced; a folder that holds anything else is refused.
    """
    folder = folder.absolute()
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype {dtype!r}: allowed: float32, bfloat16")
    source = resolve(name)
    if folder.exists() and (not folder.is_dir() or folder.resolve() == source.resolve()):
        raise UserError(
            f"{folder}: {'the checkpoint itself' if folder.is_dir() else 'a file'}; give a new folder"
        )
    if folder.is_dir() and not _replaceable(folder):
        raise UserError(
            f"{folder}: a folder with other things in it; give a new one, or one that an export made, which is replaced"
        )
    from linn.engine.models.convert import convert

    with files.whole_folder(folder) as made:
        convert(source, made, dtype)
        copy_tokenizer(source, made)
        files.write_text(made / "README.md", _card(name, source, dtype))
    return folder


def _replaceable(folder: Path) -> bool:
    """An empty folder, or one with a model and nothing but files."""
    if not folder.is_dir():
        return False
    inside = list(folder.iterdir())
    return not inside or (
        (folder / "config.json").is_file() and all(path.is_file() for path in inside)
    )


def _card(name: str, source: Path, dtype: str) -> str:
    lines = [
        f"# {name}",
        "",
        f"Weights in {dtype}; chat template and tokenizer inside. Made by `linn export`.",
        "",
    ]
    if "@" not in name:
        return "\n".join(lines)
    stage, step = source.parents[1].name.split("-", 1)[1], int(source.name.removeprefix("step-"))
    rows = [
        row
        for row in Ledger(source.parents[3] / "ledger.jsonl").read()
        if row.stage == stage and row.step == step
    ]
    lines += [
        "| domain | split | metric | value | 95 % interval | n |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_row, rows), ""])


def _row(row: Score) -> str:
    return f"| {row.domain} | {row.split} | {row.metric} | {row.value:.1%} | {row.low:.1%} to {row.high:.1%} | {row.n} |"
