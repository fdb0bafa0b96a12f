"""Files that are there whole or not at all: written under a temporary name, synced, renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` at once."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replace `path` by one JSON object per line."""
    write_text(path, "".join(map(json_line, rows)))


def json_line(row: Any) -> str:
    """One JSON object and a newline."""
    return json_text(row) + "\n"


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON that can always be encoded.

    Half a surrogate pair, which a model may write as an escape, stays an escape.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a JSONL file; nothing where it is not there.

    Other lines are passed over, such as the last one of a run in progress.
    """
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError:
        return

    with file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an error of the block that names none.

    The kernel's word on a full disk comes with a write, which knows no path.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def append_text(path: Path, text: str) -> None:
    """Add to a file, which is made where it is not there."""
    with naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it appears as `path` only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with naming(path), open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it appears as `path` only when the block ends well.

    What was there is replaced. That takes two renames; `recover` undoes the first where a kill came
    between them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise

    # On disk before it has its name: a power cut must not leave a name with half a content.
    for file in list(temporary.rglob("*")):
        if file.is_file():
            give_usual_mode(file)
        _sync(file)
    _sync(temporary)
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(temporary, path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Give a folder back its name if a kill came between the two renames of `whole_folder`."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        os.replace(old, path)


_LEFT = re.compile(r"\..+\.(part|old|gone|mode)")
"""Names under which something is written, replaced or deleted here."""


def sweep(folder: Path) -> None:
    """Remove what killed writes, replacements and deletions left in a folder and below it.

    What `recover` can still give back its name has to be recovered before.
    """
    for path in sorted(folder.rglob(".*")):
        if not _LEFT.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Delete a folder so that it is there whole or not at all, whenever the deletion stops."""
    # Renamed first: a deletion that stops halfway leaves nothing under the folder's own name.
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if path.exists():
        os.replace(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def give_usual_mode(path: Path) -> None:
    """Let those read a file whom the umask lets read new ones.

    The writers of safetensors and of temporary files let nobody but the owner.
    """
    # A new file tells the umask; asking the system for it means setting it.
    new = path.with_name(f".{path.name}.mode")
    new.touch()
    try:
        path.chmod(new.stat().st_mode)
    finally:
        new.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
