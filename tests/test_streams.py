"""What every engine's streams must do: requests come, go and die without harm to others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from support.codec import Letters
from support.fake_engine import FakeEngine
from support.sampling import Request
from support.scripted import Scripted

from linn.engine.local.controller import LocalEngine
from linn.engine.protocol import Engine, Streams, Token
from linn.errors import InfrastructureError, UserError
from linn.types import Completion, Sampling

VOCAB = 64


def fake_engine() -> Engine:
    scripted = Scripted(Letters(), lambda text, seed: chr(1 + seed % 60) * 40)
    return FakeEngine(scripted, samplers={"base": scripted, "other": scripted})


def alone(folder: Path, requests: list[Request]) -> list[Completion]:
    """What the bare sampler says."""
    from linn.engine.models.load import load
    from linn.engine.sampling.live_batch import BatchSampler

    return BatchSampler(load(folder)).generate(requests)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from linn.bases.make import new_model

    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "other")):
        (root / name).mkdir()
        new_model(root / name, VOCAB, seed=seed)
        (root / name / "tokenizer.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEngine]:
    made = LocalEngine(processes=2)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["fake", "local"])
def engine(request: pytest.FixtureRequest, local: LocalEngine) -> Engine:
    return local if request.param == "local" else fake_engine()


async def gathered(streams: Streams, ids: tuple[int, ...], how: Sampling, seed: int) -> list[Token]:
    tokens: list[Token] = []
    async for new in streams.stream(ids, how, seed):
        assert new, "an empty piece says nothing"
        tokens += new
    return tokens


@pytest.mark.slow
def test_a_stream_is_the_samplers_completion(engine: Engine, bases: Path) -> None:
    requests = [((1, 2, 3 + i % 3), Sampling(3 + i, stop=(9,)), i) for i in range(12)]

    async def all_at_once() -> list[list[Token]]:
        streams = engine.streams_of(bases / "base")
        await streams.open()
        return await asyncio.gather(*(gathered(streams, *request) for request in requests))

    found = asyncio.run(all_at_once())
    if isinstance(engine, FakeEngine):
        expected = [3 + i for i in range(12)]
        expected[8] = 1  # it says the stopping token
        assert [len(tokens) for tokens in found] == expected
        return
    for tokens, completion in zip(found, alone(bases / "base", requests), strict=True):
        assert tuple(token.id for token in tokens) == completion.ids
        logprobs = [token.logprob for token in tokens]
        assert logprobs == pytest.approx(completion.logprobs, abs=1e-4)


@pytest.mark.slow
def test_a_whole_reply_comes_in_one_piece_and_is_the_streamed_one(
    engine: Engine, bases: Path
) -> None:
    how = Sampling(30)

    async def part() -> None:
        streams = engine.streams_of(bases / "base")
        await streams.open()
        streamed = asyncio.create_task(gathered(streams, (1, 2), how, 5))
        pieces = [list(piece) async for piece in streams.stream((1, 2), how, 5, is_whole=True)]
        assert [len(piece) for piece in pieces] == [30]
        assert [token.id for token in pieces[0]] == [token.id for token in await streamed]
        async with aclosing(streams.stream((1, 2), Sampling(10**6), 6, is_whole=True)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        # Who left is forgotten here too.
        assert len(await gathered(streams, (5,), Sampling(4), 1)) == 4

    asyncio.run(part())


@pytest.mark.slow
def test_who_leaves_is_forgotten_and_the_others_go_on(engine: Engine, bases: Path) -> None:
    async def part() -> None:
        streams = engine.streams_of(bases / "base")
        await streams.open()
        stayed = asyncio.create_task(gathered(streams, (1, 2), Sampling(40), 5))
        async with aclosing(streams.stream((1, 2), Sampling(10**6), 6)) as stream:
            async for _ in stream:
                break
        cancelled = asyncio.create_task(gathered(streams, (1, 2), Sampling(10**6), 7))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        assert len(await stayed) == 40
        # Were the rows still taken, the process would go on for a million tokens.
        assert len(await gathered(streams, (5,), Sampling(4), 1)) == 4
        await streams.close()
        with pytest.raises(UserError, match="not open"):
            await gathered(streams, (1, 2), Sampling(3), 1)

    asyncio.run(part())


@pytest.mark.slow
def test_no_model_is_the_users_mistake(engine: Engine, bases: Path) -> None:
    async def part() -> None:
        with pytest.raises(UserError, match="nowhere"):
            await engine.streams_of(bases / "nowhere").open()

    asyncio.run(part())


@pytest.mark.slow
def test_two_checkpoints_at_once_say_what_each_says_alone(local: LocalEngine, bases: Path) -> None:
    request = ((1, 2, 3), Sampling(12, 0.0), 1)
    expected = [alone(bases / name, [request]) for name in ("base", "other")]

    async def part() -> None:
        both = [local.streams_of(bases / name) for name in ("base", "other")]
        for streams in both:
            await streams.open()
        first, second = await asyncio.gather(*(gathered(one, *request) for one in both))
        for (whole,), tokens in zip(expected, (first, second), strict=True):
            assert tuple(token.id for token in tokens) == whole.ids
        assert first != second

    asyncio.run(part())


@pytest.mark.slow
def test_top_tokens_and_scores_are_of_the_same_distribution(
    local: LocalEngine, bases: Path
) -> None:
    async def part() -> None:
        streams = local.streams_of(bases / "base")
        await streams.open()
        tokens = await gathered(streams, (1, 2, 3), Sampling(6, 0.0, top=3), 1)
        text = [1, 2, 3, *(token.id for token in tokens)]
        scored = await streams.score(text, top=3)
        assert [token.id for token in scored] == text and scored[0].logprob == 0.0
        for sampled, token in zip(tokens, scored[3:], strict=True):
            # Greedy: the most likely token is the one that was drawn.
            assert sampled.top[0] == (sampled.id, pytest.approx(sampled.logprob, abs=1e-6))
            assert [place for place, _ in token.top] == [place for place, _ in sampled.top]
            assert token.logprob == pytest.approx(sampled.logprob, abs=1e-4)

    asyncio.run(part())


@pytest.mark.slow
def test_one_bad_request_is_its_own_mistake(local: LocalEngine, bases: Path) -> None:
    async def part() -> None:
        streams = local.streams_of(bases / "base")
        await streams.open()
        good = asyncio.create_task(gathered(streams, (1, 2), Sampling(30), 5))
        for ids in ((VOCAB + 5,), (-1,), ()):
            with pytest.raises((UserError, ValueError)):
                await gathered(streams, ids, Sampling(3), 1)
        with pytest.raises((UserError, ValueError)):
            await streams.score([VOCAB + 5, 1])
        assert len(await good) == 30

    asyncio.run(part())


@pytest.mark.slow
def test_a_killed_process_takes_its_own_requests_along_and_comes_back(
    local: LocalEngine, bases: Path
) -> None:
    async def part() -> None:
        streams = local.streams_of(bases / "base")
        await streams.open()
        # Two requests, one in each process.
        tasks = [
            asyncio.create_task(gathered(streams, (1, 2), Sampling(400), seed)) for seed in (1, 2)
        ]
        await asyncio.sleep(0.1)
        before = local.live.pids
        os.kill(before[0], signal.SIGKILL)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results].count(InfrastructureError) == 1
        (whole,) = [result for result in results if isinstance(result, list)]
        assert len(whole) == 400

        again = await asyncio.gather(
            *(gathered(streams, (1, 2), Sampling(5), seed) for seed in range(6))
        )
        assert [len(tokens) for tokens in again] == [5] * 6
        assert len(local.live.pids) == 2 and local.live.pids != before

    asyncio.run(part())


@pytest.mark.slow
def test_who_waits_when_the_engine_is_closed_is_told(local: LocalEngine, bases: Path) -> None:
    async def part() -> list[str]:
        troubles: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: troubles.append(str(context)))
        streams = local.streams_of(bases / "base")
        await streams.open()
        waiting = asyncio.create_task(gathered(streams, (1, 2), Sampling(10**6), 1))
        await asyncio.sleep(0.05)
        local.close()
        with pytest.raises(InfrastructureError, match="closed"):
            await waiting
        # The reader of the pipe has seen its end by now, and says nothing of it.
        await asyncio.sleep(0.05)
        return troubles

    assert asyncio.run(part()) == []
