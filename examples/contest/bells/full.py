"""The middle first, then by turns from the upper and the lower half."""

for _ in range(int(input())):
    n, k = map(int, input().split())
    if n > 1 and k > n // 2:
        print(-1)
        continue
    half = n // 2
    if n % 2:
        # half + 1, 1, half + 2, 2, …, n: differences half and half + 1.
        row = [half + 1] + [x for i in range(1, half + 1) for x in (i, half + 1 + i)]
    else:
        row = [x for i in range(half, 0, -1) for x in (i, i + half)]
    print(*row)
