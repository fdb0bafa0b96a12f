"""What a process that is to keep little is started with."""

from __future__ import annotations

from linn.engine.local.heap import huge_pages


def test_huge_pages_are_asked_for_beside_other_wishes() -> None:
    asked = "glibc.malloc.hugetlb=1"
    assert huge_pages({}) == {"GLIBC_TUNABLES": asked}
    before = {"GLIBC_TUNABLES": "glibc.malloc.check=1"}
    assert huge_pages(before) == {"GLIBC_TUNABLES": f"glibc.malloc.check=1:{asked}"}
    # Who has decided is not overruled.
    assert huge_pages({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}
