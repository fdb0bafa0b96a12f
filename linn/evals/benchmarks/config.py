"""The typed form of a benchmark's YAML file, and what decides its scores.

A benchmark is a protocol: rows, how they are asked, how replies are sampled, who grades. Two scores
are comparable where their protocols agree in every key of `decisive`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from linn.errors import UserError, nearest
from linn.recipe.base import Config, PlainName
from linn.recipe.benchmarks import BenchmarkUse

FOLDER = Path(__file__).parent
"""Where the benchmarks that come with linn stand."""


class JudgeProtocol(Config):
    """The judge model of the published scores, and how it is sampled."""

    model: str = Field(description="the judge's name in the paper")
    temperature: float = Field(0.6, ge=0, description="sampling temperature of the judge")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus mass of the judge")
    max_tokens: int = Field(16_384, ge=1, description="tokens of an answer at most")


class RowsConfig(Config):
    """Where the rows are; they are never kept with linn."""

    file: str | None = Field(None, description="a file of the person's own: JSONL or Parquet")
    package: str | None = Field(None, description="package of the index that holds them")
    version: str | None = Field(None, description="its version in which they were found")
    files: tuple[str, ...] = Field((), description="the files in the package")
    join: tuple[str, ...] = Field((), description="further files, whose rows are added by `on`")
    on: str = Field("id", description="the field by which files are joined")
    hub: str | None = Field(None, description="hf://datasets/OWNER/REPO/FILE that holds them")
    how: str = Field("", description="how to get them, where neither is named: one line")
    python: str = Field("", description="the Python that the package asks for, where it is newer")
    where: dict[str, str] = Field(
        default_factory=dict,
        description="only rows whose field has this value, or begins with it where it ends in *",
    )
    generate: dict[str, Any] | None = Field(
        None, description="options of the domain's generator, which makes the rows"
    )
    tasks: tuple[str, ...] = Field((), description="tasks that a generator makes equally many of")
    licence: str = Field("", description="of the package or data set, as it says itself")
    full: int = Field(ge=1, description="rows of the whole benchmark; fewer are a part")

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        places = [self.file, self.package, self.hub, self.how or None, self.generate]
        if all(place is None for place in places):
            raise ValueError("rows: name one of file, package, hub, generate, how")
        if self.package is not None and not self.files:
            raise ValueError("rows: a package needs files")
        return self


class Published(Config):
    """Scores that others have published, in percent unless `unit` says otherwise."""

    source: str = Field(description="where they are published")
    scores: dict[str, float] = Field(description="by model")
    tools: dict[str, float] = Field(
        default_factory=dict, description="the same with a Python tool, by model"
    )
    unit: str = Field("%", description="of the scores")
    note: str = Field("", description="what else a reader must know")


class Benchmark(Config):
    """One benchmark."""

    name: PlainName = Field(description="its name; the file's")
    title: str = Field(description="its name in papers")
    domain: str | None = Field(
        None, description="the domain, or the grader of linn.evals.graders, that grades"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the domain's constructor"
    )
    unsupported: str = Field("", description="why linn does not run it; empty where it does")
    rows: RowsConfig
    prompt: str | None = Field(
        None, description="the user turn, with {field} of the row; default: as the domain asks"
    )
    system: str | None = Field(None, description="the system turn; default: none")
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="fields that the grader reads: name there -> name in the row, dotted; "
        "default: the row as it is",
    )
    thinking: bool = Field(True, description="whether replies open with a thought")
    k: int = Field(1, ge=1, description="samples of each prompt: avg@k")
    temperature: float = Field(1.0, ge=0, description="sampling temperature")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus mass")
    max_tokens: int = Field(ge=1, description="tokens of one assistant turn at most")
    max_sequence: int | None = Field(
        None, ge=1, description="tokens of a conversation at most; default: what the model takes"
    )
    max_turns: int | None = Field(
        None, ge=1, description="assistant turns at most; default: the domain's"
    )
    judge: JudgeProtocol | None = Field(None, description="the judge model; default: none")
    majority: bool = Field(False, description="whether answers can be put to the vote (maj@k)")
    scale: float = Field(100.0, gt=0, description="what a reward of 1 is in the published unit")
    source: str = Field(description="where the protocol is published")
    note: str = Field("", description="what differs from the published protocol, or is not stated")
    example: dict[str, Any] = Field(
        default_factory=dict, description="a made-up row in the layout that is read"
    )
    published: tuple[Published, ...] = Field((), description="scores of others")

    @model_validator(mode="after")
    def _check_grader(self) -> Self:
        if (self.domain is None) == (not self.unsupported):
            raise ValueError("name either domain or, where linn does not run it, unsupported")
        return self

    # ------------------------------------------------------------ as it is used

    def used(self, use: BenchmarkUse) -> Benchmark:
        """The benchmark with the values that a person set."""
        keys = ("k", "temperature", "top_p", "thinking", "max_tokens", "max_sequence", "max_turns")
        changes: dict[str, Any] = {}
        for key in keys:
            if getattr(use, key) is not None:
                changes[key] = getattr(use, key)
        if use.rows is not None:
            changes["rows"] = RowsConfig(file=use.rows, full=self.rows.full)
        if use.judge is not None:
            block = self.judge or JudgeProtocol(model=use.judge)
            changes["judge"] = block.model_copy(update={"model": use.judge})
        return self.model_copy(update=changes)

    def decisive(self) -> dict[str, Any]:
        """Every key that decides scores, in the order in which differences are told.

        `k` and the number of rows decide how certain a score is, not what it estimates. The rows
        themselves are known by `Task.digest`.
        """
        keys: dict[str, Any] = {
            "benchmark": self.name,
            "domain": self.domain,
            "options": dict(self.options),
            "prompt": self.prompt,
            "system": self.system,
            "fields": dict(self.fields),
            "thinking": self.thinking,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "max_sequence": self.max_sequence,
            "max_turns": self.max_turns,
        }
        judge = self.judge.model_dump() if self.judge is not None else {}
        for key in JudgeProtocol.model_fields:
            keys[f"judge.{key}"] = judge.get(key)
        return keys


def identity(keys: Mapping[str, Any]) -> str:
    """A protocol's identity: 16 hexadecimal digits of its decisive keys."""
    text = json.dumps(keys, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which two protocols differ, each as `max_tokens 512 against 131072`."""
    found = []
    for key in dict.fromkeys([*one, *other]):
        left, right = one.get(key), other.get(key)
        if left != right:
            found.append(f"{key} {_short(left)} against {_short(right)}")
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else " ".join(str(value).split())
    return text if len(text) <= 48 else f"{text[:45]}…"


# ---------------------------------------------------------------- files


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it: ten times as fast."""


def names() -> list[str]:
    """Every benchmark that comes with linn."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Benchmark:
    """A benchmark by name, or one of a person's own from `./FILE.yaml`."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in names():
            raise UserError(
                f"benchmark {name!r} is unknown (linn benchmarks lists them; your own: ./FILE.yaml)"
                f"{nearest(name, names())}"
            )
        path = FOLDER / f"{name}.yaml"
    where = f"benchmark {path}"
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{where}: holds no keys; see docs/evaluation.md")
    tree.setdefault("name", path.stem)
    try:
        benchmark = Benchmark.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_in_words(error)}") from None
    if benchmark.name != path.stem:
        raise UserError(f"{where}: name is {benchmark.name!r}; it must be the file's: {path.stem}")
    return benchmark


def _in_words(error: ValidationError) -> str:
    """The first mistake of a file: the key, what is wrong, what was found."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        holder: Any = Benchmark
        for part in first["loc"][:-1]:
            fields = {"rows": RowsConfig, "judge": JudgeProtocol, "published": Published}
            holder = fields.get(str(part), holder)
        return f"unknown key {key!r}{nearest(str(first['loc'][-1]), holder.model_fields)}"
    if first["type"] == "missing":
        return f"{key}: is missing"
    message = str(first["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return f"{key}: {message}" if key else message
