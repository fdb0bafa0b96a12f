"""A checkpoint as a Hugging Face folder: weights, tokenizer, chat template, and a card.

The weights have the dtype that was asked for, or the base's. The card holds the checkpoint's rows
of the ledger.
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

from linn import files
from linn.assets import copy_assets, write_chat
from linn.chat.codec import Codec
from linn.checkpoints import resolve
from linn.errors import InfrastructureError, UserError
from linn.ledger import Ledger
from linn.progress import reading
from linn.types import Score

DTYPES = ("float32", "bfloat16", "float16")
"""What `--dtype` may be."""

SHARD_SIZE = "5GB"
"""Default of `--shard-size`."""

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def export_checkpoint(
    name: str, folder: Path, dtype: str | None = None, shard_size: str = SHARD_SIZE
) -> Path:
    """Write `folder` (complete or absent) from `RUN@STAGE[:STEP]` or a Hugging Face folder.

    dtype: None: that of the base's weights. shard_size: weights above it are cut into files of at
    most that size, such as 5GB. Nothing that exists is replaced but an empty folder.

    Raises UserError for an unknown name, dtype or size, or a folder with anything in it;
    InfrastructureError where the disk is full.
    """
    folder = folder.absolute()
    shard_bytes = check_options(dtype, shard_size)
    source = resolve(name)
    check_target(folder)

    # Torch is loaded only now: a wrong name is refused in a blink.
    from safetensors import SafetensorError

    from linn.engine.models.convert import convert

    try:
        with files.whole_folder(folder) as target, reading(f"export {name}", "MB") as note:
            dtype = convert(source, target, dtype, shard_bytes, note)
            _write_assets(name, source, target)
            files.write_text(target / "README.md", _card(name, source, dtype))
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        if os.strerror(errno.ENOSPC) in reason:
            reason = "the disk is full"
        raise InfrastructureError(
            f"{folder}: cannot be written ({reason}); nothing was; "
            "free some space or give a folder on another disk"
        ) from None
    return folder


def planned_export(
    name: str, folder: Path, dtype: str | None = None, shard_size: str = SHARD_SIZE
) -> dict[str, int]:
    """What an export would hold: bytes by name of file, without the card.

    All but the weights is written into `folder`, which must be there. Errors as of an export.
    """
    shard_bytes = check_options(dtype, shard_size)
    source = resolve(name)

    from linn.engine.models.convert import planned

    _, sizes = planned(source, folder, dtype, shard_bytes)
    _write_assets(name, source, folder)
    for path in folder.rglob("*"):
        if path.is_file():
            sizes[str(path.relative_to(folder))] = path.stat().st_size
    return sizes


def check_options(dtype: str | None, shard_size: str) -> int:
    """Bytes of a shard; UserError for a dtype or a size that is none."""
    if dtype not in (None, *DTYPES):
        raise UserError(f"--dtype {dtype!r}: allowed: {', '.join(DTYPES)}; default: the base's")
    return bytes_in(shard_size)


def _write_assets(name: str, source: Path, folder: Path) -> None:
    """Tokenizer, template and stops of training, beside a config that is there."""
    copy_assets(source, folder)
    # A run of before checkpoints told their template: all of those trained linn's own.
    if _is_of_run(name) and "linn" not in _config_of(source):
        # Without a BOS, and ended by one token alone.
        write_chat(folder, Codec(Codec.load(folder, "nemotron").tokenizer))


def _is_of_run(name: str) -> bool:
    """Whether it is `RUN@STAGE`, and not a folder with an @ in its name."""
    return "@" in name and not Path(name).is_dir()


def _config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def bytes_in(size: str) -> int:
    """Bytes of a size such as `5GB`, `500MB` or `2GiB`; raises UserError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)\s*", size, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UserError(f"--shard-size {size!r}: give a number and a unit: 5GB, 500MB, 2GiB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def check_target(folder: Path) -> None:
    """Refuse whatever an export would destroy."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        what = "a folder with things in it" if folder.is_dir() else "not a folder"
        raise UserError(f"{folder}: {what}; give a new folder, or delete it first")


def _card(name: str, source: Path, dtype: str) -> str:
    lines = [
        f"# {name}",
        "",
        f"Weights in {dtype}; chat template and tokenizer inside. Made by `linn export`.",
        "",
    ]
    if not _is_of_run(name):
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
