"""The server's protocol, over scripted models: what is answered, refused, counted and given up."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="linn[serve] is not installed")
pytest.importorskip("prometheus_client", reason="linn[serve] is not installed")

from support.chats import WEATHER
from support.families import FAMILIES as ALL_FAMILIES
from support.families import write
from support.serving import TINY, Server, asks, events_in

from linn.chat.codec import Codec
from linn.chat.request import render_row
from linn.errors import InfrastructureError, UserError
from linn.offline.shown import Shown
from linn.serve import prompts
from linn.serve.limits import Limits
from linn.types import Message

FAMILIES = sorted(name for name, family in ALL_FAMILIES.items() if family.template is not None)
CALL = (
    "<tool_call>\n<function=weather>\n<parameter=town>\nRome\n</parameter>\n"
    "</function>\n</tool_call>"
)
CALLING = f"I look.</think>\nOne moment.\n{CALL}<|im_end|>"


def joined(chunks: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """The choice that chunks make."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    logprobs: list[Any] = []
    finish = None
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            for key in ("content", "reasoning_content"):
                message[key] += choice["delta"].get(key) or ""
            message["tool_calls"] += choice["delta"].get("tool_calls", [])
            logprobs += (choice["logprobs"] or {}).get("content", [])
            finish = finish or choice["finish_reason"]
    return {"message": message, "finish_reason": finish, "logprobs": logprobs}


# ---------------------------------------------------------------- chat


def test_thought_and_answer_are_told_apart() -> None:
    choice = Server().chat()
    assert choice["message"] == {
        "role": "assistant", "content": "Hi.", "reasoning_content": "hm"
    }  # fmt: skip
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("reply", ["hm</think>\nHi.<|im_end|>", CALLING, "no end", "é😀</think>"])
def test_a_stream_says_what_the_whole_says(reply: str) -> None:
    server = Server(lambda text, seed: reply)
    body = asks(tools=[WEATHER], logprobs=True, top_logprobs=2, n=2)
    whole = server.post("/chat/completions", body).json()
    chunks = events_in(server.post("/chat/completions", {**body, "stream": True}))
    for index, choice in enumerate(whole["choices"]):
        told = joined(chunks, index)
        message = choice["message"]
        assert told["message"]["content"] == (message["content"] or "")
        assert told["message"]["reasoning_content"] == message.get("reasoning_content", "")
        functions = [call["function"] for call in message.get("tool_calls", [])]
        assert [call["function"] for call in told["message"]["tool_calls"]] == functions
        assert told["logprobs"] == choice["logprobs"]["content"]
        assert told["finish_reason"] == choice["finish_reason"]


def test_a_call_is_a_call() -> None:
    choice = Server(lambda text, seed: CALLING).chat(tools=[WEATHER])
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "One moment."
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"town": "Rome"}


CONVERSATIONS = [
    asks("Hi <|im_end|> é"),
    asks("Hi", chat_template_kwargs={"enable_thinking": False}),
    asks("Hi", tools=[WEATHER]),
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {"role": "assistant", "content": None, "reasoning_content": "I look.",
             "tool_calls": [{"id": "c", "type": "function", "function":
                             {"name": "weather", "arguments": '{"town": "Rome"}'}}]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        ],
        "tools": [WEATHER],
    },
]  # fmt: skip


@pytest.mark.parametrize("body", CONVERSATIONS)
def test_what_is_sampled_from_is_what_linn_render_shows(body: dict[str, Any]) -> None:
    seen: list[str] = []
    server = Server(lambda text, seed: seen.append(text) or "</think>x<|im_end|>")
    answer = server.post("/chat/completions", {"model": "tiny", **body, "return_token_ids": True})
    row = {key: value for key, value in body.items() if key != "model"}
    assert seen == [render_row(row)]
    message = answer.json()["choices"][0]["message"]
    assert server.codec.decode(message["prompt_token_ids"]) == render_row(row)
    assert len(message["generation_token_ids"]) == len(message["generation_log_probs"])

    # The same by the Responses protocol.
    items = {"input": body["messages"], "tools": body.get("tools", [])}
    options = {"chat_template_kwargs": body.get("chat_template_kwargs", {})}
    server.post("/responses", {"model": "tiny", **items, **options})
    assert seen[1] == seen[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_template_is_written_as_linn_render_writes_it(family: str, tmp_path: Path) -> None:
    write(family, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    server = Server(lambda text, seed: "x", folders={"own": tmp_path})
    codec = server.models.find("own").codec
    for body in CONVERSATIONS[:2]:
        # A template cannot always write what another can.
        row = {key: value for key, value in body.items() if key != "model"}
        asked = {"model": "own", **row, "return_token_ids": True, "max_tokens": 3}
        (choice,) = server.post("/chat/completions", asked).json()["choices"]
        entry = Shown(None, codec).entry(row, 0)
        assert choice["message"]["prompt_token_ids"] == entry["tokens"]


def test_thinking_is_switched_by_every_name_clients_use() -> None:
    seen: list[str] = []
    server = Server(lambda text, seed: seen.append(text) or "x<|im_end|>")
    for more in (
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"thinking": False}},
        {"enable_thinking": False},
        {"reasoning_effort": "none"},
    ):
        assert server.chat(**more)["message"] == {"role": "assistant", "content": "x"}
    assert all(text.endswith("<think></think>") for text in seen)
    assert not any(text.endswith("<think></think>") for text in [server.chat() and seen[-1]])


def test_stop_strings_limits_and_seeds() -> None:
    server = Server(lambda text, seed: f"</think>abcdef {seed}<|im_end|>")
    assert server.chat(stop="cd")["message"]["content"] == "ab"
    assert server.chat(stop=["zz", "f"])["finish_reason"] == "stop"
    assert server.chat(max_tokens=2)["finish_reason"] == "length"
    assert server.chat(max_completion_tokens=2)["finish_reason"] == "length"
    same = [server.chat(seed=7)["message"]["content"] for _ in range(2)]
    assert same[0] == same[1] != server.chat(seed=8)["message"]["content"]
    two = server.post("/chat/completions", asks(n=2, seed=7)).json()["choices"]
    assert two[0]["message"] != two[1]["message"]
    assert [choice["index"] for choice in two] == [0, 1]
    assert server.chat()["message"] != server.chat()["message"], "no seed, no repetition"


# ---------------------------------------------------------------- completions and responses


def test_completions_echo_and_score_as_harnesses_ask() -> None:
    server = Server(lambda text, seed: "xyz<|im_end|>")
    ids = server.codec.encode("Hello you")
    body = {"model": "tiny", "prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": 1}
    (choice,) = server.post("/completions", body).json()["choices"]
    values = choice["logprobs"]["token_logprobs"]
    assert len(values) == len(ids) + 1 == len(choice["logprobs"]["top_logprobs"])
    assert values[0] is None and all(value == -1.0 for value in values[1:])
    assert choice["text"].startswith("Hello you")

    alone = server.post("/completions", {**body, "max_tokens": 0}).json()["choices"][0]
    assert len(alone["logprobs"]["tokens"]) == len(ids)
    many = server.post("/completions", {"model": "tiny", "prompt": ["a", "b"], "n": 2}).json()
    assert [choice["index"] for choice in many["choices"]] == [0, 1, 2, 3]
    stream = {"model": "tiny", "prompt": "a", "stream": True, "seed": 1, "logprobs": 0}
    chunks = events_in(server.post("/completions", stream))
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == "xyz"


def test_responses_have_items_of_each_kind_and_the_tokens_on_request() -> None:
    server = Server(lambda text, seed: CALLING)
    body = {"model": "tiny", "input": "Weather?", "tools": [WEATHER], "return_token_ids": True}
    whole = server.post("/responses", body).json()
    kinds = [item["type"] for item in whole["output"]]
    assert kinds == ["reasoning", "message", "function_call"] and whole["status"] == "completed"
    last = whole["output"][-1]
    assert len(last["generation_token_ids"]) == len(last["generation_log_probs"])

    told = events_in(server.post("/responses", {**body, "stream": True}))
    assert [one["sequence_number"] for one in told] == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    streamed = told[-1]["response"]["output"]
    for one, other in zip(streamed, whole["output"], strict=True):
        for key in one.keys() - {"id", "call_id"}:
            assert one[key] == other[key], key
    text = "".join(one["delta"] for one in told if one["type"] == "response.output_text.delta")
    assert text == "One moment."

    # What was answered can be sent back as it is.
    output = {"type": "function_call_output", "call_id": last["call_id"], "output": "sunny"}
    again = [{"role": "user", "content": "Weather?"}, *whole["output"], output]
    assert server.post("/responses", {**body, "input": again}).status_code == 200
    cut = server.post("/responses", {**body, "max_output_tokens": 2}).json()
    assert cut["status"] == "incomplete"


# ---------------------------------------------------------------- refusals


def refused(server: Server, body: Any, status: int = 400, path: str = "/chat/completions") -> Any:
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"] and error.keys() == {"message", "type", "param", "code"}
    assert len(error["message"]) < 600
    return error


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 10_000}, "n"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"stop": ["x"] * 10_000}, "stop"),
        ({"stop": "x" * 10_000}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "NaN"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_logprobs": 500, "logprobs": True}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"tools": [WEATHER] * 1000}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "messages"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
        ({"frequency_penalty": 1.5}, "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    assert refused(Server(), {**asks(), **more})["param"] == param


def test_bodies_that_are_none_are_refused() -> None:
    server = Server(limits=Limits(body_bytes=2000, depth=20))
    deep = json.dumps(asks(metadata={}))[:-1] + ', "chat_template_kwargs": {"a": ' + "[" * 900
    refused(server, deep + "]" * 900 + "}}")
    refused(server, "[" * 1500)
    refused(server, b"\xff\xfe")
    refused(server, '{"temperature": NaN, "messages": []}')
    refused(server, "[]")
    refused(server, asks("x" * 5000), 413)
    refused(server, {**asks(), "model": "../../etc"}, 404)
    assert server.post("/nothing", {}).status_code == 404
    assert "error" in server.post("/nothing", {}).json()
    plain = server.post("/chat/completions", asks(), **{"content-type": "text/plain"})
    assert plain.status_code == 415, "a page of the web could send it"


def test_a_prompt_over_the_context_is_refused_in_the_protocols_words() -> None:
    error = refused(Server(context=100), asks("word " * 100_000))
    assert error["code"] == "context_length_exceeded" and error["param"] == "messages"


def test_only_the_key_opens() -> None:
    server = Server(key="sésame")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sésame"}):
        sent = {name: value.encode() for name, value in headers.items()}
        assert server.post("/chat/completions", asks(), **sent).status_code == 401
        assert server.get("/v1/models", **sent).status_code == 401
    good = {"authorization": "Bearer sésame".encode()}
    assert server.post("/chat/completions", asks(), **good).status_code == 200
    assert server.get("/v1/models", **good).status_code == 200
    assert server.get("/health").status_code == 200


# ---------------------------------------------------------------- many at once


def test_nobody_gets_anothers_reply() -> None:
    server = Server(
        lambda text, seed: "</think>" + text.split("mark-")[1].split("<")[0] + "<|im_end|>"
    )
    marks = [f"{number:04d}" for number in range(64)]
    requests = [
        ("/chat/completions", asks(f"mark-{mark}", stream=bool(place % 2)))
        for place, mark in enumerate(marks)
    ]
    for mark, place, answer in zip(marks, range(64), server.post_all(requests), strict=True):
        if place % 2:
            assert joined(events_in(answer))["message"]["content"] == mark
        else:
            assert answer.json()["choices"][0]["message"]["content"] == mark
    assert server.service.open == 0


def test_beyond_the_queue_clients_are_told_to_come_again() -> None:
    server = Server(limits=Limits(queue=3))
    answers = server.post_all([("/chat/completions", asks(n=2))] * 4)
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 429, 429, 429] or codes.count(200) >= 1
    assert all(a.headers["retry-after"] for a in answers if a.status_code == 429)
    assert server.post("/chat/completions", asks(n=2)).status_code == 200, "the queue is free again"


def connection(server: Server, body: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, list[Any]]:
    """A connection as ASGI has it: scope, what comes, send, and what was sent."""
    content = json.dumps(body).encode()
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1",
        "scheme": "http", "server": ("x", 80), "client": ("y", 1), "root_path": "",
        "raw_path": b"/v1/chat/completions",
    }  # fmt: skip
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": content, "more_body": False})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    return scope, incoming, send, sent


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_rows(stream: bool) -> None:
    server = Server(lambda text, seed: "x y " * 2000)

    async def part() -> None:
        streams = server.models.find("tiny").streams
        streams.pause = lambda: asyncio.sleep(0.001)
        body = asks(stream=stream, n=3)
        scope, incoming, send, _ = connection(server, body)
        task = asyncio.create_task(server.app(scope, incoming.get, send))
        while streams.live < 3:
            await asyncio.sleep(0.01)
        assert server.service.open == 3
        incoming.put_nowait({"type": "http.disconnect"})
        await task
        assert streams.live == 0 and server.service.open == 0

    asyncio.run(part())
    assert b"linn_clients_gone_total 1.0" in server.service.metrics.text()


def test_a_client_that_reads_nothing_is_given_up() -> None:
    server = Server(lambda text, seed: "x y " * 2000, limits=Limits(stall_s=0.05))

    async def part() -> None:
        streams = server.models.find("tiny").streams
        scope, incoming, _, _ = connection(server, asks(stream=True))

        async def send(message: Any) -> None:
            if message.get("body"):
                await asyncio.Event().wait()

        await server.app(scope, incoming.get, send)
        assert streams.live == 0 and server.service.open == 0

    asyncio.run(part())


@pytest.mark.parametrize("stream", [True, False])
def test_what_runs_when_the_server_ends_is_told_so(stream: bool) -> None:
    server = Server(lambda text, seed: "</think>" + "x y " * 2000)

    async def part() -> list[Any]:
        streams = server.models.find("tiny").streams
        streams.pause = lambda: asyncio.sleep(0.001)
        scope, incoming, send, sent = connection(server, asks(stream=stream))
        task = asyncio.create_task(server.app(scope, incoming.get, send))
        while not streams.live or (stream and not sent):
            await asyncio.sleep(0.01)
        server.service.closing = True
        server.service.abort()
        await task
        assert streams.live == 0
        return sent

    sent = asyncio.run(part())
    told = b"".join(message.get("body", b"") for message in sent)
    assert b"server_stopping" in told and not sent[-1].get("more_body")
    assert sent[0]["status"] == (200 if stream else 503)
    assert server.post("/chat/completions", asks()).status_code == 503
    assert server.get("/health").status_code == 503


def test_a_dead_process_is_an_error_of_its_requests_alone() -> None:
    server = Server()
    server.models.find("tiny").streams.error = InfrastructureError("engine process 0 ended")
    assert refused(server, asks(), 503)["code"] == "engine_failed"
    chunks = events_in(server.post("/chat/completions", asks(stream=True)))
    assert "engine process 0 ended" in chunks[-1]["error"]["message"]
    server.models.find("tiny").streams.error = None
    assert server.chat()["message"]["content"] == "Hi."


# ---------------------------------------------------------------- several models


@pytest.fixture
def two(tmp_path: Path) -> dict[str, Path]:
    import shutil

    for name in ("one", "two"):
        shutil.copytree(TINY, tmp_path / name)
    return {"run@one": tmp_path / "one", "run@two": tmp_path / "two"}


def test_models_are_read_when_asked_for_within_the_memory(two: dict[str, Path]) -> None:
    size = Server(folders=two).models.find(None).size
    assert size >= sum(path.stat().st_size for path in TINY.glob("*.safetensors"))
    server = Server(folders=two, memory=int(size * 1.5))
    names = [entry["id"] for entry in server.get("/v1/models").json()["data"]]
    assert names == ["run@one", "run@two"]
    for name in ("run@one", "run@two", "run@one"):
        answer = server.post("/chat/completions", {**asks(), "model": name})
        assert answer.json()["model"] == name
        assert [one.name for one in server.models.loaded] == [name]
    assert server.get("/v1/models/run@two").json()["id"] == "run@two"
    assert server.get("/v1/models/run@three").status_code == 404

    with pytest.raises(UserError, match="--memory"):
        Server(folders=two, memory=size // 2)


def test_names_are_those_of_the_command_line(tmp_path: Path) -> None:
    from linn.serve.models import named_folders

    for stage in ("01-sft", "02-if-rl", "03-empty"):
        folder = tmp_path / "run" / "stages" / stage
        folder.mkdir(parents=True)
        if "empty" not in stage:
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "step-0004").symlink_to(TINY)
    run = str(tmp_path / "run")
    assert list(named_folders([run])) == [f"{run}@sft", f"{run}@if-rl"]
    assert list(named_folders([f"{run}@sft", "tiny"])) == [f"{run}@sft", "tiny"]
    with pytest.raises(UserError, match="nowhere"):
        named_folders([f"{run}@nowhere"])


def test_vllm_is_started_with_the_checkpoints_template(monkeypatch: pytest.MonkeyPatch) -> None:
    from linn.serve.vllm import start_vllm, vllm_command

    command = vllm_command(TINY, "tiny", "127.0.0.1", 9, context=512)
    template = Path(command[command.index("--chat-template") + 1])
    assert template.read_text() == Codec.load(TINY).template.jinja
    assert command[command.index("--max-model-len") + 1] == "512"
    assert "--tool-call-parser" in command and "--reasoning-parser" in command
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        start_vllm(command, None)


def test_all_requests_together_are_bounded_too() -> None:
    server = Server(limits=Limits(held_bytes=3000))
    assert refused(server, asks("x" * 4000), 429)["code"] == "queue_full"
    assert server.chat()["message"]["content"] == "Hi."
    assert server.service.held == 0


def test_metrics_are_prometheus_text() -> None:
    server = Server()
    server.chat()
    text = server.get("/metrics").text
    assert 'linn_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert "linn_open_replies 0.0" in text and "linn_generation_tokens_total" in text


def test_the_reply_reads_as_training_reads_it() -> None:
    codec = Codec.load(TINY)
    message = Message("assistant", "An answer.", "A thought.")
    spans = codec.spans([Message("user", "Hi"), message])
    reply = "".join(text for text, trained in spans if trained)
    told = Server(lambda text, seed: reply).chat()["message"]
    assert (told["content"], told["reasoning_content"]) == (message.content, message.reasoning)


def test_large_requests_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read a megabyte takes 300 MB; small requests go past those that wait."""
    reading, most, order = 0, 0, []
    inner = prompts._read

    def watched(row: Any, *rest: Any) -> Any:
        nonlocal reading, most
        size = len(row["messages"][0]["content"])
        is_large = size > 10_000
        reading += is_large
        most = max(most, reading)
        time.sleep(0.02 * is_large)
        read = inner(row, *rest)
        reading -= is_large
        order.append(size)
        return read

    monkeypatch.setattr(prompts, "_read", watched)
    large = [("/chat/completions", asks("word " * 16_000)) for _ in range(6)]
    answers = Server().post_all([*large, ("/chat/completions", asks("Hi"))])
    assert [answer.status_code for answer in answers] == [400] * 6 + [200]
    assert most == 1
    assert order.index(2) < 2
