"""Device work that is recorded once and replayed: CUDA graphs, and plain calls elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch


class Graphs:
    """Pieces of work by key. Each is done by a plain call first, and replayed from then on.

    A piece reads and writes tensors that stay where they are, asks nothing back from the device,
    and allocates nothing that outlives it. Whoever moves such a tensor calls `clear`.
    """

    def __init__(self, device: torch.device, record: bool = True) -> None:
        """`record`: False makes plain calls of all, as on a CPU."""
        self._device = device
        self._records = record and device.type == "cuda"
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do `work` once; the same key stands for the same work."""
        if not self._records:
            work()
        elif key in self._graphs:
            self._graphs[key].replay()
        else:
            # The call before a recording is one of those that are wanted. It also loads the
            # kernels, which nothing may do while a graph is recorded.
            work()
            self._graphs[key] = self._recorded(work)

    def clear(self) -> None:
        """Forget all recordings."""
        if self._graphs:
            torch.cuda.synchronize(self._device)  # none may end while it runs
        self._graphs = {}
        self._pool = None

    def _recorded(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # One pool for all: they run one after the other, and no result stays in it. Other threads
        # (signs of life) may go on meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        return graph
