"""Tests that need vLLM and Ray: `make cluster-test`. `make test` does not collect this folder."""

from __future__ import annotations

import importlib.util
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
