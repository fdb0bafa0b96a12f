"""The report of a synthetic run of 10 stages and 11 domains, whole, half-written, hostile and
empty.
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from linn.errors import UserError
from linn.ledger import Ledger, score, teachers
from linn.report import build, recovery_table, table
from linn.report.numbers import format_score, format_tick
from linn.report.plots import Line, plot, thin_out
from linn.report.transcripts import clean, cut
from linn.types import Score

DOMAINS = (
    "instruct",
    "mcqa",
    "workplace",
    "structured",
    "math",
    "preference",
    "longctx",
    "code",
    "swe_agentless",
    "swe_agentic",
    "proof",
)
STAGES: tuple[tuple[str, str, str | None, tuple[str, ...]], ...] = (
    ("base", "base", None, ()),
    ("sft", "sft", "base", DOMAINS),
    ("if-rl", "rl", "sft", ("instruct",)),
    ("multi-domain", "rl", "if-rl", ("mcqa", "workplace", "structured")),
    ("rlhf-teacher", "rl", "sft", ("preference",)),
    ("mopd", "distill", "multi-domain", DOMAINS),
    ("rlhf", "rl", "mopd", ("preference",)),
    ("long-context", "rl", "rlhf", ("longctx",)),
    ("code", "rl", "long-context", ("code",)),
    ("swe-agentic", "rl", "code", ("swe_agentic",)),
)
HOSTILE = (
    "</pre></details><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7*7 }} {% raw %} "
    "\u202egnp.exe \x00\x1b[31m \ud800 &lt; \u2028 "
    "'\"><style>*{display:none}</style> " + "x" * 900
)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_run(folder: Path, steps: int = 40, prompts: int = 60, seed: int = 0) -> Path:
    """A run folder as `linn run` leaves it: each stage lifts its domains and costs some others,
    MOPD gives back.
    """
    rng = random.Random(seed)
    levels: dict[str, dict[str, float]] = {}
    rewards: dict[tuple[str, str, str], list[float]] = {}
    ledger: list[Score] = []
    entries: list[dict[str, Any]] = []
    for index, (name, kind, parent, domains) in enumerate(STAGES):
        level = (
            dict(levels[parent])
            if parent
            else {domain: 0.05 + 0.1 * rng.random() for domain in DOMAINS}
        )
        for domain in DOMAINS:
            if domain in domains:
                level[domain] = min(0.95, level[domain] + (0.35 if kind != "distill" else 0.0))
            elif parent and kind == "rl":
                level[domain] = max(0.02, level[domain] - 0.16 * rng.random())
        if kind == "distill":
            level = {
                domain: max(each[domain] for each in levels.values()) - 0.02 for domain in DOMAINS
            }
        levels[name] = level
        for split in ("validation", "test"):
            for metric in ("accuracy", "greedy"):
                for domain in DOMAINS:
                    draw = random.Random(f"{split}{metric}{domain}{seed}")
                    got = [
                        float(draw.random() < level[domain])
                        if domain != "preference"
                        else min(1, max(0, draw.gauss(level[domain], 0.2)))
                        for _ in range(prompts * 2)
                    ]
                    rewards[name, f"{split}-{metric}", domain] = got
                    ledger.append(score(name, steps, domain, split, metric, got))
        entry: dict[str, Any] = {
            "index": index,
            "name": name,
            "kind": kind,
            "parent": parent,
            "folder": f"stages/{index:02d}-{name}",
        }
        entry["domains"] = dict.fromkeys(domains, 1.0)
        if kind == "distill":
            entry["teachers"] = teachers(ledger, DOMAINS, list(levels)[:-1])
        entries.append(entry)
        place = folder / entry["folder"]
        place.mkdir(parents=True)
        if kind != "base":
            write_lines(
                place / "metrics.jsonl",
                [metrics_row(rng, kind, step, steps, domains) for step in range(1, steps + 1)],
            )
            (place / "DONE").touch()
        if kind in ("rl", "distill"):
            rows = [
                rollout(rng, domain, prompt, sibling)
                for domain in domains
                for prompt in range(8)
                for sibling in range(4)
            ]
            write_lines(place / f"rollouts/step-{steps:04d}.jsonl", rows)
        evals = [
            {
                "prompt_id": f"{domain}-{i}",
                "domain": domain,
                "reward": reward,
                "note": "as asked" if reward else "wrong",
                "text": transcript(rng, domain),
                "gold": "42",
            }
            for domain in DOMAINS
            for i, reward in enumerate(rewards[name, "test-greedy", domain][:prompts])
        ]
        write_lines(place / "evals/test-greedy.jsonl", evals)
    about = {
        "name": "tiny",
        "seed": seed,
        "versions": {"linn": "0.1.0", "torch": "2.13"},
        "machine": {"cpu": "2 cores", "memory": "8 GiB"},
        "stages": entries,
    }
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "recipe.yaml").write_text("name: tiny\nmodel: tiny\nseed: 0\n")
    Ledger(folder / "ledger.jsonl").upsert(ledger)
    (folder / "compare.json").write_text(json.dumps(compare(rng)))
    return folder


def metrics_row(
    rng: random.Random, kind: str, step: int, steps: int, domains: tuple[str, ...]
) -> dict[str, Any]:
    done = step / steps
    row: dict[str, Any] = {
        "step": step,
        "loss": 2.0 - done + 0.1 * rng.random(),
        "grad_norm": 0.5 + rng.random(),
        "lr": 3e-5 * (1 - done),
    }
    row |= {
        "mismatch_max": 4e-6 * rng.random(),
        "mismatch_mean": 1e-7,
        "wall_s": 2.0,
        "cpu_s": 3.9,
        "tokens": 4096,
    }
    if kind != "sft":
        row |= {
            "reward": 0.3 + 0.4 * done + 0.1 * rng.random(),
            "length": 120 + 40 * rng.random(),
            "entropy": 1.2 - 0.6 * done,
            "kept_groups": rng.randint(4, 8),
            "groups": 8,
        }
        row |= {
            f"reward/{domain}": min(1.0, 0.2 + 0.5 * done + 0.2 * rng.random())
            for domain in domains
        }
    if kind == "distill":
        row |= {f"teacher_gap/{domain}": (1 - done) * rng.random() for domain in domains}
    return row


def transcript(rng: random.Random, domain: str) -> str:
    words = " ".join(
        rng.choice("the a value of x is then we add check so answer 4 7 12".split())
        for _ in range(rng.randint(20, 400))
    )
    return (
        f"<|user|>\nA {domain} "
        f"task.\n<|assistant|>\n<think>{words}</think>\n\\boxed{{{rng.randint(0, 99)}}}"
    )


def rollout(rng: random.Random, domain: str, prompt: int, sibling: int) -> dict[str, Any]:
    failed = rng.random() < 0.1
    row = {
        "prompt_id": f"{domain}-{prompt}",
        "domain": domain,
        "sibling": sibling,
        "status": "failed" if failed else "ok",
        "error": "tool call: not JSON" if failed else "",
    }
    return row | {
        "reward": float(rng.random() < 0.5 and not failed),
        "note": "",
        "text": transcript(rng, domain),
        "advantage": 0.0,
        "length": 100,
    }


def compare(rng: random.Random) -> dict[str, Any]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for arm, rate, cost in (("mopd", 0.15, 9.0), ("grpo", 0.05, 14.0)):
        arms[arm] = []
        for seed in range(3):
            for step in range(0, 41, 4):
                value = 0.4 + 0.3 * (1 - math.exp(-rate * step)) + 0.02 * rng.random()
                point = {
                    "seed": seed,
                    "step": step,
                    "cpu_s": step * cost * (1 + 0.05 * seed),
                    "value": value,
                    "low": value - 0.03,
                    "high": value + 0.03,
                }
                arms[arm].append(point | {"per_domain": {domain: value for domain in DOMAINS}})
    return {"x": "steps", "arms": arms, "teacher_mean": 0.69}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "tiny")


class Page(HTMLParser):
    """What a browser would build: tags, attributes, and whether every element is closed where it
    should be.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def words(page: str) -> str:
    """The page as a reader sees it, without mark-up."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


# ---------------------------------------------------------------- the whole run


def test_page_is_whole_well_formed_small_and_loads_nothing(run_folder: Path) -> None:
    path = build(run_folder)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path.name == "report.html" and not list(run_folder.glob("*.part"))
    assert path.stat().st_size < 2_000_000
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "srcset", "action"} & names and not any(
        name.startswith("on") for name in names
    )
    assert all(value and value.startswith("#") for name, value in page.attributes if name == "href")
    assert "url(" not in text and "@import" not in text
    anchors = {value for name, value in page.attributes if name == "id"}
    assert {
        value.removeprefix("#") for name, value in page.attributes if name == "href" and value
    } <= anchors
    assert "Content-Security-Policy" in text


def test_page_shows_every_stage_domain_and_curve(run_folder: Path) -> None:
    seen = words(build(run_folder).read_text(encoding="utf-8"))
    for name, *_ in STAGES:
        assert name in seen
    for domain in DOMAINS:
        assert domain in seen
    for heading in (
        "Reward",
        "Length, tokens",
        "Entropy, nats",
        "Groups kept",
        "Mismatch",
        "Gradient norm",
        "Teacher gap by domain",
    ):
        assert heading in seen
    for heading in (
        "Best",
        "Worst",
        "Newly right",
        "Newly wrong",
        "What distillation gave back",
        "Distillation against GRPO",
        "by CPU-seconds",
    ):
        assert heading in seen
    assert seen.count("★") > len(DOMAINS) and "▼" in seen and "▲" in seen
    assert re.search(
        r"mopd began below its teacher in \d+ of 11 domains and on average gave back \d+ %", seen
    )


def test_same_folder_same_bytes(run_folder: Path) -> None:
    assert build(run_folder).read_bytes() == build(run_folder).read_bytes()


def test_the_numbers_on_the_page_are_the_ledgers(run_folder: Path) -> None:
    rows = Ledger(run_folder / "ledger.jsonl").read()
    seen = words(build(run_folder).read_text(encoding="utf-8"))
    for row in rows:
        if row.split == "test":
            assert f"{format_score(row.low)}–{format_score(row.high)}" in seen


def chromium(page: Path, folder: Path) -> str:
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
    )
    options += " --disable-background-networking --disable-component-update --disable-sync"
    command = [
        "chromium",
        *options.split(),
        f"--user-data-dir={folder / 'chrome'}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_nothing_overflows_or_vanishes_at_400_and_1600_px(run_folder: Path, tmp_path: Path) -> None:
    folders = [run_folder, make_hostile(tmp_path / "hostile")]
    pages = [
        build(folder).read_text(encoding="utf-8").replace("<details>", "<details open>")
        for folder in folders
    ]
    frames = "".join(
        f'<iframe srcdoc="{escape(text)}" style="width:{width}px;border:0"></iframe>'
        for text in pages
        for width in (400, 1600)
    )
    measure = (
        "const docs = [...document.querySelectorAll('iframe')].map(frame => frame.contentDocument);"
    )
    measure += "const widths = docs.map(doc => doc.documentElement.scrollWidth);"
    measure += (
        "const unseen = docs.map(doc => [...doc.querySelectorAll('path, pre, td')].filter(e => "
        "!e.getClientRects().length).length);"
    )
    script = (
        "<script>onload = () => "
        f"{{ {measure} document.body.innerHTML = widths + ';' + unseen }}</script>"
    )
    page = tmp_path / "frames.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{frames}{script}", encoding="utf-8")
    measured = re.search(r"<body>([\d,;]+)", chromium(page, tmp_path))
    assert measured is not None and measured.group(1) == "400,1600,400,1600;0,0,0,0"


# ---------------------------------------------------------------- partial, broken, hostile


@pytest.mark.parametrize(
    "gone", ["run.json", "recipe.yaml", "ledger.jsonl", "compare.json", "stages"]
)
def test_any_part_may_be_missing(tmp_path: Path, gone: str) -> None:
    folder = make_run(tmp_path / "run", steps=3, prompts=4)
    place = folder / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    Page(build(folder).read_text(encoding="utf-8"))


def test_files_cut_at_any_place_give_a_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=3, prompts=4)
    rng = random.Random(1)
    for path in sorted(folder.rglob("*.json*")):
        whole = path.read_bytes()
        path.write_bytes(
            whole[: rng.randrange(len(whole))]
            + rng.choice([b"", b"\xff\xfe", b"\x00" * 50, b"[" * 9999])
        )
    page = build(folder).read_text(encoding="utf-8")
    Page(page)
    assert "ledger.jsonl: line" in words(page)


def test_odd_values_give_a_page(tmp_path: Path) -> None:
    row = {
        "step": 1,
        "reward": float("nan"),
        "loss": "high",
        "length": 10**400,
        "entropy": None,
        "kept_groups": 1,
        "groups": 0,
        "reward/": True,
    }
    write_lines(
        tmp_path / "stages/01-sft/metrics.jsonl",
        [row, {"step": None}, {"step": 2, "grad_norm": float("inf"), "reward/x": [1]}],
    )
    write_lines(
        tmp_path / "stages/01-sft/evals/test-greedy.jsonl",
        [{"reward": None, "text": 7}, {"prompt_id": 3, "reward": 1}],
    )
    stages = [
        {"name": "sft", "parent": "sft", "domains": 3, "teachers": [1]},
        {"name": None},
        5,
        {"name": "rl", "parent": "nowhere", "teachers": {"x": "y"}},
    ]
    (tmp_path / "run.json").write_text(
        json.dumps(
            {"name": ["x"], "stages": stages, "versions": 3, "machine": {"a": {"b": "\ud800"}}}
        )
    )
    (tmp_path / "compare.json").write_text(
        json.dumps(
            {"arms": {"mopd": [3, {"step": 1}], "grpo": {"a": 1}, "x": [{"step": 0, "value": 1}]}}
        )
    )
    Page(build(tmp_path).read_text(encoding="utf-8"))


def test_a_folder_of_several_seeds_holds_a_comparison_alone(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(compare(random.Random(0))))
    assert "A comparison of several runs" in words(build(tmp_path).read_text(encoding="utf-8"))


def test_run_in_progress_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=3, prompts=4)
    (folder / "stages/09-swe-agentic/DONE").unlink()
    assert (
        words(build(folder).read_text(encoding="utf-8")).count("in progress") == 3
    )  # two tables and the stage itself


def test_a_folder_without_a_run_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        build(tmp_path)
    with pytest.raises(UserError, match="no run here"):
        build(tmp_path / "absent")


def make_hostile(folder: Path) -> Path:
    """A run whose every string was written by an adversary."""
    folder.mkdir()
    evil = {
        key: HOSTILE for key in ("prompt_id", "domain", "status", "error", "note", "text", "gold")
    } | {"reward": 1.0, "sibling": 0}
    stages = [
        {"name": "a", "parent": None, "folder": "a"},
        {
            "name": HOSTILE,
            "kind": HOSTILE,
            "parent": "a",
            "folder": "b",
            "domains": {HOSTILE: 1},
            "teachers": {HOSTILE: "a"},
        },
    ]
    (folder / "run.json").write_text(
        json.dumps(
            {
                "name": HOSTILE,
                "seed": HOSTILE,
                "versions": {HOSTILE: HOSTILE},
                "machine": {},
                "stages": stages,
            }
        )
    )
    (folder / "recipe.yaml").write_text(HOSTILE.replace("\ud800", ""))
    rows = [
        score(stage, 1, HOSTILE, split, "accuracy", [0.0, reward] * 100)
        for stage, reward in (("a", 0), (HOSTILE, 1))
        for split in ("validation", "test")
    ]
    Ledger(folder / "ledger.jsonl").upsert(rows)
    write_lines(folder / "a/evals/test-greedy.jsonl", [evil | {"reward": 0.0}])
    write_lines(folder / "b/evals/test-greedy.jsonl", [evil])
    write_lines(folder / "b/rollouts/step-0001.jsonl", [evil])
    write_lines(
        folder / "b/metrics.jsonl", [{"step": 1, "reward/" + HOSTILE: 1, "reward/b": 1, HOSTILE: 2}]
    )
    points = [{"seed": HOSTILE, "step": 1, "value": 1, "per_domain": {HOSTILE: 1}}]
    (folder / "compare.json").write_text(json.dumps({"arms": {HOSTILE: points}}))
    return folder


def test_hostile_text_everywhere_stays_text(tmp_path: Path) -> None:
    text = build(make_hostile(tmp_path / "run")).read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "img"} & set(page.tags) and page.tags.count("style") == 1
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "<U+202E>" in words(text) and "{{ 7*7 }}" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2028\ud800]", text)


def test_a_run_of_long_hostile_transcripts_stays_small(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=500, prompts=4)
    for path in [*folder.rglob("rollouts/*.jsonl"), *folder.rglob("evals/*.jsonl")]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_lines(path, [row | {"text": '\u202e<&"é' * 20_000} for row in rows[:6]])
    path = build(folder)
    assert path.stat().st_size < 2_000_000 and "characters left out" in path.read_text(
        encoding="utf-8"
    )


# ---------------------------------------------------------------- the parts


def test_cut_keeps_both_ends_and_counts_the_rest() -> None:
    text = "A" * 5000 + "Z" * 5000
    short_text = cut(text, 300)
    assert (
        short_text.startswith("A" * 200 + "\n")
        and short_text.endswith("\n" + "Z" * 100)
        and "9,700 characters" in short_text
    )
    assert cut("short", 300) == "short" and cut("", 300) == ""
    for raw in ("&" * 5000, "\x00" * 70, "é\r\n" * 400, "\U0001f600" * 100):
        assert len(escape(cut(raw, 300)).encode()) < 400


def test_clean_keeps_layout_and_names_what_hides() -> None:
    assert clean("a\tb\r\nc é 中 😀") == "a\tb\nc é 中 😀"
    assert clean("a\u202eb\ud800\x1b") == "a<U+202E>b<U+D800><U+001B>"


def test_newly_right_joins_on_the_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt_id": str(i), "domain": "d", "reward": 0.0, "text": f"old {i}"} for i in range(4)
    ]
    write_lines(tmp_path / "stages/00-a/evals/test-greedy.jsonl", rows)
    new = [
        row | {"text": f"new {row['prompt_id']}", "reward": float(row["prompt_id"] == "2")}
        for row in reversed(rows)
    ]
    write_lines(
        tmp_path / "stages/01-b/evals/test-greedy.jsonl",
        [*new, {"prompt_id": "9", "domain": "d", "reward": 1.0, "text": "unmatched"}],
    )
    (tmp_path / "run.json").write_text(
        json.dumps({"stages": [{"name": "a", "parent": None}, {"name": "b", "parent": "a"}]})
    )
    seen = words(build(tmp_path).read_text(encoding="utf-8"))
    section = seen[seen.index("Newly right") :]
    assert "1 of 4 prompts of test-greedy, against a: d 1" in section and "0.00 → 1.00" in section
    assert "old 2" in section and "new 2" in section and "unmatched" not in section
    assert "Newly wrong 0 of 4 prompts" in section


def test_plot_spans_its_box_and_keeps_spikes() -> None:
    picture = plot("t", [Line([(0.0, 1.0), (10.0, 3.0)])])
    assert picture is not None and picture.paths == (("line", "M0.0 100.0L300.0 0.0"),)
    dot = plot("t", [Line([(5.0, 2.0)])])
    assert dot is not None and dot.paths[0][1].endswith("h0")
    assert plot("t", [Line([])]) is None
    points = [(float(i), 0.0) for i in range(5000)]
    points[1234] = (1234.0, 7.0)
    thin = thin_out(points)
    assert len(thin) <= 170 and (1234.0, 7.0) in thin and list(thin) == sorted(thin)


def test_ticks_are_short() -> None:
    assert [format_tick(value) for value in (0.0, -1.0, 0.12345, 1234567.0, 3e-6, 12345.6)] == [
        "0",
        "−1",
        "0.123",
        "1.2e+06",
        "3.0e−06",
        "12,346",
    ]


def test_table_marks_losses_gains_teachers_and_best() -> None:
    def row(stage: str, split: str, right: int) -> Score:
        return score(stage, 1, "math", split, "accuracy", [1.0] * right + [0.0] * (200 - right))  # type: ignore[arg-type]

    levels = {"a": 100, "b": 160, "c": 90, "d": 96}
    rows = [
        row(stage, split, right)
        for stage, right in levels.items()
        for split in ("validation", "test")
    ]
    shown = table(rows, {"a": None, "b": "a", "c": "b", "d": "c"})
    assert shown.text() == [
        ["stage", "math"],
        ["a", "0.50"],
        ["b", "0.80 ☆ ▲0.30"],
        ["c", "0.45 ▼0.35"],
        ["d", "0.48"],
    ]
    assert table(rows, {"a": None, "b": "a"}, teachers={"math": ["b"]}).text()[2] == [
        "b",
        "0.80 ★ ▲0.30",
    ]
    lines, total = recovery_table(rows, "c", "d", {"math": "b", "unmeasured": "b"})
    assert (
        [line.domain for line in lines] == ["math"]
        and total is not None
        and math.isclose(total.value, 6 / 70)
    )
    assert format_score(-0.001) == "0.00" and format_score(-0.25) == "−0.25"
