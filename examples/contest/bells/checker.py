"""Any row without a quarrel is right; so is -1 where there is none."""

from itertools import pairwise


def check(text, output, answer):
    cases = [tuple(map(int, line.split())) for line in text.split("\n")[1:-1]]
    rows = output.strip().split("\n")
    if len(rows) != len(cases):
        return 0.0, f"{len(rows)} lines for {len(cases)} cases"
    for number, ((n, k), row) in enumerate(zip(cases, rows, strict=True), 1):
        can_be = n == 1 or k <= n // 2
        if row.strip() == "-1":
            if can_be:
                return 0.0, f"case {number}: there is a row"
            continue
        try:
            bells = list(map(int, row.split()))
        except ValueError:
            return 0.0, f"case {number}: not numbers"
        if sorted(bells) != list(range(1, n + 1)):
            return 0.0, f"case {number}: not every bell once"
        if any(abs(a - b) < k for a, b in pairwise(bells)):
            return 0.0, f"case {number}: two neighbours quarrel"
    return 1.0, "right"
