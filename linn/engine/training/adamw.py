"""AdamW (Loshchilov and Hutter 2019), by torch's own functional form."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adamw import adamw

from linn.types import Optim

_FUSED = ("cpu", "cuda")
"""Devices with a kernel that takes all of AdamW in one pass over a tensor."""
_LANES = 16
"""Numbers of a row that the kernel takes at once, at most (AVX-512)."""


class AdamW:
    """AdamW with weight decay on matrices alone.

    The class `torch.optim.AdamW` gives the same bits, but its constructor imports torch's compiler.
    That would double the time in which a worker starts.
    """

    def __init__(
        self, parameters: Sequence[Parameter], optim: Optim, host_moments: bool = False
    ) -> None:
        """host_moments: the moments wait in the host's memory between steps, and come to the
        parameters' device one after the other."""
        self.optim = optim
        self._host_moments = host_moments
        # Decay is for matrices: not for norms, biases, A and D of Mamba.
        self._groups: dict[tuple[float, bool], list[Parameter]] = defaultdict(list)
        for parameter in parameters:
            weight_decay = optim.weight_decay if parameter.ndim >= 2 else 0.0
            self._groups[weight_decay, _is_fused(parameter)].append(parameter)

        # Made now, so that version 0 saves and restores like any other.
        self.state: dict[Parameter, dict[str, Tensor]] = {}
        for parameter in parameters:
            device = torch.device("cpu") if host_moments else parameter.device
            self.state[parameter] = {
                # A kernel counts where it computes; the plain path counts on the host.
                "step": torch.zeros((), device=device if _is_fused(parameter) else None),
                "exp_avg": torch.zeros_like(parameter, device=device),
                "exp_avg_sq": torch.zeros_like(parameter, device=device),
            }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter in place by its gradient."""
        for (weight_decay, fused), parameters in self._groups.items():
            if not self._host_moments:
                states = [self.state[parameter] for parameter in parameters]
                self._update(parameters, states, lr, weight_decay, fused)
                continue
            for parameter in parameters:
                host = self.state[parameter]
                there = {name: value.to(parameter.device) for name, value in host.items()}
                self._update([parameter], [there], lr, weight_decay, fused)
                for name, value in there.items():
                    host[name].copy_(value)

    def _update(
        self,
        parameters: Sequence[Parameter],
        states: Sequence[dict[str, Tensor]],
        lr: float,
        weight_decay: float,
        fused: bool,
    ) -> None:
        beta1, beta2 = self.optim.betas
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            # Else one tensor after the other: what comes in between is as large as one of them.
            foreach=False,
            fused=fused,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=weight_decay,
            eps=self.optim.eps,
            maximize=False,
        )


def _is_fused(parameter: Parameter) -> bool:
    """Whether one kernel does it all, in a quarter of the time.

    On a CPU it rounds otherwise in what is left over after its last whole vector. So it is for rows
    that are whole vectors: a shard, which is cut between rows, then gets the bits of the whole.
    """
    if parameter.device.type not in _FUSED or parameter.ndim < 2:
        return False
    row = math.prod(parameter.shape[1:])
    return row % _LANES == 0
