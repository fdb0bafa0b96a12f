"""What processes keep of the memory that they free."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from linn.engine.local.heap import huge_pages


def test_huge_pages_are_asked_for_beside_other_wishes() -> None:
    asked = "glibc.malloc.hugetlb=1"
    assert huge_pages({}) == {"GLIBC_TUNABLES": asked}
    before = {"GLIBC_TUNABLES": "glibc.malloc.check=1"}
    assert huge_pages(before) == {"GLIBC_TUNABLES": f"glibc.malloc.check=1:{asked}"}
    # Who has decided is not overruled.
    assert huge_pages({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}


_FAULTS = """
import os, resource, sys
from linn.engine.local import heap
import torch
if sys.argv[1] == "much":
    heap.keep_much(os.environ)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    held = [torch.zeros(2**18) for _ in range(12)]  # 12 MiB that are freed at once
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str, **environment: str) -> int:
    """Page faults of a process that takes and frees the same memory again and again."""
    ran = subprocess.run(
        [sys.executable, "-c", _FAULTS, way],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(ran.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_what_is_freed_is_taken_again_without_page_faults() -> None:
    pages = 40 * 12 * 2**20 // 4096
    assert faults("much") < pages / 5
    # Who has decided is not overruled.
    assert faults("much", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072") > pages / 2
