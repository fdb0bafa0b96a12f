"""The folder in which a cluster's weights are under way: whose it is, and when it goes."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from linn.errors import UserError
from linn.scale.places import Local, make_folder


def renamed(folder: Path, part: int, value: str) -> Path:
    """The folder under a name of another machine (part 2) or process (part 3)."""
    words = folder.name.split("-")
    words[part] = value
    return folder.rename(folder.with_name("-".join(words)))


def dead_process() -> str:
    with subprocess.Popen(["true"]) as process:
        return str(process.pid)


@pytest.mark.skipif(not Path("/proc").exists(), reason="tells living processes by /proc")
def test_a_later_run_removes_what_a_killed_one_left_and_nothing_of_others(tmp_path: Path) -> None:
    living = make_folder(tmp_path, 0o700)
    # Another machine's processes are not in our /proc: theirs may all be living.
    elsewhere = renamed(renamed(make_folder(tmp_path, 0o700), 2, "another"), 3, dead_process())
    killed = renamed(make_folder(tmp_path, 0o700), 3, dead_process())
    (killed / "model.safetensors").write_bytes(b"weights")
    with closing(Local(tmp_path)) as places:
        own = places.folder()
        assert places.folder() == own
        assert sorted(tmp_path.iterdir()) == sorted([living, elsewhere, own])
        assert own.stat().st_mode & 0o777 == 0o700
    assert sorted(tmp_path.iterdir()) == sorted([living, elsewhere])


def test_an_exchange_that_cannot_be_written_is_said_with_its_key(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UserError, match=f"^scale.exchange: {missing} cannot be written .No such"):
        Local(missing).folder()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory.; make that folder, or name another"):
        Local(tmp_path / "file").folder()


def test_temporary_files_that_cannot_be_written_are_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", os.fspath(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"scale.exchange \(by default, .*missing cannot be"):
        Local().folder()


def test_a_relative_exchange_is_a_place_for_processes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_folder(Path("."), 0o700).parent == tmp_path
