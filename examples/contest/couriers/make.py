"""Towns: cheap detours that are too long, short dear roads, and towns out of reach."""

import random


def make(subtask, index):
    rng = random.Random(6000 * subtask + index)
    if subtask == 0:
        return "4 4 2\n1 2 1\n2 3 2\n3 4 3\n1 3 9\n"
    if subtask == 1:
        if index == 2:
            # A cheap chain that is too long, a short way that is dear, and one between.
            roads = [(i, i + 1, i) for i in range(1, 8)]
            return text(8, 2, [*roads, (1, 8, 50), (1, 4, 20), (4, 8, 25)])
        n = [2, 6, 8, 8][index]
        k = [1, 2, 3, n - 1][index]
        return text(n, k, wild(rng, n, [0, 8, 20, 28][index], 30))
    n = 800
    if subtask == 2:
        roads = wild(rng, n, 2400, 10**9) if index else detour(rng, n, 1)
        return text(n, n - 1, roads)
    if subtask == 3:
        roads = [(a, b, 77) for a, b, _ in wild(rng, n, 1600, 9)]
        return text(n, [3, 200][index], roads + [(i, i + 1, 77) for i in range(1, n, 1 + index)])
    if index == 0:
        return text(n, 30, detour(rng, n, 1))
    if index == 1:
        return text(n, 9, wild(rng, n, 2400, 10**9))
    return text(n, 799, detour(rng, n, 1))


def wild(rng, n, m, toll):
    """Roads anywhere."""
    roads = []
    while len(roads) < m:
        a, b = rng.randint(1, n), rng.randint(1, n)
        if a != b:
            roads.append((a, b, rng.randint(1, toll)))
    return roads


def detour(rng, n, cheap):
    """A cheap chain through all towns, and leaps that are the dearer the longer they are."""
    roads = [(i, i + 1, cheap + rng.randint(0, 9)) for i in range(1, n)]
    for leap in (3, 10, 40, 100):
        for i in range(1, n - leap, max(1, leap // 3)):
            roads.append((i, i + leap, 100 * leap + rng.randint(0, 99)))
    rng.shuffle(roads)
    return roads[:2400]


def text(n, k, roads):
    return f"{n} {len(roads)} {k}\n" + "".join(f"{a} {b} {c}\n" for a, b, c in roads)
