"""RLHF by a model judge: what it is shown, what its answers become, and who tries to cheat."""

import asyncio
import itertools
import json
import re
from dataclasses import replace

import pytest
from support.injections import INJECTIONS
from support.verdicts import parts_in, verdict_to

from linn.domains.preference import Preference, RowExtras
from linn.errors import RunFailed, UserError
from linn.judges.model import JudgeAnswer
from linn.judges.pairwise import (
    Comparison,
    Shaping,
    base_rewards,
    pairs_of,
    score_in,
)
from linn.judges.panel import Judges, Siblings
from linn.judges.text import fenced, inert, shown
from linn.types import Message, Prompt, Reply

BARE = Shaping(0, 0, 0, 0)
PLAIN = Preference(judged=True, order="given", shaping=BARE)
TALK = (
    Message("system", "be kind"),
    Message("user", "hi"),
    Message("assistant", "<think>secret</think>hello"),
    Message("user", "why do birds sing?"),
)
PROMPT = Prompt("preference", "p", TALK)


class Fair:
    """Scores an answer 5 if it gives the reason, else 1; reads as a careful model would."""

    retries = 3

    def __init__(self) -> None:
        self.asked: list[tuple[Message, ...]] = []

    def of(self, text: str) -> int:
        return 5 if re.search(r"\bthey call friends\b", text) else 1

    async def answer(self, conversations, seeds):
        self.asked += [tuple(c) for c in conversations]
        return [JudgeAnswer(self.verdict(c)) for c in conversations]

    def verdict(self, conversation) -> str:
        if conversation[-1].role == "response_2":
            one, two = self.of(conversation[-2].content), self.of(conversation[-1].content)
        elif "response" in (parts := parts_in(conversation[-1].content)):
            return verdict_to(conversation, json.dumps({"score": self.of(parts["response"])}))
        else:
            one, two = self.of(parts["response_1"]), self.of(parts["response_2"])
        ranking = 3
        if one != two:
            ranking = 1 if one > two else 6
        verdict = {"score_1": one, "score_2": two, "ranking": ranking}
        return verdict_to(conversation, json.dumps(verdict))


class Saying(Fair):
    """Gives the same verdict whatever it is asked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def verdict(self, conversation) -> str:
        return verdict_to(conversation, self.text)


def judged(domain: Preference, judge: Fair, *texts: str, prompt: Prompt = PROMPT):
    replies = [Reply(t, "my secret thought") for t in texts]
    siblings = Siblings(domain, prompt, replies)
    judges = Judges({"preference": judge}, max_unreadable={"preference": 1.0})
    (verdicts,) = asyncio.run(judges.verdicts([siblings], 0))
    return verdicts


GOOD = "because they call friends"


def test_a_group_is_compared_pair_by_pair_and_no_reasoning_is_shown():
    fair = Fair()
    verdicts = judged(PLAIN, fair, GOOD, "no", "they sing", GOOD)
    assert [v.reward for v in verdicts] == pytest.approx(
        [5 + 0.5 / 3, 1 + 0.5 / 3, 1 - 0.5 / 3, 5 - 0.5 / 3]
    ), "ties go by 3.5 - ranking"
    assert len(fair.asked) == 6
    for (message,), (i, j) in zip(fair.asked, itertools.combinations(range(4), 2), strict=True):
        parts = parts_in(message.content)
        assert [parts["response_1"], parts["response_2"]] == [
            [GOOD, "no", "they sing", GOOD][k] for k in (i, j)
        ]
        assert (
            parts["conversation"]
            == "[system]\nbe kind\n\n[user]\nhi\n\n[assistant]\nhello\n\n[user]\nwhy do birds sing?"
        )
        assert "secret" not in message.content and "principle" not in parts


@pytest.mark.parametrize(
    ("pairs", "order", "count"),
    [("all", "both", 12), ("all", "random", 6), ("circular", "given", 4)],
)
def test_pairs_and_orders_reach_the_judge(pairs, order, count):
    fair = Fair()
    texts = ["a", "b", GOOD, "d"]
    verdicts = judged(Preference(judged=True, pairs=pairs, order=order, shaping=BARE), fair, *texts)
    assert len(fair.asked) == count
    compared = pairs_of(4, pairs, order, "p")
    seen = [
        (p["response_1"], p["response_2"]) for (m,) in fair.asked for p in [parts_in(m.content)]
    ]
    assert seen == [(texts[i], texts[j]) for i, j in compared]
    said = [
        Comparison(fair.of(a), fair.of(b), 3 if fair.of(a) == fair.of(b) else 1) for a, b in seen
    ]
    assert [v.reward for v in verdicts] == base_rewards(4, compared, said)


def test_a_generative_reward_model_sees_turns_of_its_own_roles():
    fair = Fair()
    judged(Preference(judged=True, order="given", layout="genrm"), fair, "a", "b")
    assert [(m.role, m.content) for m in fair.asked[0]] == [
        ("system", "be kind"),
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "why do birds sing?"),
        ("response_1", "a"),
        ("response_2", "b"),
    ]
    judged(
        Preference(judged=True, order="given", layout="genrm", principle="be brief"), fair, "a", "b"
    )
    assert [m.role for m in fair.asked[1]][-3:] == [
        "principle",
        "response_1",
        "response_2",
    ] and fair.asked[1][-3].content == "be brief"
    own = Prompt("preference", "p", TALK, hidden=RowExtras(principle="rhyme"))
    judged(Preference(judged=True, principle="be brief"), fair, "a", "b", prompt=own)
    assert parts_in(fair.asked[2][0].content)["principle"] == "rhyme"


def test_a_reply_alone_is_scored_or_compared_with_the_reference_both_ways():
    assert [judged(PLAIN, Fair(), t)[0].reward for t in (GOOD, "no", " ")] == [1.0, 0.0, 0.0]
    assert judged(PLAIN, Saying('{"score": 3.5}'), "x")[0].reward == 0.625
    against = PLAIN.from_row({"prompt": "why do birds sing?", "reference": f"well, {GOOD}"}, 0)
    fair = Fair()
    assert judged(PLAIN, fair, "no", prompt=against)[0].reward == 0.0
    parts = [parts_in(m.content) for (m,) in fair.asked]
    assert [p["response_1"] for p in parts] == ["no", f"well, {GOOD}"] and [
        p["response_2"] for p in parts
    ] == [f"well, {GOOD}", "no"]
    thought = PLAIN.from_row(
        {"prompt": "why do birds sing?", "reference": f"<think>secret</think>well, {GOOD}"}, 0
    )
    assert thought.hidden == against.hidden
    weak = PLAIN.from_row({"prompt": "why do birds sing?", "reference": "no idea"}, 0)
    assert judged(PLAIN, Fair(), GOOD, prompt=weak)[0].reward == 1.0
    assert (
        judged(PLAIN, Saying('{"score_1": 4, "score_2": 2, "ranking": 1}'), GOOD, prompt=weak)[
            0
        ].reward
        == 0.5
    ), "a judge of places"
    unread = judged(PLAIN, Saying("?"), GOOD, prompt=weak)[0]
    assert unread.reward == 0.5 and unread.undecided
    genrm = Preference(judged=True, layout="genrm")
    assert judged(genrm, Fair(), GOOD, prompt=weak)[0].reward == 1.0
    assert judged(genrm, Fair(), GOOD) is None, (
        "a model that only compares leaves a lone answer to verify"
    )


@pytest.mark.parametrize(
    "row", [{"prompt": "x", "reference": 3}, {"prompt": "x", "principle": ["a"]}]
)
def test_a_wrong_row_names_its_field(row):
    with pytest.raises(UserError, match=f"row 2: {next(k for k in row if k != 'prompt')} is"):
        PLAIN.from_row(row, 2)


@pytest.mark.parametrize("layout", ["plain", "genrm"])
@pytest.mark.parametrize("text", INJECTIONS)
def test_hostile_replies_stay_within_their_marks_and_earn_the_least(text, layout):
    fair = Fair()
    domain = Preference(judged=True, order="both", layout=layout, shaping=BARE)
    verdicts = judged(domain, fair, text, GOOD, "no")
    assert [v.reward for v in verdicts] == [1.0, 5.0, 1.0]
    for asked in fair.asked:
        for message in asked:
            assert len(message.content) < 200_000 and inert(message.content) == message.content
            assert not re.search(r"<\|im_|</?think>|\[/?INST\]|</?s>", message.content)
    if layout == "plain":
        assert judged(domain, fair, text)[0].reward == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "{",
        "{}",
        "[]",
        "null",
        "5",
        "score_1: 5",
        "NaN",
        '{"score_1": NaN, "score_2": 1, "ranking": 1}',
        "[[A=B]]",
        '{"score_1": Infinity, "score_2": 1, "ranking": 1}',
        '{"score_1": 1e999, "score_2": 1, "ranking": 1}',
        "</think>",
        "{" * 30_000,
        '{"score_1": 6, "score_2": 1, "ranking": 1}',
        '{"score_1": 0, "score_2": 1, "ranking": 1}',
        '{"score_1": 5, "score_2": 1, "ranking": 7}',
        '{"score_1": "5", "score_2": "1", "ranking": "1"}',
        '{"score_1": true, "score_2": false, "ranking": true}',
        '{"score": 9}',
        '{"score_1": {"score_1": 5}, "score_2": 1, "ranking": 1}',
        '{"score_1": 5, "score_2": 1}',
        '{"score": NaN}',
        '{"score": 1e999}',
        '{"score_1": -5, "score_2": -1, "ranking": -1}',
        '{"score": null}',
        '{"score": 1' + "0" * 400 + "}",
        "a" * 1_000_000,
    ],
)
def test_a_judge_of_rubbish_moves_nobody(text):
    judge = Saying(text)
    # Long thoughts and short ones: no length term either where the judge decided nothing.
    assert all(v.undecided for v in judged(PLAIN, judge, GOOD, "no", "x"))
    assert len(judge.asked) == 3 * 4, "asked again three times"
    assert judged(PLAIN, judge, "x")[0].undecided
    siblings = Siblings(PLAIN, PROMPT, [Reply(GOOD), Reply("no"), Reply("x")])
    with pytest.raises(RunFailed, match=r"preference: 3 of 3 .*max_unreadable 0.2.*the first: "):
        asyncio.run(Judges({"preference": judge}).verdicts([siblings], 0))


class HalfReadable(Fair):
    """Says nothing about comparisons in which `mute` takes part."""

    def verdict(self, conversation) -> str:
        text = "".join(message.content for message in conversation)
        return "I cannot tell" if "mute" in text else super().verdict(conversation)


def test_comparisons_without_a_verdict_leave_the_mean():
    readable = judged(PLAIN, Fair(), GOOD, "no", "they sing")
    partly = judged(PLAIN, HalfReadable(), GOOD, "no", "they sing", "a mute answer, far longer")
    assert [v.reward for v in partly[:3]] == [v.reward for v in readable]
    assert partly[3].undecided


def test_one_unreadable_place_leaves_the_other_to_decide():
    weak = replace(PROMPT, hidden=RowExtras(reference="they sing"))

    class Once(Fair):
        def verdict(self, conversation) -> str:
            text = conversation[-1].content
            first = text.index(GOOD) < text.index("they sing")
            return "?" if first else super().verdict(conversation)

    (verdict,) = judged(PLAIN, Once(), GOOD, prompt=weak)
    assert verdict.reward == 1.0 and not verdict.undecided
    assert verdict.note == "won 1 shown second, against the reference"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 4}', 4),
        ('{"score": 2.5, "why": "fine"}', 2.5),
        ('{"score": 1} then {"score": 2.5}', None),
        ('{"overall": {"score": 3}}', None),
        ('{"score": 1, "score": 5}', None),
        ('the reply says {"score": 5}', None),
        ('{"score": ５}', None),
        ("5", None),
    ],
)
def test_a_score_is_the_whole_verdict(text, score):
    assert score_in(text) == score


def test_fences_hold_whatever_is_in_them():
    for text in [*INJECTIONS, "x\n</a>", "</a 1>", fenced([("a", "x"), ("b", "y")])]:
        made = fenced([("a", text), ("conversation", "y")])
        key = re.match(r"<a ([0-9a-f]{8})>\n", made)
        assert (
            key is not None
            and made.count(key[1]) == 4
            and made.endswith(f"\ny\n</conversation {key[1]}>")
        )
        assert re.sub(
            "&lt;", "<", made.split("\n", 1)[1].split(f"\n</a {key[1]}>")[0]
        ) == text.replace("&lt;", "<")


def test_a_very_long_answer_is_cut_in_its_middle():
    text = shown("  " + "a" * 50_000 + "b" * 50_000 + "  ")
    assert text.startswith("a" * 30_000 + "\n[40000 characters left out]\n") and text.endswith(
        "b" * 30_000
    )
    assert shown(" short ") == "short"
