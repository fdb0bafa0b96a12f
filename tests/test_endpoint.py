"""A judge behind an endpoint, over the loopback: slow, busy, broken, hanging up, refusing, gone."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support.cli import refused, said

from linn.errors import InfrastructureError
from linn.judges.endpoint import EndpointJudge
from linn.types import Message, Sampling

HOW = Sampling(50, 0.6, 0.95)
ASKED = [[Message("user", f"q{i}")] for i in range(12)]
SEEDS = list(range(12))


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


class Server:
    """Answers by `reply(request, before) -> (status, body[, headers])`; None hangs up.

    `before`: how often this text was asked already.
    """

    def __init__(self, reply: Callable[[dict[str, Any], int], Any]) -> None:
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
                status, text, *more = said
                data = text.encode()
                self.send_response(status)
                for key, value in (more[0] if more else {}).items():
                    self.send_header(key, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def judge(self, **options: Any) -> EndpointJudge:
        return EndpointJudge(self.url, "m", HOW, **{"pause_s": 0.01, "timeout_s": 5.0, **options})


def answers(judge: EndpointJudge, *arguments: Any) -> list[str]:
    return asyncio.run(judge.answer(*arguments))


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[Server] = []

    def start(reply: Callable[[dict[str, Any], int], Any]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def echo(body: dict[str, Any], before: int) -> tuple[int, str]:
    return 200, completion(f"<think>no</think>re {body['messages'][-1]['content']}")


def test_answers_come_in_order_with_the_judges_sampling(serve):
    server = serve(
        lambda body, before: (
            time.sleep(0.02 * (int(body["messages"][-1]["content"][1:]) % 3)) or echo(body, before)
        )
    )
    judge = server.judge(concurrency=4, key="secret")
    assert answers(judge, ASKED, SEEDS) == [f"re q{i}" for i in range(12)]
    assert 1 < server.busiest <= 4
    first = next(b for b in server.seen if b["messages"] == [{"role": "user", "content": "q3"}])
    assert (
        first["model"],
        first["temperature"],
        first["top_p"],
        first["max_tokens"],
        first["seed"],
    ) == ("m", 0.6, 0.95, 50, 3)
    assert (
        first["path"] == "/v1/chat/completions"
        and server.headers[0]["authorization"] == "Bearer secret"
    )
    assert "secret" not in repr(judge)
    assert answers(judge, [], []) == []


def test_a_busy_server_is_waited_for(serve):
    busy = {
        0: (429, "slow down", {"retry-after": "0"}),
        1: (503, "starting"),
        2: None,
        3: (200, "{"),
        4: (200, '{"choices": []}'),
    }
    server = serve(lambda body, before: busy[before] if before in busy else echo(body, before))
    assert answers(server.judge(), ASKED[:3], SEEDS[:3]) == ["re q0", "re q1", "re q2"]
    assert set(server.times.values()) == {6}


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ((500, "out of\nmemory"), "status 500: out of memory"),
        ((429, ""), "status 429"),
        ((200, "<html>"), "no chat completion, but '<html>'"),
        ((200, "[" * 100_000), "no chat completion"),
        ((200, '{"choices": [{"message": {"content": 7}}]}'), "no chat completion"),
        pytest.param(
            (200, completion("4")[:-1] + " " * (17 << 20) + "}"),
            "no chat completion",
            marks=pytest.mark.slow,
        ),
        (None, "Protocol"),
    ],
    ids=["500", "429", "no JSON", "deep JSON", "no text", "endless", "hangs up"],
)
def test_a_server_that_stays_broken_is_infrastructure(serve, reply, cause):
    server = serve(lambda body, before: reply)
    with pytest.raises(InfrastructureError) as caught:
        answers(server.judge(), ASKED[:2], SEEDS[:2])
    assert (
        server.url in str(caught.value)
        and cause in str(caught.value)
        and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, "bad key"), (404, "no such model"), (400, "context too long"), (302, "")],
)
def test_a_refusal_is_final(serve, status, body):
    server = serve(lambda _body, before: (status, body))
    with pytest.raises(
        InfrastructureError, match=f"refused with status {status}: {body or 'nothing more'}"
    ):
        answers(server.judge(), ASKED[:1], SEEDS[:1])
    assert len(server.seen) == 1


def test_one_failure_stops_the_others(serve):
    server = serve(
        lambda body, before: (
            (401, "no")
            if body["messages"][-1]["content"] == "q0"
            else time.sleep(0.5) or echo(body, before)
        )
    )
    with pytest.raises(InfrastructureError):
        answers(server.judge(concurrency=2), ASKED, SEEDS)
    assert len(server.seen) <= 4, "questions were asked after the first was refused"


def test_slow_is_no_answer(serve):
    server = serve(
        lambda body, before: (
            time.sleep(0.6) or echo(body, before) if before == 0 else echo(body, before)
        )
    )
    assert answers(server.judge(timeout_s=0.2), ASKED[:2], SEEDS[:2]) == ["re q0", "re q1"]
    slow = serve(lambda body, before: time.sleep(0.3) or echo(body, before))
    with pytest.raises(InfrastructureError, match=r"no answer within 0\.05 s"):
        answers(slow.judge(timeout_s=0.05), ASKED[:1], SEEDS[:1])


def test_nobody_there():
    judge = EndpointJudge("http://127.0.0.1:9/v1", "m", HOW, pause_s=0.001)
    with pytest.raises(InfrastructureError, match="http://127.0.0.1:9/v1: ConnectError"):
        answers(judge, ASKED[:1], SEEDS[:1])
    with pytest.raises(InfrastructureError, match="no usable address"):
        answers(EndpointJudge("http://[::1", "m", HOW, pause_s=0.001), ASKED[:1], SEEDS[:1])


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (completion("<think>5</think> 4"), "4"),
        (completion("4", reasoning_content="5"), "4"),
        (completion(None, reasoning_content="5"), ""),
        (completion("<think>never ends"), ""),
        (completion("4", finish="length"), ""),
        (completion([{"type": "text", "text": "4"}]), "4"),
        (completion(""), ""),
        (completion("\ud800 4"), "\ud800 4"),
    ],
)
def test_reasoning_is_removed(serve, body, answer):
    assert answers(serve(lambda _body, before: (200, body)).judge(), ASKED[:1], [2**63 - 1]) == [
        answer
    ]


def test_half_a_surrogate_pair_is_sent_as_a_question_mark(serve):
    server = serve(echo)
    assert answers(server.judge(), [[Message("user", "a\ud800b")]], [0]) == ["re a?b"]


def test_offline_grading_by_an_endpoint(serve, tmp_path, monkeypatch):
    server = serve(
        lambda body, before: (
            200,
            completion('{"score": 4}' if "because" in body["messages"][-1]["content"] else "hm"),
        )
    )
    (tmp_path / "rows.jsonl").write_text('{"prompt": "why?"}\n')
    (tmp_path / "replies.jsonl").write_text(
        "".join(json.dumps({"row": 0, "text": t}) + "\n" for t in ("because", "", "no"))
    )
    words = [
        "--rows",
        tmp_path / "rows.jsonl",
        "--replies",
        tmp_path / "replies.jsonl",
        "--out",
        tmp_path / "out.jsonl",
    ]
    monkeypatch.setenv("LINN_TEST_KEY", "secret")
    options = [
        "--judge",
        f"{server.url}#m",
        "--option",
        "judge.key_env=LINN_TEST_KEY",
        "--option",
        "judge.retries=1",
    ]
    code, out, err = said("grade", "preference", *words, *options)
    assert code == 0 and "judge: 2 questions, 50.0% unreadable" in out, err
    assert [
        json.loads(line)["reward"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ] == [0.75, 0.0, 0.5]
    assert server.headers[0]["authorization"] == "Bearer secret" and len(server.seen) == 3
    monkeypatch.delenv("LINN_TEST_KEY")
    assert "LINN_TEST_KEY" in refused("grade", "preference", *words, *options)
