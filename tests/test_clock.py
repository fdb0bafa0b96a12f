"""What a step's metrics say of grading: means, queue and throughput, from sums read twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from linn.chat.template import Nemotron
from linn.domains.code import Code
from linn.domains.code.unit_tests import Budget, PrintedTests
from linn.play.rollout import Job, play
from linn.stages.step_costs import costs_between, read_costs
from linn.types import Completion, Message, Prompt, Sampling


class Bytes:
    """A codec whose tokens are bytes, 0 the end."""

    eos = 0
    stops = (0,)
    broken = 0
    template = Nemotron()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i).decode("utf-8", "replace")

    def reply(self, ids: Sequence[int]) -> str:
        return self.decode(ids)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        return self.encode(prompt.messages[0].content)


class Programs:
    """A sampler that batches by itself: the prompt's own text is the reply."""

    version = 0

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        await asyncio.sleep(0.01)
        return Completion((*ids, 0), (0.0,) * (len(ids) + 1), "stop")

    def flush(self) -> None:
        """It does nothing."""


def test_a_step_tells_how_grading_kept_up() -> None:
    domain = Code(servers=2)
    hidden = PrintedTests(["1\n", "2\n"], ["1", "2"], Budget(seconds=0.3, memory=256))
    texts = [
        "print(input())",
        "while True: pass",
        "import time; time.sleep(0.2); print(input())",
        "print(3)",
    ]
    prompts = [
        Prompt("code", f"p{i}", (Message("user", text),), thinking=False, hidden=hidden)
        for i, text in enumerate(texts)
    ]
    try:
        before = read_costs({"code": domain}, 0.0)
        jobs = [Job(prompt, 0, Sampling(99), i) for i, prompt in enumerate(prompts)]
        rollouts = asyncio.run(play(jobs, {"code": domain}, Programs(), Bytes()))  # type: ignore[arg-type]
        metrics = costs_between(before, read_costs({"code": domain}, 0.0))
    finally:
        domain.close()
    assert [r.verdict.reward for r in rollouts] == [1.0, 0.0, 1.0, 0.0]
    assert metrics["code/executions"] == 6, "two tests each, but one where the first fails"
    assert (
        metrics["code/timeouts"] == 1
        and metrics["code/remembered"] == 0
        and metrics["code/restarts"] == 0
    )
    assert (
        0.05 < metrics["code/verify_seconds"] < metrics["wall_s"]
        and metrics["code/verify_wait"] >= 0
        and metrics["code/verify_queue"] >= 0
    )
    assert abs(metrics["code/executions_per_second"] - 6 / metrics["wall_s"]) < 1e-6
    assert not any(
        "time" in str(vars(r.verdict)) or r.verdict.metrics for r in rollouts if r.verdict.reward
    ), "timings stay out of verdicts"
    assert set(costs_between(before, read_costs({}, 0.0))) == {"wall_s", "cpu_s"}, (
        "who graded nothing is not spoken of"
    )
