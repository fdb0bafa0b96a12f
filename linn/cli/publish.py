"""The verb `linn publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linn.errors import UserError
from linn.terminal import echo

if TYPE_CHECKING:
    from linn.publish.publish import Part, Published

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def publish(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="RUN@STAGE[:STEP]|RUN",
            help="one checkpoint of a run; or the run: its last one, the others as branches",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder that gets everything")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="hf://OWNER/NAME", help="upload to this repository of the Hub"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list files and sizes; write and send nothing")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="repositories that are made are private")
    ] = False,
    licence: Annotated[
        str, typer.Option(metavar="NAME", help="of the weights; default: the base's, by its card")
    ] = "",
    data_licence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA=NAME",
            help="licence of a domain's or a file's rows that do not name theirs; may be repeated",
        ),
    ] = None,
    no_data: Annotated[bool, typer.Option("--no-data", help="without the training data")] = False,
    base: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="the base's name on the Hub, for the card")
    ] = "",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: the base's")
    ] = None,
    shard_size: Annotated[
        str, typer.Option(help="weights above it are cut into files of at most this size")
    ] = "5GB",
) -> None:
    """Hand a run on. Checkpoints with model cards, and the training data that may be passed on."""
    from linn.cli.folders import run_folder
    from linn.publish.hub import target_of
    from linn.publish.publish import Order, Publication

    if out is None and to is None and not dry_run:
        raise UserError("say where: --out DIR, --to hf://OWNER/NAME, or both; --dry-run lists it")
    # The run alone, without a stage, means all of its stages.
    run, mark, place = checkpoint.rpartition("@")
    if not mark or Path(checkpoint).is_dir():
        run, place = checkpoint, ""
    publication = Publication(
        Order(
            run=run_folder(Path(run)),
            place=place,
            folder=out,
            target=None if to is None else target_of(to),
            private=True if private else None,
            licence=licence,
            data_licences=_stated(data_licence or []),
            with_data=not no_data,
            base=base,
            dtype=dtype,
            shard_size=shard_size,
        )
    )
    # Everything that can be refused was refused by now.
    made = publication.plan() if dry_run else publication.go()
    _tell(made)
    verb = "would be published" if dry_run else "published"
    total = sum(sum(part.sizes.values()) for part in made.parts)
    count = sum(len(part.sizes) for part in made.parts)
    where = " and ".join(str(place) for place in (out, to) if place is not None)
    echo(f"{verb}: {count} files, {_size(total)}{f' in {where}' if where else ''}")


def _stated(entries: list[str]) -> dict[str, str]:
    """Licences by the data that they are of."""
    stated = {}
    for entry in entries:
        # From the right: names of files may hold a sign of equality, names of licences do not.
        name, mark, licence = entry.rpartition("=")
        if not mark or not name.strip() or not licence.strip():
            raise UserError(f"--data-licence {entry!r}: expected DATA=NAME, such as mcqa=odc-by")
        stated[name.strip()] = licence.strip()
    return stated


def _tell(made: Published) -> None:
    """Every part with its files, then what is not among them."""
    for part in made.parts:
        _tell_part(part)
    for line in made.left_out:
        echo(f"⚠ left out: {line}", err=True)
    if made.licence is None:
        echo("⚠ the licence of the weights is not known; --licence NAME states it", err=True)
    for passed in made.passed:
        for why, rows in passed.held.items():
            # Of a file that is gone nobody can count them.
            count = f"{rows:,} rows" if rows else "its rows"
            advice = ""
            if why.startswith("licence"):
                advice = f"; --data-licence {passed.source.name}=NAME states it"
            echo(f"⚠ held back: {count} of {passed.source.origin}: {why}{advice}", err=True)


def _tell_part(part: Part) -> None:
    echo(f"{part.address}: {part.what}, {_size(sum(part.sizes.values()))}")
    for name, size in sorted(part.sizes.items()):
        echo(f"  {_size(size):>9}  {name}")


def _size(size: int) -> str:
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
