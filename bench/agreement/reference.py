"""What the agreement scripts share: reference graders loaded out of an unpacked wheel, and the
table that is printed.

    pip download --no-deps --python-version 3.12 --only-binary=:all: nemo-gym==0.4.0
    python -m zipfile -e nemo_gym-0.4.0-py3-none-any.whl FOLDER
    python -m bench.agreement.NAME --reference FOLDER [--cases N] [--seed S]

The servers import a web framework, Ray and clients of models. Stand-ins take their places, so that
the grading functions run and nothing else does. What those functions themselves use must be
installed: pandas (`workplace`), `xmltodict==1.0.2` and `openapi-schema-validator==0.6.3`
(`structured`). Newer wheels ask for a newer Python, `--python-version 3.13.14` for nemo-gym==0.7.0;
their grading functions run on any that linn runs on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from pydantic_core import core_schema

_STOOD_IN = ("nemo_gym", "fastapi", "ray", "aiohttp", "openai", "omegaconf")


class _AnyName(type):
    """A class that has every attribute, so that whatever a server names exists."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (Body,), {})

    def __or__(cls, other: Any) -> Any:
        return cls

    def __ror__(cls, other: Any) -> Any:
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class Body(metaclass=_AnyName):
    """A request or an answer of a server: it holds what it was made with. Called, as a decorator
    is, it gives back what it was given.
    """

    def __init__(self, *_: Any, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __call__(self, given: Any = None, *_: Any, **__: Any) -> Any:
        return given

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
        return core_schema.any_schema()

    def model_dump(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Nothing: the servers copy a request's fields into their answer, and only what they add is
        of interest.
        """
        return {}


class _StandIns(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.split(".")[0] not in _STOOD_IN:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(Body, name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def load(folder: Path, server: str, module: str = "app") -> Any:
    """A module of a resource server of the unpacked wheel."""
    if not (folder / "resources_servers" / server).is_dir():
        sys.exit(
            f"{folder} holds no resources_servers/{server}: unpack the nemo-gym wheel there (see "
            "bench/agreement/reference.py)"
        )
    if "resources_servers" not in sys.modules:
        sys.meta_path.insert(0, _StandIns())
        package = sys.modules["resources_servers"] = types.ModuleType("resources_servers")
        package.__path__ = [str(folder / "resources_servers")]
        # the modules of code_gen name each other from there
        sys.path.append(str(folder / "resources_servers" / "code_gen"))
    return importlib.import_module(f"resources_servers.{server}.{module}")


def server(module: Any, name: str, **config: Any) -> Any:
    """A server of a loaded module, with this configuration."""
    return getattr(module, name)(config=Body(**config))


def message(text: str) -> Body:
    """A response that says one text."""
    part = Body(type="output_text", text=text)
    return Body(
        output_text=text,
        output=[Body(type="message", role="assistant", content=[part])],
        error=None,
    )


def call(*calls: tuple[str, Any]) -> Body:
    """A response that makes these calls, (name, arguments as text)."""
    return Body(
        output_text="",
        output=[Body(type="function_call", name=name, arguments=text) for name, text in calls],
        error=None,
    )


def examples(folder: Path, server: str, name: str = "example") -> list[dict[str, Any]]:
    """The rows of a server's example file; none where the wheel has no such file."""
    path = folder / "resources_servers" / server / "data" / f"{name}.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def arguments(description: str | None, cases: int) -> tuple[Path, int, random.Random]:
    """The reference's folder, the number of cases, the randomness, from the command line."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        help="folder into which the nemo-gym wheel was unpacked",
    )
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    return options.reference, options.cases, random.Random(options.seed)


class Tally:
    """Cases of one comparison: how many agree, and why the others do not."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.cases = self.equal = self.positive = 0
        self.classes: Counter[str] = Counter()
        self.unexplained: list[Any] = []

    def add(
        self, ours: Any, theirs: Any, why: Callable[[], str | None] = lambda: None, case: Any = None
    ) -> None:
        """One case. `why` is asked only where the two differ; it gives the reason, or None where it
        knows none.
        """
        self.cases += 1
        self.positive += bool(theirs)
        if ours == theirs:
            self.equal += 1
            return
        reason = why()
        self.classes[reason or "unexplained"] += 1
        if reason is None:
            self.unexplained.append((case, ours, theirs))


def report(folder: Path, tallies: Sequence[Tally]) -> int:
    """Print the tables; 1 where a difference is unexplained."""
    release = folder.name
    for path in folder.glob("nemo_gym-*.dist-info"):
        release = path.name.removesuffix(".dist-info").replace("_", "-")
    for tally in tallies:
        print(
            f"{tally.what} against {release}: {tally.cases:,} cases, {tally.equal:,} equal "
            f"({tally.positive:,} positive)"
        )
        for reason, count in tally.classes.most_common():
            print(f"  {count:6,}  {reason}")
        for case, ours, theirs in tally.unexplained[:5]:
            print(f"          linn {ours!r}, reference {theirs!r}: {str(case)[:600]}")
    return int(any(tally.unexplained for tally in tallies))


def question_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row, or a recorded rollout, asks the model: by it a rollout finds its row."""
    turns = row["responses_create_params"]["input"]
    if isinstance(turns, str):
        return (turns,)
    return tuple(_text(turn["content"]) for turn in turns)


def replies_of(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded rollout as `linn grade` reads it: its chat turns, calls and their results among
    them.
    """
    turns: list[dict[str, Any]] = []
    for item in rollout["response"]["output"]:
        if item["type"] == "message":
            turns.append({"role": "assistant", "content": _text(item["content"])})
        elif item["type"] == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            calls = [{"id": item["call_id"], "function": function}]
            turns.append({"role": "assistant", "content": "", "tool_calls": calls})
        elif item["type"] == "function_call_output":
            answer = {"tool_call_id": item["call_id"], "content": item["output"]}
            turns.append({"role": "tool", **answer})
    return {"messages": turns}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
