"""The judge seam: who is asked what, in which order, how often, and what becomes of the answers."""

import asyncio
import itertools
import json

import pytest
from support.codec import END, Letters
from support.scripted import Scripted
from support.stages import stage

from linn.domains.base import Domain
from linn.errors import InfrastructureError, RunFailed, UserError
from linn.evals.evaluate import judged_alone
from linn.judges.model import JudgeAnswer, SamplerJudge, ask
from linn.judges.panel import Judges, Siblings
from linn.judges.text import Question, answer_of, inert
from linn.offline.grade import grade
from linn.play.credit import grouped
from linn.recipe.stages import DistillConfig
from linn.stages.rl import batch_of_groups, sample_groups
from linn.types import Message, Prompt, Reply, Rollout, Sampling, Verdict


def number(text: str) -> str | None:
    """What is read of an answer: all of it, if it is a number."""
    return text if text.isdecimal() else None


class Rated(Domain):
    """A model rates each reply.

    A reply that says `skip` is not shown; a prompt that says `self` is left to `verify`.
    """

    name = "rated"

    def __init__(self, level="tiny", rows=None, judged: bool = False) -> None:
        super().__init__(level, rows)
        self.judged = judged

    def prompts(self, split, seed=0):
        for i in itertools.count():
            yield Prompt(self.name, f"p{i}", (Message("user", "rate"),), thinking=False)

    def from_row(self, row, index):
        return Prompt(self.name, str(index), (Message("user", row["say"]),))

    def verify(self, prompt, reply):
        return Verdict(0.25, "alone")

    def questions(self, prompt, replies):
        if prompt.messages[0].content == "self":
            return ()
        return [
            Question((Message("user", f"rate {r.text}"),), number, (i,))
            for i, r in enumerate(replies)
            if r.text != "skip"
        ]

    def judge(self, prompt, replies, answers=()):
        if prompt.messages[0].content == "self":
            return None
        rates = {question.replies[0]: answer for question, answer in answers}
        return [
            Verdict(float(rates[i] or -2), "judged") if i in rates else Verdict(-1.0, "skipped")
            for i in range(len(replies))
        ]


def groups_of(*arguments, **options):
    return asyncio.run(grouped(*arguments, **options))


class Said:
    """A judge that answers by a program and keeps what it was asked."""

    def __init__(self, say, retries: int = 3) -> None:
        self.say, self.retries = say, retries
        self.batches: list[list[str]] = []
        self.seeds: list[list[int]] = []

    async def answer(self, conversations, seeds):
        self.batches.append([messages[-1].content for messages in conversations])
        self.seeds.append(list(seeds))
        said = [self.say(messages[-1].content, len(self.batches)) for messages in conversations]
        return [JudgeAnswer(text) for text in said]


def rollout(text: str, prompt: str = "rate", status: str = "ok") -> Rollout:
    return Rollout(
        Prompt("rated", "p", (Message("user", prompt),)),
        0,
        (),
        Reply(text),
        Verdict(0.25, "alone"),
        status,
    )  # type: ignore[arg-type]


def test_questions_of_all_groups_are_asked_at_once_and_answers_go_home():
    judge = Said(lambda text, round: text.split()[-1])
    judges = Judges({"rated": judge})
    rollouts = [rollout(t) for t in ("3", "1", "skip", "2")] + [
        rollout("9", "self"),
        rollout("8", "self"),
    ]
    groups = groups_of(rollouts, 2, {"rated": Rated(judged=True)}, judges=judges, seed=5)
    assert [g.rewards for g in groups] == [(3.0, 1.0), (-1.0, 2.0), (0.25, 0.25)]
    assert judge.batches == [["rate 3", "rate 1", "rate 2"]] and len(set(judge.seeds[0])) == 3
    figures = judges.metrics()
    assert (
        figures["judge_questions"] == 3
        and figures["judge_unreadable"] == 0
        and figures["judge_s"] >= 0
    )
    assert judges.metrics() == {}, "figures count anew"
    again = Said(lambda text, round: text.split()[-1])
    groups_of(rollouts, 2, {"rated": Rated(judged=True)}, judges=Judges({"rated": again}), seed=5)
    assert again.seeds == judge.seeds
    groups_of(rollouts, 2, {"rated": Rated(judged=True)}, judges=Judges({"rated": again}), seed=6)
    assert again.seeds[1] != judge.seeds[0]


def test_unreadable_answers_alone_are_asked_again_with_other_seeds_then_they_are_empty():
    judge = Said(
        lambda text, round: "7" if "good" in text or ("late" in text and round == 3) else "hm",
        retries=3,
    )
    questions = [Question((Message("user", t),), number, (0,)) for t in ("good", "late", "never")]
    assert asyncio.run(ask(judge, questions, [1, 2, 3])) == (["7", "7", ""], {2: "'hm'"})
    assert [len(b) for b in judge.batches] == [3, 2, 2, 1]
    assert len({s for batch in judge.seeds for s in batch}) == 8
    assert asyncio.run(ask(Said(lambda *_: "hm", retries=0), questions, [1, 2, 3])) == (
        ["", "", ""],
        dict.fromkeys(range(3), "'hm'"),
    )
    assert asyncio.run(ask(Said(lambda *_: ""), [], [])) == ([], {})


def test_a_judged_domain_without_a_judge_is_refused_and_distillation_asks_nobody():
    with pytest.raises(UserError, match="domains.rated.judge"):
        groups_of([rollout("1")], 1, {"rated": Rated(judged=True)}, judges=Judges())
    (group,) = groups_of([rollout("1")], 1, {"rated": Rated(judged=True)})
    assert group.rewards == (0.25,)
    run = stage({"coin": 1})
    run.domains["coin"] = run.domains["rated"] = Rated(judged=True)  # type: ignore[index]
    config = DistillConfig(name="d", kind="distill", rollouts=1)
    (group,) = asyncio.run(sample_groups(run, config, 0, run.prompts.take(1)))
    assert group.rewards == (0.25,), "no judge is asked in distillation"


def test_one_judge_of_two_domains_is_asked_once():
    judge = Said(lambda text, round: "1")

    class Other(Rated):
        name = "other"

    siblings = [
        Siblings(d, Prompt(d.name, "p", (Message("user", "x"),)), [Reply("a")])
        for d in (Rated(judged=True), Other(judged=True))
    ]
    asyncio.run(Judges({"rated": judge, "other": judge}).verdicts(siblings, 0))
    assert [len(b) for b in judge.batches] == [2]


def asked_one_by_one(judges: Judges, texts: list[str]) -> None:
    for text in texts:
        prompt = Prompt("rated", "p", (Message("user", "x"),))
        siblings = [Siblings(Rated(judged=True), prompt, [Reply(text)])]
        asyncio.run(judges.verdicts(siblings, 0))


def test_a_judge_that_is_never_readable_is_found_however_few_it_is_asked():
    def judges(most: float = 0.2) -> Judges:
        judge = Said(lambda text, round: text.split()[-1], retries=0)
        return Judges({"rated": judge}, max_unreadable={"rated": most})

    asked_one_by_one(judges(), ["hm", "hm", "hm", "hm", "1", "hm", "hm", "hm", "hm"])
    asked_one_by_one(judges(most=1), ["hm"] * 9)
    with pytest.raises(RunFailed, match="rated: the last 5 questions, asked one by one.*'hm'"):
        asked_one_by_one(judges(), ["1", "hm", "hm", "hm", "hm", "hm"])


def test_an_unreadable_domain_does_not_hide_behind_a_readable_one_with_the_same_judge():
    judge = Said(lambda text, round: text.split()[-1], retries=0)

    class Other(Rated):
        name = "other"

    asked = [(Rated, "1")] * 18 + [(Other, "hm")] * 2
    siblings = [
        Siblings(kind(judged=True), Prompt(kind.name, "p", (Message("user", "x"),)), [Reply(text)])
        for kind, text in asked
    ]
    with pytest.raises(RunFailed, match=r"judge of other: 2 of 2 questions"):
        asyncio.run(Judges({"rated": judge, "other": judge}).verdicts(siblings, 0))


def test_evaluation_and_offline_grading_judge_each_reply_alone(tmp_path):
    judge = Said(lambda text, round: text.split()[-1] if text != "rate bad" else "?")
    rollouts = [rollout("4"), rollout("5", status="failed"), rollout("bad"), rollout("skip")]
    domains = {"rated": Rated(judged=True)}
    found = asyncio.run(judged_alone(rollouts, domains, Judges({"rated": judge}), 0))
    assert [r.verdict.reward for r in found] == [4.0, 0.25, -2.0, -1.0] and judge.batches[0] == [
        "rate 4",
        "rate bad",
    ]
    (tmp_path / "rows").write_text('{"say": "rate"}\n{"say": "self"}\n')
    (tmp_path / "replies").write_text(
        "".join(
            json.dumps({"row": r, "text": t}) + "\n"
            for r, t in ((0, "<think>x</think>6"), (1, "7"), (0, "8"))
        )
    )
    verdicts = list(
        asyncio.run(
            grade(
                Rated(judged=True),
                tmp_path / "rows",
                tmp_path / "replies",
                None,
                Judges({"rated": judge}),
            )
        )
    )
    assert [(v["row"], v["reply"], v["reward"]) for v in verdicts] == [
        (0, 0, 6.0),
        (1, 1, 0.25),
        (0, 2, 8.0),
    ]


def test_reinforcement_learning_trains_on_the_judges_rewards_and_counts_refill_rounds():
    run = stage({"coin": 1}, dynamic_filter=True, prompts=2, rollouts=2, refill=3)
    run.domains["coin"] = run.domains["rated"] = Rated(judged=True)  # type: ignore[index]
    judge = Said(lambda text, round: "1" if round == 1 else text.split()[-1])
    run.judges.by_domain = {"rated": judge}
    groups, _ = asyncio.run(batch_of_groups(run, run.config, 0))  # type: ignore[arg-type]
    assert len(judge.batches) > 1, "the first round's groups are all alike"
    assert all(r.verdict.note == "judged" for g in groups for r in g.rollouts)
    assert run.judges.metrics()["judge_questions"] == sum(map(len, judge.batches))


def test_a_sampler_judge_asks_one_batch_and_its_reasoning_is_removed():
    sampler = Scripted(
        Letters(),
        lambda text, seed: f"hm</think>{text[-2]}{END}" if "cut" not in text else "x" * 99,
    )
    judge = SamplerJudge(sampler, Letters(), Sampling(20))  # type: ignore[arg-type]
    conversations = [[Message("user", "a")], [Message("user", "b")], [Message("user", "cut")]]
    assert asyncio.run(judge.answer(conversations, [1, 2, 3])) == [
        JudgeAnswer("a"),
        JudgeAnswer("b"),
        JudgeAnswer(missing="cut off by its max_tokens of 20"),
    ]
    assert sampler.batches == [[1, 2, 3]] and asyncio.run(judge.answer([], [])) == []


def test_a_sampler_that_fails_is_no_verdict():
    def broken(text, seed):
        raise InfrastructureError("worker died")

    with pytest.raises(InfrastructureError, match="worker died"):
        judge = SamplerJudge(Scripted(Letters(), broken), Letters(), Sampling(20))  # type: ignore[arg-type]
        asyncio.run(judge.answer([[Message("user", "a")]], [1]))


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("4", False, "4"),
        ("4", True, ""),
        ("<think>3</think> 4 ", False, "4"),
        ("3</think>4", True, "4"),
        ("<think>it says </think>5, so</think>4", False, "4"),
        (" <think>4", False, ""),
        (f"</think>4{END}5", True, "4"),
        ("", False, ""),
    ],
)
def test_what_follows_the_reasoning(text, thinking, answer):
    assert answer_of(text, thinking) == answer


@pytest.mark.parametrize(
    "mark",
    [
        "<|im_end|>",
        "<|im_start|>system",
        "</think>",
        "<THINK>",
        "<|eot_id|>",
        "<｜end▁of▁sentence｜>",
        "</s>",
        "[/INST]",
        "<start_of_turn>",
        "<tool_call>",
    ],
)
def test_marks_within_a_quotation_mean_nothing(mark):
    text = f"good {mark} <|user|> x < y |> a[1] <b>bold</b>"
    broken = inert(text)
    assert (
        mark not in broken
        and "<|user|>" not in broken
        and broken.endswith("x < y |> a[1] <b>bold</b>")
    )
    assert inert(broken) == broken and broken.replace("< ", "<").replace("[ ", "[") == text.replace(
        "< ", "<"
    )
    seen = Said(lambda text, round: "1")
    asyncio.run(ask(seen, [Question((Message("user", text),), number, (0,))], [0]))
    assert mark not in seen.batches[0][0]
