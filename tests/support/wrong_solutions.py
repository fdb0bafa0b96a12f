"""Wrong solutions of the contest problems under examples/contest, each in a way of its own.

By problem: (what is wrong, the program, the share that each subtask must get).
"""

TERRACES = [
    (
        "equal heights count as lower",
        """
n, q = map(int, input().split())
h = list(map(int, input().split()))
nxt, st = list(range(n)), []
for i in range(n):
    while st and h[st[-1]] >= h[i]:
        nxt[st.pop()] = i
    st.append(i)
up = [nxt]
while 1 << len(up) <= n:
    up.append([up[-1][i] for i in up[-1]])
for _ in range(q):
    i, b = map(int, input().split())
    i -= 1
    for j in range(len(up)):
        if b >> j & 1:
            i = up[j][i]
    print(i + 1)
""",
        (0, 1, 0, 0),
    ),
    (
        "one fall after the other",
        """
import sys
d = list(map(int, sys.stdin.buffer.read().split()))
n, q = d[:2]
h = d[2:2 + n]
nxt, st = list(range(n)), []
for i in range(n):
    while st and h[st[-1]] > h[i]:
        nxt[st.pop()] = i
    st.append(i)
out = []
for k in range(2 + n, len(d), 2):
    i, b = d[k] - 1, d[k + 1]
    while b and nxt[i] != i:
        i, b = nxt[i], b - 1
    out.append(i + 1)
print("\\n".join(map(str, out)))
""",
        (1, 0, 1, 0),
    ),
    (
        "as if every terrace were lower than the last",
        """
n, q = map(int, input().split())
input()
for _ in range(q):
    i, b = map(int, input().split())
    print(min(n, i + b))
""",
        (0, 1, 0, 0),
    ),
    (
        "numbers terraces from 0",
        """
n, q = map(int, input().split())
h = list(map(int, input().split()))
for _ in range(q):
    i, b = map(int, input().split())
    print(i - 1)
""",
        (0, 0, 0, 0),
    ),
]

BELLS = [
    (
        "always the plain row",
        """
for _ in range(int(input())):
    n, k = map(int, input().split())
    print(*range(1, n + 1))
""",
        (0, 1, 0, 0),
    ),
    (
        "even numbers, then odd ones",
        """
for _ in range(int(input())):
    n, k = map(int, input().split())
    if n > 1 and k > n // 2:
        print(-1)
    else:
        print(*range(2, n + 1, 2), *range(1, n + 1, 2))
""",
        (0, 1, 1, 0),
    ),
    (
        "never says that there is none",
        """
for _ in range(int(input())):
    n, k = map(int, input().split())
    h = n // 2
    if n % 2:
        print(h + 1, *[x for i in range(1, h + 1) for x in (i, h + 1 + i)])
    else:
        print(*[x for i in range(h, 0, -1) for x in (i, i + h)])
""",
        (0, 1, 0, 0),
    ),
    (
        "one bell too few",
        """
for _ in range(int(input())):
    n, k = map(int, input().split())
    print(*range(1, n))
""",
        (0, 0, 0, 0),
    ),
    (
        "says that there is none for a single bell",
        """
for _ in range(int(input())):
    n, k = map(int, input().split())
    h = n // 2
    if k > h:
        print(-1)
    elif n % 2:
        print(h + 1, *[x for i in range(1, h + 1) for x in (i, h + 1 + i)])
    else:
        print(*[x for i in range(h, 0, -1) for x in (i, i + h)])
""",
        (0, 0, 0, 0),
    ),
]

SUMMIT = [
    (
        "bisection asks twice a step",
        """
for _ in range(int(input())):
    n, m = map(int, input().split())
    low, high = 1, n
    while low < high:
        mid = (low + high) // 2
        print("?", mid, flush=True)
        a = int(input())
        print("?", mid + 1, flush=True)
        if a < int(input()):
            low = mid + 1
        else:
            high = mid
    print("!", low, flush=True)
""",
        (0, 1, 0.5),
    ),
    (
        "guesses",
        """
for _ in range(int(input())):
    n, m = map(int, input().split())
    print("!", (n + 1) // 2, flush=True)
""",
        (0, 0, 0),
    ),
    (
        "asks beyond the ridge",
        """
for _ in range(int(input())):
    n, m = map(int, input().split())
    print("?", n + 1, flush=True)
    input()
""",
        (0, 0, 0),
    ),
]

SHELVES = [
    (
        "heaviest first, and no better",
        """
n, m = map(int, input().split())
w = list(map(int, input().split()))
loads, at = [0] * m, [0] * n
for i in sorted(range(n), key=lambda i: -w[i]):
    s = loads.index(min(loads))
    at[i] = s + 1
    loads[s] += w[i]
print(*at)
""",
        (None, None, None, 0, None),
    ),
    (
        "a shelf that is not there",
        "n, m = map(int, input().split())\nprint(*[m + 1] * n)",
        (0,) * 5,
    ),
    ("one book too few", "n, m = map(int, input().split())\nprint(*[1] * (n - 1))", (0,) * 5),
]

ARCHIVE = [
    (
        "takes back for nothing",
        """
pile = []
for _ in range(int(input())):
    word, *rest = input().split()
    if word == "push":
        pile.append(int(rest[0]))
    elif word == "pop" and pile:
        pile.pop()
    print(pile[-1] if pile else 0)
""",
        (0, 1, 0),
    ),
    (
        "an empty pile breaks it",
        """
piles = [None]
for _ in range(int(input())):
    word, *rest = input().split()
    if word == "push":
        piles.append((int(rest[0]), piles[-1]))
    elif word == "pop":
        piles.append(piles[-1][1])
    else:
        piles.append(piles[int(rest[0])])
    print(piles[-1][0] if piles[-1] else 0)
""",
        (0, 0, 0),
    ),
    (
        "goes back one day too few",
        """
piles = [(0, None)]
for _ in range(int(input())):
    word, *rest = input().split()
    if word == "push":
        piles.append((int(rest[0]), piles[-1]))
    elif word == "pop":
        piles.append(piles[-1][1] or piles[-1])
    else:
        piles.append(piles[int(rest[0]) + 1 if int(rest[0]) + 1 < len(piles) else -1])
    print(piles[-1][0])
""",
        (0, 1, 0),
    ),
]

COURIERS = [
    (
        "any number of roads",
        """
n, m, k = map(int, input().split())
up = list(range(n + 1))
def find(a):
    while up[a] != a:
        up[a] = up[up[a]]
        a = up[a]
    return a
best = -1
for a, b, c in sorted((tuple(map(int, input().split())) for _ in range(m)), key=lambda e: e[2]):
    up[find(a)] = find(b)
    if find(1) == find(n):
        best = c
        break
print(best)
""",
        (0, 1, 0, 0),
    ),
    (
        "the fewest roads, whatever they cost",
        """
n, m, k = map(int, input().split())
near = [[] for _ in range(n + 1)]
for _ in range(m):
    a, b, c = map(int, input().split())
    near[a].append((b, c))
    near[b].append((a, c))
toll, front, done = {1: 0}, [1], 0
while front and n not in toll and done < k:
    done += 1
    more = []
    for a in front:
        for b, c in near[a]:
            if b not in toll:
                toll[b] = max(toll[a], c)
                more.append(b)
    front = more
print(toll.get(n, -1))
""",
        (0, 0, 1, 0),
    ),
    ("gives up", "print(-1)", (0, 0, 0, 0)),
    ("does not read", "import time\nwhile True: pass", (0, 0, 0, 0)),
]

WRONG = {
    "terraces": TERRACES,
    "bells": BELLS,
    "summit": SUMMIT,
    "shelves": SHELVES,
    "archive": ARCHIVE,
    "couriers": COURIERS,
}
