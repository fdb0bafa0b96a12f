"""The worker's side of a pipe: answers the engine's messages until the engine closes it or ends."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from linn import stopping
from linn.engine.local.disk import is_full
from linn.errors import DiskFull, InfrastructureError, LinnError

_FULL = (
    "the GPU's memory is full ({}); lower scale.width, scale.capacity, scale.cache or the stage's "
    "max_tokens, or set scale.recompute: true, scale.trainers.moments: host or scale.precision: "
    "bfloat16"
)
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that this process gets when its parent ends."""


def serve(worker: Any, who: str, pipe: Connection) -> None:
    """Answer messages until the engine closes the pipe, each by the worker's method of its name."""
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(worker, who, name, arguments))


def answer(worker: Any, who: str, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """(True, the method's value) or (False, its error), which the engine raises."""
    where = f"{who}: {name}"
    try:
        return True, getattr(worker, name)(*arguments)
    except (LinnError, ValueError) as error:
        if hasattr(error, "samples"):
            error.samples = ()  # the engine holds the whole batch and puts it back
        # A library's own may hold what cannot be sent: this process would end of it.
        return False, error if _can_be_sent(error) else ValueError(f"{where}: {error}")
    except (OSError, MemoryError, SafetensorError) as error:
        kind = DiskFull if is_full(error) else InfrastructureError
        return False, kind(f"{where}: {type(error).__name__}: {error}")
    except Exception as error:
        if said := full_gpu(error):
            return False, InfrastructureError(f"{where}: {_FULL.format(said)}")
        about = ""
        if arguments and isinstance(arguments[0], Path):
            about = f" {arguments[0]}"
        return False, RuntimeError(f"{where}{about}:\n{traceback.format_exc()}")


def _can_be_sent(error: Exception) -> bool:
    """Whether the engine would get this very error."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


def full_gpu(error: Exception) -> str:
    """What torch says where a GPU's memory does not suffice; empty for all other errors."""
    # By name: torch's class, and this module runs without torch.
    if type(error).__name__ != "OutOfMemoryError":
        return ""
    return str(error).split(". ")[0] or "CUDA out of memory"


def die_with_parent(by_kernel: bool) -> None:
    """End when the parent ends, however it was killed, even in the middle of a computation.

    The parent holds our standard input open. `by_kernel` also asks Linux for a signal; only where
    the parent's main thread started us, since that signal follows the thread.
    """

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    if by_kernel and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def ignore_signals() -> None:
    """The parent handles what asks a run to end, and lets the step under way come to its end."""
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # It was started with them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
