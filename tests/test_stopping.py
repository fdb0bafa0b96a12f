"""Signals that end a run: one line, and nothing of what was under way."""

import os
import subprocess
import sys

import pytest

from linn import stopping

INTERRUPTED = """
import asyncio, os, signal
from linn import stopping

async def part(number):
    await asyncio.sleep(0)
    if number == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(10)

async def work():
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(part(number))

stopping.listen()
try:
    stopping.run(work())
except KeyboardInterrupt:
    print("interrupted")
"""
FAILED = """
import asyncio
from linn import stopping

async def part():
    raise ValueError("of a task that nobody waits for")

async def work():
    task = asyncio.create_task(part())
    await asyncio.sleep(0.01)

stopping.run(work())
"""


def said(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_signal_while_conversations_are_under_way_leaves_no_traceback():
    done = said(INTERRUPTED)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


ENDING = """
import os, signal, sys
from linn import stopping

# What stands in a module is taken apart after Python has given the signals back.
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)

late = Late()
stopping.listen()
sys.exit(1)
"""


def test_a_signal_while_the_command_ends_changes_no_exit_code():
    assert said(ENDING).returncode == 1


def test_another_error_that_nobody_took_is_told_all_the_same():
    assert "of a task that nobody waits for" in said(FAILED).stderr


@pytest.mark.slow
def test_a_worker_that_is_still_importing_outlives_a_signal_to_all(tmp_path):
    from linn.engine.local.processes import WorkerOptions, Workers

    workers = Workers(WorkerOptions(width=64, capacity=4))
    try:
        workers._start()
        for number in stopping.SIGNALS:
            os.kill(workers.pids[0], number)
        assert workers.call("cpu_seconds")[0] > 0
    finally:
        workers.close()


def test_a_signal_before_the_command_line_is_read_says_how_to_go_on(monkeypatch, capsys):
    from linn.cli import main

    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    for verb, advice in (("run", "run the same command again"), ("ls", "nothing was written")):
        monkeypatch.setattr(sys, "argv", ["linn", verb, "x"])
        with pytest.raises(SystemExit):
            main.main()
        assert advice in capsys.readouterr().err
