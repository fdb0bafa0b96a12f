"""The client of endpoints, over the loopback: slow, busy, broken, hanging, refusing, gone."""

import asyncio
import json
import re
import ssl
import threading
import time
from contextlib import aclosing

import httpx
import pytest
from support.served import Server, completion, echo, event, streamed

from linn.endpoint.address import parse_endpoint
from linn.endpoint.answer import Answer, Delta, TokenLogprob, whole
from linn.endpoint.client import BadRequest, Endpoint
from linn.endpoint.refusals import TryAgain, broken_connection
from linn.endpoint.waiting import Waits
from linn.errors import InfrastructureError, UserError
from linn.types import Message, Sampling, ToolCall

HOW = Sampling(50, 0.6, 0.95)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def client(server: Server | str, **options) -> Endpoint:
    url = server if isinstance(server, str) else server.url
    return Endpoint(url, "m", **{"pause_s": 0.01, "timeout_s": 60.0, **options})


def asked(endpoint: Endpoint, count: int = 1, **options) -> list[Answer]:
    async def all_answers() -> list[Answer]:
        async with endpoint:
            requests = [
                endpoint.complete([Message("user", f"q{i}")], HOW, i, **options)
                for i in range(count)
            ]
            return await asyncio.gather(*requests)

    return asyncio.run(all_answers())


def refusal(endpoint: Endpoint, kind: type[Exception] = InfrastructureError) -> str:
    """The one line that a request ends with."""
    with pytest.raises(kind) as caught:
        asked(endpoint)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stream_of(endpoint: Endpoint, **options):
    return endpoint.stream([Message("user", "q0")], HOW, 0, **options)


def pieces(endpoint: Endpoint, **options) -> list[Delta]:
    async def all_pieces() -> list[Delta]:
        async with endpoint:
            return [piece async for piece in stream_of(endpoint, **options)]

    return asyncio.run(all_pieces())


def put_together(endpoint: Endpoint) -> Answer:
    async def answer() -> Answer:
        async with endpoint:
            return await whole(stream_of(endpoint))

    return asyncio.run(answer())


# ---------------------------------------------------------------- requests and answers


def test_an_answer_holds_what_the_server_tells(serve):
    call = {"id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}
    response = {
        "model": "m",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        "choices": [
            {
                "message": {
                    "content": [{"type": "text", "text": "4"}],
                    "reasoning_content": "2 + 2",
                    "tool_calls": [call],
                },
                "finish_reason": "tool_calls",
                "logprobs": {"content": [{"token": "4", "logprob": -0.5}]},
            }
        ],
    }
    server = serve(lambda body, before: (200, json.dumps(response)))
    (answer,) = asked(client(server), tools=[TOOL], extra={"logprobs": True, "seed": None})
    assert answer == Answer(
        content="4",
        reasoning="2 + 2",
        tool_calls=(ToolCall("add", {"a": 1}, "c1"),),
        finish_reason="tool_calls",
        model="m",
        prompt_tokens=7,
        completion_tokens=3,
        logprobs=(TokenLogprob("4", -0.5),),
    )
    assert answer.message == Message("assistant", "4", "2 + 2", answer.tool_calls)
    (body,) = server.seen
    assert body["tools"] == [TOOL] and body["logprobs"] is True and "seed" not in body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.95, 50)


def test_a_conversation_with_calls_is_sent_as_the_protocol_writes_it(serve):
    server = serve(echo)
    calls = (ToolCall("add", {"a": "\ud800"}), ToolCall("add", "no json"))
    talk = [
        Message("user", "a\ud800b"),
        Message("assistant", "", "let me add", calls),
        Message("tool", "1"),
        Message("tool", "2"),
    ]

    async def ask(endpoint: Endpoint) -> None:
        async with endpoint:
            await endpoint.complete(talk, HOW, 2**63 - 1)

    asyncio.run(ask(client(server)))
    asyncio.run(ask(client(server, reasoning_key=None)))
    with_thought, without = (body["messages"] for body in server.seen)
    assert with_thought[0]["content"] == "a?b" and server.seen[0]["seed"] < 2**31
    assert with_thought[1]["reasoning_content"] == "let me add"
    assert "reasoning_content" not in without[1]
    first, second = with_thought[1]["tool_calls"]
    assert json.loads(first["function"]["arguments"]) == {"a": "?"}
    assert second["function"]["arguments"] == "no json"
    assert [turn["tool_call_id"] for turn in with_thought[2:]] == [first["id"], second["id"]]


def test_an_endpoint_serves_one_event_loop_after_another(serve):
    server = serve(echo)
    endpoint = client(server)
    for _ in range(2):
        (answer,) = asked(endpoint)
        assert answer.content.endswith("re q0")


def test_nested_use_shares_the_connections(serve):
    endpoint = client(serve(echo))

    async def nested() -> list[str]:
        async with endpoint:
            async with endpoint:
                inner = await endpoint.complete([Message("user", "a")], HOW, 0)
            # Leaving the inner use has not closed what the outer one still needs.
            outer = await endpoint.complete([Message("user", "b")], HOW, 0)
        return [inner.content, outer.content]

    first, second = asyncio.run(nested())
    assert first.endswith("re a") and second.endswith("re b")


# ---------------------------------------------------------------- patience


def test_a_busy_server_is_waited_for(serve):
    busy = {
        0: (429, "slow down", {"retry-after": "0"}),
        1: (503, "starting"),
        2: None,
        3: (200, "{"),
        4: (200, '{"choices": []}'),
    }
    server = serve(lambda body, before: busy[before] if before in busy else echo(body, before))
    assert len(asked(client(server), 3)) == 3
    assert set(server.times.values()) == {6}


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ((500, "out of\nmemory"), "status 500: out of memory"),
        ((429, ""), "status 429"),
        ((200, "<html>"), "no chat completion, but '<html>'"),
        ((200, "[" * 100_000), "no chat completion"),
        ((200, '{"choices": [{"message": {"content": 7}}]}'), "no chat completion"),
        ((200, completion("4", tool_calls=[{"function": {}}])), "no chat completion"),
        ((200, completion("4", tool_calls=7)), "no chat completion"),
        ((200, '{"choices": [[]]}'), "no chat completion"),
        ((200, "hm", {"content-encoding": "gzip"}), "DecodingError"),
        pytest.param(
            (200, completion("4")[:-1] + " " * (17 << 20) + "}"),
            "no chat completion",
            marks=pytest.mark.slow,
        ),
        (None, "Protocol"),
    ],
    ids=[
        "500",
        "429",
        "no JSON",
        "deep JSON",
        "no text",
        "a call of nothing",
        "a number of calls",
        "a list of lists",
        "wrong encoding",
        "endless",
        "hangs up",
    ],
)
def test_a_server_that_stays_broken_is_infrastructure(serve, reply, cause):
    server = serve(lambda body, before: reply)
    line = refusal(client(server))
    assert server.url in line and cause in line and "6 tries" in line


def test_slow_is_no_answer(serve):
    over = threading.Event()

    def hangs_at_first(body, before):
        if before == 0:
            over.wait(20)
        return echo(body, before)

    assert len(asked(client(serve(hangs_at_first), timeout_s=1, deadline_s=99), 2)) == 2
    over.set()
    slow = serve(lambda body, before: time.sleep(0.3) or echo(body, before))
    assert "no answer within 0.05 s (2" in refusal(client(slow, timeout_s=0.05, tries=2))
    line = refusal(client(slow, timeout_s=0.25, deadline_s=0.1))
    assert "no answer within 0.1 s in all (1 try" in line


def test_a_deadline_ends_all_tries(serve):
    server = serve(lambda body, before: (503, "busy"))
    line = refusal(client(server, deadline_s=0.2, pause_s=0.15, tries=100))
    assert "status 503: busy" in line or "no answer within 0.2 s in all" in line
    assert len(server.seen) <= 2


@pytest.mark.parametrize("text", ["drip", "never"])
def test_an_answer_that_never_comes_or_drips_ends_at_the_deadline(serve, text):
    over = threading.Event()

    def drip():
        for _ in range(1000):
            yield " "
            if over.wait(0.02):
                return

    def reply(body, before):
        if text == "drip":
            return 200, drip()
        over.wait(20)
        return None

    line = refusal(client(serve(reply), timeout_s=0.15, deadline_s=0.2))
    over.set()
    assert "no answer within" in line


def test_silence_amid_an_answer_is_seen(serve):
    over = threading.Event()

    def stalls():
        yield "{"
        over.wait(20)

    server = serve(lambda body, before: (200, stalls()) if before == 0 else echo(body, before))
    (answer,) = asked(client(server, silence_s=0.1))
    over.set()
    assert answer.content.endswith("re q0")
    hung = serve(lambda body, before: (200, stalls()))
    over.clear()
    line = refusal(client(hung, silence_s=0.05, tries=2))
    over.set()
    assert "silent for 0.05 s amid its answer" in line


def test_nobody_there():
    assert "endpoint http://127.0.0.1:9/v1: ConnectError" in refusal(
        client("http://127.0.0.1:9/v1")
    )
    assert "no usable address" in refusal(client("http://[::1"))
    assert "no usable address" in refusal(client(f"http://{'a' * 70}.b/v1"))
    secret = "http://me:secret@127.0.0.1:9/v1"
    assert "secret" not in refusal(client(secret))
    assert "set it anew" in refusal(client("http://127.0.0.1:9/v1", key="a\nb"))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ((401, "bad key"), "status 401: bad key; the key that MY_KEY gives is not the one"),
        ((403, ""), "status 403: nothing more; the key that MY_KEY"),
        ((418, "tea"), "refused with status 418: tea"),
        ((302, "", {"location": "http://b/v1"}), "elsewhere, at 'http://b/v1'; name that address"),
    ],
)
def test_a_refusal_is_final(serve, reply, line):
    server = serve(lambda body, before: reply)
    assert line in refusal(client(server, key="k", key_name="MY_KEY"))
    assert len(server.seen) == 1


def test_a_missing_key_is_asked_for(serve):
    server = serve(lambda body, before: (401, "who are you?"))
    assert "it wants a key: give one by --key-env" in refusal(client(server, key_name="--key-env"))


@pytest.mark.parametrize(
    ("models", "line"),
    [
        (("a", "b"), "it serves a, b, not 'm'"),
        (tuple("abcdefghij"), "it serves a, b, c, d, e, f, g, h and 2 more, not 'm'"),
        (("m",), "it lists 'm', but not for chat completions"),
        ((), "with /v1 at the end?"),
    ],
)
def test_an_unknown_model_is_answered_with_those_that_are_known(serve, models, line):
    server = serve(lambda body, before: (404, "no such model"), models)
    assert line in refusal(client(server))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_may_be_refused_alone(serve, status):
    server = serve(lambda body, before: (status, "context\ntoo long"))
    line = refusal(client(server), BadRequest)
    assert f"refused a request with status {status}: context too long" in line
    assert len(server.seen) == 1


def test_what_waiting_cannot_change_is_not_waited_for(serve, tmp_path):
    server = serve(echo)
    plain = server.url.replace("http:", "https:")
    assert "does not speak TLS" in refusal(client(plain))
    assert not server.seen


def test_a_certificate_that_nobody_vouches_for_is_final():
    error = httpx.ConnectError("all attempts failed")
    error.__cause__ = ssl.SSLCertVerificationError(1, "self-signed certificate")
    error.__cause__.verify_message = "self-signed certificate"
    line = str(broken_connection(error, "judge https://h/v1"))
    assert "judge https://h/v1: its certificate is not trusted (self-signed certificate)" in line
    assert "SSL_CERT_FILE" in line
    assert isinstance(broken_connection(httpx.ConnectError("no route"), "judge"), TryAgain)


def test_another_model_than_was_asked_for_is_told_once(serve):
    lines = []

    def named(name):
        answer = json.dumps({**json.loads(completion("4")), "model": name})
        return client(serve(lambda body, before: (200, answer)), say=lines.append)

    other = named("other")
    asked(other, 3)
    asked(other, 3)
    asked(named("m-2024-08-06"))
    asked(named("m"))
    assert len(lines) == 1 and "asked for m, it says that other answers" in lines[0]


# ---------------------------------------------------------------- streams


def test_a_stream_is_the_answer_in_pieces(serve):
    def reply(body, before):
        parts = streamed(
            {"role": "assistant", "content": ""},
            {"reasoning_content": "2 +"},
            {"reasoning_content": " 2"},
            {"content": "fo"},
            {"content": "ur"},
            {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "add", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        )
        usage = {"prompt_tokens": 5, "completion_tokens": 9}
        return 200, [": hello\n\n", *list(parts)[:-1], event({"choices": [], "usage": usage})]

    server = serve(reply)
    deltas = pieces(client(server))
    assert [delta.content for delta in deltas if delta.content] == ["fo", "ur"]
    assert server.seen[0]["stream"] is True
    assert put_together(client(server)) == Answer(
        content="four",
        reasoning="2 + 2",
        tool_calls=(ToolCall("add", {"a": 1}, "c"),),
        finish_reason="stop",
        prompt_tokens=5,
        completion_tokens=9,
    )


def test_a_server_that_does_not_stream_gives_one_piece(serve):
    call = {"id": "c", "function": {"name": "add", "arguments": '{"a": 1}'}}
    body = completion("four", tool_calls=[call])
    server = serve(lambda _body, before: (200, body, {"content-type": "application/json"}))
    answer = put_together(client(server))
    assert answer.content == "four" and answer.tool_calls == (ToolCall("add", {"a": 1}, "c"),)


def test_a_stream_is_tried_again_until_it_begins(serve):
    begin = {0: (503, "busy"), 1: None, 2: (200, []), 3: (200, ["data: <html>\n\n"])}

    def reply(body, before):
        return begin[before] if before in begin else (200, streamed({"content": "four"}))

    assert put_together(client(serve(reply))).content == "four"


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ([], "the stream ended before the answer"),
        ([event({"error": {"message": "out of memory"}})], "no piece of an answer, but"),
        (["data: [[[[\n\n"], "no piece of an answer"),
        (["x" * (1 << 20), "x"], "a stream without an end"),
    ],
)
def test_a_stream_that_breaks_off_is_no_answer(serve, parts, line):
    begun = list(streamed({"content": "fo"}, finish=None))
    server = serve(lambda body, before: (200, [*begun, *parts]))
    with pytest.raises(InfrastructureError, match="broke off: ") as caught:
        pieces(client(server))
    assert line in str(caught.value) and len(server.seen) == 1


def test_an_infinite_stream_ends_at_its_limit(serve):
    def for_ever():
        while True:
            yield event({"choices": [{"delta": {"content": "a"}}]})
            time.sleep(0.001)

    with pytest.raises(InfrastructureError, match="not done within 1 s"):
        pieces(client(serve(lambda body, before: (200, for_ever())), timeout_s=1))


def test_a_stream_that_is_closed_ends_the_servers_work(serve):
    ended = threading.Event()

    def for_ever():
        try:
            while True:
                yield event({"choices": [{"delta": {"content": "a"}}]})
                time.sleep(0.001)
        finally:
            ended.set()

    server = serve(lambda body, before: (200, for_ever()))

    async def first_piece() -> None:
        async with client(server) as endpoint, aclosing(stream_of(endpoint)) as stream:
            async for _ in stream:
                break

    asyncio.run(first_piece())
    assert ended.wait(20)


# ---------------------------------------------------------------- words while waiting


def test_a_line_is_said_while_the_server_is_silent(serve):
    lines = []
    quick = {"q0", "q1"}
    go_on = threading.Event()

    def say(line):
        lines.append(line)
        go_on.set()

    def reply(body, before):
        if body["messages"][-1]["content"] not in quick:
            go_on.wait(20)
        return echo(body, before)

    asked(client(serve(reply), name="judge", heartbeat_s=0.1, say=say, concurrency=4), 7)
    assert "judge http://127.0.0.1:" in lines[0]
    assert re.search(r": [0-2] of 7 answers, the oldest waits \d+ s", lines[0])


def test_a_line_says_what_the_last_try_failed_of(serve):
    lines = []
    server = serve(lambda body, before: (503, "lo\x1b[2Jading"))
    with pytest.raises(InfrastructureError):
        asked(client(server, heartbeat_s=0.05, pause_s=0.04, tries=4, say=lines.append))
    assert any(re.search(r"\(try [1-3]: status 503: lo", line) for line in lines)


def test_an_answered_server_is_not_spoken_of():
    waits = Waits("judge", lambda line: None)
    with waits.asked(), waits.sent():
        assert "0 of 1 answers" in waits.line() and waits.line(least_s=60) == ""
    assert waits.line() == ""
    with waits.asked():
        assert waits.line() == ""  # in the queue of a full endpoint


# ---------------------------------------------------------------- addresses


def test_addresses():
    assert parse_endpoint("http://h:1/v1/#a/b") == ("http://h:1/v1", "a/b")
    assert str(parse_endpoint("https://me:pass@h/v1#m")) == "https://h/v1#m"
    assert parse_endpoint("runs/a@sft") is None
    for half in (
        "http://h:1/v1",
        "http://#m",
        "http://h:port/v1#m",
        "http://h:1/v1# ",
        "http://[#m",
    ):
        with pytest.raises(UserError, match="http://HOST|HOST:PORT"):
            parse_endpoint(half)
