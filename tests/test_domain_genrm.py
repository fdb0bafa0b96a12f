"""Training a reward model: its reward by hand, both ways round, rows, hostile replies."""

import itertools
import json
import random

import pytest

from linn.domains.base import content_key
from linn.domains.check import check
from linn.domains.genrm import GenRM, HumanVerdict, swapped
from linn.domains.splits import split_of
from linn.errors import UserError
from linn.judges.pairwise import read_comparison
from linn.types import Reply

DOMAIN = GenRM()
ROW = {
    "context": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "<think>s</think>hello"},
        {"role": "user", "content": "why?"},
    ],
    "response1": "because",
    "response2": "no <|im_end|>",
    "overall_preference": -2,
    "score_1": 4,
    "score_2": 1.5,
}


def test_the_reward_by_hand():
    prompt = DOMAIN.from_row(ROW, 0)
    assert prompt.hidden == HumanVerdict(4, 1.5, 2.0)
    replies = [
        '{"score_1": 4, "score_2": 1.5, "ranking": 2}',
        '{"score_1": 2, "score_2": 3, "ranking": 5}',
        "no verdict",
    ]
    group = [Reply(f"so: {text}") for text in replies]
    assert [v.reward for v in DOMAIN.judge(prompt, group)] == [0.0, -2 - 1.5 - 3, -10.0]
    assert [v.reward for v in GenRM(c1=3, c2=2).judge(prompt, group)] == [0.0, -2 - 1.5 - 6, -3.0]
    assert [DOMAIN.verify(prompt, r).reward for r in group] == [1.0, 1 - 6.5 / 13, 0.0]
    assert [v.metrics.get("side") for v in DOMAIN.judge(prompt, group)] == [1.0, 0.0, None]


def test_rows_without_scores_are_graded_by_the_ranking():
    prompt = DOMAIN.from_row({k: v for k, v in ROW.items() if not k.startswith("score")}, 0)
    (verdict,) = DOMAIN.judge(prompt, [Reply('{"score_1": 1, "score_2": 1, "ranking": 4}')])
    assert verdict.reward == -2.0
    assert DOMAIN.verify(prompt, DOMAIN.gold(prompt)).reward == 1.0
    far = Reply('{"score_1": 3, "score_2": 3, "ranking": 6}')
    assert DOMAIN.verify(prompt, far).reward == pytest.approx(1 - 4 / 5)


def test_a_row_is_shown_in_its_own_roles_without_reasoning_or_marks():
    prompt = DOMAIN.from_row({**ROW, "principle": "be brief", "id": 7}, 0)
    assert [(m.role, m.content) for m in prompt.messages] == [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "why?"),
        ("principle", "be brief"),
        ("response_1", "because"),
        ("response_2", "no < |im_end|>"),
    ]
    assert prompt.id == "7"
    thought = DOMAIN.from_row({**ROW, "response1": "<think>hm</think>because"}, 0)
    assert thought.messages == DOMAIN.from_row(ROW, 0).messages
    other = swapped(prompt)
    assert [m.content for m in other.messages[-2:]] == [
        "no < |im_end|>",
        "because",
    ] and other.messages[-1].role == "response_2"
    assert other.hidden == HumanVerdict(1.5, 4, 5.0) and swapped(other).messages == prompt.messages


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"response1": None}, "response1"),
        ({"response2": 3}, "response2"),
        ({"overall_preference": 4}, "overall_preference is 4"),
        ({"overall_preference": "-1"}, "overall_preference"),
        ({"overall_preference": None}, "overall_preference"),
        ({"overall_preference": [1]}, "overall_preference"),
        ({"overall_preference": True}, "overall_preference"),
        ({"score_1": 6}, "score_1 is 6"),
        ({"score_2": "4"}, "score_2"),
        ({"score_2": float("nan")}, "score_2"),
        ({"score_1": True}, "score_1"),
        ({"context": []}, "input"),
        ({"context": [{"role": "x"}]}, "role"),
        ({"principle": 3}, "principle"),
    ],
)
def test_a_wrong_row_names_its_field(change, said):
    with pytest.raises(UserError, match=f"row 3: .*{said}"):
        DOMAIN.from_row({**ROW, **change}, 3)


def test_the_domain_proves_itself():
    findings = check(DOMAIN)
    assert all(f.ok for f in findings), findings


def test_every_pair_stands_both_ways_in_its_split(tmp_path):
    prompts = list(itertools.islice(DOMAIN.prompts("test"), 200))
    for one, other in zip(prompts[::2], prompts[1::2], strict=True):
        assert other.messages == swapped(one).messages and one.id != other.id
        assert split_of(content_key(one)) == "test"
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({**ROW, "response1": f"answer {i}"}) + "\n" for i in range(40))
    )
    made = [list(GenRM(rows=path).prompts(split)) for split in ("train", "validation", "test")]
    assert sum(map(len, made)) == 80 and all(len(split) % 2 == 0 for split in made)


def test_gold_and_clean_demonstrations_earn_all_and_faulty_ones_never():
    for prompt in itertools.islice(DOMAIN.prompts("train"), 100):
        assert DOMAIN.verify(prompt, DOMAIN.gold(prompt)).reward == 1.0
        assert prompt.hidden.ranking != 3.5
        for faulty in (False, True):
            (turn,) = DOMAIN.demonstrate(prompt, random.Random(0), faulty)
            assert read_comparison(turn.content) is not None
            assert (DOMAIN.verify(prompt, Reply(turn.content)).reward == 1.0) is not faulty


HOSTILE = [
    "",
    " ",
    "5 1 1",
    '{"score_1": 5}',
    '{"score_1": NaN, "score_2": 1, "ranking": 1}',
    '{"score_1": 1e999, "score_2": 1, "ranking": 1}',
    '{"score_1": -99, "score_2": 1, "ranking": 1}',
    '{"score_1": 5, "score_2": 1, "ranking": 0}',
    '{"score_1": "5", "score_2": 1, "ranking": 1}',
    '{"score_1": true, "score_2": true, "ranking": true}',
    "{" * 100_000,
    "[" * 100_000,
    "\0",
    "\ud800",
    "x" * 1_000_000,
    '{"score_1": null, "score_2": null, "ranking": null}',
    '{"ranking": 1}',
    "the verdict is exactly right, reward 0",
    '{"score_1": 1' + "0" * 400 + ', "score_2": 1, "ranking": 1}',
    '{"score_1": [4], "score_2": [1], "ranking": [2]}',
    '{"reward": 1}',
    "{'score_1': 4, 'score_2': 1.5, 'ranking': 2}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_replies_cost_what_an_unreadable_verdict_costs(text):
    prompt = DOMAIN.from_row(ROW, 0)
    assert DOMAIN.verify(prompt, Reply(text)).reward == 0.0
    assert DOMAIN.judge(prompt, [Reply(text)])[0].reward == -10.0


def test_constants_that_cannot_be():
    with pytest.raises(UserError, match="c1 is -1"):
        GenRM(c1=-1)
