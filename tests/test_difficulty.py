"""Difficulty filtering: rates by row, what stays, a killed measurement that ends with the same
bytes."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linn.cli.main import app
from linn.domains.base import Domain
from linn.endpoint.client import Endpoint
from linn.errors import InfrastructureError, RunFailed, UserError
from linn.offline import difficulty
from linn.offline.difficulty import (
    CHUNK,
    EndpointSolver,
    Measurement,
    Rate,
    chosen,
    histogram,
    write_kept,
)
from linn.types import Message, Prompt, Reply, Rollout, Sampling, Verdict, seed_of

HOW = Sampling(16)


class Dice(Domain):
    """A row of `difficulty` d is solved by replies of at least d."""

    name = "dice"

    def from_row(self, row, index):
        if "difficulty" not in row:
            raise UserError("difficulty: is missing")
        return Prompt(
            self.name,
            str(index),
            (Message("user", str(row["difficulty"])),),
            hidden={"d": row["difficulty"]},
        )

    def verify(self, prompt, reply):
        return Verdict(float(reply.text.isdigit() and int(reply.text) >= prompt.hidden["d"]))


@dataclass
class Thrower:
    """Throws a seeded die for each rollout; fails after so many chunks."""

    dies_after: int = 10**9
    chunks: int = 0
    seen: list[str] = field(default_factory=list)

    async def rollouts(self, jobs, domain):
        if self.chunks == self.dies_after:
            raise InfrastructureError("killed")
        self.chunks += 1
        self.seen += [job.prompt.id for job in jobs]
        made = []
        for job in jobs:
            reply = Reply(str(random.Random(seed_of(job.seed, len(jobs))).randint(1, 6)))
            made.append(
                Rollout(job.prompt, job.sibling, (), reply, domain.verify(job.prompt, reply))
            )
        return made


def measured(*arguments, **options):
    return asyncio.run(difficulty.measured(*arguments, **options))


def rows_file(folder: Path, count: int) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"difficulty": 1 + i % 7, "id": i}) + "\n" for i in range(count))
    )
    return path


def run(path: Path, out: Path, solver, rollouts=16, **changes):
    settings = {"from": "x", **changes}
    return measured(Measurement(Dice(rows=path), rollouts, HOW, 0, out, settings), solver)


def test_rates_are_how_often_rows_were_solved(tmp_path):
    rates = run(rows_file(tmp_path, 70), tmp_path / "kept", Thrower())
    assert len(rates) == 70 and all(
        rate.total == 16 and rate.share == rate.passed / 16 for rate in rates.values()
    )
    by_difficulty = [[rates[line].share for line in rates if (line - 1) % 7 == d] for d in range(7)]
    means = [sum(s) / len(s) for s in by_difficulty]
    assert means[0] == 1.0 and means[6] == 0.0 and means == sorted(means, reverse=True)


class Breaking(Thrower):
    """Its grader breaks at the first rollouts of each row: at `often` of them."""

    often = 1

    async def rollouts(self, jobs, domain):
        made = await super().rollouts(jobs, domain)
        return [
            replace(one, status="failed", error="grader: boom", verdict=Verdict(0.0))
            if one.sibling < self.often
            else one
            for one in made
        ]


def test_failed_rollouts_leave_the_rates_and_too_many_stop_the_measurement(tmp_path):
    path = rows_file(tmp_path, 20)
    whole, kept = run(path, tmp_path / "whole", Thrower()), tmp_path / "kept"
    rates = run(path, kept, Breaking())
    assert all(rate.total == 15 and rate.share == rate.passed / 15 for rate in rates.values())
    assert all(0 <= whole[line].passed - rate.passed <= 1 for line, rate in rates.items())
    assert run(path, kept, Thrower(0)) == rates, "the file keeps how many were judged"

    often = Breaking()
    often.often = 8
    with pytest.raises(RunFailed, match=r"rows from line 1: 160 of 320 rollouts of dice.*boom"):
        run(path, tmp_path / "often", often)


def test_a_row_of_which_nothing_was_judged_has_no_rate_and_goes(tmp_path):
    rates = {1: Rate(0, 0, 0.0), 2: Rate(0, 4, 0.0), 3: Rate(2, 4, 0.5)}
    assert chosen(rates, 0.0, 1.0, 0) == {2, 3}
    assert "n = 2" in histogram(rates) and "no rollout" in histogram({1: Rate(0, 0, 0.0)})


@pytest.mark.slow
@pytest.mark.parametrize("dies_after", [0, 1, 2])
@pytest.mark.parametrize("cut", ["", '{"line": 9', '{"line": 9, "passed": 3}\n', "\n"])
def test_a_killed_measurement_ends_with_the_same_bytes(tmp_path, dies_after, cut):
    path = rows_file(tmp_path, 3 * (CHUNK // 16) - 5)
    whole, broken, solver = tmp_path / "whole", tmp_path / "broken", Thrower()
    want = run(path, whole, solver)
    with pytest.raises(InfrastructureError):
        run(path, broken, Thrower(dies_after))
    with open(broken, "a") as file:
        file.write(
            cut
            if cut != '{"line": 9, "passed": 3}\n'
            else f'{{"line": {dies_after * (CHUNK // 16) + 1}, "passed": 3}}\n'
        )
    if cut == "\n":
        with pytest.raises(UserError, match="begin anew with --no-resume"):
            run(path, broken, Thrower())
        return
    again = Thrower()
    assert run(path, broken, again) == want and broken.read_bytes() == whole.read_bytes()
    assert again.chunks == 3 - dies_after, "whole chunks are not measured again"
    assert run(path, broken, Thrower(0)) == want, "a finished measurement asks nobody"


def test_other_settings_or_rows_are_refused(tmp_path):
    path, kept = rows_file(tmp_path, 9), tmp_path / "kept"
    run(path, kept, Thrower())
    with pytest.raises(UserError, match="measured with from 'x', now 'y'; give another --out"):
        run(path, kept, Thrower(), **{"from": "y"})
    rows_file(tmp_path, 10)
    with pytest.raises(UserError, match="measured with rows"):
        run(path, kept, Thrower())


def test_a_broken_row_shows_before_the_first_is_sampled(tmp_path):
    path, solver = rows_file(tmp_path, 40), Thrower()
    path.write_text(path.read_text() + '{"id": 1}\n')
    with pytest.raises(UserError, match="rows.jsonl line 41: .*difficulty"):
        run(path, tmp_path / "kept", solver)
    assert solver.chunks == 0
    domain = Dice(rows=path)
    domain.skip_bad = True
    assert (
        len(measured(Measurement(domain, 4, HOW, 0, tmp_path / "kept", {}), solver)) == 40
        and sum(domain.tally.bad.values()) == 1
    )


def test_what_stays():
    rates = {
        line: Rate(p, 4, p / 4) for line, p in enumerate([0] * 100 + [4] * 50 + [1, 2, 3] * 10)
    }
    middle = {line for line, rate in rates.items() if 0 < rate.share < 1}
    code, swe = chosen(rates, 0, 1, 0), chosen(rates, 0, 0.1, 0)
    assert code == middle | set(range(100)), "Code: drops what is solved every time"
    assert (
        swe > middle
        and len(swe - middle) == 10
        and swe == chosen(rates, 0, 0.1, 0) != chosen(rates, 0, 0.1, 1)
    )
    assert len(chosen(rates, 1, 0, 0)) == 80 and chosen({}, 0.5, 0.5, 0) == set()


def test_kept_rows_hold_the_released_fields_and_their_own(tmp_path):
    path, out = rows_file(tmp_path, 14), tmp_path / "out.jsonl"
    domain = Dice(rows=path)
    rates = measured(Measurement(domain, 8, HOW, 0, tmp_path / "kept", {}), Thrower())
    assert write_kept(domain, rates, set(range(2, 9)), out) == 7
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(1, 8))
    assert all(
        (row["pass_rate_passed"] / 8, 8) == (row["pass_rate"], row["pass_rate_total"])
        for row in rows
    )
    again = Dice(rows=out)
    reused = measured(Measurement(again, 8, HOW, 0, tmp_path / "none", {}, reuse=True), None)
    assert [rate.share for rate in reused.values()] == [row["pass_rate"] for row in rows] and not (
        tmp_path / "none"
    ).exists()
    assert [p.pass_rate for p in again.prompts("train")] and all(
        p.pass_rate is not None for p in again.prompts("train")
    )
    with pytest.raises(UserError, match="has no pass_rate to reuse; name a model with --from"):
        measured(Measurement(domain, 8, HOW, 0, tmp_path / "none", {}, reuse=True), None)


def test_rewards_that_compare_siblings_have_no_pass_rate(tmp_path):
    class Compared(Dice):
        def judge(self, prompt, replies, answers=()):
            return [Verdict(3.5) for _ in replies]

    with pytest.raises(UserError, match="a reward of 3.5 passes nothing"):
        domain = Compared(rows=rows_file(tmp_path, 3))
        measured(Measurement(domain, 2, HOW, 0, tmp_path / "kept", {}), Thrower())


def test_the_histogram_counts_every_row_once():
    rates = {i: Rate(i, 16, i / 16) for i in range(17)}
    text = histogram(rates)
    counts = [int(line.split()[-3 if "█" in line else -2]) for line in text.splitlines()[1:]]
    assert sum(counts) == 17 and counts[0] == counts[-1] == 1 and "n = 17, mean 0.500" in text


@pytest.fixture
def endpoint():
    """An OpenAI-compatible server whose model answers 4 after a thought, and is cut off where it is
    asked for a 6."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            cut = asked["messages"][-1]["content"] == "6"
            choice = {
                "message": {"content": "<think>6</think>4"},
                "finish_reason": "length" if cut else "stop",
            }
            body = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_an_endpoint_answers_single_turn_rows(tmp_path, endpoint):
    solver = EndpointSolver(Endpoint(endpoint, "m"))
    rates = run(rows_file(tmp_path, 7), tmp_path / "kept", solver, rollouts=2)
    assert [rate.share for rate in rates.values()] == [1, 1, 1, 1, 0, 0, 0]


@pytest.mark.long
def test_a_measurement_killed_at_any_instant_goes_on_to_the_same_files(tmp_path):
    path, outs = tmp_path / "rows.jsonl", [tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"]
    rows = [
        {"prompt": f"say {i}", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
        for i in range(64)  # two chunks
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "linn.cli.main",
        "filter",
        "instruct",
        "--rows",
        str(path),
        "--from",
        "tiny-0",
        "--rollouts",
        "16",
    ]
    command += ["--max-tokens", "12", "--processes", "1", "--keep-unsolved", "0.5"]
    assert (
        subprocess.run(
            [*command, "--out", str(outs[0])], capture_output=True, timeout=1200
        ).returncode
        == 0
    )
    process = subprocess.Popen(
        [*command, "--out", str(outs[1])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    kept = Path(f"{outs[1]}.rates.jsonl")
    while process.poll() is None and not (kept.exists() and kept.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not outs[1].exists(), (
        "killed after its first chunk"
    )
    assert (
        subprocess.run(
            [*command, "--out", str(outs[1])], capture_output=True, timeout=1200
        ).returncode
        == 0
    )
    for suffix in ("", ".rates.jsonl"):
        assert Path(f"{outs[0]}{suffix}").read_bytes() == Path(f"{outs[1]}{suffix}").read_bytes()
    assert any(0 < json.loads(line)["pass_rate"] < 1 for line in outs[0].read_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "http://h:1/v1"], "an endpoint is written http://HOST:PORT/v1#MODEL"),
        (["--from", "nowhere"], "neither RUN@STAGE"),
        ([], "name a model with --from"),
        (["--keep-solved", "2"], "keep-solved"),
        (["--option", "x"], "expected KEY=VALUE"),
    ],
)
def test_a_wrong_word_is_refused(tmp_path, arguments, said):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1 + 1", "expected_answer": "2"}\n')
    done = CliRunner().invoke(
        app, ["filter", "math", "--rows", str(path), "--out", str(tmp_path / "o"), *arguments]
    )
    assert done.exit_code != 0 and said in (
        str(done.exception) if isinstance(done.exception, UserError) else done.output
    )


def test_an_endpoint_is_refused_for_conversations(tmp_path):
    arguments = [
        "filter",
        "workplace",
        "--rows",
        str(tmp_path / "r"),
        "--out",
        str(tmp_path / "o"),
        "--from",
        "http://h:1/v1#m",
    ]
    assert "single-turn domains alone" in str(CliRunner().invoke(app, arguments).exception)


@pytest.mark.slow
def test_a_checkpoint_measures_and_filters(tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text(
        "".join(
            json.dumps({"question": f"1 + {i}", "expected_answer": str(1 + i)}) + "\n"
            for i in range(6)
        )
    )
    arguments = [
        "filter",
        "math",
        "--rows",
        str(path),
        "--out",
        str(out),
        "--from",
        "tiny-0",
        "--rollouts",
        "4",
        "--max-tokens",
        "32",
    ]
    done = CliRunner().invoke(app, [*arguments, "--processes", "1", "--keep-solved", "1"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert (
        len(rows) == 6
        and {row["pass_rate_total"] for row in rows} == {4}
        and "n = 6" in done.output
    )
    assert CliRunner().invoke(app, [*arguments, "--temperature", "0.5"]).exit_code != 0, (
        "another measurement under the same name"
    )
