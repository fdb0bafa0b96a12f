"""AdamW (Loshchilov and Hutter 2019), by torch's own functional form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adamw import adamw

from linn.types import Optim

_MOMENTS = ("exp_avg", "exp_avg_sq")


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
        matrices = [p for p in parameters if p.ndim >= 2]
        vectors = [p for p in parameters if p.ndim < 2]  # norms, biases, A and D of Mamba
        self._groups = [(matrices, optim.weight_decay), (vectors, 0.0)]

        # Made now, so that version 0 saves and restores like any other.
        self.state: dict[Parameter, dict[str, Tensor]] = {}
        for parameter in parameters:
            device = "cpu" if host_moments else parameter.device
            self.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter, device=device),
                "exp_avg_sq": torch.zeros_like(parameter, device=device),
            }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter in place by its gradient."""
        for parameters, weight_decay in self._groups:
            if not self._host_moments:
                states = [self.state[parameter] for parameter in parameters]
                self._update(parameters, states, lr, weight_decay)
                continue
            for parameter in parameters:
                host = self.state[parameter]
                there = {name: host[name].to(parameter.device) for name in _MOMENTS}
                self._update([parameter], [host | there], lr, weight_decay)
                for name, moment in there.items():
                    host[name].copy_(moment)

    def _update(
        self,
        parameters: Sequence[Parameter],
        states: Sequence[dict[str, Tensor]],
        lr: float,
        weight_decay: float,
    ) -> None:
        if not parameters:
            return
        beta1, beta2 = self.optim.betas
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            # One tensor after the other, with the same bits: what comes in between is as large as
            # one tensor, not as all of them.
            foreach=False,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=weight_decay,
            eps=self.optim.eps,
            maximize=False,
        )
