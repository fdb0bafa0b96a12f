"""A price as tables of 80 columns for a terminal, its assumptions below."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from linn.engine.local.host_memory import machine_bytes
from linn.pricing.amounts import Amount, Price, StagePrice
from linn.pricing.assumptions import DEVICES, DOMAINS
from linn.pricing.layout import lines

_UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def table(priced: Price) -> str:
    """Everything; `expected-most` where the two readings differ."""
    shape = priced.shape
    with_embeddings = shape.active + shape.embedding
    model = (
        f"model: {_si(shape.total)} parameters, {_si(shape.active)} active "
        f"({_si(with_embeddings)} with embeddings)"
    )
    parts = [model, _work(priced), _hours(priced), _memory(priced), _assumptions(priced)]
    return "\n\n".join(parts)


def _work(priced: Price) -> str:
    """Steps, conversations, tokens and FLOPs."""
    rows = []
    for part in _parts(priced):
        steps = f"{part.updates:,}" if part.updates else ""
        amounts = [_span(part, name) for name in ("rollouts", "sampled", "trained", "flops")]
        rows.append([part.name[:14], steps, *amounts])
    return _columns(["stage", "steps", "rollouts", "sampled tok", "trained tok", "FLOP"], rows)


def _hours(priced: Price) -> str:
    """Hours of devices and cores, judges, and tokens scored by another model."""
    rows = []
    for part in _parts(priced):
        hours = [_span(part, name, 3600) for name in ("device_s", "core_s")]
        amounts = [_span(part, name) for name in ("judge_calls", "judge_tokens", "scored")]
        rows.append([part.name[:14], *hours, *amounts])
    hours_name = f"{priced.assumed.device}-hours"
    head = ["stage", hours_name, "core-hours", "judge calls", "judge tok", "scored tok"]
    return _columns(head, rows)


def _parts(priced: Price) -> list[StagePrice]:
    return [*priced.stages, priced.evaluation, priced.total]


def _memory(priced: Price) -> str:
    memory, devices = priced.memory, priced.devices
    if priced.layout is not None:
        return "\n".join(
            part
            for line in lines(priced.layout)
            for part in textwrap.wrap(line, 79, subsequent_indent="    ")
        )
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "AdamW": memory.optimiser,
        "activations": memory.activations,
        "caches": memory.caches,
    }
    listed = ", ".join(f"{name} {_gb(value)}" for name, value in parts.items())
    listed += f"; recomputed, activations are {_gb(memory.recomputed)}"
    if memory.host_moments:
        listed += "; on a GPU AdamW's wait in the host's memory"
    whole, sharded = _fits(memory.on_gpu, priced), _fits(memory.sharded(devices), priced)

    return "\n".join(
        [
            *textwrap.wrap(f"memory of a process, GB: {listed}", 79, subsequent_indent="  "),
            *textwrap.wrap(_here(priced), 79, initial_indent="  ", subsequent_indent="  "),
            f"  all on every device, as linn run does: {whole}",
            f"  weights, gradients, AdamW spread over {devices}: {sharded}",
            *textwrap.wrap(priced.beyond_one, 79, initial_indent="  ", subsequent_indent="    "),
        ]
    )


def _here(priced: Price) -> str:
    """The run on this machine: what it needs at its peak, and what would make it fit."""
    memory, processes = priced.memory, priced.devices
    has = machine_bytes()
    training, sampling = _gb(memory.training * processes), _gb(memory.sampling * processes)
    if memory.smallest > has:
        need = _gb(memory.smallest)
        return f"on this machine ({_gb(has)}): a process needs {need} with scale.recompute: over"
    verdict = memory.remedy(processes, has) or "fits"
    return (
        f"on this machine ({_gb(has)}): training {training}, sampling {sampling}, "
        f"evaluation alone {_gb(memory.evaluating * processes)}: {verdict}"
    )


def _fits(need: float, priced: Price) -> str:
    held = DEVICES[priced.assumed.device].memory
    verdict = "fits" if need <= held else "over"
    return f"{_gb(need)}, {verdict} the {priced.assumed.device}'s {_gb(held)}"


def _assumptions(priced: Price) -> str:
    a = priced.assumed
    text = f"""
        Ranges are expected-most. Expected rests on what no recipe says: a reply has
        {a.mean_length:.0%} of its limit (--mean-length), of a multi-turn conversation
        {a.sampled:.0%} is sampled, an SFT sequence has {a.sequence:,} tokens, dynamic filtering
        keeps {a.kept:.0%} of the groups, a judge writes {a.judged:,} tokens; most: all limits
        reached, all refills needed. {priced.devices} {a.device} are always busy and reach
        {a.training:.0%} of peak FLOP/s in training, {a.scoring:.0%} in scoring and reading prompts,
        {a.decoding:.0%} of memory bandwidth in decoding with bf16 weights. Core-hours: verifiers of
        real rows, code 80 core-seconds per run (paper 4.7), agentic SWE
        {DOMAINS["swe_agentic"].core_s:.0f}, others below 1. FLOP: 2 per parameter and token
        forward, 6 trained, and attention. Activations: of one micro-batch (docs/memory.md).
        {_prompts(priced)}
        All assumptions: --json.
    """
    return textwrap.fill(" ".join(text.split()), 79)


def _prompts(priced: Price) -> str:
    """What is known of the prompts' lengths."""
    read = []
    for name, lengths in priced.prompts.items():
        read.append(f"{name} {lengths.median:,}-{lengths.long:,}")
    if not read:
        return "Lengths of prompts are assumed."
    return f"Tokens of a prompt (median-95th percentile of its rows): {', '.join(read)}."


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Right-aligned columns, the first left-aligned, at least one space between."""
    grid = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, name in enumerate(head):
        grid.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    # A wide console keeps rich from cutting cells: the widths are those of the cells.
    console = Console(
        file=io.StringIO(),
        width=1000,
        color_system=None,
    )
    with console.capture() as capture:
        console.print(grid)

    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _span(part: StagePrice, name: str, divisor: float = 1.0) -> str:
    low = _si(_value(part.expected, name) / divisor)
    high = _si(_value(part.most, name) / divisor)
    return low if low == high else f"{low}-{high}"


def _value(amount: Amount, name: str) -> float:
    value = getattr(amount, name)
    assert isinstance(value, float), name
    return value


def _si(value: float) -> str:
    """Four digits at most: 553.6B, 12.3k, 0.4; empty for nothing."""
    if value == 0:
        return ""
    for size, unit in _UNITS:
        # 999.5 of one unit would be written as 1000: it is 1 of the next.
        if value >= size * 0.9995:
            return _four_digits(value / size) + unit
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _four_digits(value: float) -> str:
    """A number between 1 and 1000 with four digits at most, without closing zeros."""
    if value >= 999.5:
        return f"{value:.0f}"
    decimals = 3
    if value >= 9.995:
        decimals = 2
    if value >= 99.95:
        decimals = 1
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def _gb(value: float) -> str:
    return f"{value / 1e9:.3g}"
