"""The worker process behind graders: answers, limits, death and its replacement, copies."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from linn.domains.common.limited_worker import LimitedWorker, WorkerEnded
from linn.domains.math.equality import Comparer
from linn.errors import InfrastructureError

pytestmark = pytest.mark.slow

MATH = "linn.domains.math.equality:load_comparison"
DOCUMENTS = "linn.domains.structured.documents:load_check"


def load_service() -> Callable[..., Any]:
    """In the worker: a service for these tests, which also prints what must not reach the pipe."""
    print("not an answer", flush=True)

    def serve(what: str, value: Any) -> Any:
        print("nor is this", flush=True)
        if what == "loop":
            while True:
                pass
        if what == "sleep":
            time.sleep(60)
        if what == "exit":
            os._exit(value)
        if what == "memory":
            return len(bytearray(3 << 30))
        return value

    return serve


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[LimitedWorker]:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    made = LimitedWorker(f"{__name__}:load_service", "service", wall_seconds=60.0)
    yield made
    made.close()


def test_what_asks_a_run_to_end_costs_no_answer(worker):
    """SLURM sends SIGTERM to every process of a job, a terminal SIGINT to its group."""
    assert worker.call(["value", 1], 5.0) == 1
    pid = worker.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert worker.call(["value", 2], 5.0) == 2 and worker.pid == pid
    assert os.getsid(pid) == pid


def test_it_answers_with_json_values(worker: LimitedWorker) -> None:
    assert worker.pid is None, "it starts with the first call"
    for value in (1, "\ud800\n", [None, {"a": 1.5}], "x" * 1_000_000):
        assert worker.call(("echo", value), 5.0) == value
    pid = worker.pid
    assert worker.call(("echo", 2), 5.0) == 2 and worker.pid == pid


@pytest.mark.slow
def test_a_request_that_ends_the_worker_has_no_answer_and_the_next_has_one(
    worker: LimitedWorker,
) -> None:
    for what, value, exit_code in (
        ("loop", 0, -signal.SIGPROF),
        ("exit", 7, 7),
        ("memory", 0, 1),
    ):
        with pytest.raises(WorkerEnded) as ended:
            worker.call((what, value), 0.3)
        assert ended.value.exit_code == exit_code and not ended.value.silent
        assert ended.value.over_cpu_limit == (what == "loop")
        assert worker.call(("echo", what), 5.0) == what


@pytest.mark.slow
def test_a_silent_worker_is_told_from_one_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    worker = LimitedWorker(f"{__name__}:load_service", "service", wall_seconds=10.0)
    with pytest.raises(WorkerEnded) as ended:
        worker.call(("sleep", 0), 60.0)
    assert ended.value.silent and ended.value.exit_code == -signal.SIGKILL
    assert worker.call(("echo", 1), 60.0) == 1
    worker.close()


def test_one_that_was_killed_between_two_requests_is_replaced(worker: LimitedWorker) -> None:
    assert worker.call(("echo", 1), 5.0) == 1
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert worker.call(("echo", 2), 5.0) == 2 and worker.pid != pid


def test_closing_ends_it_and_a_later_call_starts_another(worker: LimitedWorker) -> None:
    assert worker.call(("echo", 1), 5.0) == 1
    worker.close()
    worker.close()
    assert worker.pid is None
    assert worker.call(("echo", 2), 5.0) == 2


def test_a_copy_starts_a_worker_of_its_own(worker: LimitedWorker) -> None:
    assert worker.call(("echo", 1), 5.0) == 1
    copy = pickle.loads(pickle.dumps(worker))
    assert copy.pid is None
    assert copy.call(("echo", 2), 5.0) == 2 and copy.pid != worker.pid
    copy.close()


def test_a_worker_that_cannot_start_says_how_to_see_why() -> None:
    worker = LimitedWorker("linn.absent:load", "service", wall_seconds=60.0)
    command = "python -m linn.domains.common.limited_worker linn.absent:load < /dev/null"
    with pytest.raises(InfrastructureError, match=f"the service did not start; .*run: {command}"):
        worker.call((), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("target", [MATH, DOCUMENTS])
def test_the_workers_of_the_domains_start_without_a_warning(target: str) -> None:
    command = [sys.executable, "-m", "linn.domains.common.limited_worker", target]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "ready\n"
    assert "runpy" not in done.stderr


@pytest.mark.slow
def test_a_comparison_survives_the_death_of_its_worker() -> None:
    comparer = Comparer()
    assert comparer.equal("14", r"\boxed{\sqrt{196}}", 10.0)
    assert comparer.worker.pid is not None
    os.kill(comparer.worker.pid, signal.SIGKILL)
    assert comparer.equal("14", r"\boxed{\frac{28}{2}}", 10.0)
    assert not comparer.equal("14", r"\boxed{14^{10^{10}}}", 0.6)
    copy = pickle.loads(pickle.dumps(comparer))
    assert copy.worker.pid is None
    comparer.stop()
