"""Five inputs: tiny, small, many books, one on which greed fails, and one of planted threes."""

import random


def make(subtask, index):
    rng = random.Random(4000 + subtask)
    if subtask == 1:
        books, shelves = [rng.randint(10, 99) for _ in range(8)], 2
    elif subtask == 2:
        books, shelves = [rng.randint(100, 999) for _ in range(30)], 3
    elif subtask == 3:
        books, shelves = [rng.randint(1, 10_000) for _ in range(200)], 7
    elif subtask == 4:
        # Heaviest first, each on the lightest shelf: 79 where 60 can be had.
        shelves = 20
        books = [shelves] * 3 + [w for w in range(shelves + 1, 2 * shelves) for _ in range(2)]
    else:
        shelves, books = 20, []
        for _ in range(shelves):
            a, b = rng.randint(250, 400), rng.randint(250, 400)
            books += [a, b, 1000 - a - b]
    rng.shuffle(books)
    return f"{len(books)} {shelves}\n{' '.join(map(str, books))}\n"
