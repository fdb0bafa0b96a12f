"""Signs of life: who gives none is named and ended, who takes long is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from linn.engine.local import heartbeat
from linn.engine.local.heartbeat import _LAYOUT, Watch, prepare

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class Workers:
    """Processes that do nothing; the test writes their signs of life."""

    def __init__(self, folder: Path, count: int) -> None:
        self.handles = [subprocess.Popen(SLEEP) for _ in range(count)]
        self.paths = [folder / f"{rank}.beat" for rank in range(count)]
        for path in self.paths:
            prepare(path)
        self.watch = Watch(self.paths, [handle.pid for handle in self.handles])
        self.beats = 0

    def look(self, beating: set[int], cpu: float = 0.0) -> None:
        """One look, before which some workers have given a sign of life."""
        self.beats += 1
        for rank in beating:
            self.paths[rank].write_bytes(_LAYOUT.pack(self.beats, cpu))
        with self.watch._lock:
            self.watch._look()

    def close(self) -> None:
        self.watch.close()
        for handle in self.handles:
            handle.kill()
            handle.wait()


@pytest.fixture
def workers(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "LOOK_S", 3600.0)  # the test looks itself
    workers = Workers(tmp_path, 2)
    yield workers
    workers.close()


def test_a_silent_process_is_named_and_ended_within_a_minute(workers, monkeypatch):
    assert heartbeat.SILENT_LOOKS * 5.0 + 5.0 + heartbeat.BEAT_S < 60
    workers.look({0, 1})
    workers.watch.begin("step")
    workers.handles[1].send_signal(signal.SIGSTOP)
    # The kernel takes a moment on a busy machine, and a process that starts may be at a file.
    os.waitid(os.P_PID, workers.handles[1].pid, os.WSTOPPED | os.WNOWAIT)
    for _ in range(heartbeat.SILENT_LOOKS):
        assert workers.watch.verdict is None
        workers.look({0})
    rank, said = workers.watch.verdict
    assert rank == 1 and f"pid {workers.handles[1].pid}" in said and "in `step`" in said
    if sys.platform == "linux":
        assert "stopped by a signal" in said
    assert workers.handles[1].wait(10) == -signal.SIGKILL and workers.handles[0].poll() is None


def test_nobody_is_named_who_has_answered_or_takes_long_or_still_starts(workers, capsys):
    # One has answered and is stopped; the other computes for an hour.
    workers.look({0, 1})
    workers.watch.begin("generate")
    workers.watch.answered(0)
    for look in range(720):
        workers.look({1}, cpu=5.0 * look * 720)
    assert workers.watch.verdict is None and capsys.readouterr().err == ""
    workers.watch.end()


def test_a_process_that_still_starts_has_longer(workers):
    workers.watch.begin("load")
    for _ in range(heartbeat.SILENT_LOOKS + 1):
        workers.look(set())
    assert workers.watch.verdict is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel says what a process does")
def test_one_that_is_stopped_while_it_starts_is_named_as_soon(workers):
    workers.watch.begin("load")
    for _ in range(heartbeat.SILENT_LOOKS + 1):
        workers.look(set())
    workers.handles[1].send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, workers.handles[1].pid, os.WSTOPPED | os.WNOWAIT)
    for _ in range(heartbeat.SILENT_LOOKS):
        assert workers.watch.verdict is None
        workers.look(set())
    rank, said = workers.watch.verdict
    assert rank == 1 and "stopped by a signal" in said


def test_a_hang_without_a_stop_is_told_once_per_call(workers, capsys):
    workers.look({0, 1})
    workers.watch.begin("step")
    for _ in range(2 * heartbeat.IDLE_LOOKS):
        workers.look({0, 1}, cpu=1.0)
    said = capsys.readouterr().err
    assert said.count("no process has computed") == 1 and "0 (pid" in said and "1 (pid" in said
    assert workers.watch.verdict is None


def test_a_heart_beats_while_its_process_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)
    path = tmp_path / "0.beat"
    prepare(path)
    heartbeat.beat(path)
    seen = set()
    while len(seen) < 3:
        sum(range(20_000))
        seen.add(_LAYOUT.unpack(path.read_bytes())[0])
        time.sleep(0.001)
    assert any(thread.name == "heartbeat" for thread in threading.enumerate())
