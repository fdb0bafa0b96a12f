"""A private folder in which commands run isolated.

For compilers, interpreters with a memory, provers, and a repository's own tests.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from linn.errors import InfrastructureError
from linn.sandbox import covers, isolation
from linn.sandbox.folder import Folder, bytes_of
from linn.sandbox.inside.supervisor import WORK
from linn.sandbox.isolation import Place
from linn.sandbox.outcome import Ran, WorkspaceLimits
from linn.sandbox.running import ENVIRONMENT, Job, Running

_REMOVALS = (("rm", "-rf"), ("chmod", "-R", "u+rwX"), ("rm", "-rf"))
"""Not the library's rmtree: folders may be shut to us, or nested deeper than it can follow."""


class Workspace:
    """A private folder and isolated commands in it.

    Commands get no network, a read-only system, and bounded CPU, memory, processes, disk, time and
    output. Nothing that a command started outlives it. Commands see the folder at `root`, which is
    their working directory, and besides it /usr, /lib, the Python interpreter's folder and
    `readable`. Thread-safe as far as files are.

    Raises InfrastructureError when the machine fails (no sandbox, fork refused, disk full),
    ValueError for a path that leaves the folder.

    Not protected against: faults of the kernel; side channels; a command that passes a limit
    between two looks at it (a fraction of `memory` or `disk` more). Without bubblewrap: reading
    /etc. Under `plain` without Landlock: reading and changing the files that this user may.
    `plain`: a program that escapes its session may, where linn does not run as root, end its own
    supervisor.
    """

    def __init__(
        self,
        limits: WorkspaceLimits | None = None,
        files: Mapping[str, str] | None = None,
        readable: Sequence[Path] = (),
        kind: str | None = None,
    ) -> None:
        """`files`: paths and texts to begin with. `readable`: further folders to be read.

        `kind`: `bwrap`, `unshare` or `plain`; None: the strongest that works.
        """
        self.limits = limits or WorkspaceLimits()
        self.readable = tuple(sorted({str(Path(path).resolve(strict=True)) for path in readable}))
        self.kind = kind or _strongest()
        self.uid = isolation.workspace_uid()
        self._running: set[Running] = set()

        # The commands' own user must be able to enter it, and to write in it.
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="linn-workspace-")).resolve()
            os.chmod(self.folder, 0o755)
            if self.uid:
                os.chown(self.folder, self.uid, self.uid)
        except OSError as error:
            raise InfrastructureError(f"no scratch folder could be made: {error}") from None

        self.root = str(self.folder) if self.kind == "plain" else WORK
        self._cover = covers.cover(self.folder, self.limits.disk, self.uid)
        is_on_disk = self._cover < 0
        self.way = self.folder if is_on_disk else Path(f"/proc/self/fd/{self._cover}")
        """The folder as this process reaches it."""
        self._starter = isolation.starter if is_on_disk else covers.keeper
        self._files = Folder(self.way, self.uid)
        _open.add(self)
        for path, text in (files or {}).items():
            self.write(path, text)

    # ------------------------------------------------------------ files

    def write(self, path: str, text: str) -> None:
        """Write a file, making its folders.

        The path is relative, without `..`, and leads through no symbolic link.
        """
        self._files.write(path, text)

    def read(self, path: str) -> str:
        """A regular file's text; ValueError where there is none at that path."""
        return self._files.read(path)

    def files(self) -> list[str]:
        """The relative paths of all regular files, sorted.

        Links, and what lies deeper than `folder.DEEPEST` folders, are left out.
        """
        return self._files.files()

    # ------------------------------------------------------------ commands

    def run(
        self, argv: Sequence[str], stdin: str = "", limits: WorkspaceLimits | None = None
    ) -> Ran:
        """Run a command to its end."""
        with tempfile.TemporaryFile() as file:
            try:
                file.write(bytes_of(stdin))
                file.seek(0)
            except OSError as error:
                raise InfrastructureError(
                    f"the scratch folder cannot be written: {error}"
                ) from None
            running = self._start(argv, limits, stdin=file.fileno(), stderr=subprocess.PIPE)
            return running.finish()

    def start(self, argv: Sequence[str], limits: WorkspaceLimits | None = None) -> Running:
        """Start a long-lived command, with pipes to its stdin and from its stdout.

        `limits` hold for its whole life. stderr is dropped.
        """
        return self._start(argv, limits, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        """Kill what runs and remove the folder."""
        for running in list(self._running):
            running.kill()
        _open.discard(self)
        if self._cover >= 0:
            covers.uncover(self.folder, self._cover)
            self._cover = -1
        for command in _REMOVALS:
            if self.folder.exists():
                words = [*command, "--", str(self.folder)]
                subprocess.run(words, stderr=subprocess.DEVNULL, check=False)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ how

    def _start(
        self, argv: Sequence[str], limits: WorkspaceLimits | None, stdin: int, stderr: int
    ) -> Running:
        if not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
            raise ValueError("a command is a list of texts without NULs, at least one")

        limits = limits or self.limits
        if self._cover < 0:
            self._check_disk(limits.disk)
        elif limits.disk != self.limits.disk:
            covers.resize(self.folder, limits.disk)

        home = self.root if self.kind == "plain" else "/tmp"
        job = {
            **asdict(limits),
            "address": limits.address or limits.memory,
            "argv": list(argv),
            "environment": ENVIRONMENT | {"HOME": home, "TMPDIR": home},
            "in_memory": self._cover >= 0,
        }
        return self._starter.submit(self._launch, job, stdin, stderr).result()

    def _launch(self, job: Job, stdin: int, stderr: int) -> Running:
        """Start a command, and remember it until it is over."""
        place = Place(self.kind, self.uid, str(self.folder), self.readable)
        running = Running(place, job, stdin, stderr)
        for earlier in list(self._running):
            if earlier.is_over():
                self._running.discard(earlier)
        self._running.add(running)
        return running

    def _check_disk(self, size: int) -> None:
        """A command must not fail because someone else has filled the disk."""
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize < size:
            raise InfrastructureError(
                f"the scratch disk is full: less than {size >> 20} MiB are free "
                f"in {self.folder.parent}"
            )


_open: weakref.WeakSet[Workspace] = weakref.WeakSet()
_known_kind: list[str] = []
_finding = threading.Lock()


def _strongest() -> str:
    """The first kind of isolation in which a command runs here; tried once."""
    with _finding:
        if not _known_kind:
            _known_kind.append(_first_that_works())
        return _known_kind[0]


def _first_that_works() -> str:
    causes = []
    for kind in isolation.kinds():
        try:
            _try_out(kind)
        except InfrastructureError as error:
            causes.append(f"{kind}: {error}")
            continue
        if kind == "plain":
            isolation.warn_plain(causes)
        return kind
    raise InfrastructureError(
        f"no sandbox could be started ({'; '.join(causes)}); install bubblewrap"
    )


def _try_out(kind: str) -> None:
    """Raise InfrastructureError unless a command runs in this kind of isolation."""
    with Workspace(kind=kind) as workspace:
        ran = workspace.run([isolation.python(), "-I", "-S", "-c", ""])
    if ran.status != "ok":
        raise InfrastructureError(f"a trial command failed: {ran.stderr.strip() or ran.status}")


@atexit.register
def _close_all() -> None:
    for workspace in list(_open):
        workspace.close()
