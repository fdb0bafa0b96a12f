"""Memory that was freed and should be the system's again, where glibc would keep it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

_M_MMAP_THRESHOLD = -3
"""Of mallopt: from how many bytes on a block is a mapping of its own."""
_OWN_MAPPING = 2 << 20
_TUNABLES = "GLIBC_TUNABLES"
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
