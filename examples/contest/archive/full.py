"""A pile is a top and the pile below it: nothing is ever copied."""

import sys

lines = sys.stdin.read().split("\n")
piles = [(0, None)]
out = []
for order in lines[1 : 1 + int(lines[0])]:
    if order == "pop":
        pile = piles[-1][1] or piles[-1]
    elif order.startswith("back"):
        pile = piles[int(order[5:])]
    else:
        pile = (int(order[5:]), piles[-1])
    piles.append(pile)
    out.append(pile[0])
print("\n".join(map(str, out)))
