"""YAML -> a typed recipe: every key with its type, default (the paper's, where it has one), meaning and unit.

Unknown keys are errors that name the nearest key. `--set STAGE.KEY=VALUE` changes one value. A recipe holds values, never logic.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from linn.errors import UserError
from linn.types import Optim


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError("must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit, because it names a folder")
    return name


PlainName = Annotated[str, AfterValidator(_plain)]
"""A name that is a folder's too, and that RUN@STAGE:STEP can hold."""


def short(domain: str) -> str:
    """A domain's name: `mine` of `./mine.py`."""
    return Path(domain).stem if domain.endswith(".py") else domain


class Keys(BaseModel):
    """Base of every block of a recipe: unknown keys refused, values frozen, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, tree: Any) -> Any:
        if isinstance(tree, dict):
            for key, field in cls.model_fields.items():
                if isinstance(tree.get(key), bool) and field.annotation in (int, float):
                    raise ValueError(f"{key}: must be a number, found {tree[key]}")
        return tree


class DomainKeys(Keys):
    """Where a domain's prompts come from."""

    level: str = Field("tiny", description="which generator of prompts; `tiny` is what the laptop recipe uses")
    rows: str | None = Field(
        None, description="JSONL in the released row layout, instead of the generator: a path, or hf://datasets/OWNER/REPO/FILE"
    )
    skip_bad: bool = Field(False, description="count rows that cannot be used by reason and skip them; false: the first is an error")


class EvaluateKeys(Keys):
    """What is measured after every stage."""

    test: int = Field(300, ge=1, description="test prompts a domain; results are reported on them")
    validation: int = Field(200, ge=1, description="validation prompts a domain; teachers are chosen on them")
    max_tokens: int = Field(96, ge=1, description="sampled tokens a turn at most, in evaluation")
    temperature: float = Field(1.0, gt=0, description="sampling temperature of the metric `accuracy`")
    pass_at: int = Field(0, ge=0, description="also measure pass@k over k rollouts of each validation prompt; 0: no")
    start: bool = Field(False, description="measure the start checkpoint too, as stage `base`")


class ScaleKeys(Keys):
    """The whole difference between a laptop and a cluster."""

    processes: int = Field(2, ge=1, description="worker processes of one thread each; rollouts and training are spread over them")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: matrix products of training in bf16 over float32 weights; the sampler stays in float32, so raise max_mismatch",
    )
    width: int = Field(1024, ge=16, description="tokens in a packed row")
    capacity: int = Field(256, ge=1, description="conversations that one process decodes at once")


class NewModelKeys(Keys):
    """A model from scratch (the laptop's hybrid), for training a base."""

    vocab: int = Field(1024, ge=300, description="size of the byte-level BPE vocabulary, trained on the domains' clean text")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the initial weights and of the data")


class StageKeys(Keys):
    """What every kind of stage has."""

    name: PlainName = Field(description="the stage's name: its row in the ledger, its part in RUN@STAGE")
    from_: str | None = Field(None, alias="from", description="stage to start from; default: the stage before it; `base`: the model itself")
    domains: dict[str, float] = Field(default_factory=dict, description="domains and their weights in every batch; default: all, equally")
    steps: int = Field(100, ge=1, description="optimiser steps")
    lr: float = Field(3e-6, gt=0, description="peak learning rate")
    min_lr: float | None = Field(None, ge=0, description="learning rate at the end of a cosine or linear schedule, which needs it")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    warmup_from: float = Field(0.0, ge=0, description="learning rate before the first warm-up step")
    schedule: Literal["constant", "cosine", "linear"] = Field("constant", description="shape from the peak to min_lr")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas (paper Tables 7-10)")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    clip: float = Field(1.0, gt=0, description="global gradient norm above which gradients are scaled down")
    save_every: int = Field(20, ge=1, description="steps between resumable states; a killed run repeats at most this many")
    evaluate: bool = Field(True, description="measure every domain after the stage")

    @model_validator(mode="after")
    def _schedule_holds(self) -> Self:
        if (self.schedule == "constant") != (self.min_lr is None):
            what = (
                "min_lr has no meaning under schedule: constant" if self.min_lr is not None else f"schedule: {self.schedule} needs min_lr"
            )
            raise ValueError(f"stage {self.name!r}: {what}; give both (cosine or linear) or neither")
        return self

    @field_validator("domains")
    @classmethod
    def _weights_hold(cls, domains: dict[str, float]) -> dict[str, float]:
        if domains and (min(domains.values()) < 0 or not 0 < math.fsum(domains.values()) < math.inf):
            raise ValueError(f"domains: weights must be 0 or more and not all 0, found {domains}")
        return {short(name): weight for name, weight in domains.items()}

    @field_validator("betas")
    @classmethod
    def _betas_hold(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: must be two numbers from 0 to below 1, found {list(betas)}")
        return betas

    @property
    def optim(self) -> Optim:
        """AdamW's constants of this stage."""
        return Optim(betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, clip=self.clip)

    def lr_at(self, step: int) -> float:
        """Learning rate of 0-based `step`: linear warm-up, then the schedule down to `min_lr` at the last step."""
        if step < self.warmup:
            return self.warmup_from + (self.lr - self.warmup_from) * (step + 1) / self.warmup
        if self.min_lr is None:
            return self.lr
        low = self.min_lr
        share = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        if self.schedule == "cosine":
            return low + (self.lr - low) * 0.5 * (1 + math.cos(math.pi * share))
        return low + (self.lr - low) * (1 - share)


class SftKeys(StageKeys):
    """Supervised fine-tuning: packed sequences, loss on assistant tokens (paper Table 7)."""

    kind: Literal["sft"] = Field(description="`sft`: fine-tuning on demonstrations or rows")
    data: str | None = Field(
        None, description="JSONL of `messages` rows (a path, or hf://datasets/OWNER/REPO/FILE); default: demonstrations made by the domains"
    )
    skip_bad: bool = Field(
        False, description="count rows of `data` that cannot be used by reason and skip them; false: the first is an error"
    )
    faulty: float | dict[str, float] = Field(0.0, description="share of demonstrations that carry their domain's one systematic fault")
    batch: int = Field(64, ge=1, description="sequences a step (the paper packs 64 rows of 262,144 tokens)")
    lr: float = Field(5e-5, gt=0, description="peak learning rate (paper Table 7)")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's betas (paper Table 7)")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decoupled weight decay (paper Table 7)")
    length_power: float = Field(
        0.0, ge=0, le=1, description="a sequence of n tokens weighs n**-power a token: 0 token mean, 1 sequence mean"
    )
    max_length: int = Field(4096, ge=8, description="longer sequences are skipped and counted")

    @field_validator("faulty")
    @classmethod
    def _shares_hold(cls, faulty: float | dict[str, float]) -> float | dict[str, float]:
        if not all(0 <= share <= 1 for share in (faulty.values() if isinstance(faulty, dict) else [faulty])):
            raise ValueError(f"faulty: a share must be from 0 to 1, found {faulty}")
        return {short(name): share for name, share in faulty.items()} if isinstance(faulty, dict) else faulty

    def faulty_share(self, domain: str) -> float:
        """Share of faulty demonstrations of `domain`."""
        if not isinstance(self.faulty, dict):
            return self.faulty
        return {short(name): share for name, share in self.faulty.items()}.get(domain, 0.0)


class RolloutKeys(StageKeys):
    """What stages that sample have in common."""

    prompts: int = Field(128, ge=1, description="prompts a step")
    rollouts: int = Field(16, ge=1, description="rollouts a prompt")
    max_tokens: int = Field(49_152, ge=1, description="sampled tokens a turn at most")
    temperature: float = Field(1.0, gt=0, description="sampling temperature; log-probs are of the tempered distribution")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus mass")
    max_mismatch: float = Field(1e-4, gt=0, description="largest |sampler - trainer log-prob| a token may show before the run stops")
    curve_every: int = Field(
        0, ge=0, description="measure the stage's domains on test each so many steps within the stage; 0: only at its end"
    )


class RlKeys(RolloutKeys):
    """GRPO, strictly on-policy (paper §4.1.2, Eq. 1)."""

    kind: Literal["rl"] = Field(description="`rl`: reinforcement learning by GRPO")
    rollouts: int = Field(16, ge=2, description="rollouts a prompt; a reward is compared with its siblings'")
    dynamic_filter: bool = Field(False, description="keep only groups with unequal rewards and refill the batch (IF-RL)")
    refill: int = Field(10, ge=1, description="sampling rounds at most to fill a filtered batch")
    overlong: Literal["penalty", "mask", "keep"] = Field(
        "keep",
        description="truncated replies: reward 0 and trained | not trained, reward still in the group's statistics | graded as they are",
    )
    kl: float = Field(0.0, ge=0, description="coefficient of KL to the stage's start (RLHF: 0.03)")
    baseline: Literal["mean", "leave_one_out"] = Field("mean", description="what a reward is compared with in its group")
    std: Literal["population", "sample", "none"] = Field("population", description="by which deviation the group's advantages are divided")
    normalise: Literal["token", "sequence", "prompt"] = Field("token", description="what the loss is averaged over")
    group_mask: float | None = Field(None, description="groups whose best reward is not above this are not trained (agentless SWE: 0.5)")


class DistillKeys(RolloutKeys):
    """Multi-domain on-policy distillation (paper §4.4, Eq. 2-4)."""

    kind: Literal["distill"] = Field(description="`distill`: multi-domain on-policy distillation")
    teachers: Literal["best"] | dict[str, str] = Field(
        "best", description="`best`: the ledger's best checkpoint a domain; or domain: stage"
    )
    rollouts: int = Field(4, ge=1, description="rollouts a prompt (paper: 4)")
    lr: float = Field(2e-6, gt=0, description="peak learning rate (paper §4.4)")
    warmup: int = Field(30, ge=0, description="steps of linear warm-up (paper §4.4)")
    warmup_from: float = Field(2e-7, ge=0, description="learning rate before the first warm-up step (paper §4.4)")
    band: tuple[float, float] = Field((0.5, 2.0), description="importance weights outside are zeroed, not clamped (Eq. 3)")
    normalise: Literal["token", "sequence", "prompt"] = Field(
        "sequence", description="what the loss is averaged over (Eq. 4: per sequence)"
    )
    allow_weak_teachers: bool = Field(True, description="go on when a teacher is not better than the student; False refuses")

    @field_validator("teachers")
    @classmethod
    def _short_names(cls, teachers: str | dict[str, str]) -> str | dict[str, str]:
        return {short(name): stage for name, stage in teachers.items()} if isinstance(teachers, dict) else teachers

    @field_validator("band")
    @classmethod
    def _band_holds(cls, band: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= band[0] <= band[1]:
            raise ValueError(f"band: must be two numbers, the lower first, found {list(band)}")
        return band


Stage = Annotated[SftKeys | RlKeys | DistillKeys, Field(discriminator="kind")]


class Recipe(Keys):
    """A list of stages; each takes a checkpoint and gives back a checkpoint."""

    name: PlainName = Field(description="the run's name; its folder is runs/NAME")
    model: str | NewModelKeys = Field(
        "tiny", description="`tiny[-SEED]` (the base kept with linn), a Hugging Face folder, or {vocab, seed} for a new one"
    )
    seed: int = Field(0, description="seed of everything random")
    domains: dict[str, DomainKeys] = Field(
        default_factory=dict, description="domains by name (or ./file.py) and where their prompts come from"
    )
    evaluate: EvaluateKeys = Field(default_factory=lambda: EvaluateKeys(), description="what is measured after every stage")
    scale: ScaleKeys = Field(default_factory=lambda: ScaleKeys(), description="processes, precision, widths")
    stages: list[Stage] = Field(min_length=1, description="the stages, in order")

    @model_validator(mode="after")
    def _names_hold(self) -> Recipe:
        known = [short(name) for name in self.domains]
        if len(set(known)) < len(known):
            raise ValueError(f"domains: two have the same name ({', '.join(self.domains)}); a file's name is its domain's name")
        seen = ["base"]
        for stage in self.stages:
            if stage.name == "base":
                raise ValueError("stage 'base': that name is the start's own; take another")
            if stage.name in seen:
                raise ValueError(f"stage {stage.name!r} is there twice; names must differ")
            if stage.from_ is not None and stage.from_ not in seen:
                raise ValueError(f"stage {stage.name!r}: from: {stage.from_!r} is no earlier stage; allowed: {', '.join(seen)}")
            for domain in (*stage.domains, *_named(stage)):
                if domain not in known:
                    raise ValueError(f"stage {stage.name!r}: domain {domain!r} is not among the recipe's domains{nearest(domain, known)}")
            if not known and not (isinstance(stage, SftKeys) and stage.data):
                raise ValueError(f"stage {stage.name!r}: the recipe has no domains to take prompts from; name some under domains:")
            if isinstance(stage, DistillKeys):
                self._teachers_hold(stage, seen)
            seen.append(stage.name)
        return self

    def _teachers_hold(self, stage: DistillKeys, seen: Sequence[str]) -> None:
        """`seen`: what comes before the stage."""
        wanted = self.weights_of(stage)
        if isinstance(stage.teachers, dict):
            for domain, teacher in stage.teachers.items():
                if teacher not in seen:
                    raise ValueError(
                        f"stage {stage.name!r}: teacher {teacher!r} of {domain} is no earlier stage; allowed: {', '.join(seen)}"
                    )
            if missing := [d for d in wanted if d not in stage.teachers]:
                raise ValueError(f"stage {stage.name!r}: no teacher for {', '.join(missing)}; name one each, or say teachers: best")
            if extra := [d for d in stage.teachers if d not in wanted]:
                raise ValueError(
                    f"stage {stage.name!r}: teacher for {extra[0]!r}, which is not among its domains{nearest(extra[0], wanted)}"
                )
        if len(seen) == 1:
            raise ValueError(f"stage {stage.name!r}: no checkpoint comes before it that could teach; put it after an sft or rl stage")

    def parent(self, name: str) -> str:
        """The stage (or `base`) that stage `name` starts from."""
        before = "base"
        for stage in self.stages:
            if stage.name == name:
                return stage.from_ or before
            before = stage.name
        raise KeyError(name)

    def weights_of(self, stage: StageKeys) -> dict[str, float]:
        """Domain weights of a stage, summing to 1."""
        raw = stage.domains or {short(name): 1.0 for name in self.domains}
        total = sum(raw.values())
        return {name: value / total for name, value in raw.items()}

    def domain_options(self) -> dict[str, dict[str, Any]]:
        """Constructor arguments of every domain, by its name or file."""
        return {name: keys.model_dump() for name, keys in self.domains.items()}


def _named(stage: StageKeys) -> list[str]:
    """Domains that a stage's other keys speak of."""
    found = stage.faulty if isinstance(stage, SftKeys) else stage.teachers if isinstance(stage, DistillKeys) else None
    return list(found) if isinstance(found, dict) else []


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, where plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.value != "<<":
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def nearest(word: str, among: Sequence[str] | dict[str, Any]) -> str:
    """`; did you mean 'x'?` for a misspelt word, or the list of what is allowed."""
    names = list(among)
    close = difflib.get_close_matches(word, names, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; allowed: {', '.join(names)}"


def load(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `STAGE.KEY=VALUE` (or `KEY=VALUE`) changes; raises UserError in one line."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"recipe {path}: cannot be read ({error.strerror}); give a YAML file such as recipes/tiny.yaml") from None
    except UnicodeDecodeError:
        raise UserError(f"recipe {path}: is not UTF-8 text; give a YAML file such as recipes/tiny.yaml") from None
    try:
        tree = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"recipe {path}{where}: not YAML: {said}") from None
    except (ValueError, RecursionError) as error:  # a date or a number that cannot be, brackets without end
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"recipe {path}: not YAML: {reason}") from None
    if not isinstance(tree, dict):
        found = {"NoneType": "nothing", "list": "a list"}.get(type(tree).__name__, "no keys")
        raise UserError(f"recipe {path}: holds {found}, expected keys such as name, domains, stages")
    for change in changes:
        _change(tree, change)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from a parsed tree; raises UserError that says where, what was found and what is allowed."""
    domains = tree.get("domains")
    if isinstance(domains, dict):
        tree = {**tree, "domains": {name: value or {} for name, value in domains.items()}}
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        said = [line for e in error.errors() if (line := _explain(tree, e))]
        raise UserError(" ".join(f"{where}: {'; '.join(list(dict.fromkeys(said))[:4])}".split())) from None


def _change(tree: dict[str, Any], change: str) -> None:
    key, sep, raw = change.partition("=")
    if not sep:
        raise UserError(f"--set {change!r}: expected STAGE.KEY=VALUE or KEY=VALUE")
    try:
        value = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"--set {change!r}: the value is not YAML") from None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML reads 1e-3 as text
            value = float(value) if value.lower() not in {"nan", "inf"} else value
    head, *rest = key.split(".")
    listed = tree.get("stages")
    stages = {str(s.get("name")): s for s in listed if isinstance(s, dict)} if isinstance(listed, list) else {}
    node: Any = stages.get(head) if rest and head in stages else tree
    path = rest if node is not tree else [head, *rest]
    if node is tree and len(path) > 1 and path[0] not in Recipe.model_fields:
        raise UserError(f"--set {change!r}: no stage or key {head!r}{nearest(head, [*stages, *keys_of(Recipe)])}")
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {change!r}: {part!r} holds no keys")
    node[path[-1]] = value


_BLOCKS: dict[str, type[BaseModel]] = {"evaluate": EvaluateKeys, "scale": ScaleKeys, "model": NewModelKeys}
_KINDS: dict[str, type[StageKeys]] = {"sft": SftKeys, "rl": RlKeys, "distill": DistillKeys}


_MAPPINGS = {"str": False, "float": False, "literal['best']": False, "NewModelKeys": True, "dict[str,float]": True, "dict[str,str]": True}
"""Branches of a union as pydantic names them: whether the branch holds keys."""


def _explain(tree: dict[str, Any], error: Any) -> str:
    """One mistake in a recipe's words; empty for the branch of a union that the person did not mean."""
    block: type[BaseModel] = Recipe
    names: list[str] = []
    node: Any = tree
    for part in error["loc"]:
        if part in _MAPPINGS:
            if _MAPPINGS[part] != isinstance(node, dict) and (_MAPPINGS[part] or isinstance(node, dict)):
                return ""
            continue
        if isinstance(part, str) and part in _KINDS and isinstance(node, dict) and node.get("kind") == part:
            continue  # pydantic names the union's branch; the person wrote no such key
        if part == "[key]":
            return f"{'.'.join(names)}: a name must be text; put it in quotes"
        if names and names[-1] == "stages" and isinstance(part, int) and isinstance(node, list):
            node = node[part]
            names[-1] = f"stage {node.get('name', part)!r}" if isinstance(node, dict) else f"stage {part}"
            block = _KINDS.get(str(node.get("kind")), StageKeys) if isinstance(node, dict) else StageKeys
            continue
        names.append(str(part))
        node = node.get(part) if isinstance(node, dict) else None
        block = _BLOCKS.get(str(part), block)
        if len(names) == 2 and names[0] == "domains":
            block = DomainKeys
    at = ".".join(names) or "recipe"
    match error["type"]:
        case "extra_forbidden":
            return f"{'.'.join(names[:-1]) or 'recipe'}: unknown key {names[-1]!r}{nearest(names[-1], keys_of(block))}"
        case "missing":
            return f"{at}: is missing"
        case "union_tag_invalid" | "union_tag_not_found":
            return f"{at}: kind must be one of sft, rl, distill"
        case "value_error":
            said = str(error["msg"]).removeprefix("Value error, ")
            if not names or said.startswith(("stage ", "domains: two")):
                return said
            return f"{at}: {said.removeprefix(names[-1] + ': ')}"
        case "model_type" | "model_attributes_type":
            said = f"must hold keys ({', '.join(keys_of(block))})"
        case "dict_type":
            said = "must hold NAME: VALUE pairs"
        case "list_type" | "tuple_type":
            said = "must be a list, [a, b]"
        case _:
            said = str(error["msg"]).replace("Input should be", "must be").replace(" after validation", "")
    found = {list: "a list", dict: "keys", type(None): "nothing"}.get(type(node), f"{node!r}")
    return f"{at}: {said}, found {found}"


def keys_of(block: type[BaseModel]) -> list[str]:
    """The keys of a block as written in YAML."""
    return [field.alias or name for name, field in block.model_fields.items()]


def resolved(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False, width=120)


def every_key() -> Iterator[tuple[str, str, str, str]]:
    """(block.key, type, default, meaning) of every recipe key, for `linn explain`."""
    blocks: list[tuple[str, type[BaseModel]]] = [
        ("", Recipe), ("model.", NewModelKeys), ("domains.NAME.", DomainKeys), ("evaluate.", EvaluateKeys), ("scale.", ScaleKeys),
        ("sft.", SftKeys), ("rl.", RlKeys), ("distill.", DistillKeys),
    ]  # fmt: skip
    for prefix, block in blocks:
        for name, field in block.model_fields.items():
            if field.is_required():
                default = "required"
            else:
                value = field.get_default(call_default_factory=True)
                default = "…" if isinstance(value, BaseModel) else str(value)
            kind = getattr(field.annotation, "__name__", None) if not hasattr(field.annotation, "__args__") else None
            shown = kind or str(field.annotation).replace("typing.", "").replace("linn.recipe.", "")
            yield f"{prefix}{field.alias or name}", shown, default, field.description or ""
