"""Plays the games of an input. Arguments: the input's file, and where the verdict goes, as JSON."""

import json
import sys


def verdict(score, message):
    with open(sys.argv[2], "w") as file:
        json.dump([score, message], file)
    raise SystemExit


def said():
    words = sys.stdin.readline().split()
    if len(words) != 2 or words[0] not in ("?", "!") or not words[1].lstrip("-").isdecimal():
        verdict(0.0, "not a question and not an answer: " + " ".join(words)[:40])
    return words[0], int(words[1])


with open(sys.argv[1]) as file:
    lines = file.read().split("\n")[1:-1]
print(len(lines), flush=True)
score = 1.0
for number, line in enumerate(lines, 1):
    n, most, best, summit, seed = map(int, line.split())
    print(n, most, flush=True)
    asked = 0
    while True:
        what, place = said()
        if not 1 <= place <= n:
            verdict(0.0, f"game {number}: there is no place {place}")
        if what == "!":
            break
        asked += 1
        if asked > most:
            verdict(0.0, f"game {number}: more than {most} questions")
        print(10**9 - 7 * abs(place - summit) + place * place * seed % 6, flush=True)
    if place != summit:
        verdict(0.0, f"game {number}: the summit is not at {place}")
    if asked > best:
        score = 0.5
verdict(score, "every summit found" if score == 1 else "every summit found, with many questions")
