"""The optimiser step, and its state on disk.

Micro-batches into one flat gradient, summed over processes, clipped, then AdamW. The trainer knows
the three objectives of `losses` by name, and never a domain or a stage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from linn import files
from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load as load_model
from linn.engine.training.adamw import AdamW
from linn.engine.training.gradient_norm import gradient_norm
from linn.engine.training.losses import TokenMetrics, backward, check_batch, score
from linn.engine.training.metrics import StepMetrics, processes
from linn.engine.training.pack import micro_batches
from linn.engine.training.token_weights import StepFailed, moves, token_weights
from linn.errors import UserError
from linn.types import Loss, Optim, Sample

_STATE = "optimizer.safetensors"
_META = "trainer.json"


class Trainer:
    """Trains `model` in place.

    In a process group every rank calls `step` with its own share of the samples, and all end with
    the same bits.
    """

    def __init__(
        self,
        model: CausalLM,
        optim: Optim,
        width: int = 2048,
        tokens: int = 2048,
        autocast: bool = False,
        load: Callable[[Path], CausalLM] = load_model,
        share: bool = False,
        host_moments: bool = False,
    ) -> None:
        """Take a model with float32 weights; raises ValueError for others.

        width, tokens: of packed rows and of micro-batches (on a CPU small ones are faster: they
        stay in its caches).
        autocast: bf16 matrix products over the float32 weights.
        load: reads what `model.save` wrote.
        share: siblings share their prompt, where the model `shares`.
        host_moments: AdamW's moments wait in the host's memory between steps.
        """
        self.model = model
        self.optim = optim
        self.width = width
        self.tokens = tokens
        self.autocast = autocast
        self.share = share and model.shares
        self.version = 0
        """Optimiser steps since the model was loaded."""
        self._load = load
        self._host_moments = host_moments

        module: torch.nn.Module = model  # type: ignore[assignment]
        self._module = module
        self._trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        parameters = list(self._trained.values())
        if any(p.dtype != torch.float32 for p in parameters):
            raise ValueError(
                "training needs float32 weights; `autocast` gives bf16 matrix products over them"
            )
        self._device = parameters[0].device
        # A model that is only sampled from needs neither; both are made at their first use.
        self._flat: Tensor | None = None
        self._adamw: AdamW | None = None

    def step(
        self,
        samples: Sequence[Sample],
        loss: Loss,
        lr: float,
        weights: Sequence[float] | None = None,
    ) -> dict[str, float]:
        """One AdamW step; returns the same metrics on every rank.

        weights: `token_weights` of the whole batch, restricted to this rank's `samples`. None:
        `samples` is the whole batch.

        Raises StepFailed, with weights and optimiser untouched on all ranks, when the loss or the
        gradient norm is not finite.
        """
        if weights is None:
            weights = token_weights(samples, loss)
        metrics = StepMetrics()
        flat = self._sum_gradients(samples, weights, loss, metrics)
        metrics.add_samples(samples)

        # Equal bits on every rank from here on, so all of them go on or all refuse.
        gradient, value = flat[:-2], float(flat[-2])
        norm = gradient_norm([gradient])
        if not (math.isfinite(value) and norm < math.inf):
            refused = StepFailed(
                f"step {self.version + 1}: loss {value}, gradient norm {norm}; "
                "weights and optimiser are unchanged"
            )
            refused.samples = samples
            raise refused

        if norm > self.optim.clip:
            gradient.mul_(self.optim.clip / norm)
        self._optimiser().step(lr)
        self.version += 1
        return {"loss": value, "grad_norm": norm, "lr": lr} | metrics.reduced()

    def _sum_gradients(
        self,
        samples: Sequence[Sample],
        weights: Sequence[float],
        loss: Loss,
        metrics: StepMetrics,
    ) -> Tensor:
        """Loss and gradient of all ranks' samples, in the flat buffer, which is returned.

        A rank that fails takes part in the sum all the same, so that no other waits for it.
        Raises its error there, StepFailed on the others.
        """
        flat = self._zero_gradient()
        failure: Exception | None = None
        try:
            self._accumulate(flat, samples, weights, loss, metrics)
        except Exception as error:
            failure = error
            flat[-1] = 1.0

        if processes() > 1:
            dist.all_reduce(flat)
        if failure is not None:
            raise failure
        if flat[-1] > 0:
            raise StepFailed("another process failed in this step")
        return flat

    def _accumulate(
        self,
        flat: Tensor,
        samples: Sequence[Sample],
        weights: Sequence[float],
        loss: Loss,
        metrics: StepMetrics,
    ) -> None:
        """Add this rank's loss and gradient to the flat buffer, one micro-batch at a time."""
        moving = [i for i, sample in enumerate(samples) if moves(sample, loss)]
        batch = [samples[i] for i in moving]
        batches = micro_batches(
            batch,
            [weights[i] for i in moving],
            self.width,
            self.tokens,
            self.model.packs,
            self.share,
        )
        watched: list[tuple[TokenMetrics, Tensor]] = []
        for packed in batches:
            if not packed.trains:
                continue
            check_batch(packed, loss, self.model.vocab)
            there = packed.to(self._device)
            value, token_metrics = backward(self.model, there, loss, self.autocast)

            # The loss adds up beside the gradients, and is summed over processes with them.
            flat[-2] += value
            watched.append((token_metrics, packed.sample))

        # Reading them waits for a GPU, so the next micro-batch is packed before.
        for token_metrics, sample in watched:
            metrics.add(token_metrics, sample, batch)

    def score(
        self,
        sequences: Sequence[Sequence[int]],
        temperature: float = 1.0,
        prompts: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Log-prob of every token given those before it, on the path of `step`.

        prompts: tokens at the beginning of each that nobody asks for; used where `share` is on.
        """
        return score(
            self.model,
            sequences,
            temperature,
            self.width,
            self.tokens,
            self.autocast,
            prompts if self.share else None,
        )

    # ------------------------------------------------------------ memory

    def free_gradient(self) -> None:
        """Give the gradient's memory back, as much as the weights'; the next step makes it anew."""
        self._flat = None
        for parameter in self._trained.values():
            parameter.grad = None

    def _zero_gradient(self) -> Tensor:
        """The flat buffer, all zeros."""
        if self._flat is None:
            self._flat = _flat_gradient(list(self._trained.values()))
        else:
            self._flat.zero_()
        return self._flat

    def _optimiser(self) -> AdamW:
        if self._adamw is None:
            self._adamw = AdamW(list(self._trained.values()), self.optim, self._host_moments)
        return self._adamw

    # ------------------------------------------------------------ on disk

    def save(self, folder: Path) -> None:
        """Weights and optimiser state into `folder`.

        It is complete or absent at any instant; equal states give equal bytes.
        """
        state = {
            name: value.contiguous()  # as safetensors asks
            for name, value in self._state().items()
        }
        meta = {"format": 1, "version": self.version}

        with files.whole_folder(folder) as part:
            self.model.save(part)
            safetensors.torch.save_file(state, part / _STATE)
            (part / _META).write_text(json.dumps(meta) + "\n")

    def size_on_disk(self) -> int:
        """Bytes that `save` writes, but for its headers."""
        moments = sum(value.numel() * value.element_size() for value in self._state().values())
        return size_of(self.model) + moments

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote; training then continues bit for bit.

        Raises UserError where the folder is not such a checkpoint, or is one of another model.
        """
        try:
            meta: dict[str, Any] = json.loads((folder / _META).read_text())
            saved = safetensors.torch.load_file(folder / _STATE)
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            raise UserError(
                f"{folder}: not a checkpoint of a training run: it has no {missing}"
            ) from None
        except (ValueError, SafetensorError) as error:
            raise UserError(f"{folder}: its training state cannot be read: {error}") from None

        own = self._state()
        if own.keys() != saved.keys():
            first = min(own.keys() ^ saved.keys())
            raise UserError(f"{folder}: its optimiser state belongs to another model ({first})")

        # All shapes are compared before anything is copied: the policy stays whole.
        model: torch.nn.Module = self._load(folder)  # type: ignore[assignment]
        weights = model.state_dict()
        for name, tensor in self._module.state_dict().items():
            if name not in weights or weights[name].shape != tensor.shape:
                raise UserError(f"{folder}: its weights belong to another model ({name})")

        # In place: the optimiser and the samplers of this process hold these very tensors.
        self._module.load_state_dict(weights)
        for name, value in own.items():
            value.copy_(saved[name])
        self.version = int(meta["version"])

    def _state(self) -> dict[str, Tensor]:
        """The optimiser's tensors, named `parameter:moment`."""
        state: dict[str, Tensor] = {}
        for name, parameter in self._trained.items():
            for key, value in self._optimiser().state[parameter].items():
                state[f"{name}:{key}"] = value
        return state


def size_of(model: CausalLM) -> int:
    """Bytes of a model's tensors in memory."""
    module: torch.nn.Module = model  # type: ignore[assignment]
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def _flat_gradient(parameters: Sequence[torch.nn.Parameter]) -> Tensor:
    """One buffer for all gradients, of which each parameter's `grad` is a view.

    So there is one all-reduce, one norm and one scaling. The last two entries carry the loss and
    the number of failed ranks.
    """
    size = sum(parameter.numel() for parameter in parameters)
    flat = torch.zeros(size + 2, device=parameters[0].device)

    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.grad = flat[start:end].view_as(parameter)
        start = end
    return flat
