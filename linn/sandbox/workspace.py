"""A private folder in which commands run isolated: for compilers, interpreters with a memory, provers, and a repository's own tests."""

from __future__ import annotations

import atexit
import contextlib
import io
import marshal
import os
import select
import stat
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from linn.errors import InfrastructureError
from linn.sandbox import isolation
from linn.sandbox.inside.supervisor import WORK

Status = Literal["ok", "error", "timeout", "memory", "output"]

_ANSWER_SLACK, _ENDING_SECONDS = 30.0, 10.0
_TMP = 64 << 20
_LONGEST_READ = 64 << 20
_MOST_FILES = 100_000
DEEPEST = 50
"""Folders within folders that a file may be reached through."""
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class WorkspaceLimits:
    """What one command, with all processes that it starts, may use."""

    cpu: float = 10.0
    """CPU seconds of all its processes together."""
    wall: float = 30.0
    """Seconds from its start to its end."""
    memory: int = 1 << 30
    """Bytes that all its processes hold together (memory shared by a fork counts in both); looked at forty times a second."""
    address: int | None = None
    """Bytes of address space of each process; None: as many as `memory`. Programs that map large files need more."""
    processes: int = 32
    """Processes and threads at once."""
    file: int = 16 << 20
    """Bytes of one written file."""
    disk: int = 64 << 20
    """Bytes of the whole folder; looked at five times a second and at the end. Four times as much may be written to it in all."""
    output: int = 1 << 18
    """Bytes of stdout, and of stderr."""


@dataclass(frozen=True)
class Ran:
    """How a command ended. What it printed is its own claim: never read a verdict from it."""

    status: Status
    """`ok`: exit code 0; `error`: another code, a signal, or no such program; `timeout`; `memory`; `output`: said or wrote too much."""
    code: int
    """Exit code, negative for a signal; 127 where the program could not be executed; -9 where a limit ended it."""
    stdout: str
    """What it printed, cut at the limit; bytes that are no UTF-8 are replaced."""
    stderr: str
    """The same for stderr."""


class Workspace:
    """A private folder and isolated commands in it: no network, a read-only system, bounded CPU, memory, processes, disk, time and output.

    Nothing that a command started outlives it. Commands see the folder at `root`, which is their working directory, and besides it
    /usr, /lib, the Python interpreter's folder and `readable`. Thread-safe as far as files are.

    Raises InfrastructureError when the machine fails (no sandbox, fork refused, disk full), ValueError for a path that leaves the folder.

    Not protected against: faults of the kernel; side channels; a command that passes a limit between two looks at it (a fraction of
    `memory` or `disk` more). Without bubblewrap: reading /etc. Under `plain` without Landlock: reading and changing the files that this user
    may. `plain`: a program that escapes its session may, where linn does not run as root, end its own supervisor.
    """

    def __init__(
        self,
        limits: WorkspaceLimits | None = None,
        files: Mapping[str, str] | None = None,
        readable: Sequence[Path] = (),
        kind: str | None = None,
    ) -> None:
        """`readable`: further folders that commands may read; `kind`: `bwrap`, `unshare` or `plain`, None: the strongest that works."""
        self.limits = limits or WorkspaceLimits()
        self.readable = tuple(sorted({str(Path(path).resolve(strict=True)) for path in readable}))
        self.kind = kind or _strongest()
        self.uid = isolation.workspace_uid()
        self._running: set[Running] = set()
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="linn-workspace-")).resolve()
            os.chmod(self.folder, 0o755)
            self._give(self.folder)
        except OSError as error:
            raise InfrastructureError(f"no scratch folder could be made: {error}") from None
        self.root = str(self.folder) if self.kind == "plain" else WORK
        _open.add(self)
        for path, text in (files or {}).items():
            self.write(path, text)

    # ------------------------------------------------------------ files

    def write(self, path: str, text: str) -> None:
        """Write a file, making its folders; the path is relative, without `..`, and leads through no symbolic link."""
        *parents, name = _parts(path)
        data = text.encode("utf-8", "surrogateescape" if _escaped(text) else "replace")
        try:
            folder = self._enter(parents, make=True)
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(
                        name, dir_fd=folder
                    )  # so that nothing is written through a link, or into a file held open
                handle = os.open(
                    name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder
                )
                with open(handle, "wb") as file:
                    file.write(data)
                    if self.uid:
                        os.fchown(handle, self.uid, self.uid)
            finally:
                os.close(folder)
        except (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError) as error:
            raise ValueError(f"path {path!r}: {error.strerror}") from None
        except OSError as error:
            raise _refused(error, path) from None

    def read(self, path: str) -> str:
        """A regular file's text; ValueError where there is none at that path."""
        *parents, name = _parts(path)
        try:
            folder = self._enter(parents, make=False)
            try:
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            finally:
                os.close(folder)
            with open(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise ValueError(f"path {path!r}: not a regular file")
                return file.read(_LONGEST_READ).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise _refused(error, path) from None

    def files(self) -> list[str]:
        """The relative paths of all regular files, sorted; links, and what lies deeper than `DEEPEST` folders, are left out."""
        found: list[str] = []
        folders: list[list[str]] = [[]]
        while (
            folders and len(found) <= _MOST_FILES
        ):  # not the library's walk: it calls itself and holds a descriptor at every depth
            parents = folders.pop()
            with contextlib.suppress(OSError):
                folder = self._enter(parents, make=False)
                try:
                    for name in os.listdir(folder):
                        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                        if stat.S_ISREG(mode):
                            found.append("/".join([*parents, name]))
                        elif stat.S_ISDIR(mode) and len(parents) < DEEPEST:
                            folders.append([*parents, name])
                finally:
                    os.close(folder)
        return sorted(found)

    # ------------------------------------------------------------ commands

    def run(
        self, argv: Sequence[str], stdin: str = "", limits: WorkspaceLimits | None = None
    ) -> Ran:
        """Run a command to its end."""
        with tempfile.TemporaryFile() as file:
            try:
                file.write(
                    stdin.encode("utf-8", "surrogateescape" if _escaped(stdin) else "replace")
                )
                file.seek(0)
            except OSError as error:
                raise InfrastructureError(
                    f"the scratch folder cannot be written: {error}"
                ) from None
            running = self._start(argv, limits or self.limits, file.fileno(), subprocess.PIPE)
            return running.finish()

    def start(self, argv: Sequence[str], limits: WorkspaceLimits | None = None) -> Running:
        """Start a long-lived command, with pipes to its stdin and from its stdout; `limits` hold for its whole life. stderr is dropped."""
        return self._start(argv, limits or self.limits, subprocess.PIPE, subprocess.DEVNULL)

    def close(self) -> None:
        """Kill what runs and remove the folder."""
        for running in list(self._running):
            running.kill()
        _open.discard(self)
        # not the library's rmtree: folders may be shut to us, or nested deeper than it can follow
        for command in (["rm", "-rf", "--"], ["chmod", "-R", "u+rwX", "--"], ["rm", "-rf", "--"]):
            if self.folder.exists():
                subprocess.run([*command, str(self.folder)], stderr=subprocess.DEVNULL, check=False)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ how

    def _give(self, path: Path | int) -> None:
        if self.uid:
            os.chown(path, self.uid, self.uid)

    def _enter(self, parents: Sequence[str], make: bool) -> int:
        """A descriptor of a folder below, reached without following a link."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        for part in parents:
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=handle)
                        if self.uid:
                            os.chown(part, self.uid, self.uid, dir_fd=handle, follow_symlinks=False)
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            finally:
                os.close(handle)
            handle = inner
        return handle

    def _start(
        self, argv: Sequence[str], limits: WorkspaceLimits, stdin: int, stderr: int
    ) -> Running:
        if not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
            raise ValueError("a command is a list of texts without NULs, at least one")
        disk = os.statvfs(self.folder)
        if (
            disk.f_bavail * disk.f_frsize < limits.disk
        ):  # a command must not fail because someone else has filled it
            raise InfrastructureError(
                f"the scratch disk is full: less than {limits.disk >> 20} MiB are free in {self.folder.parent}"
            )
        job = asdict(limits) | {"argv": list(argv), "address": limits.address or limits.memory}
        tmp = self.root if self.kind == "plain" else "/tmp"
        job["environment"] = _ENVIRONMENT | {"HOME": tmp, "TMPDIR": tmp}
        return isolation.starter.submit(Running, self, job, stdin, stderr).result()


class Running:
    """A command in a workspace."""

    def __init__(
        self, workspace: Workspace, job: Mapping[str, Any], stdin: int, stderr: int
    ) -> None:
        self._workspace, self._limits = workspace, job
        self._deadline = time.monotonic() + float(job["wall"]) + _ANSWER_SLACK
        job_out, job_in = os.pipe()
        report_out, report_in = os.pipe()
        self._report = report_out
        words = isolation.supervised(
            workspace.kind,
            workspace.uid,
            str(workspace.folder),
            workspace.readable,
            _TMP,
            job_out,
            report_in,
        )
        try:
            self._process = subprocess.Popen(
                words,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                pass_fds=(job_out, report_in),
                env=_ENVIRONMENT,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            for fd in (job_out, job_in, report_out, report_in):
                os.close(fd)
            raise InfrastructureError(
                f"no process could be started in the sandbox: {error}"
            ) from None
        os.close(job_out)
        os.close(report_in)
        self._orders: int | None = job_in
        data = marshal.dumps(dict(job))
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(job_in, data) :]
        assert self._process.stdout is not None
        self.stdin: IO[bytes] | None = self._process.stdin
        """Where to write to the command (of `Workspace.start`); unbuffered."""
        self.stdout: IO[bytes] = self._process.stdout
        """Where to read what it says; unbuffered, for `select` too. Bounding what is read is the reader's part."""
        workspace._running.add(self)

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it with all that it started; returns when it is gone. Doing so twice is no fault."""
        if self._orders is not None:
            os.close(self._orders)  # its supervisor then ends everything, and itself last
            self._orders = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 9)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self in self._workspace._running:
            self._workspace._running.discard(self)
            os.close(self._report)

    def finish(self) -> Ran:
        """Read all it says until it ends."""
        streams = {self.stdout.fileno(): bytearray(), self._report: bytearray()}
        if self._process.stderr is not None:
            streams[self._process.stderr.fileno()] = bytearray()
        said = list(streams.values())
        most = int(self._limits["output"])
        flooded = False
        try:
            while self._report in streams and not flooded:
                ready, _, _ = select.select(
                    list(streams), [], [], max(0.0, self._deadline - time.monotonic())
                )
                if not ready:
                    break
                flooded = _gather(ready, streams, most)
            while not flooded and (ready := select.select(list(streams), [], [], 0)[0]):
                flooded = _gather(ready, streams, most)
        finally:
            self.kill()
        texts = [bytes(data[:most]).decode("utf-8", "replace") for data in said]
        return self._ran(bytes(said[1]), texts[0], texts[2] if len(texts) > 2 else "", flooded)

    def _ran(self, report: bytes, stdout: str, stderr: str, flooded: bool) -> Ran:
        source = io.BytesIO(report)
        lines: list[dict[str, Any]] = []
        while source.tell() < len(report):
            lines.append(marshal.load(source))
        if not lines or lines[-1].get("ending") == "machine":
            why = (
                lines[-1]["why"] if lines else " ".join(stderr.split())[-300:] or "it ended at once"
            )
            raise InfrastructureError(
                f"no command could be run in the sandbox ({self._workspace.kind}): {why}"
            )
        if flooded:
            return Ran("output", -9, stdout, stderr)
        ending = lines[-1].get("ending")
        if (
            ending is None
        ):  # only a machine out of memory ends a supervisor, and only a program's doing makes it so
            return Ran("memory", -9, stdout, stderr)
        if ending == "missing":
            return Ran("error", 127, stdout, stderr + lines[-1]["why"])
        if ending:
            return Ran("output" if ending == "disk" else ending, -9, stdout, stderr)
        code = int(lines[-1]["code"])
        return Ran("ok" if code == 0 else "error", code, stdout, stderr)


def _gather(ready: Sequence[int], streams: dict[int, bytearray], most: int) -> bool:
    """Read what is there; True when a stream said more than allowed."""
    for fd in ready:
        part = os.read(fd, 1 << 16)
        if not part:
            del streams[fd]
        elif len(streams[fd]) + len(part) > most:
            streams[fd] += part
            return True
        else:
            streams[fd] += part
    return False


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if len(parts) > DEEPEST + 1:
        raise ValueError(f"path {path[:200]!r} leads through more than {DEEPEST} folders")
    if (
        not path
        or "\0" in path
        or any(
            part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts
        )
    ):
        raise ValueError(
            f"path {path[:200]!r} must be relative, without empty, `.` or `..` parts, each at most 255 bytes"
        )
    return parts


def _escaped(text: str) -> bool:
    """Whether a text came from bytes that are no UTF-8 and can go back to them."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _refused(error: OSError, path: str) -> Exception:
    """Whose fault an error of the file system is: the machine's, or the path's."""
    import errno

    if error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EROFS,
    ):
        return InfrastructureError(f"the scratch folder fails: {error}")
    return ValueError(f"path {path!r}: {error.strerror}")


_open: weakref.WeakSet[Workspace] = weakref.WeakSet()
_found: list[str] = []
_finding = threading.Lock()


def _strongest() -> str:
    """The first kind of isolation in which a command runs here; tried once."""
    with _finding:
        if not _found:
            causes = []
            for kind in isolation.kinds():
                try:
                    with Workspace(kind=kind) as trial:
                        ran = trial.run([isolation.python(), "-I", "-S", "-c", ""])
                        if ran.status != "ok":
                            raise InfrastructureError(
                                f"a trial command failed: {ran.stderr.strip() or ran.status}"
                            )
                except InfrastructureError as error:
                    causes.append(f"{kind}: {error}")
                    continue
                if kind == "plain":
                    isolation.warn_plain(causes)
                _found.append(kind)
                break
            else:
                raise InfrastructureError(
                    f"no sandbox could be started ({'; '.join(causes)}); install bubblewrap"
                )
        return _found[0]


@atexit.register
def _close_all() -> None:
    for workspace in list(_open):
        workspace.close()
