"""Inputs: equal heights, long chains, walls without an end, and buckets that fall far."""

import random


def make(subtask, index):
    rng = random.Random(1000 * subtask + index)
    if subtask == 0:
        return text([4, 4, 2, 3, 1], [(1, 1), (1, 2), (4, 0)])
    if subtask == 1:
        n = [1, 7, 60, 200][index]
        heights = [rng.randint(1, max(2, n // 3)) for _ in range(n)]
        return text(heights, [(rng.randint(1, n), rng.randint(0, n)) for _ in range(200)])

    n = 8_000
    if subtask == 2:
        heights = sorted(rng.sample(range(1, 10**9), n), reverse=True)
        buckets = [(rng.randint(1, n // 2), rng.randint(0, n)) for _ in range(n)]
    elif subtask == 3:
        heights = [
            sorted(rng.randint(1, 10**9) for _ in range(n)),
            [rng.randint(1, 50) for _ in range(n)],
            [5] * n,
        ][index]
        buckets = [(rng.randint(1, n), rng.randint(0, 3)) for _ in range(n)]
    else:
        steps = [n - i // 2 + rng.randint(0, 1) for i in range(n)]
        heights = [steps, [rng.randint(1, 10**9) for _ in range(n)], steps[::-1]][index]
        buckets = [(rng.randint(1, n // 4), rng.randint(n // 2, n)) for _ in range(n)]
    return text(heights, buckets)


def text(heights, buckets):
    lines = [f"{len(heights)} {len(buckets)}", " ".join(map(str, heights))]
    lines += [f"{i} {b}" for i, b in buckets]
    return "\n".join(lines) + "\n"
