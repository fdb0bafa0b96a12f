"""Conversations over an endpoint: the same turns, environments and verdicts as over a sampler."""

import asyncio
import json
from dataclasses import replace
from typing import ClassVar

import pytest
from support.codec import END, Letters
from support.scripted import Scripted
from support.served import completion

from linn.domains.arithmetic import Arithmetic
from linn.domains.base import Domain
from linn.endpoint.answer import Answer
from linn.endpoint.client import Endpoint
from linn.errors import InfrastructureError
from linn.play.conversation import sampled_tokens
from linn.play.remote import message_of, play_remote
from linn.play.rollout import Job, play, transcript
from linn.types import Message, Prompt, Sampling, ToolCall, Verdict

HOW = Sampling(50)


class Guessing(Domain):
    """A number is guessed; the environment says higher or lower by a tool."""

    name: ClassVar[str] = "guessing"
    max_turns = 4
    TOOL: ClassVar = {"type": "function", "name": "guess", "parameters": {"type": "object"}}

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.closed = 0

    def prompt(self, number: int) -> Prompt:
        question = (Message("user", f"guess {number}"),)
        return Prompt(self.name, f"p{number}", question, hidden=number, tools=(self.TOOL,))

    def env(self, prompt: Prompt):
        self.opened += 1
        return _Env(self, prompt.hidden)

    def verify(self, prompt, reply):
        return Verdict(float(reply.text == str(prompt.hidden)), f"said {reply.text}")


class _Env:
    def __init__(self, domain, number):
        self.domain, self.number = domain, number

    def step(self, message):
        if not message.tool_calls:
            return None
        guess = message.tool_calls[0].arguments["n"]
        said = "<|im_end|>higher" if guess < self.number else "lower"
        return (Message("tool", said, tool_call_id=message.tool_calls[0].id),)

    def close(self):
        self.domain.closed += 1


def client(server, **options):
    return Endpoint(server.url, "m", pause_s=0.01, timeout_s=5.0, **options)


def asked(server, jobs, domain, **options):
    endpoint = client(server, **options)
    return asyncio.run(play_remote(jobs, {domain.name: domain}, endpoint))


def sums(count):
    import random

    domain, rng = Arithmetic(), random.Random(0)
    made = [replace(domain.make(rng), id=f"p{i}", thinking=False) for i in range(count)]
    return domain, [Job(prompt, 0, HOW, seed) for seed, prompt in enumerate(made)]


def test_a_served_model_earns_what_the_same_replies_earn_over_a_sampler(serve):
    domain, jobs = sums(12)
    golds = {job.prompt.messages[0].content: domain.gold(job.prompt).text for job in jobs}

    def text(question):
        return golds[question] if int(question.split()[2]) % 2 else "no idea"

    server = serve(lambda body, n: (200, completion(text(body["messages"][-1]["content"]))))
    served = asked(server, jobs, domain)

    def reply(prompt, seed):
        return text(next(question for question in golds if prompt.startswith(question))) + END

    local = asyncio.run(play(jobs, {domain.name: domain}, Scripted(Letters(), reply), Letters()))
    for one, other in zip(served, local, strict=True):
        assert one.verdict == other.verdict and one.reply.text == other.reply.text
        assert (one.prompt, one.sibling, one.status) == (other.prompt, other.sibling, other.status)
    assert {rollout.verdict.reward for rollout in served} == {0.0, 1.0}


def test_requests_carry_sampling_seed_and_mode(serve):
    domain, (job, *_) = sums(1)
    server = serve(lambda body, n: (200, completion("1")))
    asked(server, [replace(job, how=Sampling(7, 0.5, 0.9))], domain)
    (body,) = server.seen
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (7, 0.5, 0.9)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}

    endpoint = client(server)
    asyncio.run(play_remote([job], {domain.name: domain}, endpoint, asks_mode=False))
    assert "chat_template_kwargs" not in server.seen[-1]
    assert server.seen[-1]["seed"] == body["seed"]


def halving(body, before):
    """Guesses by halving, then says the number."""
    low, high = 0, 100
    for turn, following in zip(body["messages"], body["messages"][1:], strict=False):
        if turn.get("tool_calls"):
            n = json.loads(turn["tool_calls"][0]["function"]["arguments"])["n"]
            low, high = (n, high) if "higher" in following["content"] else (low, n)
    n = (low + high) // 2
    if len(body["messages"]) >= 7 or (n == 50 and len(body["messages"]) > 1):
        return 200, completion(str(n))
    call = {"id": f"c{n}", "function": {"name": "guess", "arguments": json.dumps({"n": n})}}
    return 200, completion(None, finish="tool_calls", tool_calls=[call])


def test_tools_and_environment_answer_by_messages(serve):
    domain, server = Guessing(), serve(halving)
    jobs = [Job(domain.prompt(number), 0, HOW, number) for number in (81, 88)]
    rollouts = asked(server, jobs, domain)
    assert domain.opened == domain.closed == 2

    last = server.seen[-1]
    assert last["tools"] == [
        {"type": "function", "function": {"name": "guess", "parameters": {"type": "object"}}}
    ]
    assert [turn["role"] for turn in last["messages"][:3]] == ["user", "assistant", "tool"]
    assert last["messages"][2]["tool_call_id"] == last["messages"][1]["tool_calls"][0]["id"]
    # What a tool gives back cannot end its turn.
    assert "<|im_end|>" not in json.dumps(last["messages"])
    assert [len(rollout.reply.messages) for rollout in rollouts] == [7, 7]
    assert "higher" in transcript(rollouts[0]) and "[call] guess" in transcript(rollouts[0])


def test_a_cut_off_turn_is_truncated_and_a_conversation_ends_at_its_limit(serve):
    def long(body, n):
        usage = {"prompt_tokens": 30, "completion_tokens": body["max_tokens"]}
        text = json.loads(completion("1 and", finish="length"))
        return 200, json.dumps({**text, "usage": usage})

    domain, (job, *_) = sums(1)
    server = serve(long)
    (rollout,) = asked(server, [job], domain)
    assert rollout.status == "truncated" and "turn 1 reached 50 tokens" in rollout.error
    assert sampled_tokens(rollout) == 50
    (rollout,) = asked(server, [replace(job, max_sequence=20)], domain)
    assert server.seen[-1]["max_tokens"] == 20
    assert rollout.error == "the conversation reached 20 tokens"


def test_a_refused_request_ends_its_own_conversation_alone(serve):
    domain, jobs = sums(3)
    words = [job.prompt.messages[0].content for job in jobs]

    def reply(body, n):
        said = body["messages"][-1]["content"]
        if said == words[0]:
            return 400, "this model's maximum context length is 8 tokens"
        if said == words[1]:
            return 400, "content is not allowed"
        return 200, completion("1")

    outgrown, refused, fine = asked(serve(reply), jobs, domain)
    assert outgrown.status == "truncated" and "outgrew the served model" in outgrown.error
    assert refused.status == "failed" and "content is not allowed" in refused.error
    assert fine.status == "ok"


def test_a_server_that_is_gone_ends_all_of_them_and_closes_what_they_hold(serve):
    domain = Guessing()
    jobs = [Job(domain.prompt(number), 0, HOW, number) for number in range(40, 46)]
    server = serve(lambda body, n: halving(body, n) if len(body["messages"]) < 3 else None)
    with pytest.raises(InfrastructureError, match="endpoint http"):
        asked(server, jobs, domain, tries=2)
    assert domain.opened == domain.closed


def test_no_more_environments_are_open_than_requests_may_be_under_way(serve):
    domain, most = Guessing(), 0

    def reply(body, n):
        nonlocal most
        most = max(most, domain.opened - domain.closed)
        return 200, completion("50")

    jobs = [Job(domain.prompt(number), 0, HOW, number) for number in range(30)]
    asked(serve(reply), jobs, domain, concurrency=3)
    assert domain.opened == 30 and most <= 4


@pytest.mark.parametrize(
    "answer, message",
    [
        (Answer("<think>t</think>\n7"), Message("assistant", "7", "t")),
        (Answer("t</think>7"), Message("assistant", "7", "t")),
        (Answer("7"), Message("assistant", "7")),
        (Answer("<think>t", finish_reason="length"), Message("assistant", "", "t")),
        (Answer("7", reasoning="t"), Message("assistant", "7", "t")),
        (Answer("the mark </think> ends it", reasoning="t"),
         Message("assistant", "the mark </think> ends it", "t")),
        (Answer("", None, (ToolCall("f", {"a": 1}, "c"),)),
         Message("assistant", "", None, (ToolCall("f", {"a": 1}, "c"),))),
        (Answer('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'),
         Message("assistant", "", None, (ToolCall("f", {"a": 1}),))),
    ],
)  # fmt: skip
def test_thoughts_and_calls_are_read_wherever_the_server_leaves_them(answer, message):
    assert message_of(answer) == message
