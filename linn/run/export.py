"""A checkpoint as a Hugging Face folder: weights, tokenizer, chat template, and a card.

The weights have the precision that was asked for; the card holds the checkpoint's ledger rows.
"""

from __future__ import annotations

from pathlib import Path

from linn import files
from linn.checkpoints import copy_tokenizer, resolve
from linn.errors import UserError
from linn.ledger import Ledger
from linn.types import Score


def export_checkpoint(name: str, folder: Path, dtype: str) -> Path:
    """Write `folder` (complete or absent) from `RUN@STAGE[:STEP]`.

    An earlier export in `folder` is replaced; a folder that holds anything else is refused. Raises
    UserError for an unknown name or precision.
    """
    folder = folder.absolute()
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype {dtype!r}: allowed: float32, bfloat16")
    source = resolve(name)
    _check_target(folder, source)

    # Torch is loaded only now: a wrong name is refused in a blink.
    from linn.engine.models.convert import convert

    with files.whole_folder(folder) as target:
        convert(source, target, dtype)
        copy_tokenizer(source, target)
        files.write_text(target / "README.md", _card(name, source, dtype))
    return folder


def _check_target(folder: Path, source: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file; give a new folder")
    if folder.resolve() == source.resolve():
        raise UserError(f"{folder}: the checkpoint itself; give a new folder")
    if not is_replaceable(folder):
        raise UserError(
            f"{folder}: a folder with other things in it; give a new one, or one that an export "
            "made, which is replaced"
        )


def is_replaceable(folder: Path) -> bool:
    """Whether it is an empty folder, or one with a model and nothing but files."""
    if not folder.is_dir():
        return False
    paths = list(folder.iterdir())
    if not paths:
        return True
    return (folder / "config.json").is_file() and all(path.is_file() for path in paths)


def _card(name: str, source: Path, dtype: str) -> str:
    lines = [
        f"# {name}",
        "",
        f"Weights in {dtype}; chat template and tokenizer inside. Made by `linn export`.",
        "",
    ]
    if "@" not in name:
        return "\n".join(lines)

    # source: RUN/stages/02-if-rl/checkpoints/step-0100
    stage = source.parents[1].name.split("-", 1)[1]
    step = int(source.name.removeprefix("step-"))
    lines += [
        "| domain | split | metric | value | 95 % interval | n |",
        "|---|---|---|---|---|---|",
    ]
    for row in Ledger(source.parents[3] / "ledger.jsonl").read():
        if row.stage == stage and row.step == step:
            lines.append(_table_row(row))
    return "\n".join([*lines, ""])


def _table_row(row: Score) -> str:
    interval = f"{row.low:.1%} to {row.high:.1%}"
    return f"| {row.domain} | {row.split} | {row.metric} | {row.value:.1%} | {interval} | {row.n} |"
