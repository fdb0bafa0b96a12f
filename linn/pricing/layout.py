"""What the processes of a cluster hold, and the nearest layout that fits: arithmetic, no torch.

docs/cluster.md has the formulas. Nothing here was measured on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from linn.engine.local.host_memory import machine_bytes
from linn.errors import UserError
from linn.pricing.memory import HEAP, PROCESS
from linn.pricing.shape import Shape
from linn.recipe.scale import ScaleConfig
from linn.recipe.schema import Recipe
from linn.recipe.stages import DistillConfig, RlConfig

RESERVE = 0.06
"""Share of a GPU's memory that is left to its driver, its communication buffers and to holes."""
ASLEEP = 2e9
"""Bytes of a GPU that a sampler keeps while it sleeps: its driver's context and recorded graphs."""
MACHINE = 8
"""GPUs of a machine."""
MOST_RANKS = 1024
"""Ranks that are tried at most."""


@dataclass(frozen=True)
class Rank:
    """Bytes of one trainer rank at its peak."""

    weights: float
    """Its rows of the float32 weights, and of their gradients; whole gradients where asked for."""
    moments: float
    """Its rows of AdamW's moments; 0 where they wait on the host."""
    gathered: float
    """Embeddings and head as a whole, two layers as a whole, and the gradients of all these."""
    activations: float
    """A row between its forward and its backward pass, or its piece of one."""
    other: float
    """Its rows of a teacher or a reference."""

    @property
    def total(self) -> float:
        """All together."""
        return self.weights + self.moments + self.gathered + self.activations + self.other


@dataclass(frozen=True)
class Layout:
    """The processes of a cluster and their memory."""

    scale: ScaleConfig
    """The block it is of."""
    shape: Shape
    """The model."""
    row: int
    """Tokens of the longest row: `scale.width`, or a longer conversation, which has its own."""
    conversation: float
    """Bytes that a sampler keeps of the longest conversation."""
    rank: Rank
    """Of each trainer rank."""
    device: str
    """What each process computes on, for a person."""
    memory: float
    """Bytes that one process may take; where trainers and samplers take turns, both together."""

    @property
    def in_turn(self) -> bool:
        """Whether trainers and samplers have the same GPUs; CPUs give nothing back."""
        return self.scale.samplers.colocated and self.scale.device != "cpu"

    @property
    def room(self) -> float:
        """Bytes that a trainer rank may take."""
        return self.memory - ASLEEP * self.in_turn

    @property
    def at_rest(self) -> float:
        """Bytes of a rank on a sampler's GPU: its shards, without gradients."""
        if not self.in_turn:
            return 0.0
        shards = 4 * self.shape.total / self.scale.trainers.ranks
        return shards + self.rank.moments + self.rank.other

    @property
    def taken_by_sampler(self) -> float:
        """Bytes of a GPU that a vLLM replica takes, whatever it holds."""
        card = self.memory / (1 - RESERVE)
        return self.scale.samplers.memory_share * card

    @property
    def weights_of_sampler(self) -> float:
        """Bytes of a replica's weights, on one of its devices."""
        samplers = self.scale.samplers
        if samplers.engine == "linn":
            return 4.0 * self.shape.total
        return self._number * self.shape.total / samplers.tensor

    @property
    def conversations(self) -> int:
        """Longest conversations that a replica holds at once."""
        samplers = self.scale.samplers
        fit = self._held_by(samplers.memory_share)
        if samplers.engine == "linn":
            fit = min(fit, max(1, int(self._cache // self.conversation)))
        return min(self.scale.capacity, fit)

    def _held_by(self, share: float) -> int:
        """Longest conversations in a share of a replica's GPUs; all that is left is linn's own."""
        samplers = self.scale.samplers
        room = self.memory - self.at_rest
        if samplers.engine == "vllm":
            room = share * self.memory
        free = samplers.tensor * (room - self.weights_of_sampler)
        return max(0, int(free // self.conversation))

    @property
    def turn_fits(self) -> bool:
        """Whether vLLM finds its share of the GPU free while the ranks rest."""
        if not self.in_turn or self.scale.samplers.engine != "vllm":
            return True
        return self.at_rest + self.taken_by_sampler <= self.memory

    @property
    def most_memory(self) -> float:
        """The largest `samplers.memory` beside ranks at rest that holds a conversation; 0: none."""
        share = math.floor(100 * (self.memory - self.at_rest) * (1 - RESERVE) / self.memory) / 100
        return share if share > 0 and self._held_by(share) else 0.0

    @property
    def _cache(self) -> int:
        on_gpu = self.scale.device != "cpu"
        return self.scale.cache_bytes(self.memory if on_gpu else machine_bytes(), on_gpu)

    @property
    def _number(self) -> int:
        return 2 if self.scale.precision == "bfloat16" else 4

    @property
    def fits(self) -> bool:
        """Whether trainers and samplers do."""
        return self.rank.total <= self.room and self.conversations > 0 and self.turn_fits


def layout_of(
    recipe: Recipe,
    shape: Shape,
    trained: float,
    conversation: float,
    device: str,
    memory: float,
) -> Layout:
    """The layout of a recipe whose engine is a cluster.

    trained: tokens of the longest conversation that is trained on. conversation: bytes that a
    sampler keeps of the longest one. memory: bytes of a GPU; on CPUs that of this machine counts,
    shared by all processes.

    Raises UserError where the model's experts or rows cannot be shared out as `trainers` says.
    """
    scale = recipe.scale
    _check_shares(scale, shape)
    if scale.device == "cpu":
        device = "CPU process"
        memory = _share_of_machine(scale)
    else:
        memory = (1 - RESERVE) * memory
    row = max(scale.width, round(trained))
    rank = _rank(scale, shape, row, _has_other(recipe))
    return Layout(scale, shape, row, conversation, rank, device, memory)


def _share_of_machine(scale: ScaleConfig) -> float:
    """Bytes of this machine's memory for one of a cluster's processes, all of which are here."""
    processes = scale.trainers.ranks + scale.samplers.devices
    return machine_bytes() / processes - PROCESS


def _check_shares(scale: ScaleConfig, shape: Shape) -> None:
    experts, context = scale.trainers.experts, scale.trainers.context
    if experts > 1 and not (shape.own and shape.experts):
        why = (
            "only Nemotron-H's can be spread" if shape.experts else "this model has no routed ones"
        )
        raise UserError(f"scale.trainers.experts: {experts}: {why}; take 1")
    if experts > 1 and shape.experts % experts:
        fitting = [n for n in range(1, shape.experts + 1) if shape.experts % n == 0]
        raise UserError(
            f"scale.trainers.experts: {experts} does not divide the {shape.experts} routed experts "
            f"of the model's layers; take one of {', '.join(map(str, fitting))}"
        )
    tensor = scale.samplers.tensor
    if not shape.splits(tensor):
        fitting = [n for n in range(1, shape.heads + 1) if shape.splits(n)]
        raise UserError(
            f"scale.samplers.tensor: {tensor}: the heads of this model's layers can't be dealt out "
            f"to so many GPUs; take one of {', '.join(map(str, fitting))}"
        )
    if context > 1 and not (shape.own and context <= shape.heads):
        most = f"at most {shape.heads}, its attention heads" if shape.own else "1"
        raise UserError(
            f"scale.trainers.context: {context}: rows of this model can't be cut like that; "
            f"take {most}" + ("" if shape.own else ": only Nemotron-H's rows are cut")
        )


def lines(layout: Layout) -> Iterator[str]:
    """What is where, what it takes, and what would fit where this does not."""
    scale, rank = layout.scale, layout.rank
    samplers = scale.samplers
    yield f"placement ({scale.places}): {_placement(scale, layout.device)}"

    parts = {
        "weights and gradients": rank.weights,
        "AdamW": rank.moments,
        "layers and head gathered": rank.gathered,
        f"activations of {_tokens(layout)}": rank.activations,
        "teacher or reference": rank.other,
    }
    listed = ", ".join(f"{name} {_gb(size)}" for name, size in parts.items() if size)
    verdict = "fits" if rank.total <= layout.room else "OVER"
    yield (
        f"  a trainer rank, GB: {listed}; {_gb(rank.total)} of {_gb(layout.room)} of the "
        f"{layout.device}: {verdict}"
    )
    if _moments_leave(scale):
        on_host = 8 * layout.shape.total
        yield f"  AdamW's moments, {_gb(on_host)} GB in all, wait in the memory of the hosts"

    many = layout.conversations
    verdict = "fits" if many else "OVER"
    yield (
        f"  a sampler ({samplers.engine}), GB: weights {_gb(layout.weights_of_sampler)} on each of "
        f"{samplers.tensor}, {_gb(layout.conversation)} for the longest conversation: "
        f"{many:,} of these at once: {verdict}"
    )
    if layout.in_turn:
        yield from _turn(layout)
    if scale.places == "local" and scale.device != "cpu" and scale.devices > MACHINE:
        yield (
            f"  places: local starts all processes on this machine; where that has no "
            f"{scale.devices} GPUs, set places: ray and an exchange folder that all machines see"
        )
    if rank.total > layout.room:
        yield from (f"  {line}" for line in _remedies(layout))
    if not (many and layout.turn_fits):
        remedy = _turn_remedy if layout.in_turn else sampler_remedy
        yield f"  samplers: {remedy(layout)}"


def _turn(layout: Layout) -> Iterator[str]:
    """What both sides leave on a GPU that they share."""
    samplers = layout.scale.samplers
    weights = samplers.devices * layout.weights_of_sampler
    yield (
        f"  in turn: samplers asleep keep {_gb(ASLEEP)} GB of each GPU, and their weights, "
        f"{_gb(weights)} GB in all, wait in the memory of the hosts"
    )
    if samplers.engine == "linn":
        yield f"  in turn: a rank at rest keeps {_gb(layout.at_rest)} GB"
        return
    verdict = "fits" if layout.turn_fits else "OVER"
    yield (
        f"  in turn: a rank at rest keeps {_gb(layout.at_rest)} GB, vLLM takes "
        f"{samplers.memory_share:g} of the GPU, {_gb(layout.taken_by_sampler)} GB: {verdict}"
    )


def _turn_remedy(layout: Layout) -> str:
    """The largest share of a GPU that ranks at rest leave.

    By the moments where they must go, then by replicas of more GPUs.
    """
    samplers, ranks = layout.scale.samplers, layout.scale.trainers.ranks
    tensors = [samplers.tensor]
    if samplers.engine == "vllm":
        wider_ones = range(samplers.tensor + 1, min(MACHINE, ranks) + 1)
        tensors += [tensor for tensor in wider_ones if layout.shape.splits(tensor)]
    for tensor in tensors:
        wider: dict[str, Any] = {}
        if tensor != samplers.tensor:
            wider = {"tensor": tensor, "replicas": min(samplers.replicas, ranks // tensor)}
        for keys in ({}, {"moments": "host"}):
            scale = changed(layout.scale, **keys)
            scale = scale.model_copy(update={"samplers": samplers.model_copy(update=wider)})
            rank = replace(layout.rank, moments=0.0) if keys else layout.rank
            if share := replace(layout, scale=scale, rank=rank).most_memory:
                words = [_named(keys)] if keys else []
                words += [f"samplers.{key}: {value}" for key, value in wider.items()]
                if samplers.engine == "vllm":
                    words.append(f"samplers.memory: {share:g}")
                return f"fits with {', '.join(words)}"
    return "beside these ranks no share holds the model and one conversation; take more ranks"


def _tokens(layout: Layout) -> str:
    context = layout.scale.trainers.context
    if context == 1:
        return f"{layout.row:,} tokens"
    return f"1/{context} of {layout.row:,} tokens"


def _placement(scale: ScaleConfig, device: str) -> str:
    trainers, samplers = scale.trainers.ranks, scale.samplers
    words = (
        f"{trainers} trainer rank{'s' * (trainers > 1)} and {samplers.replicas} "
        f"{samplers.engine} sampler{'s' * (samplers.replicas > 1)}"
    )
    if samplers.tensor > 1:
        words += f" of {samplers.tensor}"
    if samplers.colocated:
        words += ", in turn"
    if scale.trainers.context > 1:
        words += f"; each row over {scale.trainers.context} ranks"
    if scale.trainers.experts > 1:
        words += f"; a layer's experts over {scale.trainers.experts} ranks"
    if scale.device == "cpu":
        return f"{words}, one CPU thread each"
    machines = -(-scale.devices // MACHINE)
    own = "samplers on the first of them" if samplers.colocated else "each with a device of its own"
    return (
        f"{words} on {scale.devices} x {device}, {machines} machine{'s' * (machines > 1)} of "
        f"{MACHINE}; trainers first, {own}"
    )


def _rank(scale: ScaleConfig, shape: Shape, row: int, other: bool) -> Rank:
    """A rank's memory; formulas in docs/cluster.md."""
    ranks, total = scale.trainers.ranks, shape.total
    number = 2 if scale.precision == "bfloat16" else 4
    weights = 8 * total / ranks
    if scale.trainers.sum == "step" and ranks > 1:
        weights += 4 * total
    # Two layers are whole at once: one is computed, the next is on its way. A gradient is there in
    # the layer's own dtype, and in float32 while it is summed.
    layers = shape.gathered(scale.trainers.experts) * (2 * number + number + 4)
    return Rank(
        weights=weights,
        moments=0.0 if _moments_leave(scale) else 8 * total / ranks,
        gathered=float(8 * shape.ends + layers),
        activations=number * _numbers(shape, row, scale) / scale.trainers.context,
        other=4 * total / ranks if other else 0.0,
    )


def _moments_leave(scale: ScaleConfig) -> bool:
    """Whether AdamW's moments are elsewhere: of a CPU the host's memory is its own."""
    return scale.trainers.moments == "host" and scale.device != "cpu"


def _numbers(shape: Shape, tokens: int, scale: ScaleConfig) -> float:
    """Activations of one row. The layer that is computed holds as much again for its gradients."""
    experts = scale.trainers.experts
    if scale.recompute:
        return tokens * (shape.hidden * shape.layers + shape.inside(experts))
    return tokens * shape.kept * HEAP + tokens * shape.sent * (experts > 1)


def _has_other(recipe: Recipe) -> bool:
    """Whether any stage scores by another model."""
    for stage in recipe.stages:
        if isinstance(stage, DistillConfig) or (isinstance(stage, RlConfig) and stage.kl):
            return True
    return False


# ---------------------------------------------------------------- what would fit


def _remedies(layout: Layout) -> Iterator[str]:
    """The nearest layouts whose trainers fit.

    Other keys; then experts and rows over the same ranks; then more ranks, or shorter rows.
    """
    scale, row = layout.scale, layout.row
    yield f"trainers: {_gb(layout.rank.total - layout.room)} GB too many for each rank"
    for keys in _cheaper(scale):
        if fits_with(layout, changed(scale, **keys), row):
            yield f"fits with {_named(keys)}"
            return

    best = _cheaper(scale)[-1]
    for shares in ways_to_share(layout.shape, scale.trainers.ranks):
        if fits_with(layout, changed(scale, **best, **shares), row):
            yield f"fits with {_named(best | new_keys(scale, shares))}"
            return

    for ranks in range(scale.trainers.ranks + 1, MOST_RANKS):
        fitting = [
            best | {"ranks": ranks} | new_keys(scale, shares)
            for shares in ways_to_share(layout.shape, ranks)
            if fits_with(layout, changed(scale, **best, **shares, ranks=ranks), row)
        ]
        if fitting:
            yield f"fits with {_named(fitting[0])}"
            break
    else:
        yield f"no number of ranks up to {MOST_RANKS} holds a row of {row:,} tokens"

    # The last of the ways to share out is the one that takes least memory.
    best |= new_keys(scale, list(ways_to_share(layout.shape, scale.trainers.ranks))[-1])
    named = f"{_named(best)} and " if best else ""
    shorter = row
    while shorter >= 16 and not fits_with(layout, changed(scale, **best), shorter):
        shorter = shorter * 31 // 32
    if shorter >= 16:
        yield (
            f"fits with {named}rows of {shorter // 16 * 16:,} tokens (width, and no longer "
            "max_length, max_tokens with its prompt, or max_sequence)"
        )


def _cheaper(scale: ScaleConfig) -> list[dict[str, Any]]:
    """Keys that save memory and change no result, from the cheapest in time to all of them."""
    saving: dict[str, Any] = {}
    if scale.trainers.sum == "step":
        saving["sum"] = "micro_batch"
    steps = [dict(saving)]
    if not scale.recompute:
        saving["recompute"] = True
        steps.append(dict(saving))
    if scale.trainers.moments == "device" and scale.device != "cpu":
        steps.append({"moments": "host", **steps[0]})
        saving["moments"] = "host"
        steps.append(dict(saving))
    return steps


def ways_to_share(shape: Shape, ranks: int) -> Iterator[dict[str, int]]:
    """Ways to share out rows and experts over so many ranks, those with least traffic first."""
    if not shape.own:
        yield {"context": 1, "experts": 1}
        return
    rows = [n for n in range(1, min(shape.heads, ranks) + 1) if ranks % n == 0]
    held = [n for n in range(1, ranks + 1) if ranks % n == 0 and shape.experts % n == 0]
    for context in rows:
        for experts in held if shape.experts else [1]:
            yield {"context": context, "experts": experts}


def new_keys(scale: ScaleConfig, shares: dict[str, int]) -> dict[str, int]:
    """Those that the layout does not have."""
    return {key: value for key, value in shares.items() if value != getattr(scale.trainers, key)}


def changed(scale: ScaleConfig, **keys: Any) -> ScaleConfig:
    """With other keys of `trainers`, and `recompute`."""
    own = {key: value for key, value in keys.items() if key == "recompute"}
    of_trainers = {key: value for key, value in keys.items() if key not in own}
    trainers = scale.trainers.model_copy(update=of_trainers)
    return scale.model_copy(update={**own, "trainers": trainers})


def fits_with(layout: Layout, scale: ScaleConfig, row: int) -> bool:
    """Whether a trainer rank does, by another `scale` and with rows of so many tokens."""
    other = layout.rank.other > 0
    # On CPUs every further process leaves less of the machine to the others.
    room = _share_of_machine(scale) if scale.device == "cpu" else layout.room
    return _rank(scale, layout.shape, row, other).total <= room


def sampler_remedy(layout: Layout) -> str:
    """What lets a replica hold the model and one conversation."""
    scale = layout.scale
    if scale.device == "cpu":
        return _fewer_processes(layout)
    for tensor in range(scale.samplers.tensor, MACHINE + 1):
        share = scale.samplers.memory_share * layout.memory
        free = tensor * share - 2 * layout.shape.total
        if layout.shape.splits(tensor) and free >= layout.conversation:
            return f"fits with engine: vllm, tensor: {tensor}, precision: bfloat16"
    return "no replica of one machine holds the model and one conversation"


def _fewer_processes(layout: Layout) -> str:
    """How many processes of this machine leave enough for a sampler."""
    needed = layout.weights_of_sampler + layout.conversation
    processes = int(machine_bytes() // (needed + PROCESS))
    if processes < 2:
        return "this machine does not hold the model beside a trainer; take one with more memory"
    return f"fit with {processes} processes in all (trainers.ranks, samplers.replicas)"


def _named(keys: dict[str, Any]) -> str:
    words = []
    for key, value in keys.items():
        place = "" if key == "recompute" else "trainers."
        words.append(f"{place}{key}: {str(value).lower()}")
    return ", ".join(words)


def _gb(value: float) -> str:
    return f"{value / 1e9:.3g}" if value < 999.5e9 else f"{value / 1e9:,.0f}"
