"""Memory that was freed and should be the system's again, where glibc would keep it."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
"""Of mallopt: from how many bytes on a block is a mapping of its own."""
_OWN_MAPPING = 2 << 20


def keep_little() -> None:
    """Return large tensors to the system when they are freed.

    In the C library's heap they would leave holes between the small ones: a third of what training
    takes. Mappings of their own cost page faults instead.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING)


def trim() -> None:
    """Return what is free in the heap now."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
