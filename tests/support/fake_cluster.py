"""A cluster engine over fake processes, whose models draw by `drawn`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from linn.scale.cluster import ClusterEngine, ClusterOptions
from linn.scale.options import Passing, RankOptions
from linn.scale.places import Died, Role
from linn.scale.weights import Broadcast
from linn.types import Completion, Sampling
from support.fake_places import FakePlaces, FakeProcess, drawn
from support.sampling import sample_all

REQUESTS = [((1, 2, number // 2), Sampling(3, more=True), number) for number in range(8)]


class Cluster:
    """A cluster of fakes whose models draw by `drawn`, and score what they draw as drawn."""

    def __init__(self, folder: Path, colocated: bool = False, broadcast: bool = False) -> None:
        self.places = FakePlaces(self.answer, folder)
        passing = Passing(width=64, tokens=64, whole_gradients=False)
        ranks = [
            Role(
                f"trainer rank {rank}",
                "none",
                RankOptions(rank, 2, "", "cpu", passing, False, False, False),
            )
            for rank in range(2)
        ]
        samplers = [Role(f"sampler {number}", "none", None) for number in range(2)]
        options = ClusterOptions(
            ranks,
            samplers,
            width=64,
            bfloat16=False,
            deadline_s=60,
            colocated=colocated,
            broadcast=Broadcast(processes=2, file_names=True) if broadcast else None,
        )
        self.engine = ClusterEngine(options, self.places)
        self.weights = 0
        """Of the trainers: 1 more with every step."""
        self.faults: list[Any] = []
        """Called with each message; what it gives in place of None is the answer."""

    def answer(self, process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> Any:
        for fault in self.faults:
            answer = fault(process, message, arguments)
            if answer is not None:
                return None if answer == "hangs" else answer
        return True, getattr(self, message)(process, *arguments)

    def load(self, process: FakeProcess, folder: Path, more: Any) -> None:
        process.options = 0, more  # weights, version
        if process.name.startswith("trainer"):
            self.weights = 0

    def take(self, process: FakeProcess, folder: Path, version: int) -> None:
        process.options = int((folder / "weights").read_text()), version

    def broadcast(self, process: FakeProcess, meeting: str, members: int, file_names: bool) -> None:
        assert members == 5 and file_names

    def take_broadcast(
        self, process: FakeProcess, meeting: str, place: int, members: int, version: int
    ) -> None:
        assert (process.name, place) in (("sampler 0", 1), ("sampler 1", 3))
        process.options = self.weights, version

    def pid(self, process: FakeProcess) -> int:
        return 1

    def generate(self, process: FakeProcess, folder: Path | None, requests: Any, known: Any) -> Any:
        weights, version = process.options or (0, -1)
        if folder is not None:
            weights = 100
        return version, [drawn(*request, weights) for request in requests]

    def score(
        self, process: FakeProcess, folder: Path | None, sequences: Any, t: float, prompts: Any
    ) -> Any:
        return [[-0.5 - token / 100 for token in ids] for ids in sequences]

    def step(self, process: FakeProcess, *arguments: Any) -> dict[str, float]:
        self.weights += process.name.endswith("0")
        return {"loss": float(self.weights)}

    def export(self, process: FakeProcess, folder: Path, shard_bytes: int) -> None:
        (folder / "weights").write_text(str(self.weights))

    def rest(self, process: FakeProcess) -> None:
        """Nothing to free."""

    def sleep(self, process: FakeProcess) -> None:
        """Nothing to leave."""

    def wake(self, process: FakeProcess) -> None:
        """Nothing to take."""

    def cpu_seconds(self, process: FakeProcess) -> float:
        return 1.0

    def vocab(self, process: FakeProcess) -> int:
        return 50

    def sample(self) -> list[Completion]:
        return sample_all(self.engine.sampler, REQUESTS)

    def once(self, name: str, message: str, does: Any) -> None:
        """At its next such message the process of a name does this, once."""
        done: list[FakeProcess] = []

        def fault(process: FakeProcess, asked: str, arguments: tuple[Any, ...]) -> Any:
            # The weights are compared by a `generate` too: not that one.
            probing = (
                asked == "generate" and len(arguments[1]) and arguments[1][0][1].max_tokens == 8
            )
            if done or process.name != name or asked != message or probing:
                return None
            done.append(process)
            return does(process, arguments)

        self.faults.append(fault)


def dies(process: FakeProcess, arguments: tuple[Any, ...]) -> Any:
    raise Died(f"{process.name} ended with exit code -9 (killed: out of memory?)")


def messages(process: FakeProcess) -> list[str]:
    return [message for message, _ in process.asked]
