"""Tests that need vLLM and Ray: `make cluster-test`. `make test` does not collect this folder."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support.cluster_models import WRITERS, Figures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("vllm", "ray") if importlib.util.find_spec(name) is None]
    for item in items:
        if missing and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {name: write(root / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="session")
def figures() -> Figures:
    return Figures()


@pytest.fixture
def ray_with_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sequence[str]], None]]:
    """Starts a Ray that is told of GPUs by these ids; there are none, and nothing looks."""
    import ray

    def start(gpus: Sequence[str]) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus))
        # Its processes find `support`.
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        ray.init(
            num_cpus=16,
            num_gpus=len(gpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )

    yield start
    ray.shutdown()
