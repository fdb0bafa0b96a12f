"""Whether an input is what the statement and its subtask allow."""


def validate(text, subtask):
    lines = text.split("\n")
    n, m, k = map(int, lines[0].split())
    roads = [tuple(map(int, line.split())) for line in lines[1:-1]]
    assert lines[-1] == "" and len(roads) == m <= 2400
    assert 2 <= n <= 800 and 1 <= k <= n - 1
    assert all(1 <= a <= n and 1 <= b <= n and a != b and 1 <= c <= 10**9 for a, b, c in roads)
    assert subtask != 1 or n <= 8
    assert subtask != 2 or k == n - 1
    assert subtask != 3 or len({c for _, _, c in roads}) <= 1
    return True
