"""A Mamba layer's cache steps by the recurrence's definition, whatever its rows went through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from linn.engine.models.nemotron_h import caches
from linn.engine.models.nemotron_h.caches import MambaCache

GROUPS, SIZE, PER_GROUP, WIDTH = 2, 3, 2, 5
HEADS, CHANNELS = GROUPS * PER_GROUP, 7
RATES = -torch.tensor([0.01, 1.0, 30.0, 200.0])
"""Of the heads: the slowest keeps all, the fastest nothing from one token to the next."""


class Plain:
    """The same in float64, by the definition: the last inputs in order, and the state itself."""

    def __init__(self, conv: Tensor, ssm: Tensor) -> None:
        self.conv, self.ssm = conv.double(), ssm.double()

    def select(self, rows: Tensor) -> Plain:
        return Plain(self.conv[rows], self.ssm[rows])

    def step(
        self, newest: Tensor, taps: Tensor, x: Tensor, dt: Tensor, b: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        window = torch.cat([self.conv, newest[:, None].double()], dim=1)
        self.conv = window[:, 1:]
        keep = (dt.double() * RATES.double()).exp().view(-1, GROUPS, 1, PER_GROUP, 1)
        x = (x * dt[..., None]).double().view(-1, GROUPS, 1, PER_GROUP, WIDTH)
        self.ssm = keep * self.ssm + b.double()[..., None, None] * x
        y = torch.einsum("bgn,bgnkp->bgkp", c.double(), self.ssm)
        return (window * taps.double()).sum(1), y.flatten(1, 2)


def begin(rows: int, back: int) -> tuple[MambaCache, Plain]:
    conv = torch.randn(rows, back, CHANNELS)
    ssm = torch.randn(rows, GROUPS, SIZE, PER_GROUP, WIDTH)
    return MambaCache(conv.clone(), ssm.clone()), Plain(conv, ssm)


def step_both(cache: MambaCache, plain: Plain, dt_of: Callable[..., Tensor]) -> None:
    rows, back = plain.conv.shape[:2]
    newest, taps = torch.randn(rows, CHANNELS), torch.randn(back + 1, CHANNELS)
    x, dt = torch.randn(rows, HEADS, WIDTH), dt_of(rows, HEADS)
    b, c = torch.randn(rows, GROUPS, SIZE), torch.randn(rows, GROUPS, SIZE)
    convolved, y = plain.step(newest, taps, x, dt, b, c)
    got = cache.convolve(newest, taps, torch.zeros(CHANNELS))
    torch.testing.assert_close(got.double(), convolved, atol=1e-5, rtol=1e-5)
    got = cache.advance(x, dt, RATES, b, c)
    torch.testing.assert_close(got.double(), y, atol=1e-4, rtol=1e-4)
    conv, ssm = cache.settled()
    torch.testing.assert_close(conv.double(), plain.conv, atol=0, rtol=0)
    torch.testing.assert_close(ssm.double(), plain.ssm, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
@pytest.mark.parametrize("back", [1, 3])
def test_steps_are_those_of_the_definition(
    back: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that have gone on for unlike numbers of steps are selected and joined in between."""
    of_row = GROUPS * SIZE * PER_GROUP * WIDTH
    monkeypatch.setattr(caches, "_CACHED", rows_at_once * of_row + of_row // 2)
    torch.manual_seed(0)
    cache, plain = begin(4, back)
    for turn in range(12):
        for _ in range(turn % 3 + 1):
            step_both(cache, plain, torch.rand)
        rows = torch.randperm(len(plain.conv))[:3]
        plain = plain.select(rows)
        fresh, plain_fresh = begin(2, back)
        for _ in range(turn % 2):
            step_both(fresh, plain_fresh, torch.rand)
        cache = MambaCache.joined([cache, fresh], [rows, None], 0, 0)
        joined = [torch.cat(pair) for pair in zip(*map(parts, (plain, plain_fresh)), strict=True)]
        plain = Plain(*joined)


def parts(plain: Plain) -> tuple[Tensor, Tensor]:
    return plain.conv, plain.ssm


@pytest.mark.parametrize("dt", [0.0, 1e-6, 1.0, 100.0])
def test_every_decay_is_kept(dt: float) -> None:
    """Down to a state that a single token wipes out; the numbers stay finite for 400 tokens."""
    torch.manual_seed(0)
    cache, plain = begin(3, 3)
    for _ in range(400):
        step_both(cache, plain, lambda *shape: torch.full(shape, dt))


def test_what_is_no_number_stays_visible() -> None:
    cache, _ = begin(2, 3)
    x = torch.ones(2, HEADS, WIDTH)
    dt, keys = torch.ones(2, HEADS), torch.ones(2, GROUPS, SIZE)
    dt[1, 0] = torch.nan
    y = cache.advance(x, dt, RATES, keys, keys)
    assert y[1].isnan().any() and y[0].isfinite().all()
