"""Solving over an endpoint: the same strategies, tokens as the server counts them, a kill."""

import asyncio
import json

import pytest

pytest.importorskip("linn.play.remote")

from support.served import completion
from support.solving import HOW

from linn.files import write_jsonl
from linn.solve.order import Order, fulfil
from linn.solve.players import Models
from linn.solve.run import Spending
from linn.solve.vote import VoteRules
from linn.types import Sampling

ROWS = [{"question": f"what is {k} + 1?", "expected_answer": str(k + 1)} for k in range(6)]


def order(server, rows, rules, **how) -> Order:
    sampling = Sampling(HOW.max_tokens)
    return Order(
        models=Models(f"{server.url}#m", concurrency=4),
        tasks=[f"math={rows}"],
        strategy="vote",
        rules=rules,
        spending=Spending(how={"model": sampling, "judge": sampling}, **{"budget": None, **how}),
    )


def answer(body, number):
    """Right two times of three."""
    k = int(body["messages"][-1]["content"].split()[2])
    said = json.loads(completion(f"\\boxed{{{k + 1 if number % 3 else 0}}}"))
    return 200, json.dumps({**said, "usage": {"prompt_tokens": 9, "completion_tokens": 7}})


def test_a_vote_over_an_endpoint_and_its_tokens(serve, tmp_path):
    rows = tmp_path / "rows.jsonl"
    write_jsonl(rows, ROWS)
    server = serve(answer)
    solved, points = asyncio.run(fulfil(order(server, rows, VoteRules(5)), tmp_path / "out"))
    assert [one.result.score for one in solved] == [1.0] * 6
    assert all(one.budget.spent == 35 and one.budget.calls == 5 for one in solved)
    assert points[-1].score == 1.0

    # Given again, nothing is asked.
    replayed, _ = asyncio.run(fulfil(order(server, rows, VoteRules(5)), tmp_path / "out"))
    assert [one.result for one in replayed] == [one.result for one in solved]
    assert len(server.seen) == 30
    lines = [json.loads(line) for line in (tmp_path / "out" / "record.jsonl").open()]
    assert len(lines) == 1 + 30, "each answer is recorded when it comes"


def test_a_budget_at_an_endpoint_is_kept_by_waves(serve, tmp_path):
    rows = tmp_path / "rows.jsonl"
    write_jsonl(rows, ROWS[:2])
    asked = order(serve(answer), rows, VoteRules(50), budget=30, at_once=2)
    solved, _ = asyncio.run(fulfil(asked, tmp_path / "out"))
    assert [one.budget.spent for one in solved] == [42, 42], "three waves of two: 28 was not enough"
