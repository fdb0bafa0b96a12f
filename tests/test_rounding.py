"""Rounding of exports: right on average, exact where nothing was trained, the same every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from linn.engine.models.rounding import by_chance

DTYPES = (torch.bfloat16, torch.float16)


def grid(dtype: torch.dtype) -> Tensor:
    """Every finite number of the dtype, as float32."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(dtype).float()
    return numbers[numbers.isfinite()]


def numbers(seed: int = 0) -> Tensor:
    """Of both signs and all sizes, some too small for float16's normal numbers."""
    draw = torch.Generator().manual_seed(seed)
    size = 10.0 ** (torch.rand(2000, generator=draw) * 12 - 8)
    return torch.randn(2000, generator=draw) * size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_number_goes_to_one_of_its_two_neighbours(dtype: torch.dtype) -> None:
    points = grid(dtype).unique()
    values = torch.cat([numbers(), torch.tensor([1e-9, -1e-9, 1e-41, -1e-41, 0.0, -0.0])])
    out = by_chance(values, dtype, "w").float()
    above = points[torch.searchsorted(points, values).clamp_max(len(points) - 1)]
    below = points[(torch.searchsorted(points, values, right=True) - 1).clamp_min(0)]
    assert bool(((out == above) | (out == below)).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_was_not_trained_is_exact(dtype: torch.dtype) -> None:
    points = grid(dtype)
    assert torch.equal(by_chance(points, dtype, "w").float(), points)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_mean_is_the_number_itself(dtype: torch.dtype) -> None:
    """Definition: E[rounded] = value. 4,000 draws of a number, and the standard error of those."""
    for value in (0.05 + 2.4e-5, -0.05 - 2.4e-5, 1.0 - 1e-4, 3.0e-8, -6.2e-5):
        many = torch.full((4000,), value)
        out = by_chance(many, dtype, "w").double()
        spread = float(out.std()) / 4000**0.5
        assert float(out.mean()) == pytest.approx(float(many[0]), abs=5 * spread + 1e-12), value


def test_small_updates_survive_in_a_sum_where_the_nearest_loses_them() -> None:
    base = torch.randn(4096, generator=torch.Generator().manual_seed(0)).bfloat16().float() * 0.05
    base = base.bfloat16().float()
    update = torch.full((4096,), 2e-5)
    trained = base + update
    x = torch.ones(4096)
    nearest = float(((trained.bfloat16().float() - base) * x).sum())
    chance = float(((by_chance(trained, torch.bfloat16, "w").float() - base) * x).sum())
    expected = float(update.sum())
    assert abs(chance - expected) < 0.2 * expected
    assert abs(nearest - expected) > 0.5 * expected


def test_the_draw_is_a_function_of_the_name() -> None:
    values = numbers()
    one, again, other = (by_chance(values, torch.bfloat16, name) for name in ("a", "a", "b"))
    assert torch.equal(one, again) and not torch.equal(one, other)
