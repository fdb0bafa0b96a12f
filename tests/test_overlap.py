"""Decontamination: planted overlaps are found wherever they stand and however they are dressed;
near misses are not."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from linn.data.overlap import COMMON, Evaluated, asked, words_of
from linn.data.rows import BadRow, read_rows, write_rows
from linn.errors import UserError
from linn.offline.decontaminate import Against, decontaminate

RNG = random.Random(0)
EVAL = [f"e{RNG.randrange(10**9)}" for _ in range(40)]
"""An evaluation prompt of 40 words that nothing else shares."""


def noise(n: int) -> list[str]:
    return [f"t{RNG.randrange(10**9)}" for _ in range(n)]


@pytest.mark.parametrize("n", [9, 13])
def test_an_overlap_is_found_at_every_position_and_a_word_less_is_none(n: int) -> None:
    one = Evaluated("e", [[" ".join(EVAL)]], n)
    assert one.prompts == 1 and one.grams == 40 - n + 1
    for before in range(30):
        for start in (0, 7, 40 - n):
            planted = [*noise(before), *EVAL[start : start + n], *noise(30 - before)]
            hit = one.hit([planted])
            assert (
                hit is not None
                and hit.grams == 1
                and hit.words == " ".join(EVAL[start : start + n])
            )
            assert (
                one.hit([[*noise(before), *EVAL[start : start + n - 1], *noise(30 - before)]])
                is None
            )
    broken = [*EVAL[: n - 1], "other", *EVAL[n - 1 : 2 * n - 2]]
    assert one.hit([broken]) is None
    assert one.hit([EVAL[: n - 1], EVAL[n - 1 : 2 * n - 2]]) is None, (
        "an n-gram runs over two turns"
    )


def plain_words(text: str) -> list[str]:
    """The words of a text as the docstring of `linn.data.overlap` has them, by character."""
    words, word = [], ""
    for c in (
        "".join(
            c
            for c in unicodedata.normalize("NFKD", text)
            if unicodedata.category(c) not in ("Mn", "Cf")
        ).casefold()
        + " "
    ):
        alone = any(
            name in unicodedata.name(c, "") for name in ("CJK UNIFIED", "HIRAGANA", "KATAKANA")
        )
        if word and (alone or not c.isalnum()):
            words, word = [*words, word], ""
        if alone:
            words.append(c)
        elif c.isalnum():
            word += c
    return words


def brute(train: list[list[str]], held: list[list[str]], n: int) -> tuple[int, int, list[int]]:
    """(n-grams compared with, n-grams too common, shared n-grams of each training prompt), by lists
    and tuples alone."""
    prompts = []
    for texts in held:
        if (turns := [plain_words(text) for text in texts]) not in prompts:
            prompts.append(turns)

    def grams_of(words: list[str]) -> list[tuple[str, ...]]:
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    counts = Counter(
        gram for turns in prompts for gram in {gram for words in turns for gram in grams_of(words)}
    )
    kept = {gram for gram, count in counts.items() if count <= COMMON}
    short = [words for turns in prompts for words in turns if 0 < len(words) < n]
    met = [
        sum(gram in kept for w in turns for gram in grams_of(w)) + sum(w in short for w in turns)
        for turns in ([*map(plain_words, t)] for t in train)
    ]
    return len(kept), len(counts) - len(kept), met


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_counts_are_those_of_brute_force(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pool = [
        "Straße",
        "naïve",
        "ﬁle",
        "2²",
        "ｆｏｘ",
        "isn’t",
        "x_1",
        "数学",
        "かな",
        "İstanbul",
        "Ωmega",
        "한국어",
        "a\u00adb",
        "the",
        "of",
        "is",
        "ΣΑΣ",
    ]
    runs = [[rng.choice(pool) for _ in range(rng.randint(1, 16))] for _ in range(12)]

    def prompt() -> list[str]:
        turns = [
            [
                *rng.choice(runs),
                *rng.choices(pool, k=rng.randint(0, 4)),
                *rng.choice(runs)[: rng.randint(0, 16)],
            ]
            for _ in range(rng.randint(1, 2))
        ]
        dressed = rng.choice(
            [str.upper, str.lower, str, lambda text: unicodedata.normalize("NFC", text)]
        )
        return [dressed(rng.choice([" ", ", ", "\n", " — "]).join(turn)) for turn in turns]

    train, held = (
        [prompt() for _ in range(150)],
        [prompt() for _ in range(80)] + [runs[0]] * 2 + [[" ".join(runs[1])]],
    )
    for name, rows in (("train", train), ("held", held)):
        write_rows(
            tmp_path / name,
            ({"messages": [{"role": "user", "content": text} for text in texts]} for texts in rows),
        )
    against = Against([str(tmp_path / "held")], [13, 9])
    found, written = decontaminate(tmp_path / "train", against, tmp_path / "clean", False, quiet)
    met = {}
    for one in against.sets:
        grams, common, met[one.n] = brute(train, held, one.n)
        hits = [one.hit([words_of(text) for text in texts]) for texts in train]
        assert (one.grams, one.common) == (grams, common) and [
            hit.grams if hit else 0 for hit in hits
        ] == met[one.n]
        assert found.hits.get((one.name, one.n), 0) == sum(map(bool, met[one.n])) > 0
    dirty = [bool(a or b) for a, b in zip(met[9], met[13], strict=True)]
    assert found.dirty == sum(dirty) and written == 150 - sum(dirty)
    assert f"{found.dirty:,} overlap with any" in against.report(tmp_path / "train", found)
    assert [asked(row) for row in read_rows(tmp_path / "clean")] == [
        texts for texts, bad in zip(train, dirty, strict=True) if not bad
    ]


PLAIN = "the quick brown fox isn't over the lazy dog's cafe file resume naive ok"


@pytest.mark.parametrize(
    "dressed",
    [
        PLAIN.upper(),
        PLAIN.replace(" ", "\n\t "),
        PLAIN.replace(" ", ", ") + "!",
        PLAIN.replace("'", "’"),
        PLAIN.replace("cafe", "cafe\u0301"),
        PLAIN.replace("cafe", "caf\u00e9"),
        PLAIN.replace("file", "\ufb01le"),
        PLAIN.replace("naive", "na\u00adive").replace("resume", "re\u200bsume"),
        PLAIN.replace("fox", "ｆｏｘ"),
        f"**{PLAIN}**",
        PLAIN.replace(" ", "\u00a0"),
        PLAIN.replace("quick brown", "quick—brown"),
        PLAIN.replace(" ", "_"),
    ],
)
def test_case_marks_and_forms_make_no_difference(dressed: str) -> None:
    assert words_of(dressed) == words_of(PLAIN)
    assert Evaluated("e", [[PLAIN]], 13).hit([words_of(f"so: {dressed} right")]) is not None


def test_chinese_and_japanese_count_by_character() -> None:
    one = Evaluated("e", [["求所有满足条件的正整数的和是多少呢"]], 13)
    assert one.hit([words_of("题目：求所有满足条件的正整数的和是多少呢？")]) is not None
    assert one.hit([words_of("求所有满足条件的正整数之和")]) is None


def test_texts_shorter_than_n_words_are_met_only_as_a_whole() -> None:
    one = Evaluated("e", [["What is 2 + 2?"], [""]], 13)
    assert one.grams == 0
    assert one.hit([words_of("what is 2+2")]) is not None
    assert (
        one.hit([words_of("what is 2+2 plus one")]) is None
        and one.hit([[]]) is None
        and one.hit([]) is None
    )


def test_wording_that_many_prompts_share_is_a_template() -> None:
    template = (
        "answer the following multiple choice question and put the letter of your choice in a box"
    )
    prompts = [[f"{template} {' '.join(noise(20))}"] for _ in range(COMMON + 1)]
    one = Evaluated("e", prompts, 13)
    assert one.common > 0 and one.hit([words_of(template)]) is None
    assert one.hit([words_of(prompts[3][0])]) is not None
    assert Evaluated("e", prompts[:COMMON], 13).hit([words_of(template)]) is not None
    assert Evaluated("e", prompts[:1] * 50, 13).prompts == 1, "the same prompt many times is one"


def test_what_a_row_asks() -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "v"},
    ]
    rows: list[dict[str, Any]] = [
        {"messages": turns},
        {"responses_create_params": {"input": turns}, "prompt": "x"},
    ]
    assert [asked(row) for row in rows] == [["u", "v"], ["u", "v"]]
    swe = {"responses_create_params": {"input": []}, "metadata": {"problem_statement": "bug"}}
    assert [
        asked(row)
        for row in (
            {"problem": "p", "answer": "q"},
            {"question": "p"},
            {"responses_create_params": {"input": "p"}},
        )
    ] == [["p"]] * 3
    assert asked(swe) == ["bug"]
    for bad in (
        {},
        {"answer": "x"},
        {"messages": []},
        {"messages": [1]},
        {"prompt": {"x": 1}},
        {"input": [{"type": "odd"}]},
    ):
        with pytest.raises(BadRow):
            asked(bad)


def quiet(share: float, lines: int) -> None:
    pass


def test_a_file_is_cleaned_byte_for_byte(tmp_path: Path) -> None:
    held = tmp_path / "eval.jsonl"
    write_rows(held, [{"question": " ".join(EVAL)}, {"question": "What is 2 + 2?"}])
    texts = [" ".join(noise(50)) for _ in range(20)]
    texts[4] += " " + " ".join(EVAL[5:25]).upper()
    texts[9] = "what is 2+2"
    train = tmp_path / "train.jsonl"
    lines = [
        b'{"messages":   [{"role": "user", "content": "%s"}], "odd": 1.0e3}\r\n' % text.encode()
        for text in texts
    ]
    train.write_bytes(b"".join(lines))
    against = Against([str(held)], [13])
    out = tmp_path / "clean.jsonl.gz"
    found, written = decontaminate(train, against, out, False, quiet)
    assert (found.prompts, found.dirty, written) == (20, 2, 18) and [
        line for line, _ in found.examples
    ] == [5, 10]
    assert [row["messages"][0]["content"] for row in read_rows(out)] == [
        t for i, t in enumerate(texts) if i not in (4, 9)
    ]
    assert (
        "2 overlap with" in against.report(train, found)
        and against.record(found)["sets"][0]["overlap"] == 2
    )
    decontaminate(train, against, train, False, quiet)  # a file may be replaced by its clean self
    assert train.read_bytes() == b"".join(line for i, line in enumerate(lines) if i not in (4, 9))


def test_rows_that_cannot_be_compared_are_refused_or_counted(tmp_path: Path) -> None:
    held, train, out = tmp_path / "eval.jsonl", tmp_path / "train.jsonl", tmp_path / "clean.jsonl"
    write_rows(held, [{"question": "q"}])
    train.write_bytes(b'{"prompt": "p"}\n{"x": 1}\n\xff\n')
    with pytest.raises(UserError, match=r"train.jsonl line 2: nothing asked.*--skip-bad"):
        decontaminate(train, Against([str(held)], [9]), out, False, quiet)
    assert not out.exists()
    found, written = decontaminate(train, Against([str(held)], [9]), out, True, quiet)
    assert written == 1 and found.tally.bad == {"nothing asked": 1, "not UTF-8": 1}
    with pytest.raises(UserError, match=r"--against .*train.jsonl line 2: nothing asked"):
        Against([str(train)], [9])
    with pytest.raises(UserError, match="no such file, and no domain"):
        Against(["mqca"], [9])


def test_a_domains_own_test_split_is_an_evaluation_set(tmp_path: Path) -> None:
    from linn.domains.load import load

    shown = [
        p.messages[-1].content for p, _ in zip(load("math").prompts("test"), range(3), strict=False)
    ]
    train = tmp_path / "train.jsonl"
    write_rows(train, [{"prompt": text} for text in [*shown, " ".join(noise(30))]])
    found, _ = decontaminate(train, Against(["math"], [9]), None, False, quiet)
    assert found.prompts == 4 and found.dirty == 3
    rows = [{"question": f"{n} {' '.join(noise(20))}", "expected_answer": "1"} for n in range(200)]
    same = tmp_path / "math.jsonl"
    write_rows(same, [*rows, *({**row, "question": row["question"] + " again"} for row in rows)])
    out = tmp_path / "clean.jsonl"
    found, written = decontaminate(same, Against([f"math:{same}"], [13]), out, False, quiet)
    assert found.held_out > 20 and found.dirty > 5 and written == 400 - found.dirty
    kept = load("math", {"rows": out})
    assert len(list(kept.prompts("test"))) == len(
        list(load("math", {"rows": same}).prompts("test"))
    ), "the test split itself stays"
