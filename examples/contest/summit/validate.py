"""Whether an input is what the statement and its subtask allow."""


def validate(text, subtask):
    lines = text.split("\n")
    games = [tuple(map(int, line.split())) for line in lines[1:-1]]
    assert lines[-1] == "" and len(games) == int(lines[0]) and 1 <= len(games) <= 20
    for n, most, best, summit, seed in games:
        assert 1 <= n <= 100_000 and 1 <= summit <= n and seed >= 1 and best <= most
        if subtask == 1:
            assert n <= 60 and most == n
        else:
            assert most == 2 * (n - 1).bit_length() + 2
    return True
