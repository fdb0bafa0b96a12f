"""Source trees of published packages from a local folder, and the folder of test tools that the sandbox may read."""

from __future__ import annotations

import email
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from linn.errors import InfrastructureError, UserError

PERMISSIVE = (
    "MIT",
    "BSD",
    "APACHE",
    "ISC",
    "PSF",
    "PYTHON SOFTWARE FOUNDATION",
    "UNLICENSE",
    "ZLIB",
)
"""What one of must stand in a licence, and no GPL, for its package to be used."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The Python whose behaviour tasks are made under and judged under."""
REQUIREMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9._+!-]+)?"
"""A package's name, or its name and version."""
_TOOLS = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
_TEST_FILE = re.compile(r"(^|/)(test_[^/]*|[^/]*_test|tests)\.py$")
_CONFIGURATION = (
    "pytest.ini",
    "tox.ini",
    "setup.cfg",
    "pyproject.toml",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
)
_LONGEST, _MOST = 1 << 20, 2000


@dataclass(frozen=True)
class Package:
    """One released version of a package, as its source distribution holds it."""

    name: str
    """Its name on the index."""
    version: str
    """Its version."""
    licence: str
    """As its metadata says it."""
    root: str
    """The folder to import from, relative: empty, or `src`."""
    sources: tuple[str, ...]
    """The files that are the package itself: its modules, without tests."""
    tests: tuple[str, ...]
    """Its test modules."""
    files: dict[str, str]
    """Every text file by path, tests and data included; configuration of test tools left out."""


def cache() -> Path:
    """The folder of source distributions: `LINN_SWE_CACHE`, else `~/.cache/linn`."""
    return Path(os.environ.get("LINN_SWE_CACHE") or Path.home() / ".cache" / "linn")


def command_for(requirement: str) -> str:
    """What fetches a source distribution into the cache."""
    return f"pip download --no-binary :all: --no-deps -d {cache()} '{requirement}'"


def fetch(requirement: str) -> Path:
    """The source distribution of `name` or `name==version` in the cache, downloaded by pip where it is missing."""
    if not re.fullmatch(REQUIREMENT, requirement):
        raise UserError(f"package {requirement!r}: must be NAME or NAME==VERSION")
    if re.sub(r"[-_.]+", "-", requirement.partition("==")[0]).lower() in _TOOLS:
        raise UserError(
            f"package {requirement}: the tests themselves run with it, so a right copy would stand beside the broken one"
        )
    found = _archive(requirement)
    if found is None:
        cache().mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-binary",
            ":all:",
            "--no-deps",
            "-d",
            str(cache()),
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = _archive(requirement)
        if found is None:
            why = (done.stderr.strip().splitlines() or ["no source distribution"])[-1]
            raise InfrastructureError(
                f"package {requirement}: pip could not download its source: {why}"
            )
    return found


def _archive(requirement: str) -> Path | None:
    name, _, version = requirement.partition("==")
    plain = re.sub(r"[-_.]+", "[-_.]+", name)
    pattern = re.compile(
        rf"{plain}-({re.escape(version) if version else '[0-9][^-]*'})\.tar\.gz", re.IGNORECASE
    )
    if not cache().is_dir():
        return None
    return next(
        (path for path in sorted(cache().iterdir(), reverse=True) if pattern.fullmatch(path.name)),
        None,
    )


@lru_cache(maxsize=16)
def load(requirement: str, folder: Path) -> Package:
    """The package `name==version` from the cache folder; InfrastructureError, with the command to run, where it is not there."""
    path = _archive(requirement)
    if path is None:
        raise InfrastructureError(
            f"the source of {requirement} is not in {folder}; fetch it: {command_for(requirement)}, or all that a file names: linn tasks --check FILE"
        )
    return read(path)


def read(path: Path) -> Package:
    """A package from its source distribution; UserError where it holds no pure-Python package with tests."""
    files: dict[str, str] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                inner = PurePosixPath(member.name).parts[1:]
                if (
                    not member.isfile()
                    or not inner
                    or ".." in inner
                    or member.size > _LONGEST
                    or len(files) >= _MOST
                ):
                    continue
                source = archive.extractfile(member)
                try:
                    files["/".join(inner)] = (source.read() if source else b"").decode()
                except UnicodeDecodeError:
                    continue
    except (OSError, tarfile.TarError) as error:
        raise InfrastructureError(
            f"{path}: cannot be read as a source distribution: {error}"
        ) from None
    about = email.message_from_string(files.get("PKG-INFO", ""))
    name, version = about.get("Name", ""), about.get("Version", "")
    if not name or not version:
        raise UserError(f"{path}: no PKG-INFO with a name and a version")
    root, tops = _tops(files, name)
    tests = tuple(sorted(p for p in files if _TEST_FILE.search(p)))
    inside = [
        p
        for p in files
        if p.endswith(".py") and any(p == f"{top}.py" or p.startswith(f"{top}/") for top in tops)
    ]
    sources = tuple(sorted(p for p in inside if p not in tests and not _is_test_support(p)))
    if not sources or not tests:
        raise UserError(
            f"{path}: no {'modules' if not sources else 'tests'} found in it; choose another package"
        )
    kept = {
        p: text
        for p, text in files.items()
        if PurePosixPath(p).name not in _CONFIGURATION and ".egg-info/" not in p
    }
    return Package(name, version, _licence(about), root, sources, tests, kept)


def _is_test_support(path: str) -> bool:
    return PurePosixPath(path).name == "conftest.py" or bool(
        {"tests", "test", "testing"} & set(PurePosixPath(path).parts[:-1])
    )


def _tops(files: dict[str, str], name: str) -> tuple[str, list[str]]:
    """(folder to import from, import packages or modules in it, with that folder in front)."""
    listed = [p for p in files if p.endswith("top_level.txt")]
    wanted = files[listed[0]].split() if listed else []
    wanted += [
        name.replace("-", "_"),
        name.lower().replace("-", "_"),
        re.sub(r"^python[-_]", "", name),
        name.replace("-", ".").split(".")[0],
    ]
    for root in ("src", ""):
        prefix = f"{root}/" if root else ""
        found = [
            prefix + top
            for top in dict.fromkeys(wanted)
            if f"{prefix}{top}/__init__.py" in files or f"{prefix}{top}.py" in files
        ]
        if found := [
            top
            for top in found
            if PurePosixPath(top).name not in ("tests", "test", "setup", "docs")
        ]:
            return root, found
    return "", []


def _licence(about: email.message.Message) -> str:
    classifiers = [
        c.rpartition(" :: ")[2]
        for c in about.get_all("Classifier", [])
        if c.startswith("License ::")
    ]
    said = [
        about.get("License-Expression", ""),
        *classifiers,
        about.get("License", "").strip().split("\n")[0],
    ]
    return next((text.strip()[:80] for text in said if text.strip()), "unknown")


def permissive(licence: str) -> bool:
    """Whether a licence's name is one of the permissive ones."""
    return any(word in licence.upper() for word in PERMISSIVE) and "GPL" not in licence.upper()


def tools() -> Path:
    """A folder in the cache that holds pytest and what it needs, and nothing else; copied from this interpreter's packages."""
    return _tools(cache())


@lru_cache(maxsize=4)
def _tools(place: Path) -> Path:
    try:
        parts = [importlib.metadata.distribution(name) for name in _TOOLS]
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"repair tasks need pytest, and {error.name} is not installed: pip install pytest"
        ) from None
    key = hashlib.sha256(
        repr([PYTHON, *((p.name, p.version) for p in parts)]).encode()
    ).hexdigest()[:12]
    folder = place / f"tools-{key}"
    if folder.is_dir():
        return folder
    try:
        place.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="making-", dir=place))
        for part in parts:
            for file in part.files or []:
                if file.suffix == ".py" and ".." not in file.parts:
                    target = made / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(Path(str(part.locate_file(file))), target)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "compileall",
                "-q",
                "--invalidation-mode",
                "unchecked-hash",
                str(made),
            ],
            check=False,
        )
        for path in (made, *made.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            made.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise InfrastructureError(f"the folder {place} cannot be written: {error}") from None
    return folder
