"""What a process may take of the machine's memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from linn.engine.local import host_memory
from linn.engine.local.host_memory import limits, machine_bytes


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "memberships", "found"),
    [
        # A container of version 2, and one that nobody limits.
        ({"memory.max": "5000"}, "0::/", {5000}),
        ({"memory.max": "max"}, "0::/", set()),
        # A job of SLURM: of the groups around a process the tightest counts.
        ({"job/memory.max": "7000", "job/step/memory.max": "max"}, "0::/job/step", {7000}),
        ({"job/memory.max": "7000", "job/step/memory.max": "9000"}, "0::/job/step", {7000, 9000}),
        # A container that is told the host's path.
        ({"memory.max": "5000"}, "0::/docker/0123", {5000}),
        # Version 1, alone or beside an empty version 2.
        ({"memory/memory.limit_in_bytes": "6000"}, "4:memory:/\n1:cpu:/\n0::/", {6000}),
        ({"memory/a/memory.limit_in_bytes": "6000"}, "4:cpu,memory:/a\n3:cpuset:/b", {6000}),
        # The limits of other controllers and of other groups are nobody's business.
        ({"other/memory.max": "1", "cpu/memory.limit_in_bytes": "1"}, "1:cpu:/\n0::/job", set()),
        ({}, "", set()),
    ],
)
def test_the_limits_of_the_groups_around_a_process(
    tmp_path: Path, files: dict[str, str], memberships: str, found: set[int]
) -> None:
    assert set(limits(written(tmp_path, files), memberships)) == found


def test_the_machine_is_never_more_than_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < machine_bytes() <= has

    monkeypatch.setattr(host_memory, "GROUPS", written(tmp_path, {"memory.max": "5000"}))
    monkeypatch.setattr(host_memory, "MEMBERSHIPS", written(tmp_path, {"own": "0::/"}) / "own")
    assert machine_bytes() == 5000
    written(tmp_path, {"memory.max": str(2 * has)})
    assert machine_bytes() == has
    monkeypatch.setattr(host_memory, "MEMBERSHIPS", tmp_path / "nowhere")
    assert machine_bytes() == has
