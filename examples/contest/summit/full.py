"""Fibonacci search: one new question cuts the ridge by the golden ratio."""


def height(place, n, known):
    if place > n:
        return -place  # beyond the ridge it goes on falling, and nobody need be asked
    if place not in known:
        print("?", place, flush=True)
        known[place] = int(input())
    return known[place]


for _ in range(int(input())):
    n, _ = map(int, input().split())
    known = {}
    small, large = 1, 1
    while large < n + 1:
        small, large = large, small + large
    # The summit is strictly between `left` and `left + large`.
    left = 0
    while large > 2:
        small, large = large - small, small
        # Now `small` and `large` cut a stretch that is as long as both together.
        if height(left + small, n, known) < height(left + large, n, known):
            left += small
    print("!", left + 1, flush=True)
