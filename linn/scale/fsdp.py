"""The optimiser step over shards: what `engine/training/trainer.py` does, on N ranks (FSDP2).

The same objectives, packing, normaliser, clip and AdamW; each rank holds its rows of the float32
weights, gradients and moments. Two CPU ranks with `whole_gradients` end with the very bits of the
local engine's two processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from linn.engine.models.interface import CausalLM
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.training.adamw import AdamW
from linn.engine.training.gradient_norm import norm_of, sum_of_squares
from linn.engine.training.losses import TokenMetrics, backward, check_batch, score_packed
from linn.engine.training.metrics import StepMetrics
from linn.engine.training.pack import Packed, micro_batches
from linn.engine.training.token_weights import StepFailed, moves
from linn.engine.training.trees import to_score
from linn.errors import UserError
from linn.scale.options import Passing
from linn.scale.passes import agree, empty, equal_passes, total
from linn.scale.sharding import Sharding, local
from linn.types import Loss, Optim, Sample


class FsdpTrainer:
    """Trains a model that `shard` has cut. Every rank calls every method, with its own share."""

    def __init__(
        self,
        model: CausalLM,
        optim: Optim,
        how: Sharding,
        passing: Passing,
        host_moments: bool = False,
    ) -> None:
        """host_moments: AdamW's moments wait in the host's memory between steps."""
        self.model = model
        self.optim = optim
        self.how = how
        self.passing = passing
        # A family of transformers goes through its layers for the prompts, then for the replies,
        # and ranks would have to agree on how often: there every prompt is computed anew. So it is
        # in rows that are cut: a reply's prompt may lie on any of the ranks.
        self.share = passing.share_prompts and not isinstance(model, TransformersLM)
        self.share = self.share and how.context is None
        self.version = 0
        """Optimiser steps since the model was loaded."""
        self.root: nn.Module = model  # type: ignore[assignment]
        self.device = torch.device(how.mesh.device_type)
        self._host_moments = host_moments
        # FSDP2 lays its memory out in the first pass; whoever holds on to a shard comes after it.
        self._score([empty()], [[0, 0]], 1.0)
        self.trained = {n: p for n, p in self.root.named_parameters() if p.requires_grad}
        self._own = {name: Parameter(local(p.detach())) for name, p in self.trained.items()}
        self._adamw: AdamW | None = None

    # ------------------------------------------------------------ a step

    def step(
        self, samples: Sequence[Sample], loss: Loss, lr: float, weights: Sequence[float]
    ) -> dict[str, float]:
        """One AdamW step; the same metrics on every rank.

        weights: `token_weights` of the whole batch, restricted to this rank's `samples`. Raises
        StepFailed on all ranks, and changes nothing, where the loss or the gradient is not finite.
        """
        metrics = StepMetrics()
        moving = [i for i, sample in enumerate(samples) if moves(sample, loss)]
        batch = [samples[i] for i in moving]
        packed = self._packed(batch, [weights[i] for i in moving], self.share, loss)

        value = self._sum_gradients(packed, batch, loss, metrics)
        if self.how.speaks:
            metrics.add_samples(samples)
        self._take_gradients()
        # Each rank sums its own rows, then all sums are added: the norm of the whole gradient.
        squares = sum_of_squares(p.grad for p in self._own.values() if p.grad is not None)
        norm = norm_of(total(squares.to(self.device)))
        if not (math.isfinite(value) and norm < math.inf):
            self.free_gradients()
            refused = StepFailed(
                f"step {self.version + 1}: loss {value}, gradient norm {norm}; "
                "weights and optimiser are unchanged"
            )
            refused.samples = samples
            raise refused

        # Clipped here and not by FSDP2: the factor must be the same number on every rank.
        if norm > self.optim.clip:
            for parameter in self._own.values():
                assert parameter.grad is not None
                parameter.grad.mul_(self.optim.clip / norm)
        self.optimiser().step(lr)
        self.free_gradients()
        self.version += 1
        return {"loss": value, "grad_norm": norm, "lr": lr} | metrics.reduced()

    def _packed(
        self,
        samples: Sequence[Sample],
        weights: Sequence[float],
        share: bool,
        loss: Loss | None = None,
    ) -> list[Packed]:
        """Micro-batches with anything trained; what cannot be packed is refused by all ranks.

        loss: what they are to be trained for; None: they are scored.
        """
        packed: list[Packed] = []
        failure: Exception | None = None
        try:
            _check_fits(self.model, [sample.tokens for sample in samples])
            width, tokens = self.passing.width, self.passing.tokens
            batches = micro_batches(samples, weights, width, tokens, self.model.packs, share)
            packed = [one for one in batches if one.trains]
            for one in packed:
                check_batch(one, loss, self.model.vocab)
        except Exception as error:
            failure = error
        agree(failure, self.device)
        return packed

    def _sum_gradients(
        self,
        packed: Sequence[Packed],
        batch: Sequence[Sample],
        loss: Loss,
        metrics: StepMetrics,
    ) -> float:
        """Every rank's gradients into the shards; returns the loss of all."""
        value = torch.zeros((), device=self.device)
        self._sum_at_backward(not self.passing.whole_gradients)
        watched: list[tuple[TokenMetrics, Tensor]] = []
        for one in self._passes(packed):
            part, token_metrics = backward(self.model, one, loss, self.how.bfloat16)
            value += part
            if one.trains:
                watched.append((token_metrics, one.sample))
        # Reading them waits for a GPU.
        for token_metrics, sample in watched:
            metrics.add(token_metrics, sample, batch)

        if self.passing.whole_gradients:
            # A pass that adds nothing, and takes all that was kept along.
            self._sum_at_backward(True)
            for one in self._passes([empty()]):
                backward(self.model, one, loss, self.how.bfloat16)
        return float(total(value))

    def _passes(self, packed: Sequence[Packed]) -> Iterator[Packed]:
        """What this rank computes, on its device: as many passes as any rank makes."""
        passes = equal_passes(self.model, packed, self.device)
        there = (one.to(self.device) for one in passes)
        return there if self.how.context is None else self.how.context.cut(there)

    def _sum_at_backward(self, on: bool) -> None:
        """Whether a backward pass sums the gradients over ranks, or keeps them until one does."""
        self.root.set_requires_gradient_sync(on)  # type: ignore[operator]

    def _take_gradients(self) -> None:
        """This rank's rows of the gradients, beside its rows of the weights."""
        for name, parameter in self.trained.items():
            own = self._own[name]
            # What a batch does not touch has a gradient of zero, as in the local engine.
            own.grad = torch.zeros_like(own)
            if parameter.grad is not None:
                own.grad = local(parameter.grad)

    def free_gradients(self) -> None:
        """Give their memory back; a step does so by itself, unless it was left by an error."""
        for name, parameter in self.trained.items():
            parameter.grad = self._own[name].grad = None

    def optimiser(self) -> AdamW:
        """AdamW over this rank's rows, made at the first use."""
        if self._adamw is None:
            self._adamw = AdamW(list(self._own.values()), self.optim, self._host_moments)
        return self._adamw

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """This rank's rows of AdamW's state, by parameter."""
        state = self.optimiser().state
        return {name: state[own] for name, own in self._own.items()}

    # ------------------------------------------------------------ log-probs

    def score(
        self,
        sequences: Sequence[Sequence[int]],
        temperature: float = 1.0,
        prompts: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Log-prob of every token of this rank's sequences, on the path of `step`."""
        if temperature <= 0:
            raise ValueError(f"temperature = {temperature}: log-probs need one above 0")
        if not self.share:
            prompts = None
        samples = [sample for sample in to_score(sequences, prompts) if len(sample.tokens)]
        packed = self._packed(samples, [0.0] * len(samples), share=prompts is not None)
        return self._score(packed, sequences, temperature)

    def _score(
        self, packed: Sequence[Packed], sequences: Sequence[Sequence[int]], temperature: float
    ) -> list[list[float]]:
        passes = self._passes(packed)
        logprobs = score_packed(self.model, sequences, passes, temperature, self.how.bfloat16)
        if self.how.context is not None:
            logprobs = self._gathered(logprobs)
        # Without a backward pass the weights outside of the layers stay whole, and grow old.
        self.root.reshard()  # type: ignore[operator]
        return logprobs

    def _gathered(self, logprobs: list[list[float]]) -> list[list[float]]:
        """Log-probs of the tokens that each rank of a row predicts, in all of them."""
        assert self.how.context is not None
        own = [value for row in logprobs for value in row]
        values = self.how.context.total(torch.tensor(own, device=self.device))
        rows = values.cpu().split([len(row) for row in logprobs])
        return [row.tolist() for row in rows]


def _check_fits(model: CausalLM, sequences: Sequence[Sequence[int]]) -> None:
    """Refuse sequences longer than the model has positions, before any rank computes."""
    longest = max((len(ids) for ids in sequences), default=0)
    if model.positions is not None and longest > model.positions:
        raise UserError(
            f"a sequence of {longest:,} tokens, and the model takes {model.positions:,}; "
            "lower max_tokens, max_sequence or max_length"
        )
