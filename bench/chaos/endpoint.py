"""A judge behind an endpoint that can be made to fail, and that otherwise answers by its request.

Its answer is a function of the request alone, so that a disturbed run can end with equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODES = ("silent", "half", "close", "busy", "broken", "garbage")
"""Ways to fail: no answer, half of one, a closed connection, 429, 500, and what is no answer."""


class Endpoint:
    """One server on a port of its own; `mode` may be changed at any time."""

    def __init__(self) -> None:
        self.mode = "well"
        self.asked = 0
        """Requests so far."""
        self.failed = 0
        """Those of them that were not answered well."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where a recipe finds it."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


def answer_to(body: dict[str, Any]) -> str:
    """The form that the question asks for, its numbers drawn from the question.

    A question ends with an example of the answer that it wants (`e.g. {"score": 2}`), and names the
    marks between which that has to stand.
    """
    question = body["messages"][-1]["content"]
    example = re.findall(r"e\.g\. (\{[^{}]*\})", question)[-1]
    digest = iter(hashlib.sha256(question.encode()).digest() * 8)

    # From 1 to 5: within the range of scores, and of rankings too.
    verdict = re.sub(r"(?<=: )\d", lambda _: str(1 + next(digest) % 5), example)
    marks = re.findall(r"<verdict \w+>", question)
    if marks:
        verdict = f"{marks[-1]}{verdict}{marks[-1].replace('<', '</')}"
    return verdict


def _handler_of(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(size))
            endpoint.asked += 1
            mode = endpoint.mode
            if mode != "well":
                endpoint.failed += 1
            choice = {"message": {"content": answer_to(body)}, "finish_reason": "stop"}
            self._answer(mode, json.dumps({"choices": [choice]}).encode())

        def _answer(self, mode: str, content: bytes) -> None:
            if mode == "silent":
                # Until it is asked to work again; whoever asked has hung up by then.
                while endpoint.mode == "silent":
                    time.sleep(0.1)
                self.close_connection = True
            elif mode == "close":
                self.close_connection = True
            elif mode in ("busy", "broken"):
                self._send(429 if mode == "busy" else 500, b"not now")
            elif mode == "garbage":
                self._send(200, b"<html>it works!</html>")
            elif mode == "half":
                self._send(200, content, cut=len(content) // 2)
            else:
                self._send(200, content)

        def _send(self, status: int, content: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *words: Any) -> None:
            """Nothing: the lines of the disturbances are what a person reads."""

    return Handler
