"""Signals that ask a run to end: Ctrl-C, SIGTERM (SLURM, Kubernetes), SIGHUP (a closed terminal).

All three do the same. While a stage trains, the first lets the step come to its end and its state
be saved; the second ends at once, and so does the first anywhere else. Either way the run goes on
later as if it had never stopped.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a run in good order."""


class _State:
    """What this process knows of signals; there is one, as there is one of signals."""

    def __init__(self) -> None:
        self.gentle = False
        """A stage trains: the first signal lets it save."""
        self.requested = False
        """A signal came meanwhile."""


_state = _State()


def listen() -> None:
    """Take the signals from here on; Python gives them to the main thread alone.

    One that is ignored stays so: nohup, and what a script starts with &.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    atexit.register(_leave)


def _leave() -> None:
    """The process ends by itself now, with the exit code that it has.

    On its way out Python gives signals back to the system, which would end it by the next one.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def gentle() -> Iterator[None]:
    """Meanwhile the first signal is only noted. Raises KeyboardInterrupt at the end if one was.

    An error comes first, and `requested` goes on to tell.
    """
    _state.gentle, _state.requested = True, False
    try:
        yield
    finally:
        _state.gentle = False
    if _state.requested:
        _state.requested = False
        raise KeyboardInterrupt


def requested() -> bool:
    """Whether a signal asked for the end, and nothing stopped yet."""
    return _state.requested


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """A coroutine to its end, for code that is none; as `asyncio.run`.

    A signal that ends it says so once: asyncio would add a traceback for every task that was under
    way.
    """
    import asyncio

    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(_tell_of_tasks)
        return runner.run(coroutine)


def _tell_of_tasks(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio says of a task whose error nobody took, but for the interruption itself."""
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.gentle and not _state.requested:
        _state.requested = True
        name = signal.Signals(number).name
        # Not through Python's own streams: whom this interrupts may be writing to them.
        os.write(2, f"\nlinn: {name}: stopping after this step; again: at once\n".encode())
        return
    _state.requested = False
    raise KeyboardInterrupt
