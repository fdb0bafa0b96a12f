"""Problems in the package format of Polygon: problem.xml and the files that it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from linn.errors import UserError
from linn.sandbox import Sandbox
from linn.solve.contest.files import (
    answer_of,
    check_file_name,
    check_tests,
    dict_at,
    includes_in,
    json_of,
    list_at,
    points_at,
    source_of,
    text_of,
)
from linn.solve.contest.problem import Checker, Interactor, Problem, Rule, Subtask, Test

_KNOWN: dict[str, Checker] = {
    **dict.fromkeys(("wcmp", "ncmp", "hcmp", "icmp"), Checker("tokens")),
    **dict.fromkeys(("yesno", "nyesno"), Checker("lines")),
    "rcmp": Checker("numbers", tolerance=1.5e-6),
    "rcmp4": Checker("numbers", tolerance=1e-4),
    "rcmp6": Checker("numbers", tolerance=1e-6),
    "rcmp9": Checker("numbers", tolerance=1e-9),
}
"""testlib's own checkers that linn compares by itself, so that no compiler is needed for them."""
_POLICIES: dict[str, Rule] = {"complete-group": "min", "each-test": "sum"}
_SECTIONS = ("legend", "input", "output", "interaction", "scoring", "notes")
_LARGEST_XML = 16 << 20


def is_polygon(folder: Path) -> bool:
    """Whether a folder holds a problem of this layout."""
    return (folder / "problem.xml").is_file()


def read_polygon(folder: Path, sandbox: Sandbox) -> Problem:
    """The problem. UserError names the file or the element that is wrong."""
    path = folder / "problem.xml"
    root = _root(path)
    testset = _testset(path, root)
    rows = testset.findall("tests/test")
    interactor = root.find("assets/interactor/source")
    tests = _tests(folder, testset, len(rows), has_answers=interactor is None)
    check_tests(folder, len(tests))

    named = root.findall("names/name")
    english = [each for each in named if each.get("language") == "english"]
    title = next((each.get("value") for each in [*english, *named]), None)
    includes = includes_in([folder / "files", folder])
    is_interactive = interactor is not None
    return Problem(
        name=root.get("short-name") or folder.name,
        title=title or folder.name,
        statement=_statement(folder, root),
        kind="interactive" if is_interactive else "batch",
        tests=tests,
        subtasks=_subtasks(path, testset, rows, list(tests)),
        samples=tuple(
            test
            for row, test in zip(rows, tests.values(), strict=True)
            if row.get("sample") == "true" and not is_interactive
        ),
        seconds=_whole(path, testset, "time-limit", 1000) / 1000,
        memory=max(1, _whole(path, testset, "memory-limit", 256 << 20) >> 20),
        checker=_checker(folder, root, includes),
        input_file=_file(path, root, "input-file"),
        output_file=_file(path, root, "output-file"),
        interactor=None
        if interactor is None
        else Interactor("testlib", source_of(_inside(folder, interactor)), includes),
        folder=folder,
    )


def _root(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _LARGEST_XML:
        raise UserError(f"{path}: larger than {_LARGEST_XML >> 20} MiB")
    text = text_of(path)
    if "<!ENTITY" in text:
        raise UserError(f"{path}: defines entities, which no package needs")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not XML ({error})") from None


def _testset(path: Path, root: ElementTree.Element) -> ElementTree.Element:
    """The test set `tests`, else the first."""
    sets = root.findall("judging/testset")
    if not sets:
        raise UserError(f"{path}: no judging/testset")
    return next((each for each in sets if each.get("name") == "tests"), sets[0])


def _whole(path: Path, testset: ElementTree.Element, tag: str, default: int) -> int:
    text = testset.findtext(tag)
    if text is None:
        return default
    digits = text.strip()
    # 15 digits: milliseconds and bytes of every machine.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 15 and int(digits)):
        raise UserError(f"{path}: {tag} is {text[:40]!r}; allowed: a whole number above 0")
    return int(digits)


def _file(path: Path, root: ElementTree.Element, key: str) -> str:
    """The file that programs read or write; empty, and so for `stdin`: the standard one."""
    judging = root.find("judging")
    name = (judging.get(key) or "") if judging is not None else ""
    if name in ("stdin", "stdout"):
        return ""
    check_file_name(f"{path}: {key}", name)
    return name


def _inside(folder: Path, element: ElementTree.Element) -> Path:
    """The file that an element names, inside the package."""
    path = (folder / (element.get("path") or "")).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{folder / 'problem.xml'}: {element.get('path')} leaves the package")
    return path


def _tests(
    folder: Path, testset: ElementTree.Element, count: int, has_answers: bool
) -> dict[str, Test]:
    """By number; a package without its generated tests is refused."""
    inputs = testset.findtext("input-path-pattern") or "tests/%02d"
    answers = testset.findtext("answer-path-pattern") or "tests/%02d.a"
    tests = {}
    for number in range(1, count + 1):
        # Standard packages leave out what a generator makes.
        path = _numbered(folder, inputs, number)
        if not path.is_file():
            raise UserError(
                f"{path}: is not there; take the package with its tests (full, for Linux), "
                "or run its doall.sh"
            )
        answer = answer_of(_numbered(folder, answers, number), has_answers)
        tests[str(number)] = Test(str(number), text_of(path), answer)
    return tests


def _numbered(folder: Path, pattern: str, number: int) -> Path:
    """A test's file: the pattern is C's, with one number."""
    before, percent, after = pattern.partition("%")
    digits, d, end = after.partition("d")
    width = int(digits or 0) if (digits or "0").isdecimal() and len(digits) <= 2 else -1
    path = folder / f"{before}{number:0{max(width, 1)}d}{end}"

    # A pattern of a stranger's must not lead out of the package.
    if not percent or not d or width < 0 or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder / 'problem.xml'}: path pattern {pattern!r} is not read")
    return path


def _checker(folder: Path, root: ElementTree.Element, includes: dict[str, str]) -> Checker:
    checker = root.find("assets/checker")
    if checker is None:
        return Checker("tokens")
    name = (checker.get("name") or "").removeprefix("std::").removesuffix(".cpp")
    if (checker.get("name") or "").startswith("std::") and name in _KNOWN:
        return _KNOWN[name]
    source = checker.find("source")
    if source is None:
        raise UserError(f"{folder / 'problem.xml'}: checker {checker.get('name')!r} has no source")
    return Checker("testlib", source_of(_inside(folder, source)), includes)


def _subtasks(
    path: Path,
    testset: ElementTree.Element,
    rows: Sequence[ElementTree.Element],
    names: Sequence[str],
) -> tuple[Subtask, ...]:
    """Its groups that earn points; without any, one subtask of all tests, as at ICPC.

    A group that takes all its tests takes those of the groups that it depends on, too.
    """
    tests_of: dict[str, list[str]] = {}
    points_of: dict[str, float] = {}
    worth = {}
    for row, name in zip(rows, names, strict=True):
        group = row.get("group") or ""
        worth[name] = points_at(f"{path}: the points of test {name}", row.get("points") or 0)
        tests_of.setdefault(group, []).append(name)
        points_of[group] = points_of.get(group, 0.0) + worth[name]
    groups = {each.get("name") or "": each for each in testset.findall("groups/group")}
    if not any(points_of.values()) and not any(each.get("points") for each in groups.values()):
        return (Subtask("1", 100.0, tuple(names)),)

    subtasks = []
    for group in tests_of:
        # Points stand at the group, or at its tests.
        element = groups.get(group)
        policy = "each-test"
        own = list(tests_of[group])
        points = points_of[group]
        if element is not None:
            policy = element.get("points-policy") or policy
            worth_of = f"{path}: the points of group {group!r}"
            points = points_at(worth_of, element.get("points") or points)
        if policy == "complete-group":
            needed = _needed(group, groups)
            own = [name for each in needed for name in tests_of.get(each, [])] + own
        if points > 0:
            rule = _POLICIES.get(policy, "min")
            own = list(dict.fromkeys(own))
            weights: tuple[float, ...] = ()
            # A test counts for its own points; samples among the others have none.
            if rule == "sum" and any(worth[name] for name in own):
                own = [name for name in own if worth[name]]
                weights = tuple(worth[name] for name in own)
            subtasks.append(Subtask(group or "1", points, tuple(own), "", rule, weights))
    return tuple(subtasks)


def _needed(group: str, groups: dict[str, ElementTree.Element]) -> list[str]:
    """The groups that a group depends on, directly or not, those first that come first."""
    # Dependencies may form a circle, where somebody has made a mistake.
    needed: list[str] = []
    left = [group]
    while left:
        element = groups.get(left.pop())
        if element is None:
            continue
        for each in element.findall("dependencies/dependency"):
            name = each.get("group") or ""
            if name not in needed and name != group:
                needed.append(name)
                left.append(name)
    return sorted(needed, key=list(groups).index) if set(needed) <= groups.keys() else needed


def _statement(folder: Path, root: ElementTree.Element) -> str:
    """The English statement's sections with its samples; else the statement's TeX as it is."""
    languages = [each.get("language") or "" for each in root.findall("statements/statement")]
    languages.sort(key=lambda language: language != "english")
    for language in dict.fromkeys([*languages, "english"]):
        properties = folder / "statements" / language / "problem-properties.json"
        if properties.is_file():
            return _of_properties(properties)
        tex = folder / "statements" / language / "problem.tex"
        if tex.is_file():
            return text_of(tex)
    raise UserError(
        f"{folder}: no statement: neither statements/LANGUAGE/problem-properties.json nor "
        "problem.tex"
    )


def _of_properties(path: Path) -> str:
    properties = json_of(path)
    parts = [f"# {properties.get('name', '')}"]
    for section in _SECTIONS:
        text = str(properties.get(section) or "").strip()
        if text:
            heading = "" if section == "legend" else f"## {section.capitalize()}\n\n"
            parts.append(heading + text)

    # The samples stand apart from the sections' text.
    where = f"{path}: sampleTests"
    for number, each in enumerate(list_at(where, properties.get("sampleTests") or []), 1):
        sample = dict_at(f"{where} {number}", each)
        parts.append(f"## Example {number}")
        for key in ("input", "output"):
            text = str(sample.get(key, "")).rstrip()
            parts.append(f"{key.capitalize()}\n\n```\n{text}\n```")
    return "\n\n".join(parts)
