"""The toll by bisection; whether it will do by breadth-first search."""

import sys

numbers = list(map(int, sys.stdin.buffer.read().split()))
n, m, k = numbers[:3]
near = [[] for _ in range(n + 1)]
for at in range(3, 3 + 3 * m, 3):
    a, b, c = numbers[at : at + 3]
    near[a].append((b, c))
    near[b].append((a, c))


def will_do(toll):
    seen = [False] * (n + 1)
    seen[1] = True
    front = [1]
    for _ in range(k):
        further = []
        for a in front:
            for b, c in near[a]:
                if c <= toll and not seen[b]:
                    seen[b] = True
                    further.append(b)
        front = further
        if seen[n]:
            return True
    return seen[n]


tolls = sorted({c for each in near for _, c in each})
low, high = 0, len(tolls)
while low < high:
    middle = (low + high) // 2
    if will_do(tolls[middle]):
        high = middle
    else:
        low = middle + 1
print(tolls[low] if low < len(tolls) else -1)
