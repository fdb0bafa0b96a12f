"""One conversation over one repair task, and its verdict: the model's own sources, in a fresh copy, under the hidden tests."""

from __future__ import annotations

import difflib
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from linn.data.rows import read_rows
from linn.domains.base import content_key
from linn.domains.swe_agentic import make_tasks as tasks
from linn.domains.swe_agentic import package, rows
from linn.domains.swe_agentic import run_tests as judge
from linn.domains.swe_agentic.package import Package
from linn.domains.swe_agentic.rows import Task
from linn.domains.swe_agentic.tools import TOOLS, Desk
from linn.errors import UserError
from linn.types import Message, Prompt, Reply, ToolCall, Verdict, seed_of

CALLS_A_TURN = 8
WALL = 2700.0
"""Seconds that the tools of one conversation may take and the model may think, together (paper §4.8.2: 45 minutes)."""
_KEPT = 2048
_LONGEST_SOURCE = 1 << 20
_TASK = """{statement}

The repository of {name} is your working directory{root}. Look at it, change its sources with the tools, and try what you changed.
When the repair is done, answer without calling a tool. Hidden tests then judge the sources; changes to anything else are dropped."""


def prompt(task: Task, domain: str, where: str) -> Prompt:
    """The prompt of a task; raises UserError where its patch does not fit the package, InfrastructureError where the source is missing."""
    source = source_of(task)
    try:
        rows.broken(source, task.patch)
    except ValueError as error:
        raise UserError(f"{where}: metadata.golden_patch: {error}") from None
    root = f", imports start in {source.root}" if source.root else ""
    text = _TASK.format(statement=task.statement, name=source.name, root=root)
    made = Prompt(
        domain, "", (Message("user", text),), thinking=False, tools=TOOLS, hidden={"task": task}
    )
    return Prompt(
        domain, f"{content_key(made)}.{task.instance}", made.messages, False, TOOLS, made.hidden
    )


def source_of(task: Task) -> Package:
    """The package of a task, from the cache."""
    return package.load(task.requirement, package.cache())


@lru_cache(maxsize=64)
def _broken(task: str, requirement: str) -> dict[str, str]:
    return rows.broken(package.load(requirement, package.cache()), task)


class Ends:
    """What conversations left behind, until their verdict; bounded. A conversation that is not here is held again."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[dict[str, str | None], bool]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: str, changed: dict[str, str | None], late: bool) -> None:
        """Keep what the conversation `key` changed in the sources (None: removed), and whether its time ran out."""
        with self._lock:
            self._left[key] = changed, late
            if len(self._left) > _KEPT:
                self._left.popitem(last=False)

    def take(self, key: str) -> tuple[dict[str, str | None], bool] | None:
        """What was kept, once."""
        with self._lock:
            return self._left.pop(key, None)


class Episode:
    """The environment of one conversation; its copy of the repository is made when first needed."""

    def __init__(self, task: Task, ends: Ends) -> None:
        self.task, self.ends, self.source = task, ends, source_of(task)
        self._desk: Desk | None = None
        self._said: list[Message] = []
        self._deadline = time.monotonic() + WALL
        self.late = False
        """Whether it ended because its time ran out."""

    def step(self, message: Message) -> tuple[Message, ...] | None:
        self._said.append(message)
        self.late = bool(message.tool_calls) and time.monotonic() > self._deadline
        if not message.tool_calls or self.late:
            return None
        if self._desk is None:
            shown = rows.visible(self.source, self.task.failing)
            self._desk = Desk(
                {**self.source.files, **shown, **_broken(self.task.patch, self.task.requirement)},
                self.source.root,
            )
        answers = []
        for index, call in enumerate(message.tool_calls):
            text = (
                self._desk.use(call)
                if index < CALLS_A_TURN
                else f"error: at most {CALLS_A_TURN} calls a turn"
            )
            answers.append(Message("tool", text, tool_call_id=call.id))
        return tuple(answers)

    def sources(self) -> dict[str, str]:
        """The package's own files as they stand; what else was written or changed is left out."""
        if self._desk is None:
            return dict(_broken(self.task.patch, self.task.requirement))
        found = {}
        for path in self._desk.work.files():
            if path in self.source.sources or _may_be_new(path, self.source):
                try:
                    text = self._desk.work.read(path)
                except ValueError:  # a link, or gone meanwhile
                    continue
                if len(text) <= _LONGEST_SOURCE:
                    found[path] = text
        return found

    def close(self) -> None:
        try:
            if self._said:
                before, after = _broken(self.task.patch, self.task.requirement), self.sources()
                changed = {
                    path: after.get(path)
                    for path in {*before, *after}
                    if after.get(path) != before.get(path)
                }
                self.ends.put(_key(self.task, self._said), changed, self.late)
        finally:
            if self._desk is not None:
                self._desk.close()


def _may_be_new(path: str, source: Package) -> bool:
    """Whether a file that the package did not have may become a module of it."""
    folders = {str(PurePosixPath(known).parent) for known in source.sources} - {".", source.root}
    parts = PurePosixPath(path)
    plain = (
        parts.suffix == ".py"
        and path not in source.files
        and parts.stem.isidentifier()
        and not parts.stem.startswith(("test", "conftest"))
    )
    return plain and str(parts.parent) in folders


def _key(task: Task, said: list[Message]) -> str:
    text = json.dumps(
        [
            task.instance,
            [[m.content, [[c.name, repr(c.arguments)] for c in m.tool_calls]] for m in said],
        ]
    )
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _spoken(reply: Reply) -> list[Message]:
    """The assistant turns up to the one that ended the conversation."""
    said: list[Message] = []
    for message in reply.messages:
        if message.role == "assistant":
            said.append(message)
            if not message.tool_calls:
                break
    return said


def ended(task: Task, reply: Reply, ends: Ends) -> tuple[dict[str, str], bool]:
    """(the sources with which a conversation ended, whether its time ran out): as its environment left them, or from holding it again."""
    said = _spoken(reply)
    for heard in (
        said,
        said[:-1],
    ):  # a turn that reached its token limit never got to the environment
        if heard and (left := ends.take(_key(task, heard))) is not None:
            files = {**_broken(task.patch, task.requirement), **left[0]}
            return {path: text for path, text in files.items() if text is not None}, left[1]
    again = Episode(task, Ends())
    try:
        for message in said:
            again.step(message)
        return again.sources(), again.late
    finally:
        again.close()


def verdict(task: Task, reply: Reply, ends: Ends) -> Verdict:
    """1 when every failing test now passes, computing every value that was taken out of it, and every passing test still does.

    `unreliable` (rewarded or not, never trained; paper §4.8.2): it passed, but the conversation ended at a limit of turns or tokens; its
    time ran out; or the tests ended at a limit.
    """
    files, late = ended(task, reply, ends)
    if files == _broken(task.patch, task.requirement):
        return Verdict(0.0, "no source was changed", {"changed": 0.0, "unreliable": float(late)})
    said = _spoken(reply)
    stopped = bool(said) and not said[-1].tool_calls and reply.finished
    why, fixed, cut = judged(task, files)
    unreliable = cut or late or (not why and not stopped)
    return Verdict(
        0.0 if why else 1.0,
        why or "the hidden tests pass",
        {"changed": 1.0, "fixed": fixed, "unreliable": float(unreliable)},
    )


def judged(task: Task, files: Mapping[str, str]) -> tuple[str, float, bool]:
    """(why it is not resolved, share of failing tests repaired, whether the tests were cut off by a limit)."""
    report = _tested(task, files)
    if report.ran.status in ("timeout", "memory"):
        return f"the hidden tests ended at a limit: {report.ran.status}", 0.0, True
    if report.fooled:
        return f"the test run is not to be believed: {report.fooled}", 0.0, False
    right = [test for test in task.failing if _right(task, report, test)]
    spoilt = sum(not report.good(test) for test in task.passing)
    fixed = len(right) / len(task.failing)
    if len(right) < len(task.failing):
        return (
            f"{len(task.failing) - len(right)} of {len(task.failing)} failing tests still fail",
            fixed,
            False,
        )
    return (
        (f"{spoilt} of {len(task.passing)} passing tests fail now" if spoilt else ""),
        fixed,
        False,
    )


def _tested(task: Task, files: Mapping[str, str]) -> judge.Report:
    wanted = (*task.failing, *task.passing)
    modules = sorted({test.partition("::")[0] for test in wanted})
    digest = hashlib.blake2b(
        repr(sorted(files.items())).encode("utf-8", "replace"), digest_size=8
    ).hexdigest()
    return judge.run(
        source_of(task),
        files,
        modules,
        task.spared,
        wanted,
        seed_of("judge", task.instance, digest) % (1 << 31),
    )


def _right(task: Task, report: judge.Report, test: str) -> bool:
    return report.good(test) and tasks.order(report, test) == task.values[test]


def disproof(task: Task) -> str:
    """Empty where every failing test fails and every passing one passes as the task begins, and all pass once the golden patch was made with
    the tools; else what does not hold."""
    before = _tested(task, _broken(task.patch, task.requirement))
    if before.ran.status != "ok" or before.fooled:
        return f"before the patch the test run broke: {before.fooled or before.ran.status}"
    passing = sum(_right(task, before, test) for test in task.failing)
    failing = sum(not before.good(test) for test in task.passing)
    if passing or failing:
        return f"before the patch {passing} of FAIL_TO_PASS pass and {failing} of PASS_TO_PASS fail"
    after = verdict(task, gold(task), Ends())
    return "" if after.reward == 1.0 else f"after the patch: {after.note}"


def disproofs(file: Path) -> Iterator[tuple[str, str, str]]:
    """(package, row, `disproof`) of every row of a file that `linn tasks` made; sources that the cache lacks are fetched."""
    for index, row in enumerate(read_rows(file)):
        where = f"{file} row {index}"
        meta = row.get("metadata")
        if not isinstance(meta, Mapping) or "package" not in meta:
            raise UserError(
                f"{where}: metadata.package is missing; only what linn tasks makes can be proved"
            )
        task = rows.task(meta, where)
        package.fetch(task.requirement)
        prompt(task, "swe_agentic", where)  # raises where the patch does not fit
        yield task.requirement, f"{where} ({task.instance})", disproof(task)


def gold(task: Task) -> Reply:
    """The golden patch as calls of `replace`."""
    source = source_of(task)
    before = dict(_broken(task.patch, task.requirement))
    calls = []
    for path in source.sources:
        for old, new in _edits(before[path], source.files[path]):
            calls.append(ToolCall("replace", {"path": path, "old": old, "new": new}))
    turns = [
        turn
        for call in calls
        for turn in (Message("assistant", "", tool_calls=(call,)), Message("tool", "ok"))
    ]
    return Reply("done", messages=(*turns, Message("assistant", "done")))


def _edits(before: str, after: str) -> list[tuple[str, str]]:
    """(old, new) replacements, each old text found once when its turn comes, that lead from one text to the other."""
    found: list[tuple[str, str]] = []
    while before != after:
        old, new = before.split("\n"), after.split("\n")
        _, a, b, c, d = next(
            op
            for op in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
            if op[0] != "equal"
        )
        more = 1
        while before.count("\n".join(old[max(0, a - more) : b + more])) != 1:
            more += 1
        texts = (
            "\n".join([*old[max(0, a - more) : a], *middle, *old[b : b + more]])
            for middle in (old[a:b], new[c:d])
        )
        found.append((next(texts), next(texts)))
        before = before.replace(*found[-1])
    return found
