"""A run folder as `linn run` leaves it, made of random numbers: for tests of the report."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.ledger import Ledger, best, score, write_rewards
from linn.types import Score

Row = dict[str, Any]
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


@dataclass(frozen=True)
class Stage:
    """One stage of the made-up run."""

    name: str
    kind: str
    parent: str | None
    domains: tuple[str, ...]
    """The domains that it trains."""


STAGES = (
    Stage("base", "base", None, ()),
    Stage("sft", "sft", "base", DOMAINS),
    Stage("if-rl", "rl", "sft", ("instruct",)),
    Stage("multi-domain", "rl", "if-rl", ("mcqa", "workplace", "structured")),
    Stage("rlhf-teacher", "rl", "sft", ("preference",)),
    Stage("mopd", "distill", "multi-domain", DOMAINS),
    Stage("rlhf", "rl", "mopd", ("preference",)),
    Stage("long-context", "rl", "rlhf", ("longctx",)),
    Stage("code", "rl", "long-context", ("code",)),
    Stage("swe-agentic", "rl", "code", ("swe_agentic",)),
)


def write_lines(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_run(folder: Path, steps: int = 40, prompts: int = 60, seed: int = 0) -> Path:
    """Each stage lifts its domains and costs some others; MOPD gives back."""
    rng = random.Random(seed)
    levels: dict[str, dict[str, float]] = {}
    ledger: list[Score] = []
    entries: list[Row] = []
    for index, stage in enumerate(STAGES):
        levels[stage.name] = levels_after(rng, stage, levels)
        greedy: dict[str, list[float]] = {}
        behind: dict[tuple[str, str, str], dict[str, float]] = {}
        for split, metric, domain in cells():
            level = levels[stage.name][domain]
            draw = random.Random(f"{split}{metric}{domain}{seed}")
            rewards = [draw_reward(draw, domain, level) for _ in range(prompts * 2)]
            ledger.append(score(stage.name, steps, domain, split, metric, rewards))
            ids = (f"{domain}-{number}" for number in range(len(rewards)))
            behind[domain, split, metric] = dict(zip(ids, rewards, strict=True))
            if (split, metric) == ("test", "greedy"):
                greedy[domain] = rewards[:prompts]

        entry: Row = {
            "index": index,
            "name": stage.name,
            "kind": stage.kind,
            "parent": stage.parent,
            "folder": f"stages/{index:02d}-{stage.name}",
            "domains": dict.fromkeys(stage.domains, 1.0),
        }
        if stage.kind == "distill":
            tops = {domain: best(ledger, domain, list(levels)[:-1]) for domain in DOMAINS}
            entry["teachers"] = {domain: top.stage for domain, top in tops.items() if top}
        entries.append(entry)
        write_stage(folder / entry["folder"], rng, stage, steps, greedy)
        write_rewards(folder / entry["folder"], steps, behind)

    Ledger(folder / "ledger.jsonl").upsert(ledger)
    write_about(folder, seed, entries)
    (folder / "compare.json").write_text(json.dumps(make_comparison(rng)))
    return folder


def cells() -> Iterator[tuple[str, Any, str]]:
    """Split, metric and domain of every score of a checkpoint."""
    for split in ("validation", "test"):
        for metric in ("accuracy", "greedy"):
            for domain in DOMAINS:
                yield split, metric, domain


def levels_after(
    rng: random.Random, stage: Stage, levels: dict[str, dict[str, float]]
) -> dict[str, float]:
    """The mean reward per domain after a stage, given those after the stages before."""
    if stage.kind == "distill":  # almost the best teacher's level everywhere
        return {domain: max(each[domain] for each in levels.values()) - 0.02 for domain in DOMAINS}
    if stage.parent is None:
        return {domain: 0.05 + 0.1 * rng.random() for domain in DOMAINS}

    level = dict(levels[stage.parent])
    for domain in DOMAINS:
        if domain in stage.domains:
            level[domain] = min(0.95, level[domain] + 0.35)
        elif stage.kind == "rl":
            level[domain] = max(0.02, level[domain] - 0.16 * rng.random())
    return level


def draw_reward(rng: random.Random, domain: str, level: float) -> float:
    """1 or 0; `preference` has rewards in between."""
    if domain == "preference":
        return min(1, max(0, rng.gauss(level, 0.2)))
    return float(rng.random() < level)


def write_stage(
    place: Path,
    rng: random.Random,
    stage: Stage,
    steps: int,
    greedy: dict[str, list[float]],
) -> None:
    """Metrics, rollouts of the last step, and the greedy replies to the test prompts."""
    place.mkdir(parents=True)
    if stage.kind != "base":
        metrics = [metrics_row(rng, stage, step, steps) for step in range(1, steps + 1)]
        write_lines(place / "metrics.jsonl", metrics)
        (place / "DONE").touch()

    if stage.kind in ("rl", "distill"):
        rollouts = [
            rollout_row(rng, domain, prompt, sibling)
            for domain in stage.domains
            for prompt in range(8)
            for sibling in range(4)
        ]
        write_lines(place / f"rollouts/step-{steps:04d}.jsonl", rollouts)

    evals = [
        eval_row(rng, domain, number, reward)
        for domain, rewards in greedy.items()
        for number, reward in enumerate(rewards)
    ]
    write_lines(place / "evals/test-greedy.jsonl", evals)


def write_about(folder: Path, seed: int, stages: list[Row]) -> None:
    """`run.json` and the recipe."""
    about = {
        "name": "tiny",
        "seed": seed,
        "versions": {"linn": "0.1.0", "torch": "2.13"},
        "machine": {"cpu": "2 cores", "memory": "8 GiB"},
        "stages": stages,
    }
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "recipe.yaml").write_text("name: tiny\nmodel: tiny\nseed: 0\n")


def metrics_row(rng: random.Random, stage: Stage, step: int, steps: int) -> Row:
    progress = step / steps
    row: Row = {
        "step": step,
        "loss": 2.0 - progress + 0.1 * rng.random(),
        "grad_norm": 0.5 + rng.random(),
        "lr": 3e-5 * (1 - progress),
        "mismatch_max": 4e-6 * rng.random(),
        "mismatch_mean": 1e-7,
        "wall_s": 2.0,
        "cpu_s": 3.9,
        "tokens": 4096,
    }
    if stage.kind != "sft":
        row |= {
            "reward": 0.3 + 0.4 * progress + 0.1 * rng.random(),
            "length": 120 + 40 * rng.random(),
            "entropy": 1.2 - 0.6 * progress,
            "kept_groups": rng.randint(4, 8),
            "groups": 8,
        }
        for domain in stage.domains:
            row[f"reward/{domain}"] = min(1.0, 0.2 + 0.5 * progress + 0.2 * rng.random())
    if stage.kind == "distill":
        for domain in stage.domains:
            row[f"teacher_gap/{domain}"] = (1 - progress) * rng.random()
    return row


def transcript(rng: random.Random, domain: str) -> str:
    words = "the a value of x is then we add check so answer 4 7 12".split()
    thought = " ".join(rng.choices(words, k=rng.randint(20, 400)))
    answer = rng.randint(0, 99)
    return (
        f"<|user|>\nA {domain} task.\n<|assistant|>\n<think>{thought}</think>\n\\boxed{{{answer}}}"
    )


def rollout_row(rng: random.Random, domain: str, prompt: int, sibling: int) -> Row:
    failed = rng.random() < 0.1
    return {
        "prompt_id": f"{domain}-{prompt}",
        "domain": domain,
        "sibling": sibling,
        "status": "failed" if failed else "ok",
        "error": "tool call: not JSON" if failed else "",
        "reward": float(rng.random() < 0.5 and not failed),
        "note": "",
        "text": transcript(rng, domain),
        "advantage": 0.0,
        "length": 100,
    }


def eval_row(rng: random.Random, domain: str, number: int, reward: float) -> Row:
    return {
        "prompt_id": f"{domain}-{number}",
        "domain": domain,
        "reward": reward,
        "note": "as asked" if reward else "wrong",
        "text": transcript(rng, domain),
        "gold": "42",
    }


def make_comparison(rng: random.Random) -> Row:
    """`compare.json`: two arms of three seeds."""
    arms: dict[str, list[Row]] = {}
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
                    "per_domain": dict.fromkeys(DOMAINS, value),
                }
                arms[arm].append(point)
    return {"x": "steps", "arms": arms, "teacher_mean": 0.69}


# ---------------------------------------------------------------- a run of an adversary

HOSTILE = (
    "</pre></details><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7*7 }} {% raw %} "
    "\u202egnp.exe \x00\x1b[31m \ud800 &lt; \u2028 "
    "'\"><style>*{display:none}</style> " + "x" * 900
)


def make_hostile(folder: Path) -> Path:
    """A run whose every string was written by an adversary."""
    folder.mkdir()
    texts = ("prompt_id", "domain", "status", "error", "note", "text", "gold")
    evil = dict.fromkeys(texts, HOSTILE) | {"reward": 1.0, "sibling": 0}
    hostile_stage = {
        "name": HOSTILE,
        "kind": HOSTILE,
        "parent": "a",
        "folder": "b",
        "domains": {HOSTILE: 1},
        "teachers": {HOSTILE: "a"},
    }
    about = {
        "name": HOSTILE,
        "seed": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "machine": {},
        "stages": [{"name": "a", "parent": None, "folder": "a"}, hostile_stage],
    }
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "recipe.yaml").write_text(HOSTILE.replace("\ud800", ""))

    ledger = [
        score(stage, 1, HOSTILE, split, "accuracy", [0.0, reward] * 100)
        for stage, reward in (("a", 0), (HOSTILE, 1))
        for split in ("validation", "test")
    ]
    Ledger(folder / "ledger.jsonl").upsert(ledger)

    write_lines(folder / "a/evals/test-greedy.jsonl", [evil | {"reward": 0.0}])
    write_lines(folder / "b/evals/test-greedy.jsonl", [evil])
    write_lines(folder / "b/rollouts/step-0001.jsonl", [evil])
    metrics = {"step": 1, "reward/" + HOSTILE: 1, "reward/b": 1, HOSTILE: 2}
    write_lines(folder / "b/metrics.jsonl", [metrics])
    points = [{"seed": HOSTILE, "step": 1, "value": 1, "per_domain": {HOSTILE: 1}}]
    (folder / "compare.json").write_text(json.dumps({"arms": {HOSTILE: points}}))
    return folder
