"""Games: (n, questions, questions for full points, summit, seed) a line."""

import random


def make(subtask, index):
    rng = random.Random(3000 * subtask + index)
    if subtask == 1:
        sizes = [1, 2, 3, 3, 3, 10, 59, 60]
    else:
        sizes = [1, 2, 1000, 99_999, 100_000, 100_000]
    games = []
    for n in sizes:
        most = n if subtask == 1 else 2 * (n - 1).bit_length() + 2
        best = fibonacci_bound(n) if subtask == 3 else most
        summit = rng.choice([1, n, rng.randint(1, n), rng.randint(1, n)])
        if n == 3:
            summit = 1 + len(games) % 3  # each of its places once
        games.append((n, most, best, summit, rng.randint(1, 10**6)))
    return f"{len(games)}\n" + "".join("{} {} {} {} {}\n".format(*game) for game in games)


def fibonacci_bound(n):
    a, b, k = 1, 1, 2
    while b < n + 1:
        a, b, k = b, a + b, k + 1
    return k - 1
