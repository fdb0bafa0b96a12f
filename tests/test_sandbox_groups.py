"""Control groups: where they are made, and what the kernel counts in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from linn.sandbox import Workspace, WorkspaceLimits, groups
from linn.sandbox.inside.supervisor import Counters

needs_groups = pytest.mark.skipif(groups._place() is None, reason="no control group can be made")
PYTHON = ["python3", "-I", "-S"]

V1 = "{n} 1 0:{n} / {root}/{name} rw - cgroup cgroup rw,{name}\n"


def hierarchy(root: Path, names: list[str], group: str) -> tuple[str, str]:
    """Folders of version 1, and what /proc says of them."""
    mounts = memberships = ""
    for number, name in enumerate(names, 20):
        (root / name / group).mkdir(parents=True)
        mounts += V1.format(n=number, root=root, name=name)
        memberships += f"{number}:{name}:/{group}\n"
    return mounts, memberships


def test_version_1_needs_every_hierarchy(tmp_path: Path) -> None:
    mounts, memberships = hierarchy(tmp_path, ["memory", "pids", "cpuacct"], "mine")
    place = groups.find_place(mounts, memberships)
    assert place is not None
    assert [str(folder.relative_to(tmp_path)) for folder in place.folders] == [
        "memory/mine",
        "pids/mine",
        "cpuacct/mine",
    ]
    assert groups.find_place(mounts, memberships.replace("pids", "cpu")) is None
    assert groups.find_place("", "") is None


@pytest.mark.parametrize(
    ("own", "above", "chosen"),
    [("memory pids", "", "outer/mine"), ("cpu", "cpu memory pids", "outer"), ("", "cpu", None)],
)
def test_version_2_needs_controllers_and_no_processes(
    own: str, above: str, chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group itself, or the one above it: where the controllers are handed down."""
    folder = tmp_path / "outer" / "mine"
    folder.mkdir(parents=True)
    (folder / "cgroup.subtree_control").write_text(own)
    (folder.parent / "cgroup.subtree_control").write_text(above)

    def refuse(self: Path, text: str) -> int:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "write_text", refuse)
    mounts = f"30 1 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
    place = groups.find_place(mounts, "0::/outer/mine\n")
    found = place and str(place.folders[0].relative_to(tmp_path))
    assert found == chosen


def test_limits_of_version_2_are_written_to_its_files(tmp_path: Path) -> None:
    group = groups.Group(groups.Place(groups._V2, (tmp_path,)))
    (folder,) = tmp_path.iterdir()
    texts = {"memory.max": "max", "memory.swap.max": "max", "memory.peak": "4096", "pids.max": ""}
    for name, text in texts.items():
        (folder / name).write_text(text)
    group.limit(1 << 20, 7)
    assert (folder / "memory.max").read_text() == str(1 << 20)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "pids.max").read_text() == "7"
    assert group.peak() == 4096


@pytest.mark.parametrize(
    ("cpu", "seconds"), [("1500000000\n", 1.5), ("usage_usec 2500000\nuser_usec 1\n", 2.5)]
)
def test_counters_of_both_versions(cpu: str, seconds: float, tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text(cpu)
    (tmp_path / "kills").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    opened = [os.open(tmp_path / name, os.O_RDONLY) for name in ("cpu", "kills")]
    counters = Counters(*opened)
    assert counters.seconds() == seconds and not counters.is_over_memory()
    (tmp_path / "kills").write_text("low 0\nmax 12\noom 1\noom_kill 1\n")
    assert counters.is_over_memory()
    for descriptor in opened:
        os.close(descriptor)


@needs_groups
def test_the_groups_of_a_process_that_was_killed_are_removed() -> None:
    group = groups.new_group()
    assert group is not None
    (*_, folder) = group._folders
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    stale = folder.parent / f"linn-{ended.stdout.strip()}-0"
    (stale / f"{stale.name}1").mkdir(parents=True)
    groups._sweep([folder.parent])
    assert folder.exists() and not stale.exists()
    group.remove()
    assert not folder.exists()


UNWAITED = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(400):
    try:
        if os.fork() == 0:
            end = time.process_time() + 0.01
            while time.process_time() < end: pass
            os._exit(0)
    except OSError: time.sleep(0.001)
    time.sleep(0.002)
"""
SHARED = """
import mmap, os
kept = []
for _ in range(20):
    m = mmap.mmap(-1, 4 << 20); kept.append(m)
    for at in range(0, 4 << 20, 1 << 20):
        m[at:at + (1 << 20)] = b'x' * (1 << 20); m.madvise(mmap.MADV_DONTNEED)
"""
NAMELESS = """
import os
kept = []
for i in range(60):
    f = os.open(str(i), os.O_RDWR | os.O_CREAT); os.unlink(str(i)); kept.append(f)
    try: os.posix_fallocate(f, 0, 4 << 20)
    except OSError: break
import time
time.sleep(1)
"""
LIMITS = WorkspaceLimits(cpu=0.3, wall=60.0, memory=40 << 20, address=1 << 30, disk=16 << 20)


@needs_groups
@pytest.mark.parametrize(
    ("text", "status"), [(UNWAITED, "timeout"), (SHARED, "memory"), (NAMELESS, "output")]
)
def test_what_no_sum_over_processes_shows_is_counted(text: str, status: str) -> None:
    with Workspace(LIMITS, {"a.py": text}) as work:
        assert work.run([*PYTHON, "a.py"]).status == status


@pytest.mark.parametrize(("text", "status"), [(SHARED, "memory"), (NAMELESS, "output")])
def test_without_groups_shared_memory_and_nameless_files_are_counted(
    text: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linn.sandbox.running.new_group", lambda: None)
    monkeypatch.setattr("linn.sandbox.covers.cover", lambda *_: -1)
    with Workspace(LIMITS, {"a.py": f"{text}\nimport time\ntime.sleep(1)"}) as work:
        assert work.run([*PYTHON, "a.py"]).status == status


def test_a_folder_in_memory_leaves_no_trace_on_the_machine() -> None:
    with Workspace(LIMITS, {"a": "b"}) as work:
        assert work.read("a") == "b"
        assert str(work.folder) not in Path("/proc/self/mountinfo").read_text()
        if work.way != work.folder:
            assert not list(work.folder.iterdir()), "the machine's own tree does not show it"
