"""A server that speaks OpenAI's protocol over the loopback, as a test tells it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


def completion(content: Any, finish: str = "stop", **message: Any) -> str:
    return json.dumps(
        {
            "choices": [
                {
                    "message": {"role": "assistant", "content": content, **message},
                    "finish_reason": finish,
                }
            ]
        }
    )


Reply = Callable[[dict[str, Any], int], Any]


def streamed(*deltas: dict[str, Any], finish: str | None = "stop") -> Iterator[str]:
    """The events of a streamed answer."""
    for delta in deltas:
        yield event({"choices": [{"delta": delta}]})
    if finish is not None:
        yield event({"choices": [{"delta": {}, "finish_reason": finish}]})
        yield "data: [DONE]\n\n"


def event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


class Server:
    """Answers by `reply(request, before) -> (status, body[, headers])`; None hangs up.

    `before`: how often this text was asked already. A body that is no text is an iterable of
    texts, each sent as it comes. `models`: what it lists.
    """

    def __init__(self, reply: Reply, models: tuple[str, ...] = ()) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: Counter[str] = Counter()
        self.busy = self.busiest = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    outer.seen.append({**body, "path": self.path})
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    before = outer.times[body["messages"][-1]["content"]]
                    outer.times[body["messages"][-1]["content"]] += 1
                    outer.busy += 1
                    outer.busiest = max(outer.busiest, outer.busy)
                try:
                    said = reply(body, before)
                finally:
                    with lock:
                        outer.busy -= 1
                if said is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send(*said)

            def do_GET(self) -> None:
                entries = [{"id": model} for model in models]
                self.send(200 if models else 404, json.dumps({"data": entries}))

            def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                if isinstance(body, str):
                    self.send_header("content-length", str(len(body.encode())))
                    self.end_headers()
                    self.wfile.write(body.encode())
                    return

                self.send_header("connection", "close")
                self.end_headers()
                for part in body:
                    self.wfile.write(part.encode())
                    self.wfile.flush()
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Starts servers, which end with the test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[Server] = []

    def start(reply: Reply, models: tuple[str, ...] = ()) -> Server:
        servers.append(Server(reply, models))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def echo(body: dict[str, Any], before: int) -> tuple[int, str]:
    """Answers with what it was asked, after a thought."""
    return 200, completion(f"<think>no</think>re {body['messages'][-1]['content']}")
