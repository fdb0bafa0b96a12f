"""The optimiser step: micro-batches into one flat gradient, summed over processes, clipped, AdamW; and its state on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from linn.engine.models.interface import CausalLM
from linn.engine.models.load import load as load_model
from linn.engine.training.losses import OBJECTIVES, Signal, precision, score, token_logprobs
from linn.engine.training.pack import Packed, micro_batches
from linn.engine.training.token_weights import StepFailed, moves, token_weights, trained
from linn.errors import UserError
from linn.types import Loss, Optim, Sample

_STATE = "optimizer.safetensors"
_META = "trainer.json"
_NOT_ASSETS = (".safetensors", ".bin", ".pt", ".index.json", _META)


class Trainer:
    """Trains `model` in place. In a process group every rank calls `step` with its own share of the samples and ends with the same bits."""

    def __init__(
        self,
        model: CausalLM,
        optim: Optim,
        width: int = 2048,
        tokens: int = 2048,
        autocast: bool = False,
        load: Callable[[Path], CausalLM] = load_model,
        assets: Path | None = None,
    ) -> None:
        """`width`, `tokens`: of rows and micro-batches (on a CPU small ones are faster: they stay in its caches). `autocast`: bf16 matrix products over fp32 weights. `load`: reads what `model.save`
        wrote. `assets`: a folder whose tokenizer files go into every checkpoint."""
        self.model, self.optim, self.width, self.tokens, self.autocast = (
            model,
            optim,
            width,
            tokens,
            autocast,
        )
        self.version = 0
        self._load, self._assets = load, assets
        module: torch.nn.Module = model  # type: ignore[assignment]
        self._module = module
        self._names = {name: p for name, p in module.named_parameters() if p.requires_grad}
        params = list(self._names.values())
        self._device = params[0].device
        if any(p.dtype != torch.float32 for p in params):
            raise ValueError(
                "training needs float32 weights; `autocast` gives bf16 matrix products over them"
            )
        # One buffer for all gradients: one all-reduce, one norm, one scaling. Its tail carries the loss and the number of failed ranks.
        self._flat = torch.zeros(sum(p.numel() for p in params) + 2, device=self._device)
        start = 0
        for p in params:
            p.grad = self._flat[start : start + p.numel()].view_as(p)
            start += p.numel()
        decayed = [p for p in params if p.ndim >= 2]
        plain = [p for p in params if p.ndim < 2]  # norms, biases, A and D of Mamba
        groups = [
            {"params": decayed, "weight_decay": optim.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=0.0,
            betas=optim.betas,
            eps=optim.eps,
            foreach=True,
        )
        for p in params:  # made now, so that version 0 saves and restores like any other
            self._adamw.state[p] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }

    def step(
        self,
        samples: Sequence[Sample],
        loss: Loss,
        lr: float,
        weights: Sequence[float] | None = None,
    ) -> dict[str, float]:
        """One AdamW step. `weights`: `token_weights` of the whole batch, restricted to this rank's `samples`; None: `samples` is the batch.

        Returns the same metrics on every rank. Raises StepFailed, with weights and optimiser untouched on all ranks, when the loss or the
        gradient norm is not finite.
        """
        weights = token_weights(samples, loss) if weights is None else weights
        self._flat.zero_()
        tally, failure = _Tally(), None
        try:
            moving = [(s, w) for s, w in zip(samples, weights, strict=True) if moves(s, loss)]
            chosen = [s for s, _ in moving]
            for packed in micro_batches(
                chosen, [w for _, w in moving], self.width, self.tokens, self.model.packs
            ):
                self._accumulate(packed.to(self._device), chosen, loss, tally)
        except Exception as error:
            failure = error
            self._flat[-1] = 1.0
        tally.add_samples(samples)
        if _world() > 1:
            dist.all_reduce(self._flat)
        if failure is not None:
            raise failure
        if self._flat[-1] > 0:
            raise StepFailed("another process failed in this step")
        grad = self._flat[:-2]
        norm, value = float(torch.linalg.vector_norm(grad)), float(self._flat[-2])
        if not (torch.isfinite(self._flat[-2]) and norm < float("inf")):
            refused = StepFailed(
                f"step {self.version + 1}: loss {value}, gradient norm {norm}; weights and optimiser are unchanged"
            )
            refused.samples = samples
            raise refused
        if norm > self.optim.clip:
            grad.mul_(self.optim.clip / norm)
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self.version += 1
        return {"loss": value, "grad_norm": norm, "lr": lr} | tally.reduced()

    def score(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Log-prob of every token given those before it, on the path of `step`."""
        return score(self.model, sequences, temperature, self.width, self.tokens, self.autocast)

    def weights(self) -> CausalLM:
        """The live model: samplers of the same process share its tensors."""
        return self.model

    def save(self, folder: Path) -> None:
        """Weights, optimiser state and tokenizer files into `folder`, which is complete or absent at any instant; equal states give equal bytes."""
        making = folder.parent / f".{folder.name}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        self.model.save(making)
        state: dict[str, Tensor] = {}
        for name, p in self._names.items():
            state |= {
                f"{name}:{key}": value.contiguous() for key, value in self._adamw.state[p].items()
            }
        safetensors.torch.save_file(state, making / _STATE)
        (making / _META).write_text(json.dumps({"format": 1, "version": self.version}) + "\n")
        for file in sorted(self._assets.iterdir()) if self._assets else ():
            if (
                file.is_file()
                and not file.name.endswith(_NOT_ASSETS)
                and not (making / file.name).exists()
            ):
                shutil.copyfile(file, making / file.name)
        _publish(making, folder)

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote; training then continues bit for bit. Raises UserError where the folder is no such checkpoint."""
        try:
            meta: dict[str, Any] = json.loads((folder / _META).read_text())
            state = safetensors.torch.load_file(folder / _STATE)
        except FileNotFoundError as error:
            raise UserError(
                f"{folder}: not a checkpoint of a training run: it has no {Path(error.filename).name}"
            ) from None
        wanted = {
            f"{name}:{key}" for name, p in self._names.items() for key in self._adamw.state[p]
        }
        if wanted != set(state):
            raise UserError(
                f"{folder}: its optimiser state belongs to another model ({min(wanted ^ set(state))})"
            )
        loaded: torch.nn.Module = self._load(folder)  # type: ignore[assignment]
        self._module.load_state_dict(loaded.state_dict())
        for name, p in self._names.items():
            for key, value in self._adamw.state[p].items():
                value.copy_(state[f"{name}:{key}"])
        self.version = int(meta["version"])

    def _accumulate(
        self, packed: Packed, samples: Sequence[Sample], loss: Loss, tally: _Tally
    ) -> None:
        if not bool(packed.mask.any()):
            return
        with precision(self._device, self.autocast):
            logp, entropy = token_logprobs(self.model, packed, loss.temperature)
        on = packed.mask
        signal = Signal(
            packed.weight[on], packed.advantage[on], packed.behaviour[on], packed.teacher[on]
        )
        value, figures = OBJECTIVES[loss.kind](logp, signal, loss)
        value.backward()
        self._flat[-2] += value.detach()
        tally.add(figures | {"entropy": entropy}, packed.sample[on], samples)


class _Tally:
    """Sums and counts of a step's figures over micro-batches, then over ranks."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.worst = 0.0
        self.tokens = self.sequences = 0

    def add(self, figures: dict[str, Tensor], sample: Tensor, samples: Sequence[Sample]) -> None:
        for name, values in figures.items():
            self._mean(name, values)
        if "mismatch" in figures:
            self.worst = max(self.worst, float(figures["mismatch"].max()))
        for name in {"teacher_gap", "nll"} & figures.keys():
            domains = [samples[i].domain for i in sample.tolist()]
            for domain in sorted(set(domains) - {""}):
                own = torch.tensor([d == domain for d in domains], device=sample.device)
                self._mean(f"{name}/{domain}", figures[name][own])

    def add_samples(self, samples: Sequence[Sample]) -> None:
        counts = [trained(sample) for sample in samples]
        self.tokens += sum(counts)
        self.sequences += sum(count > 0 for count in counts)

    def _mean(self, name: str, values: Tensor) -> None:
        entry = self.sums[name]
        entry[0] += float(values.sum(dtype=torch.float64))
        entry[1] += values.numel()

    def reduced(self) -> dict[str, float]:
        """Means over the tokens of all ranks, and the largest mismatch."""
        mine = (dict(self.sums), self.worst, self.tokens, self.sequences)
        parts = [mine] * _world()
        if _world() > 1:
            dist.all_gather_object(parts, mine)
        totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for sums, *_ in parts:
            for name, (total, count) in sums.items():
                totals[name][0] += total
                totals[name][1] += count
        out = {name: total / count for name, (total, count) in sorted(totals.items())}
        out |= {
            "tokens": float(sum(part[2] for part in parts)),
            "sequences": float(sum(part[3] for part in parts)),
        }
        if "mismatch" in out:
            out |= {
                "mismatch_mean": out.pop("mismatch"),
                "mismatch_max": max(part[1] for part in parts),
            }
        return out


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _publish(making: Path, folder: Path) -> None:
    """Flush everything in `making` to disk, then give it its name; an older folder of that name goes only afterwards."""
    for path in [*sorted(making.rglob("*")), making]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    old = folder.parent / f".{folder.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    making.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    handle = os.open(folder.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
