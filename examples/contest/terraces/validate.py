"""Whether an input is what the statement and its subtask allow."""

from itertools import pairwise


def validate(text, subtask):
    lines = text.split("\n")
    n, q = map(int, lines[0].split())
    heights = list(map(int, lines[1].split()))
    buckets = [tuple(map(int, line.split())) for line in lines[2:-1]]
    assert lines[-1] == "" and len(heights) == n and len(buckets) == q
    assert 1 <= n <= 8_000 and 1 <= q <= 8_000
    assert all(1 <= h <= 10**9 for h in heights)
    assert all(1 <= i <= n and 0 <= b <= n for i, b in buckets)
    if subtask == 1:
        assert n <= 200 and q <= 200
    if subtask == 2:
        assert all(a > b for a, b in pairwise(heights))
    if subtask == 3:
        assert all(b <= 3 for _, b in buckets)
    return True
