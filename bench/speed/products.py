"""Products of float32 with a layer's weights: torch's own (MKL) and oneDNN's, in turn.

    python -m bench.speed.products [--rounds 15]

One thread; medians, in milliseconds of CPU: the product, and its gradients of both operands.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from linn.engine.models.kernels import products

SHAPES = [
    (rows, inputs, outputs)
    for inputs, outputs in ((128, 64), (128, 580), (576, 1536))
    for rows in (16, 64, 256, 2048)
]
"""Rows, inputs, outputs: an expert of the tiny base, its Mamba layer, SmolLM2's feed-forward."""

Linear = Callable[[Tensor, Tensor], Tensor]


def by_onednn_alone(x: Tensor, weight: Tensor) -> Tensor:
    """The product with gradients, also where linn leaves it to torch."""
    out: Tensor = products._Linear.apply(x, weight, None)
    return out


def seconds(linear: Linear, x: Tensor, weight: Tensor, again: int) -> tuple[float, float]:
    """CPU seconds of one product, and of one with its gradients."""
    with torch.no_grad():
        start = time.process_time()
        for _ in range(again):
            linear(x, weight)
        forward = time.process_time() - start
    start = time.process_time()
    for _ in range(again):
        torch.autograd.grad(linear(x, weight).sum(), (x, weight))
    return forward / again, (time.process_time() - start) / again


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"oneDNN is taken on this machine: {products.by_onednn()}")
    print("rows inputs outputs   product: MKL oneDNN ratio   with gradients: MKL oneDNN ratio")

    ways: tuple[Linear, Linear] = (F.linear, by_onednn_alone)
    for rows, inputs, outputs in SHAPES:
        x = torch.randn(rows, inputs, requires_grad=True)
        weight = torch.randn(outputs, inputs, requires_grad=True)
        again = max(1, 2**27 // (rows * inputs * outputs))
        found: list[list[tuple[float, float]]] = [[], []]
        for _ in range(options.rounds + 1):  # the first one warms up
            for way, times in zip(ways, found, strict=True):
                times.append(seconds(way, x, weight, again))
        texts = []
        for which in range(2):
            mkl, onednn = (statistics.median(t[which] for t in times[1:]) for times in found)
            texts.append(f"{1e3 * mkl:9.3f} {1e3 * onednn:7.3f} {mkl / onednn:5.2f}")
        print(f"{rows:4} {inputs:6} {outputs:7}          {'              '.join(texts)}")


if __name__ == "__main__":
    main()
