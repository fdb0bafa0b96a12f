"""What becomes of memory that is freed: glibc's own rules serve neither size nor speed."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

_M_MMAP_THRESHOLD = -3
"""Of mallopt: from how many bytes on a block is a mapping of its own."""
_OWN_MAPPING = 2 << 20
_LARGEST = 32 << 20
"""More it does not take for that."""
_M_TRIM_THRESHOLD = -1
"""Of mallopt: how much may be free at the heap's end before it is returned."""
_KEPT = 256 << 20
_TUNABLES = "GLIBC_TUNABLES"
_OLDER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Variables by which older glibc's were told of thresholds, and newer ones still are."""
_HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Where Linux gives huge pages to who asks, a mapping has one page fault per 2 MiB, not 4 KiB."""


def keep_little() -> None:
    """Return large tensors to the system when they are freed.

    In the C library's heap they would leave holes between the small ones: a third of what training
    takes. Mappings of their own cost page faults instead, fewer with `huge_pages`.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING)


def keep_much(environment: Mapping[str, str]) -> None:
    """Keep what is freed for what comes next: what every layer and every step frees is taken again.

    glibc would return it, and Linux fill it with zeros anew: 6 % of the CPU time of an evaluation.
    The most that a process takes is the same.

    environment: of this process; what it says of thresholds comes first.
    """
    if "_threshold" in environment.get(_TUNABLES, "") or any(
        name in environment for name in _OLDER
    ):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process is started with that is to `keep_little`; glibc reads it once, at its start.

    environment: of this process, whose own wish comes first.
    """
    wished = environment.get(_TUNABLES, "")
    if "glibc.malloc.hugetlb" in wished:
        return {}
    return {_TUNABLES: f"{wished}:{_HUGE_PAGES}" if wished else _HUGE_PAGES}


def trim() -> None:
    """Return what is free in the heap now."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
