"""The first process of a workspace command: starts it, holds its limits, ends it, reports.

The job is a marshalled mapping on one descriptor; the closing of that descriptor means that the
command is no longer wanted. The report goes to another descriptor, marshalled: `{"started": True}`
first, then how the command ended. The command's three standard streams are the caller's own. None
of its processes ever holds the report's descriptor.

This file runs inside the sandbox, at the start of every command: it imports little.
"""

from __future__ import annotations

import errno
import marshal
import os
import resource
import select
import signal
import sys
import time

from . import kernel, landlock, usage

# Importing typing, json and contextlib would cost every command half as much again as all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Job = dict[str, Any]

WORK = "/tmp/workspace"
"""Where commands see their folder, except under `plain`, where it stands where it is."""
_STEP_SECONDS = 0.025
_DISK_STEP_SECONDS = 0.2
_MOST_FILES = 20_000
"""Files in the command's own /tmp, which is in memory."""
_REWRITES = 4
"""How many times the folder's bytes may be written to the disk in all."""

_FAULT = 70
"""Exit code of a supervisor that could not do its work."""
_NOT_EXECUTED = 127
_OPEN_FILES = 256
_REPORT = 3
"""Descriptor, in the command's own process, by which it says that it cannot be executed."""
_PROGRAM_FAULT, _MACHINE_FAULT = "P", "M"
"""First letter of what it says then: whose fault it is."""

_HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_LIMIT_SIGNALS = (signal.SIGXCPU, signal.SIGKILL)
_NO_SUCH_PROGRAM = (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError)
_BAD_PROGRAM = (errno.ENOEXEC, errno.E2BIG, errno.ELOOP, errno.ENAMETOOLONG)


class Counters:
    """What the kernel counts of a command's control group, read by descriptors."""

    def __init__(self, cpu: int, kills: int) -> None:
        """The descriptors: of CPU time, and of how many processes were killed for memory."""
        self.cpu, self.kills = cpu, kills

    def seconds(self) -> float:
        """CPU seconds of all that ever ran in the group."""
        # Nanoseconds alone in version 1; microseconds after a name in version 2.
        words = os.pread(self.cpu, 4096, 0).split()
        if len(words) == 1:
            return int(words[0]) / 1e9
        return int(words[words.index(b"usage_usec") + 1]) / 1e6

    def is_over_memory(self) -> bool:
        """Whether processes were killed because the group held too much memory."""
        words = os.pread(self.kills, 4096, 0).split()
        return int(words[words.index(b"oom_kill") + 1]) > 0


# ------------------------------------------------------------ the command's own process


def _settle(job: Job, kind: str, folder: str, uid: int) -> None:
    """Give up everything that the command must not have, in its own process.

    The report's descriptor stays until the command is executed.
    """
    os.setsid()
    os.closerange(_REPORT + 1, 1 << 30)
    os.chdir(folder)
    os.umask(0o022)
    for number in _HANDLED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)

    # The supervisor's own look at the time comes first: the kernel counts more coarsely.
    cpu = int(1.5 * job["cpu"]) + 1
    limits = (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, int(job["address"])),
        (resource.RLIMIT_FSIZE, int(job["file"])),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
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
    among_others = kind == "plain"
    kernel.install_filter(kernel.program_filter(processes=True, among_others=among_others))


def _execute(argv: list[str], environment: dict[str, str]) -> None:
    """Become the program.

    (The standard library's own search imports a module at a time when its folder may be out of
    reach.)
    """
    name = argv[0]
    # A name with a slash is a path, and the same in every round.
    for folder in environment["PATH"].split(":"):
        path = name if "/" in name else f"{folder}/{name}"
        if os.path.isfile(path):
            os.execve(path, argv, environment)

    raise FileNotFoundError(errno.ENOENT, "not found")


def _become(job: Job, kind: str, uid: int, folder: str, ruleset: int, report: int) -> NoReturn:
    """Be the command, or report why that cannot be."""
    message = ""
    # The first letter tells the supervisor whose fault it is.
    try:
        landlock.confine(ruleset)
        os.dup2(report, _REPORT, inheritable=False)
        _settle(job, kind, folder, uid)
        _execute(job["argv"], job["environment"])

    except (*_NO_SUCH_PROGRAM, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"{_PROGRAM_FAULT}{job['argv'][0]}: {reason}"
    except OSError as error:
        whose = _PROGRAM_FAULT if error.errno in _BAD_PROGRAM else _MACHINE_FAULT
        message = f"{whose}{error}"
    except BaseException as error:
        message = f"{_MACHINE_FAULT}{type(error).__name__}: {error}"

    finally:
        os.write(_REPORT, message.encode("utf-8", "replace")[:2000])
        os._exit(_NOT_EXECUTED)


# ------------------------------------------------------------ the supervisor


def _start(job: Job, kind: str, uid: int, folder: str, ruleset: int) -> tuple[int, str]:
    """(process id, "") once the command runs, or (0, why it could not be executed).

    Raises OSError when the machine refuses.
    """
    receiver, report = os.pipe()
    child = os.fork()
    if child == 0:
        _become(job, kind, uid, folder, ruleset, report)

    os.close(report)
    # Executing the program closes the other end: nothing to read means that it runs.
    with open(receiver, "rb") as pipe:
        message = pipe.read().decode()

    whose, why = message[:1], message[1:]
    if whose == _MACHINE_FAULT:
        raise OSError(why)
    return (0, why) if message else (child, "")


class _Limits:
    """The limits of one command, and what it has used of them."""

    def __init__(self, job: Job, folder: str) -> None:
        self.cpu, self.memory, self.disk = float(job["cpu"]), int(job["memory"]), int(job["disk"])
        self.folder, self.in_memory = folder, bool(job["in_memory"])
        self.counters = Counters(*job["counters"]) if job["counters"] else None
        self.mapped = 0
        self.pids: list[int] = []
        self.next_files = time.monotonic() + _DISK_STEP_SECONDS

    def passed(self, has_ended: bool, own_space: bool) -> str:
        """`memory`, `disk` or `timeout`: the limit that was passed, or nothing.

        `has_ended`: this is the last look, so that no short command escapes.
        """
        # Looking at every process and every file is dear, and a group tells more without.
        is_time = has_ended or time.monotonic() > self.next_files
        if is_time or not self.counters:
            self.pids = usage.descendants(own_space)
        if self._is_over_memory(is_time):
            return "memory"
        # A command that clears a full folder gets as long, too.
        if is_time:
            if self._is_full():
                return "disk"
            self.next_files = time.monotonic() + _DISK_STEP_SECONDS

        # This process is in the group too. Without a group, how a command ended tells its time.
        if self.counters:
            seconds = self.counters.seconds() - time.process_time()
        else:
            seconds = 0.0 if has_ended else usage.cpu_seconds(self.pids)
        return "timeout" if seconds > self.cpu else ""

    def _is_over_memory(self, is_time_for_maps: bool) -> bool:
        if self.counters:
            return self.counters.is_over_memory()  # the kernel itself holds the limit
        private, shared = usage.memory_bytes(self.pids)
        if is_time_for_maps:
            self.mapped = usage.shared_bytes(self.pids)
        return private + max(shared, self.mapped) > self.memory

    def _is_full(self) -> bool:
        """Whether the command has written too much.

        That is what is there now, files that no name leads to (any more), and files in memory.
        """
        if self.folder == WORK and usage.file_count("/tmp") > _MOST_FILES:
            return True
        if self.in_memory:
            return usage.mount_bytes(self.folder) > self.disk
        held = usage.nameless_bytes(self.pids)
        left = self.disk - held
        if left < 0 or usage.folder_bytes(self.folder, left) > left:
            return True
        return usage.written_bytes(self.pids) > _REWRITES * self.disk


def _watch(child: int, job: Job, orders: int, limits: _Limits, own_space: bool) -> str:
    """Wait until the command ends, passes a limit, or is no longer wanted.

    Returns `stopped`, `memory`, `disk` or `timeout`; empty when it ended by itself.
    """
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(orders, 0)  # tells when the other end is closed

    deadline = time.monotonic() + float(job["wall"])
    while True:
        events = dict(poll.poll(_STEP_SECONDS * 1000))
        if orders in events:
            return "stopped"

        has_ended = handle in events
        passed = limits.passed(has_ended, own_space)
        if passed:
            return passed
        if has_ended:
            os.close(handle)
            return ""
        if time.monotonic() > deadline:
            return "timeout"
        _reap(limits.pids, child)


def _reap(pids: list[int], child: int) -> None:
    """Let orphans go that this process adopted and that have ended."""
    for pid in pids:
        if pid == child:
            continue
        try:
            os.waitpid(pid, os.WNOHANG)
        except (ProcessLookupError, ChildProcessError):
            continue


def _signal_kill(pid: int) -> None:
    """Kill a process, or all of a process space (-1), unless it has ended meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, ChildProcessError):
        return


def _kill_all(child: int, uid: int, own_space: bool) -> None:
    """Kill and reap everything that was started."""
    # All at once first: one after the other, what forks without end would be faster.
    _signal_kill(-child)
    if uid and not own_space:
        _kill_user(uid)
    while True:
        if own_space:
            _signal_kill(-1)
        else:
            for pid in usage.descendants(own_space):
                _signal_kill(pid)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _kill_user(uid: int) -> None:
    """Kill all processes of the command's own user, which has no others."""
    try:
        pid = os.fork()
    except OSError:
        return
    if pid == 0:
        try:
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _run(job: Job, orders: int, kind: str, uid: int, folder: str, ruleset: int) -> dict[str, Any]:
    """Start the command and follow it to its end; nothing of it lives on afterwards."""
    own_space = os.getpid() == 1
    started = time.monotonic()
    child, why = _start(job, kind, uid, folder, ruleset)
    if not child:
        return {"ending": "missing", "code": _NOT_EXECUTED, "why": why}

    ending = _watch(child, job, orders, _Limits(job, folder), own_space)
    status = 0
    if not ending:
        _, status, used = os.wait4(child, 0)
        seconds = used.ru_utime + used.ru_stime

        # The kernel's limit may have come before the watch's look.
        by_limit = os.WIFSIGNALED(status) and os.WTERMSIG(status) in _LIMIT_SIGNALS
        if by_limit and seconds > float(job["cpu"]):
            ending = "timeout"

    # The command has ended; what it started may not have.
    _kill_all(child, uid, own_space)
    return {
        "ending": ending,
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
    }


def _confinement(kind: str, folder: str, readable: tuple[str, ...]) -> int:
    """The Landlock rules of the command, as a descriptor."""
    reachable = [*landlock.SYSTEM, sys.base_prefix, sys.base_exec_prefix, *readable]
    reachable += ["/etc/alternatives", "/etc/ld.so.cache"]
    if kind != "plain":
        reachable.append("/proc")  # of the command's own processes only
    writable = folder if kind == "plain" else "/tmp"
    return landlock.Rules(reachable, [writable, *landlock.DEVICES]).ruleset()


def main(
    kind: str, uid: str, folder: str, size: str, job: str, report: str, *places: str
) -> NoReturn:
    """Arrange the file system, read the job, run it, report.

    `job`, `report`: descriptors. `places`: folders to hide, `--`, folders to show.
    """
    code = _FAULT
    out = int(report)
    try:
        for number in _HANDLED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        # Under `plain` the closing of the orders is what ends this process: it must live on to end
        # the command's descendants.
        if kind != "plain":
            kernel.die_with_parent()

        separator = places.index("--")
        hidden, readable = places[:separator], places[separator + 1 :]
        if kind == "unshare":
            from . import mounts  # needed under this kind only

            prefixes = (sys.base_prefix, sys.base_exec_prefix)
            mounts.workspace_mounts(folder, WORK, int(size), hidden, prefixes, readable)
        kernel.hide_memory()
        kernel.adopt_orphans()

        with open(int(job), "rb", buffering=0) as orders:
            command = marshal.load(orders)
            for door in command["doors"]:
                os.write(door, b"0")
                os.close(door)
            # From here on, an end without a report is the command's doing.
            os.write(out, marshal.dumps({"started": True}))
            ruleset = _confinement(kind, folder, readable)
            place = folder if kind == "plain" else WORK
            ending = _run(command, orders.fileno(), kind, int(uid), place, ruleset)
        os.write(out, marshal.dumps(ending))
        code = 0
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        os.write(out, marshal.dumps({"ending": "machine", "why": why}))
    finally:
        os._exit(code)
