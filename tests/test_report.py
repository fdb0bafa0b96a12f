"""The report of a made-up run of 10 stages and 11 domains: whole, half-written, hostile, empty."""

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

import pytest

from linn.data.tally import Tally
from linn.errors import UserError
from linn.ledger import Interval, Ledger, score
from linn.report import build, recovery, table
from linn.report.files import read_run
from linn.report.numbers import format_score, format_tick
from linn.report.page import bar
from linn.report.plots import Line, plot, thin_out
from linn.report.summary import greedy_moves
from linn.report.terminal import print_tables
from linn.report.transcripts import clean, cut
from linn.types import Score
from tests.support.run_folder import (
    DOMAINS,
    STAGES,
    make_comparison,
    make_hostile,
    make_run,
    write_lines,
)

pytestmark = pytest.mark.slow


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
    assert not {"src", "srcset", "action"} & names
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in text and "@import" not in text

    anchors = {f"#{value}" for name, value in page.attributes if name == "id"}
    links = {value for name, value in page.attributes if name == "href"}
    assert links and links <= anchors
    assert "Content-Security-Policy" in text


def test_page_shows_every_stage_domain_and_curve(run_folder: Path) -> None:
    seen = words(build(run_folder).read_text(encoding="utf-8"))
    for stage in STAGES:
        assert stage.name in seen
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
    sentence = r"mopd closed \d+ % of the gap to its teachers, pooled over 11 taught domains"
    assert re.search(sentence, seen)
    assert "Every change is taken prompt by prompt." in seen
    assert "at most one in twenty is false" in seen


def test_same_folder_same_bytes(run_folder: Path) -> None:
    assert build(run_folder).read_bytes() == build(run_folder).read_bytes()


def test_the_numbers_on_the_page_are_the_ledgers(run_folder: Path) -> None:
    rows = Ledger(run_folder / "ledger.jsonl").read()
    seen = words(build(run_folder).read_text(encoding="utf-8"))
    for row in rows:
        if row.split == "test":
            assert f"{format_score(row.low)}–{format_score(row.high)}" in seen


def chromium(page: Path, folder: Path) -> str:
    """The page's DOM after its scripts ran, as text."""
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-gpu",
        "--disable-quic",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={folder / 'chrome'}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_nothing_overflows_or_vanishes_at_400_and_1600_px(run_folder: Path, tmp_path: Path) -> None:
    """A page of four frames reports how wide each document is, and how many parts take no place."""
    frames = ""
    for folder in (run_folder, make_hostile(tmp_path / "hostile")):
        text = build(folder).read_text(encoding="utf-8")
        text = text.replace("<details>", "<details open>")
        for width in (400, 1600):
            frames += f'<iframe srcdoc="{escape(text)}" style="width:{width}px;border:0"></iframe>'
    script = """<script>onload = () => {
        const docs = [...document.querySelectorAll('iframe')].map(frame => frame.contentDocument);
        const widths = docs.map(doc => doc.documentElement.scrollWidth);
        const hidden = doc => [...doc.querySelectorAll('path, pre, td')].filter(
            part => !part.getClientRects().length);
        const unseen = docs.map(doc => hidden(doc).length);
        document.body.innerHTML = widths + ';' + unseen
    }</script>"""
    page = tmp_path / "frames.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{frames}{script}", encoding="utf-8")
    measured = re.search(r"<body>([\d,;]+)", chromium(page, tmp_path))
    assert measured is not None and measured.group(1) == "400,1600,400,1600;0,0,0,0"


# ---------------------------------------------------------------- partial, broken, hostile


@pytest.mark.slow
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
        rest = rng.choice([b"", b"\xff\xfe", b"\x00" * 50, b"[" * 9999])
        path.write_bytes(whole[: rng.randrange(len(whole))] + rest)
    page = build(folder).read_text(encoding="utf-8")
    Page(page)
    assert "ledger.jsonl: line" in words(page)


def test_odd_values_give_a_page(tmp_path: Path) -> None:
    stage = tmp_path / "stages/01-sft"
    metrics = [
        {
            "step": 1,
            "reward": float("nan"),
            "loss": "high",
            "length": 10**400,
            "entropy": None,
            "kept_groups": 1,
            "groups": 0,
            "reward/": True,
        },
        {"step": None},
        {"step": 2, "grad_norm": float("inf"), "reward/x": [1]},
    ]
    write_lines(stage / "metrics.jsonl", metrics)
    evals = [{"reward": None, "text": 7}, {"prompt_id": 3, "reward": 1}]
    write_lines(stage / "evals/test-greedy.jsonl", evals)

    stages = [
        {"name": "sft", "parent": "sft", "domains": 3, "teachers": [1]},
        {"name": None},
        5,
        {"name": "rl", "parent": "nowhere", "teachers": {"x": "y"}},
    ]
    about = {"name": ["x"], "stages": stages, "versions": 3, "machine": {"a": {"b": "\ud800"}}}
    (tmp_path / "run.json").write_text(json.dumps(about))
    arms = {"mopd": [3, {"step": 1}], "grpo": {"a": 1}, "x": [{"step": 0, "value": 1}]}
    (tmp_path / "compare.json").write_text(json.dumps({"arms": arms}))
    Page(build(tmp_path).read_text(encoding="utf-8"))


def test_a_folder_of_several_seeds_holds_a_comparison_alone(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(make_comparison(random.Random(0))))
    assert "A comparison of several runs" in words(build(tmp_path).read_text(encoding="utf-8"))


def test_run_in_progress_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=3, prompts=4)
    (folder / "stages/09-swe-agentic/DONE").unlink()
    seen = words(build(folder).read_text(encoding="utf-8"))
    assert seen.count("in progress") == 3  # two tables and the stage itself


def test_a_folder_without_a_run_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        build(tmp_path)
    with pytest.raises(UserError, match="no run here"):
        build(tmp_path / "absent")


def test_hostile_text_everywhere_stays_text(tmp_path: Path) -> None:
    text = build(make_hostile(tmp_path / "run")).read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "img"} & set(page.tags) and page.tags.count("style") == 1
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "<U+202E>" in words(text) and "{{ 7*7 }}" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2028\ud800]", text)


@pytest.mark.slow
def test_a_run_of_long_hostile_transcripts_stays_small(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=500, prompts=4)
    for path in [*folder.rglob("rollouts/*.jsonl"), *folder.rglob("evals/*.jsonl")]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_lines(path, [row | {"text": '\u202e<&"é' * 20_000} for row in rows[:6]])
    path = build(folder)
    assert path.stat().st_size < 2_000_000
    assert "characters left out" in path.read_text(encoding="utf-8")


# ---------------------------------------------------------------- the parts


def test_cut_keeps_both_ends_and_counts_the_rest() -> None:
    text = "A" * 5000 + "Z" * 5000
    short_text = cut(text, 300)
    assert short_text.startswith("A" * 200 + "\n") and short_text.endswith("\n" + "Z" * 100)
    assert "9,700 characters" in short_text
    assert cut("short", 300) == "short" and cut("", 300) == ""
    for raw in ("&" * 5000, "\x00" * 70, "é\r\n" * 400, "\U0001f600" * 100):
        assert len(escape(cut(raw, 300)).encode()) < 400


def test_clean_keeps_layout_and_names_what_hides() -> None:
    assert clean("a\tb\r\nc é 中 😀") == "a\tb\nc é 中 😀"
    assert clean("a\u202eb\ud800\x1b") == "a<U+202E>b<U+D800><U+001B>"


def test_newly_right_joins_on_the_prompt(tmp_path: Path) -> None:
    def row(number: int, reward: float, text: str) -> dict[str, object]:
        return {"prompt_id": str(number), "domain": "d", "reward": reward, "text": text}

    old = [row(number, 0.0, f"old {number}") for number in range(4)]
    new = [row(number, float(number == 2), f"new {number}") for number in (3, 2, 1, 0)]
    write_lines(tmp_path / "stages/00-a/evals/test-greedy.jsonl", old)
    write_lines(tmp_path / "stages/01-b/evals/test-greedy.jsonl", [*new, row(9, 1.0, "unmatched")])
    stages = [{"name": "a", "parent": None}, {"name": "b", "parent": "a"}]
    (tmp_path / "run.json").write_text(json.dumps({"stages": stages}))

    seen = words(build(tmp_path).read_text(encoding="utf-8"))
    section = seen[seen.index("Newly right") :]
    assert "1 of 4 prompts of test-greedy, against a: d 1" in section and "0.00 → 1.00" in section
    assert "old 2" in section and "new 2" in section and "unmatched" not in section
    assert "Newly wrong 0 of 4 prompts" in section


def test_a_base_that_was_not_measured_has_no_section(tmp_path: Path) -> None:
    rows = [{"prompt_id": "1", "domain": "d", "reward": 1.0, "text": "x"}]
    write_lines(tmp_path / "stages/01-a/evals/test-greedy.jsonl", rows)
    stages = [
        {"name": "base", "parent": None, "folder": "stages/00-base"},
        {"name": "a", "parent": "base", "folder": "stages/01-a"},
    ]
    (tmp_path / "run.json").write_text(json.dumps({"stages": stages}))
    page = build(tmp_path).read_text(encoding="utf-8")
    assert page.count('<article class="stage"') == 1
    assert "0 of 0" not in words(page) and "Newly" not in words(page)


def test_a_loss_leads_to_the_prompts_that_were_lost(run_folder: Path) -> None:
    """A red flag is a link to a prompt of its domain that turned from right to wrong."""
    run = read_run(run_folder)
    page = build(run_folder).read_text(encoding="utf-8")
    lost = {
        (stage, cell.score.domain)
        for stage, cells in table(run.scores, run.parents, "test", "greedy", run.taught).rows
        for cell in cells
        # Rewards of preference lie between 0 and 1: few prompts turn from right to wrong.
        if cell is not None and cell.lost and cell.score.domain != "preference"
    }
    label = r'href="#(text-[\d-]+)" aria-label="▼[\d.]+: what (\S+) lost in (\S+)"'
    labels = re.findall(label, page)
    assert lost and lost <= {(stage, domain) for _, stage, domain in labels}
    for link, _, domain in labels:
        shown = page[page.index(f'id="{link}"') :]
        heading = words(shown[shown.index(">") + 1 : shown.index("<pre")]).split()
        assert float(heading[0]) > float(heading[2]) and heading[3] == domain, heading


def test_the_largest_greedy_moves_are_told(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path))
    (sentence,) = greedy_moves(run, table(run.scores, run.parents, "test", "greedy", run.taught))
    moves = {}
    greedy = [row for row in run.scores if row.metric == "greedy"]
    scores = {(s.stage, s.domain): s.value for s in greedy if s.split == "test"}
    for (stage, domain), value in scores.items():
        if run.parents[stage] is not None:
            moves[value - scores[run.parents[stage], domain]] = (stage, domain)
    (worst, lost), (best, gained) = moves[min(moves)], moves[max(moves)]
    assert f"loss is {lost} in {worst}, from" in sentence
    assert f"gain is {gained} in {best}, from" in sentence


@pytest.mark.parametrize(
    ("share", "beyond"),
    [
        (Interval(0.9, 0.4, 1.5), ""),
        (Interval(0.9, 0.4, 1.6), "above"),
        (Interval(1.98, 1.7, 2.2), "above"),
        (Interval(0.0, -0.6, 0.5), "below"),
        (Interval(0.5, -3.0, 4.0), "below above"),
    ],
)
def test_a_recovery_outside_its_box_is_cut_and_marked(share: Interval, beyond: str) -> None:
    place = bar(share)
    assert place["beyond"] == beyond
    for part in ("bar", "whisker"):
        left, width = map(float, re.findall(r"[\d.]+", place[part]))
        assert left >= 0 and width >= 0 and left + width <= 100.1


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-1.0, "−1"),
        (0.12345, "0.123"),
        (1234567.0, "1.2e+06"),
        (3e-6, "3.0e−06"),
        (12345.6, "12,346"),
    ],
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert format_tick(value) == text


def test_scores_have_two_digits_and_no_negative_zero() -> None:
    assert format_score(-0.001) == "0.00" and format_score(-0.25) == "−0.25"


def math_row(stage: str, split: str, right: int) -> Score:
    """A score of `right` in 200."""
    rewards = [1.0] * right + [0.0] * (200 - right)
    return score(stage, 1, "math", split, "accuracy", rewards)  # type: ignore[arg-type]


def test_table_marks_losses_gains_teachers_and_best() -> None:
    rows = [
        math_row(stage, split, right)
        for stage, right in {"a": 100, "b": 160, "c": 90, "d": 96}.items()
        for split in ("validation", "test")
    ]
    cells = table(rows, {"a": None, "b": "a", "c": "b", "d": "c"}).text()
    assert cells == [
        ["stage", "math"],
        ["a", "0.50"],
        ["b", "0.80 ☆ ▲0.30"],
        ["c", "0.45 ▼0.35"],
        ["d", "0.48"],
    ]
    cells = table(rows, {"a": None, "b": "a"}, teachers={"math": ["b"]}).text()
    assert cells[2] == ["b", "0.80 ★ ▲0.30"]

    found = recovery(rows, "c", "d", {"math": "b", "unmeasured": "b"})
    assert found is not None
    assert [taught.domain for taught, _ in found.domains] == ["math"]
    share = found.pooled.share
    assert share is not None and math.isclose(share.value, 6 / 70)
    assert recovery(rows, "c", "d", {"unmeasured": "b"}) is None


def test_rows_that_a_stage_passed_over_are_on_the_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "tiny")
    rows = next((folder / "stages").glob("*-sft")) / "rows.json"
    tally = Tally()
    tally.good = 24
    for _ in range(101):
        tally.add_bad("over max_length 256", "rows.jsonl line 9: over max_length 256")
    before = build(folder).read_text()
    assert "over max_length" not in before
    rows.write_text(json.dumps({"data": tally.record(), "math": Tally().record()}))
    page = build(folder).read_text()
    assert "Rows of data: 24 good, 101 bad and skipped (101 over max_length 256)." in page
    assert "Rows of math" not in page
    for broken in ("[]", '{"data": 5}', "{"):
        rows.write_text(broken)
        assert build(folder).read_text() == before


def test_what_was_changed_stands_in_the_report_and_in_ls(tmp_path, capsys):
    folder = make_run(tmp_path / "run", steps=2, prompts=4)
    about = json.loads((folder / "run.json").read_text())
    about["changes"] = [
        {"stage": "code", "step": 12, "key": "code.lr", "old": 1e-3, "new": 5e-4, "promise": "x"},
        {
            "stage": "code",
            "step": 1,
            "key": "evaluate.test",
            "old": 3,
            "new": 6,
            "promise": "scores",
        },
        "not a change",
        {"key": "<b>", "step": "many", "note": "told"},
    ]
    (folder / "run.json").write_text(json.dumps(about))
    print_tables(folder)
    shown = capsys.readouterr().out
    page = build(folder).read_text()
    for line in (
        "code.lr: 0.001 → 0.0005 from code step 13 on; promise: x",
        "evaluate.test: 3 → 6; promise: scores",
        "<b>: none → none from  step 1 on; promise:  (told)",
    ):
        assert line in shown and escape(line) in page


def test_rows_curves_and_transcripts_lead_to_each_other(run_folder: Path) -> None:
    """Every stage's row leads to its chapter and back; scores to curves, curves to transcripts."""
    text = build(run_folder).read_text(encoding="utf-8")
    ids = re.findall(r' id="([\w-]+)"', text)
    assert len(ids) == len(set(ids)), "an id stands once"
    place = {name: text.index(f' id="{name}"') for name in ids}

    def leads(part: str, end: str) -> list[str]:
        piece = text[place[part] : text.index(end, place[part])]
        return re.findall(r'href="#([\w-]+)"', piece)

    for number, stage in enumerate(STAGES):
        (back,) = [one for one in leads(f"stage-{number}", "</h3>") if one.startswith("row-")]
        assert f"stage-{number}" in leads(back, "</th>")
        curves = [one for one in leads(back, "</tr>") if one.startswith("curve-")]
        # A score leads to the curve of the stage that trained its domain.
        assert len(curves) == (len(stage.domains) if stage.kind not in ("sft", "base") else 0)
        for curve, domain in zip(curves, [d for d in DOMAINS if d in stage.domains], strict=False):
            title = words(text[place[curve] : text.index("</figcaption>", place[curve])])
            assert domain in title or len(stage.domains) == 1
    texts = [one for one in ids if one.startswith("text-")]
    for part in texts:
        assert any(one.startswith(("curve-", "row-")) for one in leads(part, "<pre"))
    assert any(one.startswith("text-") for one in leads("curve-5-1-0", "</figcaption>"))
