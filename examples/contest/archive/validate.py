"""Whether an input is what the statement and its subtask allow."""


def validate(text, subtask):
    lines = text.split("\n")
    orders = lines[1:-1]
    assert lines[-1] == "" and len(orders) == int(lines[0]) and 1 <= len(orders) <= 12_000
    for day, order in enumerate(orders, 1):
        word, *rest = order.split()
        if word == "push":
            assert 1 <= int(rest[0]) <= 10**9
        elif word == "back":
            assert 0 <= int(rest[0]) < day and subtask != 2
        else:
            assert order == "pop"
    assert subtask != 1 or len(orders) <= 300
    return True
