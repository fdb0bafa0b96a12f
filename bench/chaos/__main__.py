"""Disturb small runs until they end, compare their bytes with undisturbed ones; or damage inputs.

    python -m bench.chaos --hours 2                    # kills, full disks, hung endpoints, …
    python -m bench.chaos --kills 50 --only kill,aimed --seed 7
    python -m bench.chaos --fuzz --hours 1             # rows, replies, recipes, model folders
    python -m bench.chaos --again FILE                 # a finding of --fuzz once more

One line per disturbance: when, what, where the run stood, what it said, how it went on. The end is
a table; exit 1 where there is a finding: a traceback, silence, a line that names another cause, a
process left behind, a run that does not go on, bytes that differ, a prompt that is lost.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

from bench.chaos import fuzz
from bench.chaos.attempt import Event
from bench.chaos.cases import TARGETS
from bench.chaos.kinds import KINDS
from bench.chaos.lane import Lane
from bench.chaos.recipes import SMALL


class Watched:
    """What a person sees: a line per disturbance, and the table at the end."""

    def __init__(self, hours: float | None, kills: int | None) -> None:
        self.deadline = None if hours is None else time.monotonic() + 3600 * hours
        self.kills = kills
        self.count = 0
        self.began = time.monotonic()
        self.stopped = threading.Event()
        self._lock = threading.Lock()

    def more(self) -> bool:
        """Whether time or kills are left."""
        if self.stopped.is_set() or (self.kills is not None and self.count >= self.kills):
            return False
        return self.deadline is None or time.monotonic() < self.deadline

    def say(self, recipe: str, event: Event) -> None:
        """One line of a disturbance."""
        with self._lock:
            self.count += 1
            when = time.strftime("%H:%M:%S", time.localtime(event.when))
            words = [f"{when} {self.count:5d} {recipe:<8} {event.kind.name:<16} {event.place}"]
            if event.cpu_s:
                words.append(f"{event.cpu_s:.1f} CPU-s")
            words.append(f"said: {event.said or '–'}")
            if event.went_on:
                words.append(f"then: {event.went_on}")
            words += [f"FINDING: {finding}" for finding in event.findings]
            print(" | ".join(words), flush=True)


def table_of(lanes: list[Lane]) -> str:
    """Kinds down: how often, how often the run came to its end, findings."""
    events = [event for lane in lanes for event in lane.events]
    counts = Counter(event.kind.name for event in events)
    found = Counter(event.kind.name for event in events if event.findings)
    lines = [f"{'kind':<18}{'count':>7}{'recovered':>11}{'findings':>10}  what is done"]
    does = {kind.name: kind.does for kind in KINDS}
    for name, count in counts.items():
        recovered = count - found[name]
        lines.append(f"{name:<18}{count:>7}{recovered:>11}{found[name]:>10}  {does.get(name, '')}")
    total = sum(counts.values())
    lines.append(f"{'all':<18}{total:>7}{total - sum(found.values()):>11}{sum(found.values()):>10}")
    runs = sum(lane.runs for lane in lanes)
    attempts = sum(lane.attempts for lane in lanes)
    seconds = sum(lane.cpu_s for lane in lanes)
    rate = 3600 * total / max(1.0, seconds)
    lines.append(
        f"{runs} runs, {attempts} starts, {seconds:,.0f} CPU-s of commands and workers: "
        f"{rate:.0f} disturbances per CPU-hour"
    )
    lines.append(f"lost prompts: {sum(lane.lost for lane in lanes)}")
    lines.append(f"differing files: {sum(lane.differing for lane in lanes)}")
    return "\n".join(lines)


def disturb(options: argparse.Namespace) -> int:
    """Run the lanes and print the table."""
    _give_signals_back()
    watched = Watched(options.hours, options.kills)
    scratch = Path(options.scratch or tempfile.mkdtemp(prefix="chaos-"))
    only = tuple(options.only.split(",")) if options.only else ()
    lanes = [
        Lane(number, scratch, options.seed, only, watched.say) for number in range(options.lanes)
    ]
    print(f"in {scratch}; a full disk is {lanes[0].disk.kind}; seed {options.seed}", flush=True)
    recipes = options.recipes.split(",")
    failures: list[str] = []

    def work(lane: Lane) -> None:
        try:
            lane.go(watched.more, recipes)
        except Exception as error:  # another lane goes on, and the end tells it
            failures.append(f"{lane.scratch.name} ended: {type(error).__name__}: {error}")
            raise

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        print("stopping: every lane's run comes to its end first", file=sys.stderr)
        watched.stopped.set()
        for thread in threads:
            thread.join()
    finally:
        for lane in lanes:
            lane.close()

    print(table_of(lanes))
    for failure in failures:
        print(failure)
    is_clean = not failures and not any(event.findings for lane in lanes for event in lane.events)
    if not is_clean:
        print(f"what runs with findings said is kept in {scratch}/lane-*/findings")
    return 0 if is_clean else 1


def _give_signals_back() -> None:
    """Let the runs hear signals that this process was started to ignore (nohup, a script's &).

    What is ignored stays so in what a process starts; what has a handler does not.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


def damage(options: argparse.Namespace) -> int:
    """Fuzz, one process per lane, and print what came out."""
    scratch = Path(options.scratch or tempfile.mkdtemp(prefix="chaos-"))
    scratch.mkdir(parents=True, exist_ok=True)
    targets = options.targets.split(",")
    deadline = time.monotonic() + 3600 * options.hours
    print(f"findings in {scratch}; seed {options.seed}", flush=True)
    children = []
    for lane in range(options.lanes):
        pid = os.fork()
        if pid:
            children.append(pid)
            continue
        code = 1
        try:
            seed = f"{options.seed}/{lane}"
            counts = fuzz.fuzz(lambda: time.monotonic() < deadline, seed, targets, scratch)
            for name, count in sorted(counts.items()):
                print(f"lane {lane}: {name:<30}{count:>8}", flush=True)
            code = int(any("finding" in name for name in counts))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    return 1 if any(codes) else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, help="how long; the run under way comes to its end")
    parser.add_argument("--kills", type=int, help="how many disturbances")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--only", help="kinds, comma-separated; default: all")
    names = ",".join(small.name for small in SMALL)
    parser.add_argument("--recipes", default=names, help=f"default: {names}")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="runs at once")
    parser.add_argument("--scratch", help="a folder for everything; default: a new one")
    parser.add_argument("--fuzz", action="store_true", help="damage inputs instead")
    every = ",".join(TARGETS)
    parser.add_argument("--targets", default=every, help=f"of --fuzz; default: {every}")
    parser.add_argument("--again", type=Path, help="run a saved finding of --fuzz once more")
    options = parser.parse_args()
    if options.again:
        return fuzz.again(options.again)
    if options.hours is None and options.kills is None:
        options.hours = 2.0
    if options.fuzz:
        return damage(options)
    known = {kind.name for kind in KINDS}
    for name in options.only.split(",") if options.only else ():
        if name not in known:
            parser.error(f"--only: {name!r} is no kind; allowed: {', '.join(sorted(known))}")
    return disturb(options)


if __name__ == "__main__":
    sys.exit(main())
