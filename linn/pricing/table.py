"""A price as tables of 80 columns for a terminal, its assumptions below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from linn.pricing.price import DEVICES, DOMAINS, Amount, Price, StagePrice

_UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def table(priced: Price) -> str:
    """Everything; `expected - most` where the two readings differ."""
    parts = [*priced.stages, priced.evaluation, priced.total]
    device, shape = priced.assumed.device, priced.shape
    work = [
        [
            p.name[:14],
            f"{p.updates:,}" if p.updates else "",
            *(_span(p, what) for what in ("rollouts", "sampled", "trained")),
            _span(p, "flops"),
        ]
        for p in parts
    ]
    hours = [
        [
            p.name[:14],
            _span(p, "device_s", 3600),
            _span(p, "core_s", 3600),
            *(_span(p, w) for w in ("judge_calls", "judge_tokens", "scored")),
        ]
        for p in parts
    ]
    lines = [
        f"model: {_si(shape.total)} parameters, {_si(shape.active)} active ({_si(shape.active + shape.embedding)} with embeddings)",
        "",
        *_columns(["stage", "steps", "rollouts", "sampled tok", "trained tok", "FLOP"], work),
        "",
        *_columns(
            ["stage", f"{device}-hours", "core-hours", "judge calls", "judge tok", "scored tok"],
            hours,
        ),
        "",
        *_memory(priced),
        "",
        *_assumed(priced),
    ]
    return "\n".join(lines)


def _memory(priced: Price) -> list[str]:
    memory, devices = priced.memory, priced.devices
    parts = (
        ("weights", memory.weights), ("gradients", memory.gradients), ("AdamW", memory.optimiser),
        ("activations", memory.activations), ("caches", memory.caches),
    )  # fmt: skip
    spread = memory.sharded(devices)
    return [
        *textwrap.wrap(
            "memory, GB: " + ", ".join(f"{name} {_gb(value)}" for name, value in parts),
            79,
            subsequent_indent="  ",
        ),
        f"  all on every device, as linn run does: {_fits(memory.whole, priced)}",
        f"  weights, gradients, AdamW spread over {devices}: {_fits(spread, priced)}",
    ]


def _fits(need: float, priced: Price) -> str:
    held = DEVICES[priced.assumed.device].memory
    return f"{_gb(need)}, {'fits' if need <= held else 'over'} the {priced.assumed.device}'s {_gb(held)}"


def _assumed(priced: Price) -> list[str]:
    a = priced.assumed
    text = (
        f"Ranges are expected-most. Expected rests on what no recipe says: a reply has {a.mean_length:.0%} of its limit (--mean-length), of a "
        f"multi-turn conversation {a.sampled:.0%} is sampled, an SFT sequence has {a.sequence:,} tokens, dynamic filtering keeps {a.kept:.0%} of "
        f"the groups, a judge writes {a.judged:,} tokens; most: all limits reached, all refills needed. {priced.devices} {a.device} are always "
        f"busy and reach {a.training:.0%} of peak FLOP/s in training, {a.scoring:.0%} in scoring and reading prompts, {a.decoding:.0%} of memory "
        "bandwidth in decoding with bf16 weights. Core-hours: verifiers of real rows, code 80 core-seconds a run (paper 4.7), agentic SWE "
        f"{DOMAINS['swe_agentic'].core_s:.0f}, others below 1. FLOP: 2 a parameter and token forward, 6 trained, and attention. Activations: the "
        "layers' inputs of one packed row alone. All assumptions: --json."
    )
    return textwrap.wrap(text, 79)


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Right-aligned columns, the first left-aligned, one space and more between."""
    every = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return [
        " ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in every
    ]


def _span(part: StagePrice, what: str, divisor: float = 1.0) -> str:
    low, high = (_si(_value(amount, what) / divisor) for amount in (part.expected, part.most))
    return low if low == high else f"{low}-{high}"


def _value(amount: Amount, what: str) -> float:
    value = getattr(amount, what)
    assert isinstance(value, float), what
    return value


def _si(value: float) -> str:
    """Four digits at most: 553.6B, 12.3k, 0.4; empty for nothing."""
    if value == 0:
        return ""
    for size, unit in _UNITS:
        if value >= size * 0.9995:
            scaled = value / size
            return (
                f"{scaled:.0f}{unit}"
                if scaled >= 999.5
                else f"{scaled:.{1 if scaled >= 99.95 else 2 if scaled >= 9.995 else 3}f}".rstrip(
                    "0"
                ).rstrip(".")
                + unit
            )
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _gb(value: float) -> str:
    return f"{value / 1e9:.3g}"
