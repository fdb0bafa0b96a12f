"""Heaviest first; then books move or change places while that helps, from several beginnings."""

import random


def improved(books, at, m):
    loads = [0] * m
    for weight, shelf in zip(books, at, strict=True):
        loads[shelf] += weight
    for _ in range(400):
        high = max(range(m), key=loads.__getitem__)
        best, move = 0, None
        for i in [i for i, shelf in enumerate(at) if shelf == high]:
            for j in range(len(books) + m):
                # A book of another shelf, or an empty place on it.
                shelf, weight = (at[j], books[j]) if j < len(books) else (j - len(books), 0)
                change = books[i] - weight
                if shelf == high or change <= 0:
                    continue
                gain = min(change, loads[high] - loads[shelf] - change)
                if gain > best:
                    best, move = gain, (i, j, shelf, change)
        if move is None:
            break
        i, j, shelf, change = move
        at[i] = shelf
        if j < len(books):
            at[j] = high
        loads[high] -= change
        loads[shelf] += change
    return max(loads), at


n, m = map(int, input().split())
books = list(map(int, input().split()))
floor = max(-(-sum(books) // m), max(books))
best = None
for trial in range(8):
    rng = random.Random(trial)
    loads, at = [0] * m, [0] * n
    noise = 0.3 * (trial > 0)
    for i in sorted(range(n), key=lambda i: -books[i] * (1 + noise * rng.random())):
        shelf = loads.index(min(loads))
        at[i] = shelf
        loads[shelf] += books[i]
    found = improved(books, at, m)
    if best is None or found[0] < best[0]:
        best = (found[0], list(found[1]))
    if best[0] <= floor:
        break
print(*[shelf + 1 for shelf in best[1]])
