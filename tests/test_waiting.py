"""A process that holds more than 1,024 files open still runs code."""

import contextlib
import os
import resource

import pytest

from linn.sandbox import Limits, Sandbox, Session
from linn.sandbox.waiting import ready

_MANY = 1_100


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _MANY + 200:
        pytest.skip(f"this user may open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, _MANY + 200), hard))
    with contextlib.ExitStack() as stack:
        for _ in range(_MANY):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_session_and_a_sandbox_run_beyond_1024_files(many_files):
    session = Session(20.0)
    try:
        assert session.run("6 * 7").text == "42"
    finally:
        session.close()
    sandbox = Sandbox(servers=1)
    try:
        assert sandbox.script("print(6 * 7)", "", Limits()).stdout == "42\n"
    finally:
        sandbox.close()


def test_what_can_be_read_and_what_can_be_written():
    reader, writer = os.pipe()
    try:
        assert ready([reader], [writer], 0.0) == ([], [writer])
        os.write(writer, b"x")
        assert ready([reader], [], 1.0) == ([reader], [])
        os.read(reader, 1)
        assert ready([reader], [], 0.0) == ([], [])
    finally:
        os.close(writer)
    # The other end is closed: a read tells that, and does not wait.
    assert ready([reader], [], 0.0) == ([reader], [])
    os.close(reader)
