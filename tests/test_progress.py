"""What a person watches: a line per step in a file, a bar that stays whole in a terminal."""

import io

from rich.console import Console

from linn.progress import Progress

METRICS = {
    "loss": 0.12345,
    "reward": 0.5,
    "kept_groups": 3.0,
    "length": 22.9,
    "mismatch_max": 1e-6,
    "grad_norm": 1.5,
    "wall_s": 2.0,
    "sampled_tokens": 4000.0,
}


def test_without_a_terminal_every_step_is_one_line(capsys):
    progress = Progress(Console(file=io.StringIO()))
    progress.step("multi-domain", 3, 3, METRICS)
    progress.note("multi-domain", 50, 100, "evaluating")
    assert capsys.readouterr().err == (
        "multi-domain      3/3    loss 0.123 reward 0.5 kept 3 len 22.9 mismatch 1e-06 grad 1.5 "
        "tok/s 2,000 left 0:00\n"
    )


def test_in_a_narrow_terminal_the_text_is_cut_and_nothing_else():
    screen = io.StringIO()
    progress = Progress(Console(file=screen, force_terminal=True, no_color=True, width=60))
    progress.step("multi-domain", 1, 3, METRICS)
    progress.close()
    assert "multi-domain      1/3 " in screen.getvalue() and "━" * 4 in screen.getvalue()
    assert "loss 0.123" in screen.getvalue() and "tok/s" not in screen.getvalue()


def test_a_log_holds_every_line_and_paths_with_brackets_are_no_markup(tmp_path):
    screen = io.StringIO()
    progress = Progress(Console(file=screen, width=200))
    with progress.logging(tmp_path):
        progress.say("kept in [/tmp/x] and [red]")
        progress.step("sft", 1, 2, {"loss": 2.0})
    text = (tmp_path / "log-1.txt").read_text()
    assert text == "kept in [/tmp/x] and [red]\n1/2 loss 2\n"
    assert screen.getvalue() == "kept in [/tmp/x] and [red]\n"
