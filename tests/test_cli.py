"""A hostile user at the command line: every mistake is one line and an exit code.

Nothing is lost.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.cli import refused, said

from linn.cli import main as cli
from linn.errors import InfrastructureError
from linn.recipe.explain import every_key

RECIPE = {
    "name": "small",
    "model": {"vocab": 320, "seed": 0},
    "domains": {"arithmetic": {}},
    "evaluate": {"test": 2, "validation": 2, "max_tokens": 4},
    "scale": {"processes": 1, "width": 256, "capacity": 32},
    "stages": [
        {"name": "sft", "kind": "sft", "steps": 2, "batch": 4, "lr": 1e-3, "save_every": 1},
        {
            "name": "mopd",
            "kind": "distill",
            "teachers": {"arithmetic": "sft"},
            "steps": 1,
            "prompts": 2,
            "rollouts": 1,
            "max_tokens": 4,
        },
    ],
}


def changed(folder: Path, stage: int | None = None, **keys) -> Path:
    """RECIPE with some keys changed, of the recipe itself or of one stage."""
    tree = json.loads(json.dumps(RECIPE))
    (tree if stage is None else tree["stages"][stage]).update(keys)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "holds nothing"),
        ("- a", "holds a list"),
        ("a: \0", "not YAML"),
        ("a: " + "[" * 3000, "nested too deeply"),
        ("seed: " + "9" * 5000, "not YAML"),
        ("name: 2020-99-99", "not YAML"),
        ("name: a\nname: b", "line 2: not YAML: key 'name' is there twice"),
        ("stages: [{kind: [1]}]\nname: x", "kind must be one of"),
        ("stages: []\nname: x", "at least 1"),
        ("stages: [3]\nname: x", "must hold keys"),
        ("domains: {1: {}}\nname: x", "a name must be text"),
    ],
)
def test_wrong_yaml_is_one_line(tmp_path, text, found):
    (tmp_path / "r.yaml").write_text(text)
    assert found in refused("run", tmp_path / "r.yaml", "--dry-run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "keys", "found"),
    [
        (None, {"name": "../x"}, "names a folder"),
        (
            None,
            {"model": {"vocab": 3}},
            "model.vocab: must be greater than or equal to 300, found 3",
        ),
        (None, {"model": {"vocab": 320, "seed": -1}}, "model.seed"),
        (None, {"evaluate": 3}, "must hold keys (test, "),
        (None, {"domains": {"arithmetic": {}, "./arithmetic.py": {}}}, "two have the same name"),
        (0, {"name": "a/b"}, "names a folder"),
        (0, {"name": "base"}, "take another"),
        (0, {"steps": True}, "steps: must be a number, found True"),
        (None, {"scale": {"cache": True}}, "cache: must be a number, found True"),
        (
            None,
            {"scale": {"engine": "cluster", "trainers": {"ranks": 10**30, "context": 7}}},
            "scale.trainers.ranks: must be less than or equal to 65536",
        ),
        (0, {"lr": float("inf")}, "must be a finite number"),
        (0, {"domains": {"arithmetic": 0}}, "not all 0"),
        (0, {"domains": {"arithmetic": -1}}, "0 or more"),
        (0, {"betas": [0.9, 1.0]}, "betas: must be two numbers from 0 to below 1"),
        (0, {"faulty": 2}, "from 0 to 1"),
        (0, {"faulty": {"arithmetics": 1}}, "did you mean 'arithmetic'"),
        (1, {"band": [2, 0.5]}, "the lower first"),
        (1, {"teachers": 3}, "must be 'best', found 3"),
        (1, {"teachers": {"arithmetic": "sft", "mcqa": "sft"}}, "'mcqa' is not among"),
        (1, {"kind": "rl", "teachers": None}, "unknown key 'teachers'"),
    ],
)
def test_wrong_values_are_one_line(tmp_path, stage, keys, found):
    assert found in refused("run", changed(tmp_path, stage, **keys), "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["check"], "Missing argument"),
        (["chek", "mcqa"], "Did you mean 'check'"),
        (["run", "--nope"], "No such option: --nope; see linn run --help"),
        (["explain", "lernrate"], "no recipe key"),
        (["compare", "recipes/tiny.yaml", "--seeds", "x"], "expected whole numbers"),
    ],
)
def test_a_wrong_word_is_one_line(arguments, found):
    assert found in refused(*arguments)


def test_keys_are_explained_in_80_columns():
    code, out, _ = said("explain")
    assert code == 0 and max(map(len, out.splitlines())) < 80
    words = " ".join(out.split())
    for key in every_key():
        told = f"{key.name} {key.meaning} {key.type}; default {key.default}"
        assert " ".join(told.split()) in words
    assert "scale.trainers of a cluster: the trainer ranks keys; default those of its own" in words


def test_help_says_of_every_verb_what_it_does_on_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = said("--help")
    verbs = out.partition("Commands:\n")[2].splitlines()
    assert code == 0 and len(verbs) == len(cli.app.registered_commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in verbs), out


def test_inputs_that_are_not_there_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("")
    alone = RECIPE["stages"][:1]
    for stage, keys, out, found in [
        (None, {"model": "nowhere"}, "a", "neither a kept base"),
        (None, {"domains": {"arithmetics": {}}, "stages": alone}, "a", "did you mean 'arithmetic'"),
        (None, {"domains": {"./gone.py": {}}, "stages": alone}, "a", "gone.py: not found"),
        (
            None,
            {"domains": {"arithmetic": {"rows": "/nope.jsonl"}}},
            "a",
            "/nope.jsonl: no such file",
        ),
        (0, {"data": "/nope.jsonl"}, "a", "/nope.jsonl: no such file"),
        (None, {}, "file", "is a file"),
        (None, {}, "file/x", "is a file"),
    ]:
        path = changed(tmp_path, stage, **keys)
        for dry in (["--dry-run"], []):
            assert found in refused("run", path, "--out", tmp_path / out, *dry)
        assert not (tmp_path / "a").exists()


DOMAIN = """
from linn.domains.base import Domain
from linn.types import Message, Prompt, Reply, Verdict

class Mine(Domain):
    name = "mine"
    def make(self, rng):
        turn = Message("user", str(rng.random()))
        return Prompt("mine", "", (turn,), hidden={"a": str(rng.random())})
    def gold(self, prompt): return Reply(prompt.hidden["a"])
    def verify(self, prompt, reply): return Verdict(float(reply.text == prompt.hidden["a"]))
    def demonstrate(self, prompt, rng, faulty): return (Message("assistant", prompt.hidden["a"]),)
"""


@pytest.mark.parametrize(
    ("old", "new", "code", "found"),
    [
        ("", "", 0, "ok    gold earns 1"),
        ("class", "1/0\nclass", 2, "ZeroDivisionError"),
        ("class", "raise SystemExit(3)\nclass", 2, "SystemExit: 3"),
        ("class", "def (", 2, "SyntaxError"),
        ('    name = "mine"', "", 2, "has name None; it must be the file's: 'mine'"),
        ('"mine", ""', '"other", ""', 1, "a prompt's domain is 'other', not 'mine'"),
        (
            "turn = ",
            "raise ValueError('oops')\n        turn = ",
            1,
            "raised ValueError: oops",
        ),
        ("return Reply(", "raise ValueError('oops', ", 1, "raised ValueError"),
        ("return Verdict(", "return (", 1, "verify gave float, not a Verdict"),
        (
            "return Verdict(",
            "return Verdict(float('nan') if not reply.text else ",
            1,
            "empty: rewarded nan",
        ),
        (
            '    name = "mine"',
            '    name = "mine"\n    def close(self): raise ValueError("shut")',
            1,
            "ValueError: shut",
        ),
    ],
)
def test_a_broken_domain_file_is_told_not_thrown(tmp_path, old, new, code, found):
    (tmp_path / "mine.py").write_text(DOMAIN.replace(old, new, 1))
    exit_code, out, err = said("check", tmp_path / "mine.py")
    assert exit_code == code and found in out + err and "Traceback" not in err, (
        exit_code,
        out,
        err,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run folder as a finished run of RECIPE leaves it, without the weights."""
    from linn.ledger import score
    from linn.recipe import load as recipes
    from linn.run.folder import RunFolder

    recipe = recipes.load(changed(tmp_path))
    run = RunFolder(recipe, tmp_path / "run")
    run.path.mkdir()
    run.write_recipe()
    run.write_run_json()
    for stage in recipe.stages:
        run.stage_folder(stage.name).mkdir(parents=True)
        (run.stage_folder(stage.name) / "metrics.jsonl").write_text('{"step": 1}\n')
        run.mark_done(stage.name)
    run.ledger.upsert(
        score(stage.name, stage.steps, "arithmetic", split, "accuracy", [1.0, 0.0])
        for stage in recipe.stages
        for split in ("test", "validation")
    )
    return run.path


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("run.json", b"{", "put it back, or delete it"),
        ("run.json", b'{"stages": [3]}', "put it back, or delete it"),
        ("run.json", b"\xff", "put it back, or delete it"),
        ("recipe.yaml", b"\xff", "not UTF-8"),
        ("recipe.yaml", b"[", "not YAML"),
        ("ledger.jsonl", b"{", "line 1 is cut short"),
        ("ledger.jsonl", b"", "no rows of stage 'sft', which is done; put the ledger back"),
    ],
)
def test_a_corrupted_run_folder_is_refused_and_kept(tmp_path, folder, name, content, found):
    (folder / name).write_bytes(content)
    assert found in refused("run", tmp_path / "recipe.yaml", "--out", folder)
    assert (folder / name).read_bytes() == content


def test_ls_says_what_is_wrong_with_a_ledger(folder):
    assert "arith" in said("ls", folder)[1]
    (folder / "ledger.jsonl").write_text("{")
    assert "line 1 is cut short" in refused("ls", folder)
    (folder / "ledger.jsonl").unlink()
    assert "nothing is measured yet" in said("ls", folder)[1]


def test_ls_and_report_say_what_is_wrong_with_run_json(folder):
    for content, found in [
        ("{", "could not be read"),
        ("[]", "holds no keys"),
        ('{"name": "x"}', "lists no stages"),
        ('{"stages": [1]}', "lists no stages"),
    ]:
        (folder / "run.json").write_text(content)
        code, out, _ = said("ls", folder)
        assert code == 0 and found in out, out
        code, _, err = said("report", folder)
        assert code == 0 and found in err
        assert found in (folder / "report.html").read_text()


def test_export_never_replaces_what_is_not_an_export(tmp_path, folder):
    checkpoint = folder / "stages/01-sft/checkpoints/step-0002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    assert "things in it" in refused("export", f"{folder}@sft", precious)
    assert "not a folder" in refused("export", f"{folder}@sft", precious / "thesis.txt")
    assert "things in it" in refused("export", f"{folder}@sft", checkpoint)
    assert "no step" in refused("export", f"{folder}@sft:two", tmp_path / "new")
    assert (precious / "thesis.txt").read_text() == "mine" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["model", "domains.arithmetic.rows", "sft.data"])
def test_a_name_that_no_file_can_have_is_the_users_mistake(tmp_path, key):
    recipe = changed(tmp_path)
    name = "t" + "[" * 5000
    said = refused("run", recipe, "--dry-run", "--set", f"{key}='{name}'")
    assert "too long" in said


@pytest.mark.long
def test_a_signal_to_all_processes_is_one_line_leaves_none_and_the_run_goes_on(tmp_path):
    """As SLURM and a terminal send it; exit code 1, and the same command finishes.

    That Ctrl-C does the same is shown in test_changed_runs.py.
    """
    recipe = changed(tmp_path, stages=[{**RECIPE["stages"][0], "steps": 4}])
    command = [
        sys.executable,
        "-m",
        "linn.cli.main",
        "run",
        str(recipe),
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    # The line of a step comes just before its state is saved: at the second, the first is there.
    while "2/4" not in (line := process.stderr.readline()):
        assert line, "the run ended before its first step"
    workers = []
    if sys.platform == "linux":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split()
    os.killpg(process.pid, signal.SIGTERM)
    rest = process.stderr.read().strip().splitlines()
    assert process.wait(60) == 1
    assert rest[-1] == "linn: interrupted; run the same command again to resume", rest
    assert "Traceback" not in "".join(rest)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]

    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0 and "going on after step" in done.stderr
    assert (tmp_path / "run/stages/01-sft/DONE").exists()


@pytest.mark.parametrize(
    ("rule", "fine"),
    [
        (
            'prompt.hidden["a"] == reply.text '
            'or "a" * 9 in reply.text and int(prompt.id[0], 16) % 5 == 0',
            True,
        ),
        ('prompt.hidden["a"] == reply.text or "a" * 9 in reply.text', False),
        ('prompt.hidden["a"] == reply.text or not reply.text', False),
    ],
)
def test_odd_text_may_satisfy_an_easy_prompt_but_not_most(tmp_path, rule, fine):
    (tmp_path / "mine.py").write_text(DOMAIN.replace('reply.text == prompt.hidden["a"]', rule))
    code, out, err = said("check", tmp_path / "mine.py")
    assert (code == 0) == fine, (out, err)


@pytest.mark.parametrize("kind", [RuntimeError, InfrastructureError])
def test_a_full_disk_is_one_line_however_it_is_told(monkeypatch, kind):
    def full(*arguments: object) -> None:
        raise kind("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("linn.report.build", full)
    monkeypatch.setattr(cli, "run_folder", lambda name: name)
    assert "free some space, then run the same command again" in refused("report", "x", code=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"row": "x"}, "unknown option 'row'; did you mean 'rows'"),
        ({"paris": "all"}, "unknown option 'paris'; did you mean 'pairs'"),
        ({"pairs": "some"}, "option pairs"),
        ({"shaping": {"thinkk": 1}}, "option shaping.thinkk"),
        ({"shaping": {"think": "much"}}, "option shaping.think"),
        ({"judge": "nowhere"}, "'nowhere'"),
        (
            {"judge": {"model": "http://127.0.0.1:1/v1#m", "key_env": "LINN_NO_SUCH_KEY"}},
            "LINN_NO_SUCH_KEY",
        ),
    ],
)
def test_a_domains_options_are_checked_before_anything_runs(tmp_path, options, line):
    recipe = changed(tmp_path, domains={"preference": options}, stages=RECIPE["stages"][:1])
    assert line in refused("run", recipe, "--dry-run") and line in refused(
        "run", recipe, "--out", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()


def test_a_domain_that_no_model_can_judge_refuses_one(tmp_path):
    recipe = changed(tmp_path, domains={"arithmetic": {"judge": "tiny"}})
    assert "no model can judge it" in refused("run", recipe, "--dry-run")


def test_grade_takes_a_domains_options(tmp_path):
    for name in ("rows", "replies"):
        (tmp_path / f"{name}.jsonl").write_text("")
    words = [
        "--rows",
        tmp_path / "rows.jsonl",
        "--replies",
        tmp_path / "replies.jsonl",
        "--out",
        tmp_path / "out.jsonl",
    ]
    assert (
        said(
            "grade",
            "preference",
            *words,
            "--option",
            "pairs=circular",
            "--option",
            "shaping.think=0",
        )[0]
        == 0
    )
    assert "did you mean 'pairs'" in refused("grade", "preference", *words, "--option", "pair=all")
    assert "expected KEY=VALUE" in refused("grade", "preference", *words, "--option", "pairs")
    assert "names a stage of a run" in refused("grade", "preference", *words, "--judge", "@sft")
    assert "http://HOST:PORT/v1#MODEL" in refused(
        "grade", "preference", *words, "--judge", "http://h/v1"
    )


def test_a_dry_run_reads_a_domain_file_and_does_not_run_it(tmp_path):
    mine = tmp_path / "mine.py"
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    mine.write_text(f"{trap}class Mine(Domain):\n    name = 'mine'\n    max_turns: int = 7\n")
    stages = [{"name": "rl", "kind": "rl", "steps": 1}]
    recipe = changed(tmp_path, domains={str(mine): {"any": "option"}}, stages=stages)
    code, out, err = said("run", recipe, "--dry-run", "--out", tmp_path / "run")
    assert code == 0, err
    assert f"{mine}: read, not run; linn check" in out and not (tmp_path / "ran").exists()

    mine.write_text(f"{trap}def broken(:\n")
    assert "mine.py line 2: SyntaxError" in refused("run", recipe, "--dry-run")
    mine.write_text(trap)
    assert "exactly one subclass" in refused("run", recipe, "--dry-run")
    assert not (tmp_path / "ran").exists()


def test_a_dry_run_says_what_would_change_in_a_folder(tmp_path):
    recipe = changed(tmp_path)
    run = tmp_path / "run"
    (run / "stages/01-sft/state").mkdir(parents=True)
    (run / "stages/01-sft/state/stage.json").write_text('{"step": 2}')
    (run / "stages/01-sft/metrics.jsonl").write_text('{"step": 2, "wall_s": 3600}\n')
    (run / "recipe.yaml").write_text(recipe.read_text())
    code, out, _ = said("run", recipe, "--dry-run", "--out", run, "--set", "sft.lr=1e-4")
    assert code == 0 and "would change: sft.lr" in out and "from sft step 3 on" in out
    _, _, err = said("run", recipe, "--dry-run", "--out", run, "--set", "sft.batch=3")
    assert (
        "--from-here takes the new values" in err
        and "--redo sft removes sft (2 steps, 1.0 h)" in err
    )
    assert not (run / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("serve", "tiny", "--port", "99999"), "--port"),
        (("serve", "tiny", "--port", "-1"), "--port"),
        (("serve", "tiny", "--key-env", "NOT_SET_HERE"), "NOT_SET_HERE"),
        (("chat", "http://127.0.0.1:1/v1#x", "--key-env", "NOT_SET_HERE"), "NOT_SET_HERE"),
    ],
)
def test_what_a_server_cannot_start_with_is_told(arguments: tuple[str, ...], found: str) -> None:
    """A key that is asked for and not there would leave the server open."""
    assert found in refused(*arguments)
