"""Whether an input is what the statement and its subtask allow."""


def validate(text, subtask):
    first, second, rest = text.split("\n")
    n, m = map(int, first.split())
    books = list(map(int, second.split()))
    assert rest == "" and len(books) == n and all(w >= 1 for w in books)
    assert (n, m) == [(8, 2), (30, 3), (200, 7), (41, 20), (60, 20)][subtask - 1]
    return True
