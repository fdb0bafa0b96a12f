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
from linn.types import Message, Sampling

HOW = Sampling(50, 0.6, 0.95)
ASKED = [[Message("user", f"q{i}")] for i in range(12)]
SEEDS = list(range(12))


def judge_of(server: Server, **options) -> EndpointJudge:
    options = {"pause_s": 0.01, "timeout_s": 5.0, **options}
    return EndpointJudge(Endpoint(server.url, "m", **options), HOW)


def answers(judge: EndpointJudge, *arguments) -> list[str]:
    return asyncio.run(judge.answer(*arguments))


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
