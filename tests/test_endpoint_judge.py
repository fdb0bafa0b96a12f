"""A judge behind an endpoint: what of its answers counts, and what it is asked."""

import asyncio
import json
import time

import pytest
from support.cli import refused, said
from support.served import Server, completion, echo
from support.verdicts import verdict_to

from linn.endpoint.client import Endpoint
from linn.errors import InfrastructureError
from linn.judges.endpoint import EndpointJudge
from linn.judges.model import ask
from linn.judges.text import Question
from linn.types import Message, Sampling

CALL = {"id": "c", "function": {"name": "add", "arguments": "{}"}}
HOW = Sampling(50, 0.6, 0.95)
ASKED = [[Message("user", f"q{i}")] for i in range(12)]
SEEDS = list(range(12))


def judge_of(server: Server, **options) -> EndpointJudge:
    options = {"pause_s": 0.01, "timeout_s": 60.0, **options}
    return EndpointJudge(Endpoint(server.url, "m", **options), HOW)


def answers(judge: EndpointJudge, *arguments) -> list[str]:
    return [answer.text for answer in asyncio.run(judge.answer(*arguments))]


def test_answers_come_in_order_with_the_judges_sampling(serve):
    server = serve(
        lambda body, before: (
            time.sleep(0.02 * (int(body["messages"][-1]["content"][1:]) % 3)) or echo(body, before)
        )
    )
    judge = judge_of(server, concurrency=4, key="secret")
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


def test_one_failure_stops_the_others(serve):
    server = serve(
        lambda body, before: (
            (401, "no")
            if body["messages"][-1]["content"] == "q0"
            else time.sleep(0.5) or echo(body, before)
        )
    )
    with pytest.raises(InfrastructureError):
        answers(judge_of(server, concurrency=2), ASKED, SEEDS)
    assert len(server.seen) <= 4, "questions were asked after the first was refused"


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
    assert answers(judge_of(serve(lambda _body, before: (200, body))), ASKED[:1], [2**63 - 1]) == [
        answer
    ]


@pytest.mark.parametrize(
    ("reply", "missing"),
    [
        ((200, completion(None, reasoning_content="5")), "a thought without an answer"),
        ((200, completion("<think>never ends")), "a thought without an answer"),
        ((200, completion("4", finish="length")), "cut off by its max_tokens of 50"),
        ((200, completion(" ")), "an empty answer"),
        ((200, completion(None, finish="content_filter")), "withheld by the server's content"),
        ((200, completion(None, tool_calls=[CALL])), "it calls a tool instead of answering"),
        ((400, "context too long"), "refused a request with status 400: context too long"),
    ],
)
def test_an_answer_that_is_missing_says_why(serve, reply, missing):
    judge = judge_of(serve(lambda body, before: reply))
    (answer,) = asyncio.run(judge.answer(ASKED[:1], SEEDS[:1]))
    assert answer.text == "" and missing in answer.missing
    assert answer.final == (reply[0] == 400)


def test_a_question_that_the_server_refuses_is_asked_once_and_ends_no_run(serve):
    def reply(body, before):
        if body["messages"][-1]["content"] == "q0":
            return 400, "context too long"
        return 200, completion("good" if before else "")

    server = serve(reply)
    questions = [Question(tuple(talk), lambda text: text or None, (0,)) for talk in ASKED[:3]]
    answers, unread = asyncio.run(ask(judge_of(server), questions, SEEDS[:3]))
    assert answers == ["", "good", "good"] and "context too long" in unread[0]
    assert server.times == {"q0": 1, "q1": 2, "q2": 2}


def test_offline_grading_by_an_endpoint(serve, tmp_path, monkeypatch):
    def reply(body, before):
        asked = Message("user", body["messages"][-1]["content"])
        if "because" not in asked.content:
            return 200, completion("hm")
        return 200, completion(verdict_to([asked], '{"score": 4}'))

    server = serve(reply)
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
