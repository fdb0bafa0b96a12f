"""Every evening's pile is kept whole."""

piles = [()]
for _ in range(int(input())):
    word, *rest = input().split()
    pile = piles[-1]
    if word == "push":
        pile = (*pile, int(rest[0]))
    elif word == "pop":
        pile = pile[:-1]
    else:
        pile = piles[int(rest[0])]
    piles.append(pile)
    print(pile[-1] if pile else 0)
