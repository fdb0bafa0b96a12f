"""Cases: all small ones, odd and even, the largest k that can be and the smallest that cannot."""

import random


def make(subtask, index):
    rng = random.Random(2000 * subtask + index)
    if subtask == 0:
        cases = [(4, 2), (3, 2)]
    elif subtask == 1:
        small = [(n, k) for n in range(1, 8) for k in range(1, n + 2)]
        cases = small[index::2]
    elif subtask == 2:
        cases = [(rng.randint(1, 300), 1) for _ in range(60)] if index else [(1, 1), (19_999, 1)]
    elif subtask == 3:
        cases = [(n, 2) for n in range(1, 60)] if index else [(20_000, 2)]
    elif index == 0:
        sizes = [rng.randint(2, 390) for _ in range(50)]
        cases = [(n, max(1, n // 2 + rng.choice([-1, 0, 0, 1]))) for n in sizes]
    elif index == 1:
        cases = [(10_000, 5_000), (9_999, 4_999), (1, 20_000)]
    else:
        cases = [(9_998, 5_000), (10_001, 5_000), (1, 1)]
    return f"{len(cases)}\n" + "".join(f"{n} {k}\n" for n, k in cases)
