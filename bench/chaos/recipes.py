"""The small runs that are disturbed: a few CPU-seconds each, with every kind of stage.

Start-up (the command and one worker) is about a third of it, so that most of what a kill costs is
work that the run had done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_SFT = {"name": "sft", "kind": "sft", "steps": 2, "batch": 8, "lr": 1e-3, "save_every": 1}
_RL = {
    "kind": "rl",
    "steps": 2,
    "prompts": 4,
    "rollouts": 4,
    "max_tokens": 24,
    "lr": 5e-4,
    "save_every": 1,
}
_MOPD = {
    "name": "mopd",
    "kind": "distill",
    "steps": 2,
    "prompts": 4,
    "rollouts": 2,
    "max_tokens": 24,
    "lr": 3e-4,
    "warmup": 0,
    "save_every": 1,
}


@dataclass(frozen=True)
class Small:
    """One of the recipes."""

    name: str
    """What the lines of a disturbance call it."""
    tree: Mapping[str, Any]
    """The recipe, but for the address of its judge."""
    sandbox: bool = False
    """Whether it runs programs."""
    judged: bool = False
    """Whether a judge behind an endpoint grades."""

    def write(self, folder: Path, endpoint: str) -> Path:
        """Write the recipe, and the rows that it reads, into a folder; its path."""
        tree = json.loads(json.dumps(self.tree))
        if self.judged:
            judge = {"model": f"{endpoint}#judge", "timeout_s": 3, "max_tokens": 64}
            tree["domains"]["preference"]["judge"] = judge
        _write_rows(folder / "chats.jsonl")
        path = folder / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return path


def _tree(name: str, domains: Mapping[str, Any], *stages: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "model": "tiny",
        "seed": 3,
        "domains": dict(domains),
        "evaluate": {"test": 6, "validation": 4, "max_tokens": 24},
        "scale": {"processes": 1, "width": 256, "capacity": 32},
        "stages": [dict(stage) for stage in stages],
    }


def _write_rows(path: Path) -> None:
    """Conversations for an SFT stage that reads a file."""
    lines = []
    for number in range(40):
        turns = [
            {"role": "user", "content": f"what is {number} plus {number + 1}?"},
            {"role": "assistant", "content": f"it is {2 * number + 1}."},
        ]
        lines.append(json.dumps({"messages": turns}) + "\n")
    path.write_text("".join(lines))


_TEACHERS = {"mcqa": "rl", "instruct": "kl"}
CASCADE = _tree(
    "cascade",
    {"mcqa": {}, "instruct": {}},
    {**_SFT, "faulty": 0.5},
    {**_RL, "name": "rl", "domains": {"mcqa": 1}, "keep_every": 1},
    {**_RL, "name": "kl", "from": "sft", "domains": {"instruct": 1}, "kl": 0.03},
    {**_MOPD, "from": "rl", "teachers": _TEACHERS, "curve_every": 1},
)
PAIR = {**CASCADE, "name": "pair", "scale": {**CASCADE["scale"], "processes": 2}}

SMALL = (
    Small("cascade", CASCADE),
    Small(
        "code",
        _tree(
            "code",
            {"code": {"servers": 1}, "mcqa": {}},
            {**_SFT, "data": "chats.jsonl"},
            {**_RL, "name": "rl", "from": "base", "domains": {"code": 1}, "dynamic_filter": True},
            {**_MOPD, "teachers": {"code": "rl", "mcqa": "base"}},
        ),
        sandbox=True,
    ),
    Small(
        "judged",
        _tree(
            "judged",
            {"preference": {}},
            _SFT,
            {**_RL, "name": "rlhf", "domains": {"preference": 1}, "kl": 0.03},
            {**_MOPD, "from": "sft", "teachers": "best", "allow_weak_teachers": True},
        ),
        judged=True,
    ),
    Small("pair", PAIR),
)
"""The recipes: SFT from generators and rows, RL with and without KL, MOPD, programs, a judge, two
processes."""
