"""bench/chaos: its own parts, so that what it finds is the run's and not its own."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.chaos import mutations
from bench.chaos.compare import differences, lost_prompts
from bench.chaos.endpoint import answer_to
from bench.chaos.fuzz import Outcome
from bench.chaos.recipes import SMALL
from linn.domains.load import load
from linn.pricing.plan import check_inputs
from linn.recipe import load as recipes
from linn.types import Reply

HOOK = Path(__file__).parents[1] / "bench" / "chaos" / "hook"


def run_folder(folder: Path, **metrics) -> Path:
    stage = folder / "stages" / "01-sft"
    for name in ("rollouts", "evals"):
        (stage / name).mkdir(parents=True)
    (folder / "ledger.jsonl").write_text("{}\n")
    (folder / "run.json").write_text(json.dumps({"name": "x", "machine": {"argv": [str(folder)]}}))
    row = {"step": 1, "loss": 0.5, "wall_s": 1.0, "code/verify_seconds": 2.0} | metrics
    (stage / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    rows = [json.dumps({"prompt_id": str(number), "status": "ok"}) + "\n" for number in range(3)]
    (stage / "rollouts" / "step-0001.jsonl").write_text("".join(rows))
    return folder


def test_bytes_differ_where_the_clock_is_not_the_reason(tmp_path):
    one, same = run_folder(tmp_path / "1"), run_folder(tmp_path / "2", wall_s=9.0)
    assert differences(one, same) == [] and lost_prompts(one, same) == 0
    other = run_folder(tmp_path / "3", loss=0.6)
    (other / "stages/01-sft/state.old").write_text("left behind")
    (other / "ledger.jsonl").unlink()
    found = " ".join(differences(one, other))
    assert "metrics.jsonl differs in line 1" in found
    assert "state.old is too many" in found and "ledger.jsonl is missing" in found


def test_a_prompt_that_is_missing_or_failed_is_lost(tmp_path):
    one, other = run_folder(tmp_path / "1"), run_folder(tmp_path / "2")
    rows = [{"prompt_id": "0", "status": "ok"}, {"prompt_id": "1", "status": "failed"}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (other / "stages/01-sft/rollouts/step-0001.jsonl").write_text(text)
    assert lost_prompts(one, other) == 2


def test_the_judge_answers_by_its_question_in_the_form_that_is_asked_for():
    domain = load("preference", {"judged": True})
    prompt = domain.make(random.Random(0))

    def answers(*texts: str) -> list[object]:
        found: list[object] = []
        for question in domain.questions(prompt, [Reply(text) for text in texts]):
            turns = [{"role": turn.role, "content": turn.content} for turn in question.messages]
            read = [question.read(answer_to({"messages": turns})) for _ in range(2)]
            assert read[0] is not None and read[0] == read[1]
            found.append(read[0])
        return found

    assert len(answers("one", "two", "three")) == 3
    assert len({str(answers(f"answer {number}")) for number in range(20)}) > 2


@pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)
def test_the_small_recipes_are_fit_to_run(small, tmp_path):
    path = small.write(tmp_path, "http://127.0.0.1:1/v1")
    check_inputs(recipes.load(path), tmp_path / "run", dry=True)


def test_an_aimed_kill_comes_before_the_operation_that_was_drawn(tmp_path):
    """The third write under the folder never happens; files of another class do not count."""
    run, spot = tmp_path / "run", tmp_path / "spot"
    (run / "stages").mkdir(parents=True)
    program = (
        f"from linn import files; from pathlib import Path; run = Path({str(run)!r})\n"
        "for n in range(3): files.write_text(run / 'ledger.jsonl', str(n)); "
        "files.write_text(run / 'report.html', str(n))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HOOK), str(HOOK.parents[2])]),
        "CHAOS_AIM": "command:ledger:4",
        "CHAOS_FOLDER": str(run),
        "CHAOS_SPOT": str(spot),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment)
    assert done.returncode == -signal.SIGKILL
    # Opened, renamed; opened again, and killed before the second renaming.
    assert spot.read_text() == "ledger os.rename ledger.jsonl\n"
    assert (run / "ledger.jsonl").read_text() == "0"
    assert (run / ".ledger.jsonl.part").read_text() == "1"


@pytest.mark.parametrize(
    ("code", "said", "finding"),
    [
        (0, "", ""),
        (2, "checking x\nlinn: recipe x: what to do\n", ""),
        (2, "", "0 lines"),
        (2, "linn: one\nlinn: two\n", "2 lines"),
        (1, "linn: KeyError: 'x' (f.py line 1, in f); linn --debug VERB …\n", "foresaw"),
        (1, "linn: disk full\n", "not 2"),
        (-signal.SIGKILL, "", "hang"),
        (0, "Traceback (most recent call last):\n  x\nKeyError\n", "traceback"),
    ],
)
def test_what_counts_as_a_finding(code, said, finding):
    found = Outcome(code, said, 0.1, 1.0).finding("recipe")
    assert (finding in found) if finding else found == ""
    assert "MiB" in Outcome(0, "", 0.1, 5000.0).finding("recipe")


def test_damage_is_drawn_from_its_seed_alone():
    gold = load("mcqa").gold(load("mcqa").make(random.Random(0))).text
    for number in range(200):
        draws = []
        for _ in range(2):
            rng = random.Random(number)
            value = mutations.value(rng, {"a": [1, "x", {"b": None}], "c": gold})
            damaged = mutations.content(rng, gold.encode())
            draws.append((repr(value), mutations.text(rng, gold), damaged))
        assert draws[0] == draws[1]
