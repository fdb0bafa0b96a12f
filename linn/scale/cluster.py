"""The engine of many processes: trainer ranks over shards, samplers with whole copies.

What each process does is a function of the calls made: batches are dealt by tokens, as the local
engine deals them. With as many samplers as the local engine has processes, completions have its
very bytes; with as many trainer ranks and `trainers.sum: step`, so have the weights.

No torch in this process.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from linn.engine.local.controller import LocalTrainer
from linn.engine.local.dealing import score_shares, undeal
from linn.engine.local.sampler import LocalSampler, Pool
from linn.engine.protocol import SHARD_BYTES, ModelCheck, Streams
from linn.engine.training.trees import MICRO_BATCH
from linn.errors import RunFailed, UserError
from linn.scale.places import Places, Role
from linn.scale.ranks import Ranks
from linn.scale.replicas import Replicas, Share
from linn.scale.weights import Broadcast, Weights, WeightSource
from linn.types import Completion, Optim, Sampling

PROBES = 4
"""Prompts that every sampler continues when it has taken weights for the first or second time."""
PROBE_TOKENS = 8
"""Tokens of each continuation."""
AGREES = {False: (1e-4, 1e-3), True: (0.1, 2.0)}
"""Nats by which the log-probs of sampler and trainer may differ, mean and most; by `bfloat16`."""
AT_REST = ("check", "cpu_seconds", "vocab")
"""Messages that a trainer rank answers without its GPU."""


@dataclass(frozen=True)
class ClusterOptions:
    """What the processes of a cluster are."""

    ranks: Sequence[Role]
    """Trainers. Their options say everything but where they meet, which is new at each start."""
    samplers: Sequence[Role]
    """Samplers."""
    width: int
    """Tokens of a packed row."""
    bfloat16: bool
    """Whether the trainers compute in bfloat16, so that samplers agree less closely."""
    deadline_s: float
    """After which a sampler that has not answered is taken for lost."""
    share_prompts: bool = False
    """Whether siblings share their prompt in the trainers."""
    context: int = 1
    """Ranks that compute a row together, so that samples are dealt to them as to one."""
    after_cut: bool = False
    """Whether the samplers tell log-probs of what a top-p cut left, which no trainer knows."""
    colocated: bool = False
    """Whether samplers and trainers have the same GPUs, and so compute in turn."""
    broadcast: Broadcast | None = None
    """How weights go from the first rank to all samplers at once; None: by files."""


class ClusterEngine:
    """The `Engine` of trainer ranks and samplers, wherever `places` puts them."""

    def __init__(self, options: ClusterOptions, places: Places) -> None:
        self.width = options.width
        self._options = options
        self._places = places
        self._ranks = Ranks(places, len(options.ranks))
        self._weights = WeightSource(places, self._ranks, self.export, options.broadcast)
        self._replicas = Replicas(places, options.samplers, self._weights, options.deadline_s)
        self._base: Path | None = None
        """The folder of the loaded policy."""
        self._published: Weights | None = None
        """What the samplers have."""
        self._moved = False
        """Whether the weights are others than those of `_base`."""
        self._syncs = 0
        """Times that samplers took weights since the policy was loaded."""
        self._rests = True
        """Whether the ranks hold no more than they must, or are not there."""
        trainers = _Trainers(self)
        self.sampler = LocalSampler(_Samplers(self))
        self._most = max(options.width, MICRO_BATCH) if options.share_prompts else None
        self.trainer = LocalTrainer(trainers, self.sampler, self._most)

    # ------------------------------------------------------------ the policy

    def load(self, folder: Path, optim: Optim) -> None:
        """Take the policy from a Hugging Face folder, with a fresh optimiser."""
        self.sampler.forget()
        self._base, self._moved, self._syncs = Path(folder), False, 0
        self._change()
        self.call("load", Path(folder), optim)

    def check(self, folder: Path) -> ModelCheck:
        """Try the model of a folder, in the first rank."""
        findings: ModelCheck = self.call("check", Path(folder))[0]
        return findings

    def save(self, folder: Path) -> None:
        """Write policy and optimiser, each rank its rows; complete or absent at any instant."""
        self.call("save", Path(folder))

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote, with this or another number of ranks."""
        self.sampler.forget()
        self._moved = True
        self._change()
        self.call("restore", Path(folder))

    def export(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Write the policy's config.json and safetensors into an existing folder."""
        self.call("export", Path(folder), shard_bytes)

    def score(
        self,
        folder: Path,
        sequences: Sequence[Sequence[int]],
        temperature: float = 1.0,
        prompts: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Log-prob of every token under the checkpoint, sharded over the trainer ranks."""
        return self._score(Path(folder), sequences, temperature, prompts)

    def sampler_of(self, folder: Path) -> LocalSampler:
        """A sampler over another checkpoint, held by the samplers beside the policy."""
        return LocalSampler(_Samplers(self), Path(folder))

    def streams_of(self, folder: Path) -> Streams:
        """Not yet: UserError says what serves instead."""
        raise UserError(
            f"{folder}: a cluster's samplers take batches, not requests as they come; serve a "
            "checkpoint by linn serve FOLDER, or by vLLM: linn serve FOLDER --engine vllm"
        )

    def cpu_seconds(self) -> float:
        """Processor time of all processes since they started."""
        ranks = sum(self.call("cpu_seconds")) if self._ranks.started else 0.0
        return float(ranks) + self._replicas.cpu_seconds()

    def pids(self) -> dict[str, Any]:
        """Process ids by name. For tests."""
        processes = [*self._ranks.processes, *self._replicas.processes]
        return {process.name: getattr(process, "pid", None) for process in processes}

    def close(self) -> None:
        """End all processes; the engine can be loaded again afterwards."""
        self.sampler.forget()
        self._ranks.close()
        self._replicas.close()
        self._places.close()
        self._weights.forget()
        self._published = None
        self._rests = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ messages

    def call(self, message: str, *arguments: Any) -> list[Any]:
        """The same message to every rank."""
        return self.call_each(message, [arguments] * self._ranks.count)

    def call_each(self, message: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """A message to each rank; they start at the first."""
        if self._options.colocated and message not in AT_REST:
            self._replicas.sleep()
            self._rests = False
        if not self._ranks.started:
            self._ranks.start(with_meeting(self._options.ranks, self._places.meeting()))
        return self._ranks.call_each(message, arguments)

    @property
    def shares(self) -> int:
        """Parts in which a batch is dealt to the ranks."""
        return self._ranks.count // self._options.context

    def to_ranks(self, shares: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """What each rank is told: those that compute a row together are told the same."""
        return [share for share in shares for _ in range(self._options.context)]

    def step(self, shares: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One optimiser step; the samplers' weights are old afterwards."""
        metrics = self.call_each("step", self.to_ranks(shares))
        self._moved = True
        self._change()
        return metrics

    def sample(self, shares: Sequence[Share]) -> list[Any]:
        """A batch, from the weights as they are now."""
        if any(folder is None for folder, _, _ in shares):
            self._sync()
        self._wake()
        done = self._replicas.call_each("generate", shares)
        return self._uncut(shares, done) if self._options.after_cut else done

    def _uncut(self, shares: Sequence[Share], done: list[Any]) -> list[Any]:
        """The policy's completions, with log-probs of before any top-p cut, from the trainers."""
        # One pass of the trainers is of one temperature.
        by_temperature: dict[float, list[_Place]] = defaultdict(list)
        for number, (folder, requests, _) in enumerate(shares):
            for index, (prompt, how, _) in enumerate(requests):
                if folder is None and how.top_p < 1:
                    place = _Place(number, index, prompt)
                    by_temperature[how.temperature or 1.0].append(place)

        for temperature, places in sorted(by_temperature.items()):
            whole = []
            for place in places:
                completion = done[place.sampler][place.index]
                whole.append((*place.prompt, *completion.ids))

            rows = self._score(None, whole, temperature)
            for place, row in zip(places, rows, strict=True):
                of_sampler = done[place.sampler]
                logprobs = tuple(row[len(place.prompt) :])
                of_sampler[place.index] = replace(of_sampler[place.index], logprobs=logprobs)
        return done

    def _wake(self) -> None:
        """The samplers' turn on GPUs that they share with the trainers.

        vLLM measures what is free when it opens, so samplers that start now, or again, find the
        ranks at rest too.
        """
        if not self._options.colocated:
            return
        if not self._rests and self._ranks.started:
            self._ranks.call("rest")
            self._rests = True
        self._replicas.wake()

    # ------------------------------------------------------------ weights to samplers

    def _change(self) -> None:
        self._weights.version += 1

    def _sync(self) -> None:
        """Bring the policy's weights to the samplers, unless they have them."""
        if self._base is None:
            raise UserError("no policy: Engine.load comes before sampling")
        before = self._published
        if before is not None and before.version == self._weights.version:
            return

        # Weights that were only loaded are in the folder of the base already. Others are written
        # before it is the samplers' turn.
        weights = Weights(self._base, self._moved, self._weights.version)
        if weights.moved and self._weights.writes:
            self._weights.folder(weights.version)
        self._published = None  # until all have them
        self._wake()
        self._replicas.take(weights)
        self._published = weights

        self._syncs += 1
        if self._syncs <= 2:
            self._compare()

    def _compare(self) -> None:
        """Refuse to go on with samplers whose weights are not the trainers'.

        Once as loaded, and once as taken from a running trainer: what goes wrong in bringing
        weights over goes wrong in silence.
        """
        prompts = _probes(self.call("vocab")[0])
        how = Sampling(PROBE_TOKENS)
        requests = [(prompt, how, seed) for seed, prompt in enumerate(prompts)]
        each = self._replicas.each((None, requests, [0] * len(requests)))

        version = self._weights.version
        may_mean, may_most = AGREES[self._options.bfloat16]
        for role, done in zip(self._options.samplers, each, strict=True):
            gaps = self._gaps(prompts, done)
            mean, most = sum(gaps) / len(gaps), max(gaps)
            # Written so that NaN is refused too.
            if mean <= may_mean and most <= may_most:
                continue
            raise RunFailed(
                f"{role.name} and the trainer disagree about version {version} of the weights: "
                f"log-probs are off by {mean:.1e} on average and {most:.1e} at most, "
                f"{may_mean:g} and {may_most:g} are allowed; nothing is trained on that"
            )

    def _gaps(self, prompts: Sequence[tuple[int, ...]], done: Sequence[Completion]) -> list[float]:
        """How far each log-prob of these completions is from the trainers' own."""
        whole = []
        for prompt, completion in zip(prompts, done, strict=True):
            whole.append((*prompt, *completion.ids))

        gaps = []
        for prompt, completion, row in zip(
            prompts, done, self._score(None, whole, 1.0), strict=True
        ):
            trainers = row[len(prompt) :]
            for own, theirs in zip(completion.logprobs, trainers, strict=True):
                gaps.append(abs(own - theirs))
        return gaps

    def _score(
        self,
        folder: Path | None,
        sequences: Sequence[Sequence[int]],
        temperature: float,
        prompts: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Dealt as training deals its samples."""
        shares, told = score_shares(sequences, prompts, self.shares, self._most)
        messages = [(folder, own, temperature, skipped) for own, skipped in told]
        replies = self.call_each("score", self.to_ranks(messages))
        # Of those that computed the same rows the first tells.
        return undeal(shares, replies[:: self._options.context])


@dataclass(frozen=True)
class _Place:
    """A request in a dealt batch."""

    sampler: int
    """Whose share it is in."""
    index: int
    """Where in the share."""
    prompt: tuple[int, ...]
    """Its tokens."""


class _Trainers(Pool):
    """The ranks, as `LocalTrainer` deals to them."""

    def __init__(self, engine: ClusterEngine) -> None:
        self._engine = engine

    @property
    def count(self) -> int:
        return self._engine.shares

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        assert name == "step", name
        return self._engine.step(arguments)


class _Samplers(Pool):
    """The samplers, as `LocalSampler` deals to them."""

    def __init__(self, engine: ClusterEngine) -> None:
        self._engine = engine

    @property
    def count(self) -> int:
        return len(self._engine._options.samplers)

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        assert name == "generate", name
        return self._engine.sample([(folder, own, known) for folder, own, known in arguments])


def with_meeting(roles: Sequence[Role], meeting: str) -> list[Role]:
    """The ranks' roles, with where they meet this time."""
    return [replace(role, options=replace(role.options, meeting=meeting)) for role in roles]


def _probes(vocab: int) -> list[tuple[int, ...]]:
    """The same few prompts for every model of a vocabulary."""
    draw = random.Random(0)
    return [tuple(draw.randrange(vocab) for _ in range(6 + 5 * i)) for i in range(PROBES)]
