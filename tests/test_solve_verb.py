"""`linn solve` as it is typed: what it refuses, and a whole solve by a real checkpoint."""

import json

import pytest
from support.cli import refused, said

from linn.files import write_jsonl
from linn.solve.players import weights_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "votes"], "did you mean 'vote'"),
        (["--strategy", "vote", "--set", "sample=3"], "did you mean 'samples'"),
        (["--strategy", "ioi"], "no folder; a contest strategy takes folders"),
        (["--strategy", "proof", "--limit", "1"], "solves rows of domain proof, found math"),
        (["--strategy", "vote"], "its generator has no end; say --limit N"),
        (["--strategy", "tir", "--set", "calls=101"], "calls must be at most 100"),
        (["--strategy", "vote", "--judge", "nowhere"], "neither RUN@STAGE"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, arguments, message):
    out = tmp_path / "out"
    assert message in refused("solve", "tiny", "math", *arguments, "--out", out)
    assert not out.exists() or not any(out.iterdir())


def test_tasks_that_are_not_there_are_refused(tmp_path):
    rows = tmp_path / "rows.jsonl"
    write_jsonl(rows, [{"what": "ever"}])
    vote = ("--strategy", "vote", "--out", tmp_path / "out")
    assert "neither a file of rows" in refused("solve", "tiny", "maths", *vote)
    assert "say DOMAIN=" in refused("solve", "tiny", rows, *vote)
    ioi = ("--strategy", "ioi", "--out", tmp_path / "out")
    assert "problem.xml" in refused("solve", "tiny", tmp_path, *ioi)


@pytest.mark.slow
def test_a_solve_by_a_checkpoint_goes_on_and_refuses_other_settings(tmp_path):
    out = tmp_path / "out"
    words = ["solve", "tiny", "math", "--strategy", "vote", "--limit", "2", "--max-tokens", "24"]
    words += ["--processes", "1", "--at-once", "2", "--out", out, "--set"]
    code, text, err = said(*words, "samples=4")
    assert code == 0, err
    assert "8 rollouts" in text and (out / "report.html").is_file()
    first = (out / "results.jsonl").read_bytes()
    rows = [json.loads(line) for line in first.decode().splitlines()]
    assert all(0 < row["tokens"] <= 4 * 24 and row["calls"] == 4 for row in rows)

    # The record without its last batch, as a kill would leave it.
    record = out / "record.jsonl"
    whole = record.read_bytes()
    record.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]) + b'{"batch": [')
    assert said(*words, "samples=4")[0] == 0
    assert (out / "results.jsonl").read_bytes() == first and record.read_bytes() == whole
    assert "made with set samples 4, now 5" in refused(*words, "samples=5")


def test_other_weights_in_the_same_folder_are_noticed(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    seen = set()
    for content in (b"a" * 300_000, b"a" * 299_999 + b"b", b"b" + b"a" * 299_999, b"a" * 300_001):
        weights.write_bytes(content)
        seen.add(weights_of(str(tmp_path)))
    assert len(seen) == 4 and None not in seen
    assert weights_of("http://127.0.0.1:1/v1#m") is None
