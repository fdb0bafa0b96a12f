"""A model whose matrix products read bfloat16 copies of its weights.

Under bfloat16 autocast a product rounds its factors, and in decoding it would round all weights for
every token. Rounded once they are the same numbers, at a third of the bytes. All else (embeddings,
norms, routers, what a recurrence sums) reads the weights themselves, as autocast leaves it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from linn.engine.models.interface import CausalLM
from linn.engine.models.nemotron_h.experts import Experts


class RoundedProducts:
    """The one place of the copies. Whoever changes the weights calls `refresh` before sampling."""

    def __init__(self, model: CausalLM) -> None:
        module: nn.Module = model  # type: ignore[assignment]
        shared: dict[int, object] = {}
        for tensor in (*module.parameters(), *module.buffers()):
            shared[id(tensor)] = tensor
        twin = copy.deepcopy(module, shared)

        self._weights: list[nn.Parameter] = []
        self._copies: list[Tensor] = []
        for part in twin.modules():
            # Parts whose weights do nothing but multiply.
            if isinstance(part, nn.Linear | Experts):
                for name, weight in list(part.named_parameters(recurse=False)):
                    rounded = nn.Parameter(weight.detach().bfloat16(), requires_grad=False)
                    setattr(part, name, rounded)
                    self._weights.append(weight)
                    self._copies.append(rounded.detach())
        self.model: CausalLM = twin  # type: ignore[assignment]
        """Computes under bfloat16 autocast what the given model does, to the bit on a CPU."""

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the weights as they are now; the copies stay where they are."""
        if self._copies:
            torch._foreach_copy_(self._copies, [weight.detach() for weight in self._weights])
