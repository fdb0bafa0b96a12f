"""Every place."""

for _ in range(int(input())):
    n, m = map(int, input().split())
    heights = []
    for place in range(1, n + 1):
        print("?", place, flush=True)
        heights.append(int(input()))
    print("!", heights.index(max(heights)) + 1, flush=True)
