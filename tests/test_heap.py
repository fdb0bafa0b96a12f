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
import ctypes, os, resource, sys
from linn.engine.local import heap
if sys.argv[1] == "much":
    heap.keep_much(os.environ)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
size = 20 << 20
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    held = [libc.malloc(size) for _ in range(3)]
    for block in held:
        ctypes.memset(block, 1, size)
    for block in held:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str, **environment: str) -> int:
    """Page faults of a process that takes and frees the same 60 MiB ten times."""
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
    pages = 10 * 3 * 20 * 2**20 // 4096
    assert faults("much") < pages / 5
    assert faults("as glibc has it") > pages / 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
@pytest.mark.parametrize(
    "told",
    [
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
    ],
    ids=lambda told: next(iter(told)),
)
def test_who_has_decided_what_is_kept_is_not_overruled(told: dict[str, str]) -> None:
    assert faults("much", **told) > 10 * 3 * 20 * 2**20 // 4096 / 2
