"""The seam behind which every engine stands: a laptop's processes today, a GPU or a cluster later.

Stages, evaluation, judges and filters know these three protocols and nothing else of an engine.
`linn.engine.open.open_engine` makes one; `tests/test_engine_contract.py` is what each must pass.

What every engine promises:

- Results are a function of the calls made and of their order, never of timing. Where a back end's
  arithmetic depends on the company of a request, the engine says so in its own documentation.
- Log-probs are natural logarithms under the tempered distribution (logits divided by the
  temperature), before any top-p cut; at temperature 0 they are those of temperature 1.
- A mistake of the user raises UserError, a refused step or broken weights RunFailed, a dead
  process or a full disk InfrastructureError. After the first two the engine can still be used;
  after the last it can be loaded again.
- One call at a time, from one thread. Only `Sampler.generate` may be awaited many times at once,
  and all that `Streams` offers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from linn.types import Completion, Finding, Loss, Optim, Sample, Sampling

SHARD_BYTES = 5 * 10**9
"""Exported weights above this are cut into shards of at most this size."""


@dataclass(frozen=True)
class ModelCheck:
    """What an engine found when it tried the model of a folder."""

    findings: tuple[Finding, ...]
    """A line each; the model can be sampled and trained where all are ok."""
    vocab: int = 0
    """Ids that its embedding has; 0 where the folder could not be read."""
    positions: int | None = None
    """Tokens of the longest sequence that it computes; None: any number."""
    trained_length: int | None = None
    """Tokens of the longest sequences that it was trained on, as its config says."""

    @property
    def ok(self) -> bool:
        """Whether all findings are."""
        return all(finding.ok for finding in self.findings)


class Sampler(Protocol):
    """Samples from one model. Tokens in, tokens out."""

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        """Continue the prompt `ids` (at least one token).

        `seed` alone decides the draws, up to the rounding of the model's arithmetic. Requests form
        batches: those made between two calls of `flush`, in the order they were made. The same
        weights and the same sequence of batches give the same tokens, however long anything else
        takes.

        Raises ValueError for what cannot be sampled, UserError for a token that the model has no
        embedding for or a sequence longer than it computes, RunFailed where logits are not finite.
        An error of one request may be that of its whole batch.
        """
        ...

    def flush(self) -> None:
        """Tell the sampler that no further request comes until these are answered.

        It may compute before it returns, and raise the batch's error here as well as to those who
        wait. Engines that batch continuously ignore it.
        """
        ...


@dataclass(frozen=True)
class Token:
    """One token of a stream, or of a text that was scored."""

    id: int
    """Its id."""
    logprob: float
    """Its log-prob, given those before it; 0.0 for the first of a text."""
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens in its place, with log-probs; as many as were asked for."""


class Streams(Protocol):
    """Samples from one checkpoint as requests come: for servers and for conversations.

    Unlike `Sampler`, it waits for nobody. So the company of a request depends on timing, and with
    it the rounding of its log-probs; its draws depend on its seed alone.
    """

    async def open(self) -> int | None:
        """Read the checkpoint. Returns the tokens of the longest sequence that it computes.

        None: any number. Raises UserError where the folder holds no model.
        """
        ...

    def stream(
        self, ids: Sequence[int], how: Sampling, seed: int, is_whole: bool = False
    ) -> AsyncGenerator[Sequence[Token], None]:
        """Continue the prompt `ids`: new tokens as they come, one or more at a time.

        The more streams there are, the more tokens come at a time: passing on a piece costs the
        same however long it is. `is_whole`: all come at once, at the end. The last one is a
        stopping token, or the `how.max_tokens`-th. Who leaves (cancelled, or by `aclose`) drops
        the request, and its row is free. Errors are those of `Sampler.generate` and of this
        request alone, but for broken weights, which end all requests of the checkpoint. A dead
        process raises InfrastructureError in its own requests; it is started again, and the
        others go on.
        """
        ...

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """Every token of a text with its log-prob, given those before it, at temperature 1.

        Raises UserError for a text that the model cannot read.
        """
        ...

    async def close(self) -> None:
        """Forget the checkpoint, and free its memory; it can be opened again."""
        ...


class Trainer(Protocol):
    """One optimiser step over samples, wherever the processes are."""

    def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
        """Forward, backward, clip, AdamW over one global batch, however it is dealt.

        Afterwards the engine's sampler samples from the new weights: no stale cache or copy.

        Returns the step's metrics: `loss`, `grad_norm` (before the clip), `lr`, `tokens` and
        `sequences` (counts of what was trained), `entropy`, and per objective `nll`, or
        `mismatch_mean`, `mismatch_p95` and `mismatch_max` (|log-prob of the trainer -
        `Sample.behaviour`|; 95 % of the tokens are at or below the second),
        `ratio`, `kl`, `teacher_gap`, `out_of_band`. Means run over trained tokens.

        Raises RunFailed and changes nothing where a signal, the loss or a gradient is not finite,
        and ValueError where a sample lacks a signal that the loss needs.
        """
        ...


class Engine(Protocol):
    """One policy with its optimiser, its sampler, and one other model at a time for scoring."""

    @property
    def width(self) -> int:
        """Tokens of a packed row; no sample may be longer."""
        ...

    @property
    def sampler(self) -> Sampler:
        """Samples from the policy as it is after the last `load`, `restore` or `step`."""
        ...

    @property
    def trainer(self) -> Trainer:
        """Trains the policy."""
        ...

    def load(self, folder: Path, optim: Optim) -> None:
        """Take the policy from a Hugging Face folder, with a fresh optimiser.

        It comes before sampling, training, `save`, `restore` and `export`; `score` and
        `sampler_of` need no policy. Raises UserError where the folder holds no model; the policy
        that was there before is gone then too.
        """
        ...

    def check(self, folder: Path) -> ModelCheck:
        """Try the model of a Hugging Face folder in every way that the engine computes it.

        Each is compared with the forward of the model's own code on a few tokens. It is read anew
        and forgotten afterwards, so check before `load`. Raises nothing for a bad model: that is a
        finding, with what to do.
        """
        ...

    def score(
        self,
        folder: Path,
        sequences: Sequence[Sequence[int]],
        temperature: float = 1.0,
        prompts: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Log-prob of every token of each sequence, given those before it.

        `folder`: the checkpoint that scores, a Hugging Face folder. It stays loaded until another
        is asked for, and is computed on the path of training: a policy scored by its own
        checkpoint has a `teacher_gap` of 0.

        prompts: how many tokens each sequence begins with whose log-probs nobody asks for; theirs
        may be 0.0, so that an engine can compute equal prompts once.

        One list per sequence, one entry per token. Entry 0 is 0.0: nothing precedes it. Raises
        UserError where the folder holds no model, ValueError for a temperature of 0 or less.
        """
        ...

    def sampler_of(self, folder: Path) -> Sampler:
        """A sampler over another checkpoint (a judge, a teacher), in the place `score` uses.

        The policy is not touched. Asking for two such samplers in turn loads each anew. The
        folder is read at the first batch.
        """
        ...

    def streams_of(self, folder: Path) -> Streams:
        """Streams from a checkpoint, a Hugging Face folder, without any policy.

        Several checkpoints may be open at once. They stand beside the policy and what `score`
        uses, in memory of their own.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write a resumable state in the engine's own layout: complete or absent.

        Weights, optimiser and whatever else `restore` needs; a folder of that name is replaced.
        """
        ...

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote into the loaded policy.

        Training then continues as if it had never stopped: the same batches give the same weights.
        Raises UserError where the folder holds no such state.
        """
        ...

    def export(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Write the policy's config.json and safetensors into an existing Hugging Face folder.

        Weights that the folder has are replaced; its other files stay. Up to `shard_bytes` they
        are one `model.safetensors`; above, shards of at most that size with
        `model.safetensors.index.json`. `load` and `score` read either. Not atomic: fill a
        temporary folder where a reader may look.
        """
        ...

    def cpu_seconds(self) -> float:
        """Processor time of all workers since they started; 0 before and after."""
        ...

    def close(self) -> None:
        """End the workers. The engine can be loaded again afterwards; calling it twice is fine."""
        ...
