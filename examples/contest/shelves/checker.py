"""The heaviest shelf, compared with the judges' own."""


def heaviest(text, output):
    first, second = text.split("\n")[:2]
    n, m = map(int, first.split())
    books = list(map(int, second.split()))
    shelves = list(map(int, output.split()))
    if len(shelves) != n or not all(1 <= shelf <= m for shelf in shelves):
        return None
    loads = [0] * (m + 1)
    for weight, shelf in zip(books, shelves, strict=True):
        loads[shelf] += weight
    return max(loads)


def check(text, output, answer):
    try:
        weight = heaviest(text, output)
    except ValueError:
        weight = None
    if weight is None:
        return 0.0, "not a shelf for every book"
    best = heaviest(text, answer)
    share = min(1.0, max(0.0, 1 - 5 * (weight / best - 1)))
    return share, f"the heaviest shelf weighs {weight}, the judges' {best}"
