"""The next lower terrace by a stack; many falls at once by doubling."""

import sys

numbers = list(map(int, sys.stdin.buffer.read().split()))
n, q = numbers[0], numbers[1]
heights = numbers[2 : 2 + n]

below = list(range(n))
stack = []
for i, height in enumerate(heights):
    while stack and heights[stack[-1]] > height:
        below[stack.pop()] = i
    stack.append(i)

jumps = [below]
while 1 << len(jumps) <= n:
    last = jumps[-1]
    jumps.append([last[i] for i in last])

out = []
for at in range(2 + n, 2 + n + 2 * q, 2):
    i, b = numbers[at] - 1, numbers[at + 1]
    power = 0
    while b:
        if b & 1:
            i = jumps[power][i]
        b >>= 1
        power += 1
    out.append(i + 1)
print("\n".join(map(str, out)))
