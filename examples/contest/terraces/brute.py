"""Every fall looked for from scratch."""

n, q = map(int, input().split())
heights = list(map(int, input().split()))
for _ in range(q):
    i, b = map(int, input().split())
    for _ in range(b):
        below = [j for j in range(i, n) if heights[j] < heights[i - 1]]
        if not below:
            break
        i = below[0] + 1
    print(i)
