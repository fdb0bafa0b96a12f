"""What others wrote never reaches a terminal raw, whichever way it takes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.run_folder import make_run

from linn import terminal
from linn.cli import main
from linn.errors import UserError
from linn.progress import Progress
from linn.report.terminal import print_tables
from linn.terminal import echo, echo_json, visible, visible_json

HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\rd\x9b31me\u202ef\x08"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
ROOT = Path(__file__).parent.parent / "linn"


def test_nothing_but_the_terminals_module_prints():
    """Not even a console of rich's own, unless it writes into a text that is printed later."""
    prints = re.compile(
        r"(?<![\w.])print\(|typer\.echo\(|Console\((?!\s*file=)|sys\.std(out|err)\.w"
    )
    for path in sorted(ROOT.rglob("*.py")):
        # Programs in the sandbox speak to linn through their output; the rest holds such programs.
        if "inside" in path.parts or (path.name == "terminal.py" and path.parent == ROOT):
            continue
        text = path.read_text()
        if "domains" in path.parts:
            continue
        assert not prints.search(text), path


@given(st.text())
def test_visible_text_is_visible_and_json_stays_the_same_value(text):
    assert not RAW.search(visible(text)) and visible(visible(text)) == visible(text)
    written = visible_json(json.dumps({"note": text}, ensure_ascii=False))
    assert json.loads(written) == {"note": text} and not RAW.search(written)


def test_lines_tables_bars_and_errors(tmp_path, capsys, monkeypatch):
    echo(HOSTILE)
    echo(HOSTILE, err=True)
    echo_json(json.dumps([HOSTILE], ensure_ascii=False))
    progress = Progress()
    with progress.logging(tmp_path):
        progress.say(f"endpoint: {HOSTILE}")
        progress.step(HOSTILE, 1, 2, {"loss": 1.0})

    # A run folder of somebody else's: names of stages and domains, the run's own name.
    folder = make_run(tmp_path / "run", steps=2, prompts=4)
    for name in ("run.json", "ledger.jsonl"):
        text = (folder / name).read_text()
        spelt = json.dumps(HOSTILE)[1:-1]
        for word in ("mopd", "mcqa", "tiny"):
            text = text.replace(f'"{word}"', f'"{word}{spelt}"')
        (folder / name).write_text(text)
    print_tables(folder)
    monkeypatch.setitem(main._state, "debug", False)
    with pytest.raises(SystemExit):
        main._fail(UserError(HOSTILE), f"model_type {HOSTILE}", 2)

    out, err = capsys.readouterr()
    assert "title" in out and "title" in err and "mopd" in out
    for text in (out, err, (tmp_path / "log-1.txt").read_text()):
        assert not RAW.search(text), RAW.search(text)


def test_a_terminal_gets_richs_own_moves_and_nobody_elses():
    screen = io.StringIO()
    console = terminal.console(file=screen, force_terminal=True, width=80)
    progress = Progress(console)
    progress.step("sft", 1, 2, {"loss": 1.0})
    progress.say(f"note {HOSTILE}")
    progress.close()
    text = screen.getvalue()
    assert "\x1b[2J" not in text and "\x1b]0" not in text and "<U+001B>[2J" in text
    assert "\x1b[" in text, "the bar is drawn"
