"""A price as tables of 80 columns for a terminal, its assumptions below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from linn.price import DEVICES, Amount, Memory, Price, StagePrice

_UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def table(priced: Price) -> str:
    """Everything; `expected - most` where the two readings differ."""
    parts = [*priced.stages, priced.evaluation, priced.total]
    device, shape = priced.assumed.device, priced.shape
    work = [
        [p.name, f"{p.updates:,}" if p.updates else "", *(_span(p, what) for what in ("rollouts", "sampled", "trained")), _span(p, "flops")]
        for p in parts
    ]
    hours = [
        [p.name, _span(p, "device_s", 3600), _span(p, "core_s", 3600), *(_span(p, w) for w in ("judge_calls", "judge_tokens", "scored"))]
        for p in parts
    ]
    lines = [
        f"model: {_si(shape.total)} parameters, {_si(shape.active)} active ({_si(shape.active + shape.embedding)} with embeddings)",
        "",
        *_columns(["stage", "steps", "rollouts", "sampled tok", "trained tok", "FLOP"], work),
        "",
        *_columns(["stage", f"{device}-hours", "verifier core-h", "judge calls", "judge tok", "scored tok"], hours),
        "",
        *_memory(priced.memory, priced.devices, device),
        "",
        *_assumed(priced),
    ]
    return "\n".join(lines)


def _memory(memory: Memory, devices: int, device: str) -> list[str]:
    parts = (
        ("weights", memory.weights), ("gradients", memory.gradients), ("AdamW", memory.optimiser),
        ("activations", memory.activations), ("caches", memory.caches),
    )  # fmt: skip
    held = DEVICES[device].memory
    spread = memory.sharded(devices)
    return [
        "memory of a device, GB: " + ", ".join(f"{name} {_gb(value)}" for name, value in parts),
        f"  the whole model on each {_gb(memory.whole)} ({_fits(memory.whole, held)}); spread over {devices} {_gb(spread)} ({_fits(spread, held)})",
    ]


def _fits(need: float, held: float) -> str:
    return f"fits {_gb(held)}" if need <= held else f"over {_gb(held)}"


def _assumed(priced: Price) -> list[str]:
    a = priced.assumed
    return [
        "expected - most; assumed, since no recipe says it:",
        f"  {priced.devices} devices ({a.device}), all busy; {a.training:.0%} of peak FLOP/s in training, {a.scoring:.0%} in scoring",
        f"  and prefill, {a.decoding:.0%} of memory bandwidth in decoding, bf16 weights in the sampler",
        f"  a reply has {a.mean_length:.0%} of its limit, of a multi-turn one {a.sampled:.0%} is sampled; an SFT sequence {a.sequence:,} tokens",
        f"  dynamic filtering keeps {a.kept:.0%} of the groups; most: every refill round is needed",
        f"  a judge writes {a.judged:,} tokens; code: 80 core-seconds a run (paper §4.7), agentic: 600",
        "  FLOP: 2 a parameter and token forward, 6 trained; activations: layer inputs alone",
    ]


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Right-aligned columns, the first left-aligned, one space and more between."""
    every = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return [
        " ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]).rstrip() for row in every
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
                else f"{scaled:.{1 if scaled >= 99.95 else 2 if scaled >= 9.995 else 3}f}".rstrip("0").rstrip(".") + unit
            )
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _gb(value: float) -> str:
    return f"{value / 1e9:.3g}"
