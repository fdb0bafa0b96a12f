"""Source trees of published packages from a local folder, and the folder of test tools.

The sandbox may read the folder of test tools; it holds pytest and what pytest needs.
"""

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
from collections.abc import Mapping
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
"""One of these must stand in a licence, and no GPL, for its package to be used."""
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
_LONGEST_FILE = 1 << 20
_MOST_FILES = 2000
_NO_TOPS = ("tests", "test", "setup", "docs")
"""Folders and modules of a source distribution that are not the package."""


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

    def own_files(self) -> dict[str, str]:
        """The text of `sources`, by path."""
        return {path: self.files[path] for path in self.sources}


def cache() -> Path:
    """The folder of source distributions: `LINN_SWE_CACHE`, else `~/.cache/linn`."""
    return Path(os.environ.get("LINN_SWE_CACHE") or Path.home() / ".cache" / "linn")


def command_for(requirement: str) -> str:
    """What fetches a source distribution into the cache."""
    return f"pip download --no-binary :all: --no-deps -d {cache()} '{requirement}'"


def fetch(requirement: str) -> Path:
    """The source distribution of `name` or `name==version` in the cache.

    Downloaded by pip where it is missing.
    """
    if not re.fullmatch(REQUIREMENT, requirement):
        raise UserError(f"package {requirement!r}: must be NAME or NAME==VERSION")
    if _normal_name(requirement.partition("==")[0]) in _TOOLS:
        raise UserError(
            f"package {requirement}: the tests themselves run with it,"
            " so a right copy would stand beside the broken one"
        )
    archive = _archive(requirement)
    if archive is not None:
        return archive

    cache().mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-binary", ":all:"]
    command += ["--no-deps", "-d", str(cache()), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = _archive(requirement)
    if archive is None:
        lines = done.stderr.strip().splitlines() or ["no source distribution"]
        raise InfrastructureError(
            f"package {requirement}: pip could not download its source: {lines[-1]}"
        )
    return archive


def _normal_name(name: str) -> str:
    """A package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _archive(requirement: str) -> Path | None:
    """The newest source distribution in the cache that fits, by its file name."""
    if not cache().is_dir():
        return None
    name, _, version = requirement.partition("==")

    # An archive's name may be written with other separators than the requirement.
    name_pattern = re.sub(r"[-_.]+", "[-_.]+", name)
    version_pattern = re.escape(version) if version else "[0-9][^-]*"
    pattern = re.compile(rf"{name_pattern}-({version_pattern})\.tar\.gz", re.IGNORECASE)

    for path in sorted(cache().iterdir(), reverse=True):
        if pattern.fullmatch(path.name):
            return path
    return None


@lru_cache(maxsize=16)
def load(requirement: str, folder: Path) -> Package:
    """The package `name==version` from the cache folder.

    Raises InfrastructureError, with the command to run, where it is not there.
    """
    path = _archive(requirement)
    if path is None:
        raise InfrastructureError(
            f"the source of {requirement} is not in {folder}; fetch it: {command_for(requirement)},"
            " or all that a file names: linn tasks --check FILE"
        )
    return read(path)


def read(path: Path) -> Package:
    """A package from its source distribution.

    Raises UserError where it holds no pure-Python package with tests.
    """
    files = _text_files(path)
    metadata = email.message_from_string(files.get("PKG-INFO", ""))
    name, version = metadata.get("Name", ""), metadata.get("Version", "")
    if not name or not version:
        raise UserError(f"{path}: no PKG-INFO with a name and a version")

    # What is judged is the package itself, without its tests and what they need.
    root, tops = _tops(files, name)
    tests = sorted(file for file in files if _TEST_FILE.search(file))
    sources = []
    for file in sorted(files):
        if file in tests or _is_test_support(file) or not file.endswith(".py"):
            continue
        if any(_is_inside(file, top) for top in tops):
            sources.append(file)

    if not sources or not tests:
        missing = "modules" if not sources else "tests"
        raise UserError(f"{path}: no {missing} found in it; choose another package")

    return Package(
        name=name,
        version=version,
        licence=_licence(metadata),
        root=root,
        sources=tuple(sources),
        tests=tuple(tests),
        files={file: text for file, text in files.items() if not _is_configuration(file)},
    )


def _text_files(path: Path) -> dict[str, str]:
    """The text files of an archive by their path in it, without its top folder."""
    files: dict[str, str] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                # The top folder is the archive's name; `..` would lead out of it.
                parts = PurePosixPath(member.name).parts[1:]
                if not member.isfile() or not parts or ".." in parts:
                    continue
                if member.size > _LONGEST_FILE or len(files) >= _MOST_FILES:
                    continue

                file = archive.extractfile(member)
                data = file.read() if file else b""
                try:
                    files["/".join(parts)] = data.decode()
                except UnicodeDecodeError:
                    continue
    except (OSError, tarfile.TarError) as error:
        raise InfrastructureError(
            f"{path}: cannot be read as a source distribution: {error}"
        ) from None
    return files


def _is_inside(file: str, top: str) -> bool:
    """Whether a file is a module or belongs to a package, by the path of either."""
    return file == f"{top}.py" or file.startswith(f"{top}/")


def _is_test_support(file: str) -> bool:
    path = PurePosixPath(file)
    folders = set(path.parts[:-1])
    return path.name == "conftest.py" or bool(folders & {"tests", "test", "testing"})


def _is_configuration(file: str) -> bool:
    """Whether a file sets up test tools, or says what the package is."""
    return PurePosixPath(file).name in _CONFIGURATION or ".egg-info/" in file


def _tops(files: Mapping[str, str], name: str) -> tuple[str, list[str]]:
    """(folder to import from, import packages or modules in it, with that folder in front)."""
    names: list[str] = []
    for file, text in files.items():
        if file.endswith("top_level.txt"):
            names = text.split()
            break

    # Where the distribution names none: what a package's import name is made of its own name.
    names += [
        name.replace("-", "_"),
        name.lower().replace("-", "_"),
        re.sub(r"^python[-_]", "", name),
        name.replace("-", ".").split(".")[0],
    ]

    # A folder `src` holds the package where there is one.
    for root in ("src", ""):
        prefix = f"{root}/" if root else ""
        paths = [prefix + top for top in dict.fromkeys(names)]
        tops = [path for path in paths if _is_top(files, path)]
        if tops:
            return root, tops
    return "", []


def _is_top(files: Mapping[str, str], path: str) -> bool:
    """Whether a path is that of a package or module, and not one of tests or set-up."""
    if PurePosixPath(path).name in _NO_TOPS:
        return False
    return f"{path}/__init__.py" in files or f"{path}.py" in files


def _licence(metadata: email.message.Message) -> str:
    """The licence's name: an expression, else a classifier, else the first line of a text."""
    classifiers = metadata.get_all("Classifier", [])
    names = [metadata.get("License-Expression", "")]
    names += [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
    names.append(metadata.get("License", "").strip().split("\n")[0])
    for name in names:
        if name.strip():
            return str(name).strip()[:80]
    return "unknown"


def permissive(licence: str) -> bool:
    """Whether a licence's name is one of the permissive ones."""
    return any(word in licence.upper() for word in PERMISSIVE) and "GPL" not in licence.upper()


def tools() -> Path:
    """A folder in the cache that holds pytest and what it needs, and nothing else.

    Copied from this interpreter's packages.
    """
    return _tools(cache())


@lru_cache(maxsize=4)
def _tools(place: Path) -> Path:
    try:
        parts = [importlib.metadata.distribution(name) for name in _TOOLS]
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"repair tasks need pytest, and {error.name} is not installed: pip install pytest"
        ) from None

    # Another Python or another pytest gets a folder of its own.
    versions = repr([PYTHON, *((part.name, part.version) for part in parts)])
    digest = hashlib.sha256(versions.encode()).hexdigest()
    folder = place / f"tools-{digest[:12]}"
    if folder.is_dir():
        return folder

    # Made under another name, so that no other process sees half of it.
    try:
        place.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="making-", dir=place))
        for part in parts:
            _copy_modules(part, made)
        _compile(made)
        # Whatever user a command of the sandbox runs as may read it.
        for path in (made, *made.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            made.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise InfrastructureError(f"the folder {place} cannot be written: {error}") from None
    return folder


def _copy_modules(part: importlib.metadata.Distribution, folder: Path) -> None:
    for file in part.files or []:
        if file.suffix == ".py" and ".." not in file.parts:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(str(part.locate_file(file))), target)


def _compile(folder: Path) -> None:
    command = [sys.executable, "-m", "compileall", "-q"]
    command += ["--invalidation-mode", "unchecked-hash", str(folder)]
    subprocess.run(command, check=False)
