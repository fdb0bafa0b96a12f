"""Every way there is, one after the other."""

n, m, k = map(int, input().split())
near = [[] for _ in range(n + 1)]
for _ in range(m):
    a, b, c = map(int, input().split())
    near[a].append((b, c))
    near[b].append((a, c))


def lowest(town, left, seen, toll):
    if town == n:
        return toll
    if left == 0:
        return 10**18
    best = 10**18
    for b, c in near[town]:
        if b not in seen:
            best = min(best, lowest(b, left - 1, seen | {b}, max(toll, c)))
    return best


best = lowest(1, k, {1}, 0)
print(-1 if best == 10**18 else best)
