"""A sampler that answers by a program: real conversations without a model."""

import asyncio
from collections.abc import Callable, Sequence

from linn.types import Completion, Sampling


class Scripted:
    """Answers a batch by `reply(text of the request, seed) -> text`.

    It notes the seeds of each batch, in the order in which the requests ran.
    """

    def __init__(self, codec, reply: Callable[[str, int], str]) -> None:
        self.codec, self.reply = codec, reply
        self.queue: list[tuple[Sequence[int], Sampling, int, asyncio.Future]] = []
        self.batches: list[list[int]] = []

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        future = asyncio.get_running_loop().create_future()
        self.queue.append((ids, how, seed, future))
        return await future

    def flush(self) -> None:
        self.batches.append([seed for _, _, seed, _ in self.queue])
        for ids, how, seed, future in self.queue:
            if future.done():  # a cancelled conversation no longer waits
                continue
            out = self.codec.encode(self.reply(self.codec.decode(ids), seed))
            cut = tuple(out[: how.max_tokens])
            stopped = bool(cut) and cut[-1] in how.stop
            logprobs = tuple(-1.0 for _ in cut)
            future.set_result(Completion(cut, logprobs, "stop" if stopped else "length"))
        self.queue = []
