"""What a price rests on beside the recipe: devices, costs per domain, and assumed means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """An accelerator, by its maker's data sheet."""

    flops: float
    """Dense bf16 FLOP/s at its peak."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes per second between memory and processor."""


DEVICES = {
    "a100": Device(312e12, 80e9, 2.04e12),
    "h100": Device(989e12, 80e9, 3.35e12),
    "h200": Device(989e12, 141e9, 4.8e12),
    "b200": Device(2250e12, 180e9, 8.0e12),
}


@dataclass(frozen=True)
class DomainCost:
    """What one rollout of a domain needs beside its own tokens."""

    prompt: int = 1_000
    """Tokens of a prompt."""
    core_s: float = 0.01
    """Core-seconds of its verifier (and tools)."""
    answer: int = 1_500
    """Tokens of an answer, reasoning removed: what a judge reads."""
    pairs: bool = False
    """Whether a judge reads two answers at once: siblings, or a reply and its reference."""


DOMAINS = {
    # Paper §4.7: 2,048 executions on 384 cores in 427.2 s.
    "code": DomainCost(core_s=80),
    # Tests and tools of a repository take minutes (paper §4.8.2: a limit of 20 to 30).
    "swe_agentic": DomainCost(prompt=8_000, core_s=600),
    # Golden or five retrieved files stand in the prompt (paper §4.8.1).
    "swe_agentless": DomainCost(prompt=16_000, core_s=0.1),
    # Paper §4.6: input of at most 32K.
    "longctx": DomainCost(prompt=24_000),
    # 27 tools stand in the system block (paper §4.3).
    "workplace": DomainCost(prompt=6_000, core_s=0.5),
    "math": DomainCost(core_s=0.1),
    # Paper §4.5: all pairs of the siblings.
    "preference": DomainCost(pairs=True),
}
"""Rows of domains that differ from `DomainCost`'s defaults. Values without a section are ours."""
GENERATED = DomainCost(
    prompt=200,
    core_s=0.2,
    answer=50,
)
"""A domain's own generator: small tasks, some of them with a sandboxed test."""


@dataclass(frozen=True)
class Assumptions:
    """What the recipe does not say."""

    device: str = "h100"
    """Kind of accelerator."""
    mean_length: float = 0.4
    """Mean length of a reply as a share of the most it may have."""
    kept: float = 0.5
    """Share of groups that dynamic filtering keeps."""
    sequence: int = 8_192
    """Tokens of a mean SFT sequence: what a token's attention reaches back over."""
    sampled: float = 0.5
    """Share of a multi-turn conversation that the policy itself samples."""
    training: float = 0.30
    """Share of peak FLOP/s reached in training."""
    scoring: float = 0.40
    """Share of peak FLOP/s reached in scoring and in reading prompts."""
    decoding: float = 0.50
    """Share of the memory bandwidth reached in decoding."""
    judged: int = 4_096
    """Tokens of a mean judge's answer, its reasoning included."""
