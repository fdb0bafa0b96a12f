"""Whether an input is what the statement and its subtask allow."""


def validate(text, subtask):
    lines = text.split("\n")
    cases = [tuple(map(int, line.split())) for line in lines[1:-1]]
    assert lines[-1] == "" and len(cases) == int(lines[0]) and 1 <= len(cases) <= 100
    assert all(n >= 1 and 1 <= k <= 20_000 for n, k in cases)
    assert sum(n for n, _ in cases) <= 20_000
    if subtask == 1:
        assert all(n <= 7 for n, _ in cases)
    if subtask in (2, 3):
        assert all(k == subtask - 1 for _, k in cases)
    return True
