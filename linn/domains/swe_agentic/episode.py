"""One conversation over one repair task, and its verdict.

Hidden tests judge the model's own sources, in a fresh copy of the package.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from linn.data.rows import read_rows
from linn.domains.base import content_key
from linn.domains.swe_agentic import package, rows, run_tests
from linn.domains.swe_agentic.package import Package
from linn.domains.swe_agentic.rows import RepairTask
from linn.domains.swe_agentic.run_tests import Report
from linn.domains.swe_agentic.tools import TOOLS, RepairTools
from linn.errors import InfrastructureError, UserError
from linn.types import Message, Prompt, Reply, ToolCall, Verdict, seed_of

CALLS_PER_TURN = 8
WALL_SECONDS = 2700.0
"""What the tools and the thinking of one conversation may take together (paper §4.8.2: 45
minutes)."""
_MOST_ENDINGS = 2048
_MOST_ORDERS = 512
"""Tasks of which it is kept what their passing tests compute."""
_LONGEST_SOURCE = 1 << 20
_PROMPT = """{statement}

The repository of {name} is your working directory{root}. Look at it, change its sources with the\
 tools, and try what you changed.
When the repair is done, answer without calling a tool. Hidden tests then judge the sources;\
 changes to anything else are dropped."""


def prompt(task: RepairTask, domain: str, where: str) -> Prompt:
    """The prompt of a task.

    Raises UserError where its patch does not fit the package, InfrastructureError where the source
    is missing.
    """
    source = source_of(task)
    try:
        rows.broken(source, task.patch)
    except ValueError as error:
        raise UserError(f"{where}: metadata.golden_patch: {error}") from None

    root = f", imports start in {source.root}" if source.root else ""
    text = _PROMPT.format(statement=task.statement, name=source.name, root=root)

    # The id depends on what the model reads.
    unnamed = Prompt(
        domain=domain,
        id="",
        messages=(Message("user", text),),
        thinking=False,
        tools=TOOLS,
        hidden=task,
    )
    return replace(unnamed, id=f"{content_key(unnamed)}.{task.instance}")


def source_of(task: RepairTask) -> Package:
    """The package of a task, from the cache."""
    return package.load(task.requirement, package.cache())


def files_at_start(task: RepairTask) -> dict[str, str]:
    """The package's own files as the task begins; not to be changed."""
    return _files_at_start(task.patch, task.requirement)


@lru_cache(maxsize=64)
def _files_at_start(patch: str, requirement: str) -> dict[str, str]:
    return rows.broken(package.load(requirement, package.cache()), patch)


# ---------------------------------------------------------------- the conversation


@dataclass(frozen=True)
class Ending:
    """What a conversation left behind."""

    changed: Mapping[str, str | None]
    """The sources that it changed, by path; None: it removed the file."""
    late: bool
    """Whether its time ran out."""

    def sources(self, task: RepairTask) -> dict[str, str]:
        """The package's own files as they stood at the end."""
        files = {**files_at_start(task), **self.changed}
        return {path: text for path, text in files.items() if text is not None}


class Endings:
    """The endings of conversations, until their verdict; bounded.

    A conversation whose ending is not here is held again.
    """

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, Ending] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: str, ending: Ending) -> None:
        """Store the ending of the conversation `key`."""
        with self._lock:
            self._by_key[key] = ending
            if len(self._by_key) > _MOST_ENDINGS:
                self._by_key.popitem(last=False)

    def take(self, key: str) -> Ending | None:
        """The ending of a conversation, once."""
        with self._lock:
            return self._by_key.pop(key, None)


class Episode:
    """The environment of one conversation; it copies the repository when first needed."""

    def __init__(self, task: RepairTask, endings: Endings) -> None:
        self.task = task
        self.endings = endings
        self.source = source_of(task)
        self.late = False
        """Whether it ended because its time ran out."""
        self._tools: RepairTools | None = None
        self._turns: list[Message] = []
        self._deadline = time.monotonic() + WALL_SECONDS

    def step(self, message: Message) -> tuple[Message, ...] | None:
        self._turns.append(message)
        self.late = bool(message.tool_calls) and time.monotonic() > self._deadline
        if not message.tool_calls or self.late:
            return None

        # Every call is answered, so that the turn's calls and answers stay in step.
        tools = self._copy()
        answers: list[Message] = []
        for index, call in enumerate(message.tool_calls):
            if index < CALLS_PER_TURN:
                text = tools.use(call)
            else:
                text = f"error: at most {CALLS_PER_TURN} calls a turn"
            answers.append(Message("tool", text, tool_call_id=call.id))
        return tuple(answers)

    def _copy(self) -> RepairTools:
        """The conversation's own copy: the package, the tests it may see, the broken sources."""
        if self._tools is None:
            # The broken sources last: a test module may be one of the package's own files.
            visible = rows.visible(self.source, self.task.failing)
            files = {**self.source.files, **visible, **files_at_start(self.task)}
            self._tools = RepairTools(files, self.source.root)
        return self._tools

    def sources(self) -> dict[str, str]:
        """The package's own files as they stand; other files and changes are left out."""
        if self._tools is None:
            return dict(files_at_start(self.task))
        work = self._tools.work
        files = {}
        for path in work.files():
            if path not in self.source.sources and not _may_be_new(path, self.source):
                continue
            try:
                text = work.read(path)
            except ValueError:  # a link, or gone meanwhile
                continue
            if len(text) <= _LONGEST_SOURCE:
                files[path] = text
        return files

    def close(self) -> None:
        try:
            if self._turns:
                changed = _changes(files_at_start(self.task), self.sources())
                self.endings.put(_key(self.task, self._turns), Ending(changed, self.late))
        finally:
            if self._tools is not None:
                self._tools.close()


def _may_be_new(path: str, source: Package) -> bool:
    """Whether a file that the package did not have may become a module of it."""
    module = PurePosixPath(path)
    if module.suffix != ".py" or path in source.files or not module.stem.isidentifier():
        return False
    if module.stem.startswith(("test", "conftest")):
        return False
    folders = {str(PurePosixPath(own).parent) for own in source.sources}
    return str(module.parent) in folders - {".", source.root}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """The files that differ, as they are afterwards; None: removed."""
    paths = {*before, *after}
    return {path: after.get(path) for path in paths if after.get(path) != before.get(path)}


def _key(task: RepairTask, turns: Sequence[Message]) -> str:
    """The same for the environment, which sees the turns, and for the verdict, which reads them."""
    said = []
    for turn in turns:
        calls = [[call.name, repr(call.arguments)] for call in turn.tool_calls]
        said.append([turn.content, calls])

    # A reply's text may hold lone surrogates.
    text = json.dumps([task.instance, said])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


# ---------------------------------------------------------------- the verdict


def verdict(task: RepairTask, reply: Reply, endings: Endings) -> Verdict:
    """1 when every failing test now passes and every passing test still does.

    Either kind must compute every value that was taken out of it: how a test ended is what the
    process says in which the tested code runs. `unreliable`
    (rewarded or not, never trained; paper §4.8.2): it passed, but the conversation ended at a limit
    of turns or tokens; its time ran out; or the tests ended at a limit.
    """
    files, late = sources_after(task, reply, endings)
    if files == files_at_start(task):
        metrics = {"changed": 0.0, "unreliable": float(late)}
        return Verdict(0.0, "no source was changed", metrics)

    result = test_sources(task, files)

    # A repair that the model did not declare done may be luck.
    turns = _assistant_turns(reply)
    stopped = bool(turns) and not turns[-1].tool_calls and reply.finished
    unreliable = result.cut_off or late or (result.resolved and not stopped)
    return Verdict(
        reward=1.0 if result.resolved else 0.0,
        note=result.why or "the hidden tests pass",
        metrics={"changed": 1.0, "fixed": result.fixed, "unreliable": float(unreliable)},
    )


def sources_after(task: RepairTask, reply: Reply, endings: Endings) -> tuple[dict[str, str], bool]:
    """(the sources with which a conversation ended, whether its time ran out).

    As its environment left them, or from holding the conversation again.
    """
    turns = _assistant_turns(reply)

    # A turn that reached its token limit never got to the environment.
    for heard in (turns, turns[:-1]):
        ending = endings.take(_key(task, heard)) if heard else None
        if ending is not None:
            return ending.sources(task), ending.late

    again = Episode(task, Endings())
    try:
        for turn in turns:
            again.step(turn)
        return again.sources(), again.late
    finally:
        again.close()


def _assistant_turns(reply: Reply) -> list[Message]:
    """The assistant turns up to the one that ended the conversation."""
    turns: list[Message] = []
    for message in reply.messages:
        if message.role == "assistant":
            turns.append(message)
            if not message.tool_calls:
                break
    return turns


@dataclass(frozen=True)
class TestResult:
    """What the hidden tests say about some sources."""

    why: str
    """Why the task is not resolved; empty where it is."""
    fixed: float = 0.0
    """Share of the failing tests that pass now."""
    cut_off: bool = False
    """Whether the tests ended at a limit."""

    @property
    def resolved(self) -> bool:
        return not self.why


def test_sources(task: RepairTask, files: Mapping[str, str]) -> TestResult:
    """Run the hidden tests against these sources of the package."""
    report = _run(task, files)
    status = report.ran.status
    if status in ("timeout", "memory"):
        return TestResult(f"the hidden tests ended at a limit: {status}", cut_off=True)
    if report.doubt:
        return TestResult(f"the test run is not to be believed: {report.doubt}")

    # Every failing test must pass now, and every passing one still.
    failing = len(task.failing)
    passing = len(task.passing)
    still_failing = failing - _repaired(task, report)
    newly_failing = _spoilt(task, report)
    fixed = (failing - still_failing) / failing

    if still_failing:
        return TestResult(f"{still_failing} of {failing} failing tests still fail", fixed)
    if newly_failing:
        return TestResult(f"{newly_failing} of {passing} passing tests fail now", fixed)

    # A run that forges a pass must leave out the wrong values: so none may be missing.
    released = orders_as_released(task)
    silent = sum(sorted(report.order(test)) != released[test] for test in task.passing)
    if silent:
        return TestResult(f"{silent} of {passing} passing tests leave out values", fixed)
    return TestResult("", fixed)


class _Orders:
    """What each passing test computes on the released sources, by task; the latest are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_task: OrderedDict[str, dict[str, list[tuple[int, int]]]] = OrderedDict()

    def of(self, task: RepairTask) -> dict[str, list[tuple[int, int]]]:
        """(site, row) of the values of each passing test, sorted; the tests run once a task."""
        key = json.dumps([task.requirement, task.instance, task.passing])
        with self._lock:
            known = self._by_task.get(key)
        if known is not None:
            return known

        report = _run(task, source_of(task).own_files())
        if report.ran.status != "ok" or report.doubt:
            raise InfrastructureError(
                f"{task.instance}: the tests of {task.requirement} as released did not end as they "
                f"must ({report.doubt or report.ran.status}); prove the tasks: linn tasks --check"
            )
        orders = {test: sorted(report.order(test)) for test in task.passing}
        with self._lock:
            self._by_task[key] = orders
            if len(self._by_task) > _MOST_ORDERS:
                self._by_task.popitem(last=False)
        return orders


_orders = _Orders()


def orders_as_released(task: RepairTask) -> dict[str, list[tuple[int, int]]]:
    """(site, row) of the values that each passing test computes on the released sources."""
    return _orders.of(task)


def _run(task: RepairTask, files: Mapping[str, str]) -> Report:
    """The hidden tests, in an order that depends on the task and the sources alone."""
    wanted = (*task.failing, *task.passing)
    modules = {test.partition("::")[0] for test in wanted}

    # The same sources get the same order, whoever asks and when.
    by_path = sorted(files.items())
    text = repr(by_path)
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8)
    seed = seed_of("judge", task.instance, digest.hexdigest())

    return run_tests.run(
        source_of(task),
        files,
        tests=sorted(modules),
        spared=task.spared,
        wanted=wanted,
        seed=seed % (1 << 31),
    )


def _repaired(task: RepairTask, report: Report) -> int:
    """How many of the failing tests are right, having left out none of their values."""
    count = 0
    for test in task.failing:
        count += report.is_right(test) and report.order(test) == task.values[test]
    return count


def _spoilt(task: RepairTask, report: Report) -> int:
    """How many of the passing tests are not right."""
    return sum(not report.is_right(test) for test in task.passing)


# ---------------------------------------------------------------- the proof of a task


def disproof(task: RepairTask) -> str:
    """Empty where a task holds, else what does not.

    It holds where every failing test fails and every passing one passes as the task begins, and all
    pass once the golden patch was made with the tools.
    """
    before = _run(task, files_at_start(task))
    if before.ran.status != "ok" or before.doubt:
        return f"before the patch the test run broke: {before.doubt or before.ran.status}"

    passing = _repaired(task, before)
    failing = _spoilt(task, before)
    if passing or failing:
        return f"before the patch {passing} of FAIL_TO_PASS pass and {failing} of PASS_TO_PASS fail"

    after = verdict(task, gold(task), Endings())
    return "" if after.reward == 1.0 else f"after the patch: {after.note}"


def disproofs(file: Path) -> Iterator[tuple[str, str, str]]:
    """(package, row, `disproof`) of every row of a file that `linn tasks` made.

    Sources that the cache lacks are fetched.
    """
    for index, row in enumerate(read_rows(file)):
        where = f"{file} row {index}"
        meta = row.get("metadata")
        if not isinstance(meta, Mapping) or "package" not in meta:
            raise UserError(
                f"{where}: metadata.package is missing; only what linn tasks makes can be proved"
            )

        task = rows.task(meta, where)
        package.fetch(task.requirement)
        # Making the prompt checks that the patch fits.
        prompt(task, "swe_agentic", where)
        yield task.requirement, f"{where} ({task.instance})", disproof(task)


# ---------------------------------------------------------------- the gold reply


def gold(task: RepairTask) -> Reply:
    """The golden patch as calls of `replace`."""
    broken = files_at_start(task)
    source = source_of(task)
    calls: list[ToolCall] = []
    for path, text in source.own_files().items():
        for old, new in replacements(broken[path], text):
            arguments = {"path": path, "old": old, "new": new}
            calls.append(ToolCall("replace", arguments))

    # One call per turn, each answered as the tool would.
    turns: list[Message] = []
    for call in calls:
        turns.append(Message("assistant", "", tool_calls=(call,)))
        turns.append(Message("tool", "ok"))
    turns.append(Message("assistant", "done"))
    return Reply("done", messages=tuple(turns))


def replacements(before: str, after: str) -> list[tuple[str, str]]:
    """(old, new) texts that lead from one text to the other when replaced in turn.

    Each old text is found once when its turn comes.
    """
    pairs: list[tuple[str, str]] = []
    while before != after:
        pair = _first_replacement(before, after)
        pairs.append(pair)
        before = before.replace(*pair)
    return pairs


def _first_replacement(before: str, after: str) -> tuple[str, str]:
    """The first change, with as many lines around it as make its old text unique."""
    lines = before.split("\n")
    new_lines = after.split("\n")
    matcher = difflib.SequenceMatcher(None, lines, new_lines, autojunk=False)
    changes = [place for tag, *place in matcher.get_opcodes() if tag != "equal"]
    start, end, new_start, new_end = changes[0]

    # At least one line on each side; all lines together are found once.
    around = 1
    while before.count(_joined_lines(lines, start - around, end + around)) != 1:
        around += 1

    above = lines[max(0, start - around) : start]
    below = lines[end : end + around]
    old = [*above, *lines[start:end], *below]
    new = [*above, *new_lines[new_start:new_end], *below]
    return "\n".join(old), "\n".join(new)


def _joined_lines(lines: Sequence[str], first: int, last: int) -> str:
    return "\n".join(lines[max(0, first) : last])
