"""Orders: deep piles, piles that are emptied and popped on, and many ways back."""

import random


def make(subtask, index):
    rng = random.Random(5000 * subtask + index)
    if subtask == 0:
        return "5\npush 7\npush 8\npop\nback 2\nback 0\n"
    n = [1, 40, 300][index] if subtask == 1 else 12_000
    pushes = [0.5, 0.5, 0.6] if subtask == 1 else [0.9, 0.6, 0.7]
    backs = 0.0 if subtask == 2 else 0.15
    orders = ["pop"] if n > 1 else []
    while len(orders) < n:
        day = len(orders) + 1
        kind = rng.random()
        if kind < backs:
            # In the first input to a deep pile of late, in others sometimes to any day.
            is_far = index and rng.random() < 0.3
            orders.append(f"back {rng.randint(0 if is_far else max(0, day - 3), day - 1)}")
        elif rng.random() < pushes[index]:
            orders.append(f"push {rng.randint(1, 10**9)}")
        else:
            orders.append("pop")
    return f"{n}\n" + "".join(f"{order}\n" for order in orders)
