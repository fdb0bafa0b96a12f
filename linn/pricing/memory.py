"""What one process of the local engine holds at its peak, by arithmetic on the model's shape.

`python -m bench.speed.memory` measures it: within a fifth on SmolLM2 (docs/memory.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from linn.pricing.shape import Shape

PROCESS = 0.25e9
"""Bytes of a worker without a model: Python and torch."""
TRANSFORMERS = 0.13e9
"""What `transformers` adds for the families that it computes."""
MICRO_BATCH = 2048
"""Tokens that go through the layers together; a longer row goes alone (`Trainer.tokens`)."""
LOGITS = 2**23
"""Logits that training makes at once (`linn.engine.training.head`)."""
COPIES = 2
"""Arrays of the logits' size: their product, and what becomes of it in place."""
HEAP = 1.3
"""Kept activations take this much more than their sum: holes that the C library's heap leaves."""
FLOAT = 4
"""Bytes of a number. The local engine holds and samples in float32; under `precision: bfloat16`
the products' inputs take half, and the residual stream stays as it is."""


@dataclass(frozen=True)
class Memory:
    """Bytes in one process."""

    process: float
    """Python, torch and the family's code."""
    weights: float
    """float32, as the trainer keeps them."""
    gradients: float
    """float32; there during a step alone."""
    optimiser: float
    """AdamW's two moments, float32; there from the first step on."""
    activations: float
    """One micro-batch between its forward and its backward pass, and the head's logits."""
    caches: float
    """Keys, values and states of the conversations that are decoded together."""
    recomputed: float
    """What `activations` would be with `scale.recompute`."""
    host_moments: bool = False
    """Whether a GPU leaves AdamW's moments in the host's memory."""

    @property
    def training(self) -> float:
        """In the middle of an optimiser step."""
        model = self.weights + self.gradients + self.optimiser
        return self.process + model + self.activations

    @property
    def sampling(self) -> float:
        """While a stage samples: moments, but no gradient."""
        return self.process + self.weights + self.optimiser + self.caches

    @property
    def evaluating(self) -> float:
        """While a checkpoint is evaluated outside a run, or judges."""
        return self.process + self.weights + self.caches

    @property
    def whole(self) -> float:
        """The larger of training and sampling; every process holds the whole model."""
        return max(self.training, self.sampling)

    @property
    def on_gpu(self) -> float:
        """`whole`, of a process that computes on a GPU."""
        return self.whole - self.optimiser * self.host_moments

    @property
    def smallest(self) -> float:
        """`whole` with `scale.recompute`."""
        return max(self.trained_at_least, self.sampling)

    def sharded(self, devices: int) -> float:
        """Weights, gradients and moments spread evenly over the devices."""
        spread = (self.weights + self.gradients + self.optimiser) / devices
        return spread + max(self.activations, self.caches)

    def remedy(self, processes: int, has: float) -> str:
        """Which key makes a run fit into `has` bytes; empty where it does already."""
        if self.whole * processes <= has:
            return ""
        if self.smallest * processes <= has:
            return "set scale.recompute: true"
        if self.trained_at_least * processes <= has:
            share = (has / processes - self.sampling + self.caches) / self.caches
            return f"lower scale.cache or max_tokens: {share:.0%} of the caches fit"
        if fitting := int(has // self.smallest):
            return f"set scale.processes: {fitting} and scale.recompute: true"
        return "no key makes it fit: take a smaller model or more memory"

    @property
    def trained_at_least(self) -> float:
        """A step with `scale.recompute`."""
        return self.training - self.activations + self.recomputed


def memory_of(
    shape: Shape,
    width: int,
    tokens: float,
    cached: float,
    recompute: bool = False,
    host_moments: bool = False,
) -> Memory:
    """Of a step over `tokens` tokens, which fill micro-batches, and of `cached` bytes of caches.

    width: of a packed row. host_moments: where there is a GPU, AdamW's moments are not on it.
    """
    together = min(tokens, max(width, MICRO_BATCH))
    kept = activation_bytes(shape, together, recompute=False)
    recomputed = activation_bytes(shape, together, recompute=True)
    return Memory(
        process=PROCESS if shape.own else PROCESS + TRANSFORMERS,
        weights=float(FLOAT * shape.total),
        gradients=float(FLOAT * shape.total),
        optimiser=float(2 * FLOAT * shape.total),
        activations=recomputed if recompute else kept,
        caches=cached,
        recomputed=recomputed,
        host_moments=host_moments,
    )


def activation_bytes(shape: Shape, tokens: float, recompute: bool) -> float:
    """What a micro-batch of so many tokens needs beside weights, gradients and moments."""
    inputs = tokens * shape.hidden * shape.layers
    # The layer that is being computed holds as much again while its gradients are made.
    if recompute:
        layers = inputs + 2 * tokens * shape.widest
    else:
        layers = tokens * shape.kept * HEAP

    positions = max(1.0, min(tokens, LOGITS // shape.vocab))
    table = shape.vocab * shape.hidden
    head = COPIES * positions * shape.vocab + table
    # AdamW works on one tensor after the other, when the activations are gone.
    update = 2 * table
    return FLOAT * max(layers + head, update)
