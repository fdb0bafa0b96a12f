"""The report of a run under way, served on this machine and renewed as the run goes on.

The page asks every few seconds whether something changed, and loads itself anew only then. Making
a page costs the run's own cores something, so a page that took long to make is kept for longer.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from linn.errors import LinnError, UserError
from linn.report.files import read_run
from linn.report.page import Watch, render
from linn.terminal import echo

HOST = "127.0.0.1"
"""The loopback: transcripts are nobody else's to read."""
SHARE = 0.1
"""Of the time, at most, that goes into making pages."""

_WATCHED = (
    "run.json",
    "recipe.yaml",
    "ledger.jsonl",
    "compare.json",
    "stages/*/metrics.jsonl",
    "stages/*/DONE",
    "stages/*/rows.json",
    "stages/*/evals",
    "stages/*/rewards",
    "stages/*/rollouts",
)
"""What a page is made of; of folders, their content is known by when it last changed."""


class Watched:
    """A run folder as a page, made anew when something changed since the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._page = b""
        self._mark = ""
        """What the page was made of."""
        self._fresh_until = 0.0
        """Until then the page is good enough, whatever changed."""
        self.nonce = secrets.token_urlsafe(16)
        """What the page's own script is known by; transcripts cannot guess it."""

    def mark(self) -> str:
        """Names the page that a reader should see: another one as soon as there is a newer."""
        with self._lock:
            if time.monotonic() < self._fresh_until:
                return self._mark
        return mark_of(self.folder) or self._mark

    def page(self) -> bytes:
        """The page; made by one thread, while others wait for it.

        Raises UserError where there is no run and never was; later the last page stays.
        """
        with self._lock:
            # Before the files are read: what changes meanwhile is found at the next look.
            mark = mark_of(self.folder)
            if mark == self._mark or time.monotonic() < self._fresh_until:
                return self._page
            began = time.monotonic()
            try:
                text = render(read_run(self.folder), Watch(mark, self.nonce))
                self._page, self._mark = text.encode("utf-8"), mark
            except (LinnError, OSError):
                # The folder was moved or cleared away.
                if not self._page:
                    raise
            ended = time.monotonic()
            self._fresh_until = ended + (ended - began) * (1 - SHARE) / SHARE
            return self._page


def mark_of(folder: Path) -> str:
    """A short hash of the sizes and times of what a page is made of; empty where nothing is."""
    # The first four make a run; without any of them there is nothing to show.
    if not any((folder / name).is_file() for name in _WATCHED[:4]):
        return ""
    return hashlib.blake2b("\n".join(_states(folder)).encode(), digest_size=8).hexdigest()


def _states(folder: Path) -> Iterator[str]:
    for pattern in _WATCHED:
        for path in sorted(folder.glob(pattern)):
            try:
                state = path.stat()
            except OSError:  # gone since it was listed
                continue
            yield f"{path.relative_to(folder)} {state.st_size} {state.st_mtime_ns}"


def server_of(folder: Path, port: int) -> ThreadingHTTPServer:
    """What serves a run's report; UserError where the port is taken or there is no run."""
    watched = Watched(folder)
    watched.page()  # what is wrong with the folder is told now, and not to a browser
    try:
        return _Server((HOST, port), _handler_of(watched))
    except OSError as error:
        raise UserError(
            f"--port {port}: {error.strerror or error}; take another one, or 0 for any that is free"
        ) from None


def serve(folder: Path, port: int) -> None:
    """Serve a run's report until Ctrl-C, SIGTERM or SIGHUP."""
    server = server_of(folder, port)
    try:
        echo(f"report: http://{HOST}:{server.server_address[1]}/ (Ctrl-C ends)", err=True)
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        echo("stopped", err=True)
    finally:
        server.server_close()


class _Server(ThreadingHTTPServer):
    """A thread for every reader; none of them keeps the program from ending."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who went away is no error."""


def _handler_of(watched: Watched) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "linn", ""
        timeout = 20
        """Seconds for a request's head."""

        def do_GET(self) -> None:
            if not self._is_ours():
                self._send(403, "text/plain", b"this report is read at 127.0.0.1 alone\n")
            elif self.path == "/":
                self._send(200, "text/html", watched.page())
            elif self.path == "/mark":
                mark = json.dumps({"mark": watched.mark()})
                self._send(200, "application/json", mark.encode())
            else:
                self._send(404, "text/plain", b"the report is at /\n")

        def _is_ours(self) -> bool:
            """Whether a reader asked for this machine: a strange name may be made to point here."""
            # A page of the web may not read this one, unless its own name leads here.
            host = (self.headers.get("host") or "").rpartition(":")[0]
            return host in (HOST, "localhost")

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", f"{kind}; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            # Each answer is of this moment.
            self.send_header("cache-control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: every reader asks every few seconds."""

    return Handler
