"""The first process of one workspace command: starts it under limits, watches all it starts, kills everything, reports how it ended.

The job is a marshalled mapping on one descriptor, whose closing means that the command is no longer wanted; the report, marshalled on another, is `{"started": True}`, then how it ended. The command's
three standard streams are the caller's own; none of its processes ever holds the report's descriptor.
"""

from __future__ import annotations

import errno
import marshal
import os
import resource
import select
import signal
import stat
import sys
import time

from . import kernel

TYPE_CHECKING = False  # importing typing, json and contextlib would cost every command half as much again as all the rest
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

WORK = "/tmp/workspace"
"""Where commands see their folder, except under `plain`, where it stands where it is."""
_STEP = 0.025
_DISK_STEP = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_OVERHEAD = 4096
"""What an empty file or folder counts as, in bytes, so that a folder full of them ends too."""
_MOST_FILES = 20_000
"""Files in the /tmp of its own, which is in memory."""
_REWRITES = 4
"""How many times the folder's bytes may be written to the disk in all."""


def _settle(job: dict[str, Any], folder: str, uid: int) -> None:
    """Give up, in the command's own process, everything that it must not have; descriptor 3 stays until the command is executed."""
    os.setsid()
    os.closerange(4, 1 << 30)
    os.chdir(folder)
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    limits = (
        (
            resource.RLIMIT_CPU,
            int(1.5 * job["cpu"]) + 1,
        ),  # the watch comes first; the kernel counts a process's time more coarsely
        (resource.RLIMIT_AS, int(job["address"])),
        (resource.RLIMIT_FSIZE, int(job["file"])),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, int(job["processes"]) + 1),
    )
    for what, limit in limits:
        resource.setrlimit(what, (limit, limit))
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)  # all capabilities go with it
    else:
        kernel.drop_capabilities()
    kernel.die_with_parent()  # now, since a change of user takes it back
    kernel.install_filter(kernel.program_filter(processes=True))


def _below(alone: bool) -> list[int]:
    """Every process that the command started: all others of an own process space, else this process's descendants."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if alone:
        return [number for number in numbers if number != 1]
    parents = {number: int(fields[1]) for number in numbers if (fields := _stat(number))}
    found, grew = {os.getpid()}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grew = bool(more)
    return sorted(found - {os.getpid()})


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat after the name; empty when it has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    """A small file's bytes; empty where it is gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _tried(call: Callable[..., object], *arguments: object) -> None:
    """Call, and let a process that has ended meanwhile be no fault."""
    try:
        call(*arguments)
    except (ProcessLookupError, ChildProcessError):
        return


def _memory(pid: int) -> int:
    """Bytes of private and shared memory (files left out) that a process holds."""
    lines = _read(f"/proc/{pid}/status").splitlines()
    return sum(
        int(line.split()[1]) << 10 for line in lines if line.startswith((b"RssAnon:", b"RssShmem:"))
    )


def _used(pids: list[int]) -> tuple[int, float]:
    """(bytes of memory, CPU seconds) of these processes and of those that have ended."""
    done = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = done.ru_utime + done.ru_stime
    for pid in pids:
        if len(fields := _stat(pid)) > 14:
            seconds += (
                sum(map(int, fields[11:15])) / _TICK
            )  # its own, and of the children that it waited for
    return sum(map(_memory, pids)), seconds


def _written(pids: list[int]) -> int:
    """Bytes that these processes, and those that have ended, made the system write to disks, less what they took back in time."""
    total = 0
    for pid in (os.getpid(), *pids):
        counts = dict(line.split(b": ") for line in _read(f"/proc/{pid}/io").splitlines())
        total += int(counts.get(b"write_bytes", 0)) - int(counts.get(b"cancelled_write_bytes", 0))
    return total


def _full(job: dict[str, Any], folder: str, own_tmp: bool, pids: list[int]) -> bool:
    """Whether the command has written too much: what is there now, what no name leads to (any more), and files in memory."""
    if own_tmp:
        found = os.statvfs("/tmp")
        if found.f_files - found.f_ffree > _MOST_FILES:
            return True
    return _disk(folder, int(job["disk"])) > int(job["disk"]) or _written(pids) > _REWRITES * int(
        job["disk"]
    )


def _disk(folder: str, most: int) -> int:
    """Bytes that a folder holds; counting stops above `most`."""
    total, folders = 0, [folder]
    while folders and total <= most:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += max(_OVERHEAD, found.st_blocks * 512)
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(entry.path)
                    if total > most:
                        break
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # made step by step, so that nobody can look
                return most + 1
    return total


def _kill(alone: bool) -> None:
    """Kill and reap everything that was started."""
    while True:
        if alone:
            _tried(os.kill, -1, signal.SIGKILL)
        else:
            for pid in _below(alone):
                _tried(os.kill, pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _watch(
    child: int, job: dict[str, Any], orders: int, folder: str, alone: bool, started: float
) -> str:
    """Wait until the command ends, passes a limit, or is no longer wanted: what it was, empty when it ended by itself."""
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(orders, 0)  # hears when the other end is closed
    deadline, next_disk = started + float(job["wall"]), started + _DISK_STEP
    while True:
        events = dict(poll.poll(_STEP * 1000))
        if orders in events:
            return "stopped"
        ended = handle in events
        now = time.monotonic()
        pids = _below(alone)
        memory, seconds = _used(pids)
        if memory > int(job["memory"]):
            return "memory"
        if ended or now > next_disk:
            if _full(job, folder, folder == WORK, pids):
                return "disk"
            next_disk = time.monotonic() + _DISK_STEP
        if ended:
            os.close(handle)
            return ""
        if seconds > float(job["cpu"]) or now > deadline:
            return "timeout"
        for pid in pids:
            if pid != child:
                _tried(os.waitpid, pid, os.WNOHANG)  # orphans that this process adopted


def _execute(argv: list[str], environment: dict[str, str]) -> None:
    """Become the program. (The standard library's search imports a module at a time when its folder may be out of reach.)"""
    for folder in environment["PATH"].split(":"):
        path = argv[0] if "/" in argv[0] else f"{folder}/{argv[0]}"
        if os.path.isfile(path):
            os.execve(path, argv, environment)
    raise FileNotFoundError(errno.ENOENT, "not found")


def _start(job: dict[str, Any], uid: int, folder: str, rules: int) -> tuple[int, str]:
    """(process, "") of the command once it runs, or (0, why it could not be executed); raises OSError when the machine refuses."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            kernel.confine(rules)
            os.dup2(told, 3, inheritable=False)
            _settle(job, folder, uid)
            _execute(job["argv"], job["environment"])
        except (
            FileNotFoundError,
            NotADirectoryError,
            PermissionError,
            IsADirectoryError,
            ValueError,
        ) as error:
            said = f"P{job['argv'][0]}: {getattr(error, 'strerror', None) or error}"
        except OSError as error:
            said = f"{'P' if error.errno in (errno.ENOEXEC, errno.E2BIG, errno.ELOOP, errno.ENAMETOOLONG) else 'M'}{error}"
        except BaseException as error:
            said = f"M{type(error).__name__}: {error}"
        finally:
            os.write(3, said.encode("utf-8", "replace")[:2000])
            os._exit(127)
    os.close(told)
    with open(heard, "rb") as pipe:
        why = pipe.read().decode()
    if why.startswith("M"):
        raise OSError(why[1:])
    return (0, why[1:]) if why else (child, "")


def _run(job: dict[str, Any], orders: int, uid: int, folder: str, rules: int) -> dict[str, Any]:
    """Start the command and follow it to its end; nothing of it lives on afterwards."""
    alone = os.getpid() == 1
    started = time.monotonic()
    child, why = _start(job, uid, folder, rules)
    if not child:
        return {"ending": "missing", "code": 127, "why": why}
    ending = _watch(child, job, orders, folder, alone, started)
    status = 0
    if not ending:
        _, status, usage = os.wait4(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
            ending = "timeout" if usage.ru_utime + usage.ru_stime > float(job["cpu"]) else ""
    _kill(alone)
    return {
        "ending": ending,
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
    }


def main(
    kind: str, uid: str, folder: str, size: str, job: str, report: str, *places: str
) -> NoReturn:
    """Arrange the file system, read the job, run it, report. `places`: folders to hide, `--`, folders to show."""
    code = 70
    out = int(report)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        if (
            kind != "plain"
        ):  # there the closing of the orders is what ends it: it must live to end the command's descendants
            kernel.die_with_parent()
        hidden, readable = places[: places.index("--")], places[places.index("--") + 1 :]
        if kind == "unshare":
            kernel.workspace_mounts(
                folder, WORK, int(size), hidden, (sys.base_prefix, sys.base_exec_prefix), readable
            )
        kernel.hide_memory()
        kernel.adopt_orphans()
        with open(int(job), "rb", buffering=0) as orders:
            told = marshal.load(orders)
            os.write(out, marshal.dumps({"started": True}))
            seen = [
                *kernel.SYSTEM,
                sys.base_prefix,
                sys.base_exec_prefix,
                *readable,
                "/etc/alternatives",
                "/etc/ld.so.cache",
            ]
            seen += [] if kind == "plain" else ["/proc"]  # of its own processes only
            rules = kernel.confinement(
                seen, [folder if kind == "plain" else "/tmp", *kernel.DEVICES]
            )
            ended = _run(
                told, orders.fileno(), int(uid), folder if kind == "plain" else WORK, rules
            )
        os.write(out, marshal.dumps(ended))
        code = 0
    except BaseException as error:
        os.write(
            out, marshal.dumps({"ending": "machine", "why": f"{type(error).__name__}: {error}"})
        )
    finally:
        os._exit(code)
