"""Damaged inputs to the real command, one after the other: each is fine or one line, exit code 2.

A case runs in a fork of a process that has linn imported, so that a case costs milliseconds and not
a start of Python; what runs there is `linn.cli.main.main` itself. Only the worker of `linn check
MODEL` is not a process of its own: its `check` is called where the engine would send for it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.chaos.cases import TARGETS, Case

LONGEST_S = {"recipe": 20, "rows": 20, "replies": 60, "model": 60}
"""Processor seconds that a case may take."""
PATIENCE_S = 400.0
"""Seconds on the clock after which a case that computes nothing is taken to hang."""
MEMORY_MIB = 400
"""What a case may take beyond the process that it is a fork of."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    code: int
    """Exit code, or minus the signal."""
    said: str
    """Standard error."""
    cpu_s: float
    """Processor seconds."""
    mib: float
    """Memory beyond its parent's."""
    printed: str = ""
    """Standard output."""

    def finding(self, target: str) -> str:
        """What is wrong; empty: nothing."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        own = [line for line in lines if line.startswith("linn: ")]
        if "Traceback (most recent call last)" in self.said:
            return f"a traceback: {lines[-1]}"
        if self.mib > MEMORY_MIB:
            return f"{self.mib:.0f} MiB"
        if self.code in (-signal.SIGKILL, -signal.SIGXCPU):
            return f"a hang, or too long: {self.cpu_s:.0f} CPU-s"
        if self.code < 0:
            return f"ended by signal {-self.code}"
        if self.code == 0:
            return ""
        # `linn check MODEL` tells what it found as its result.
        if target == "model" and self.code == 1 and not own and self.printed.strip():
            return ""
        if len(own) != 1 or lines[-1] != own[-1]:
            return f"exit code {self.code} and {len(own)} lines: {lines[-2:]}"
        if "linn --debug" in own[0]:
            return f"nobody foresaw it: {own[0]}"
        # Damaged input is the user's; only rows may break a run that has begun.
        return "" if self.code == 2 else f"exit code {self.code}, not 2: {own[0]}"


def run(case: Case) -> Outcome:
    """One case in a process of its own, with bounds on time and memory."""
    folder = Path(tempfile.mkdtemp(prefix="case-"))
    case.write(folder)
    log, out = folder.with_suffix(".log"), folder.with_suffix(".out")
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pid = os.fork()
    if pid == 0:
        _child(case, folder, log, out)
    try:
        status, usage = _wait(pid)
    finally:
        said = log.read_text(errors="replace") if log.exists() else ""
        printed = out.read_text(errors="replace") if out.exists() else ""
        out.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
    code = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Outcome(code, said, cpu_s, (usage.ru_maxrss - began) / 1024, printed)


def _wait(pid: int) -> tuple[int, resource.struct_rusage]:
    deadline = time.monotonic() + PATIENCE_S
    pause = 0.001
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)


def _child(case: Case, folder: Path, log: Path, out: Path) -> None:
    """In the fork: bounds, then the command. Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        for number, path in ((2, log), (1, out)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(folder)
        seconds = LONGEST_S[case.target]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # A hard end well above the bound, so that no case takes the machine along.
        resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 30),) * 2)
        code = _graded(case) if case.target == "replies" else _commanded(case)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _commanded(case: Case) -> int:
    from linn.cli import main

    if case.target == "model":
        _check_here()
    sys.argv = ["linn", *case.command]
    try:
        main.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _check_here() -> None:
    """Let the engine of `linn check` call its worker instead of starting one."""
    from linn.engine.local.processes import Workers

    def call(self: Workers, name: str, *arguments: Any) -> list[Any]:
        from linn.engine.local.answering import answer
        from linn.engine.local.processes import WorkerOptions
        from linn.engine.local.worker import Worker

        answered, reply = answer(
            Worker(WorkerOptions(width=1024)), "engine process 0", name, arguments
        )
        if not answered:
            raise reply
        return [reply]

    Workers.call = call  # type: ignore[method-assign]


def _graded(case: Case) -> int:
    """Every reply must have a finite verdict."""
    import math

    from linn.domains.load import load
    from linn.types import Reply

    name, number = case.command
    domain = load(name)
    prompt = domain.make(random.Random(int(number)))
    for text, thought in json.loads(Path("replies.json").read_text()):
        verdict = domain.verify(prompt, Reply(text, thought))
        assert math.isfinite(verdict.reward), (text, verdict)
    domain.close()
    return 0


# ---------------------------------------------------------------- many cases


def fuzz(more: Callable[[], bool], seed: str, targets: list[str], found: Path) -> Counter[str]:
    """Case after case; findings are saved in a folder. Returns the counts of what came out."""
    _import_all(targets)
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    number = 0
    while more():
        target = targets[number % len(targets)]
        drawn = f"{seed}/{target}/{number}"
        case = TARGETS[target](random.Random(drawn), drawn)
        outcome = run(case)
        finding = outcome.finding(target)
        how = "a finding" if finding else f"exit code {outcome.code}"
        counts[f"{target}: {how}"] += 1
        if finding:
            kinds[f"{target} {finding[:60]}"] += 1
            # The first few of a kind are enough for a reader.
            if kinds[f"{target} {finding[:60]}"] <= 3:
                path = _save(case, outcome, finding, found)
                print(f"FINDING {target} {' '.join(case.command)}: {finding} | {path}", flush=True)
        number += 1
        if number % 200 == 0:
            print(f"{time.strftime('%H:%M:%S')} {number} cases: {dict(counts)}", flush=True)
    return counts


def again(path: Path) -> int:
    """Run a saved finding once more; 1 where it is one still."""
    saved = json.loads(path.read_text())
    case = Case.of_json(saved)
    _import_all([case.target])
    outcome = run(case)
    finding = outcome.finding(case.target)
    print(f"{' '.join(case.command)}: exit code {outcome.code}, {outcome.cpu_s:.1f} CPU-s")
    print(outcome.said)
    print(f"FINDING: {finding}" if finding else "no finding")
    return 1 if finding else 0


def _import_all(targets: list[str]) -> None:
    """What every case would import, once; torch only where models are tried."""
    import linn.chat.codec
    import linn.cli.main
    import linn.domains.load
    import linn.offline.describe
    import linn.offline.grade
    import linn.pricing.plan
    import linn.pricing.table
    import linn.recipe.load

    if "model" in targets:
        import torch

        import linn.engine.local.worker
        import linn.pricing.model_check  # noqa: F401
        from bench.chaos.cases import _models

        torch.set_num_threads(1)
        _models()


def _save(case: Case, outcome: Outcome, finding: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.seed.replace('/', '-')}.json"
    about = {"finding": finding, "code": outcome.code, "said": outcome.said[-4000:]}
    path.write_text(json.dumps({**about, **case.to_json()}))
    return path
