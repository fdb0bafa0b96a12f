"""Row after row until one is quiet."""

from itertools import permutations

for _ in range(int(input())):
    n, k = map(int, input().split())
    for row in permutations(range(1, n + 1)):
        if all(abs(row[i] - row[i + 1]) >= k for i in range(n - 1)):
            print(*row)
            break
    else:
        print(-1)
