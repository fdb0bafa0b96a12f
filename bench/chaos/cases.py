"""The damaged inputs of `--fuzz`: for each target a case is files and a command, or replies."""

from __future__ import annotations

import base64
import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.chaos import mutations

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "linn" / "bases" / "tiny-0"


@dataclass
class Case:
    """One input, whole: with it a finding can be made again."""

    target: str
    """`recipe`, `rows`, `replies` or `model`."""
    seed: str
    """What it was drawn from."""
    command: list[str]
    """Words after `linn`; of replies, the domain and the number of its prompt."""
    files: dict[str, bytes | None] = field(default_factory=dict)
    """Name in its folder -> content; None: a folder of that name stands there."""

    def write(self, folder: Path) -> None:
        """Put its files into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)

    def to_json(self) -> dict[str, Any]:
        """As it is saved."""
        files: dict[str, str | None] = {}
        for name, content in self.files.items():
            files[name] = None if content is None else base64.b64encode(content).decode()
        return {
            "target": self.target,
            "seed": self.seed,
            "command": self.command,
            "files": files,
        }

    @staticmethod
    def of_json(saved: dict[str, Any]) -> Case:
        """What `to_json` saved."""
        files: dict[str, bytes | None] = {}
        for name, content in saved["files"].items():
            files[name] = None if content is None else base64.b64decode(content)
        return Case(saved["target"], saved["seed"], saved["command"], files)


# ---------------------------------------------------------------- recipes


def recipe(rng: random.Random, seed: str) -> Case:
    """One of the recipes, its text or its tree damaged, or a `--set`."""
    given = rng.choice(_recipes())
    command = ["run", "recipe.yaml", "--dry-run"]
    how = rng.random()
    if how < 0.4:
        tree = yaml.safe_load(given)
        tree = mutations.value(rng, tree)
        content = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    elif how < 0.6:
        at = rng.randint(0, len(given))
        content = given[:at] + rng.choice(mutations.YAML_PIECES) + given[at:]
    elif how < 0.8:
        content = mutations.text(rng, given)
    else:
        content = given
        value = mutations.odd(rng)
        word = value if isinstance(value, str) else json.dumps(value)
        key = mutations.text(rng, rng.choice(_KEYS)) if rng.random() < 0.4 else rng.choice(_KEYS)
        change = f"{key}={word}".replace("\x00", "").encode(errors="replace").decode()
        command += ["--set", change]
    raw = content.encode(errors="surrogatepass")
    if rng.random() < 0.1:
        raw = mutations.content(rng, raw)
    return Case("recipe", seed, command, {"recipe.yaml": raw})


_KEYS = (
    "seed",
    "model",
    "model.vocab",
    "name",
    "evaluate.test",
    "evaluate.temperature",
    "scale.width",
    "scale.processes",
    "domains.mcqa.rows",
    "domains.code.judge",
    "domains.mcqa.level",
    "domains",
    "stages",
    "sft.steps",
    "sft.lr",
    "sft.data",
    "sft.faulty",
    "mopd.teachers",
    "mopd.domains",
    "rlhf.kl",
    "code.top_p",
    "template",
    "if-rl.rollouts",
    "mopd.band",
    "sft.betas",
    "sft.horizon",
)


@functools.cache
def _recipes() -> list[str]:
    names = ("tiny.yaml", "compare.yaml", "genrm.yaml", "cascade2.yaml")
    return [(ROOT / "recipes" / name).read_text() for name in names]


# ---------------------------------------------------------------- rows

_ASKED = {"responses_create_params": {"input": [{"role": "user", "content": "what is 2 + 3?"}]}}
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
_CHAT = {
    "messages": [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "call f"},
        {"role": "assistant", "content": "<think>t</think>", "tool_calls": [_CALL]},
        {"role": "tool", "content": "r", "tool_call_id": "1"},
        {"role": "assistant", "content": "done"},
    ],
    "tools": [_TOOL],
}
_TREE = json.dumps({"a.py": "x = 1\n"})
ROWS: tuple[tuple[str | None, dict[str, Any]], ...] = (
    (None, _CHAT),
    (None, {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
    (None, {"instruction": "add", "input": "1 2", "output": "3"}),
    (None, {"prompt": "q", "chosen": "a", "rejected": "b"}),
    ("math", {"question": "1+1", "expected_answer": "2", "uuid": "m"}),
    ("math", {"problem": "1+1", "answer": "\\frac{4}{2}"}),
    ("mcqa", {**_ASKED, "options": [{"A": "5"}, {"B": "6"}], "expected_answer": "A", "uuid": "u"}),
    ("instruct", {**_ASKED, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [None]}),
    ("structured", {**_ASKED, "schema_str": '{"type": "object"}', "schema_type": "json", "id": 1}),
    (
        "code",
        {**_ASKED, "verifier_metadata": {"unit_tests": {"inputs": ["1\n"], "outputs": ["1\n"]}}},
    ),
    ("longctx", {**_ASKED, "expected_answer": ["a", "b"], "uuid": "l"}),
    ("preference", {**_ASKED, "id": 4}),
    ("workplace", {**_ASKED, "ground_truth": [{"name": "f", "arguments": "{}"}], "id": 2}),
    (
        "swe_agentless",
        {"metadata": {"relevant_file_contents": _TREE, "tests": "def test_a(): pass"}},
    ),
    ("swe_agentic", {"metadata": {"problem_statement": "p", "files": _TREE, "tests": "x"}}),
    ("proof", {"given": "x = 1", "goal": "x = 1"}),
)
"""Valid rows of the layouts that linn reads, with the domain that takes them; None: SFT."""


def rows(rng: random.Random, seed: str) -> Case:
    """A file of a few rows, some or all of them damaged, for one of the verbs over rows."""
    domain, row = rng.choice(ROWS)
    lines = []
    for _ in range(rng.randint(1, 4)):
        damaged = mutations.value(rng, row) if rng.random() < 0.8 else row
        lines.append(json.dumps(damaged, ensure_ascii=rng.random() < 0.7) + "\n")
    raw = "".join(lines).encode(errors="surrogatepass")
    if rng.random() < 0.25:
        raw = mutations.content(rng, raw)
    name = rng.choices(["rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.json"], [12, 1, 1, 1])[
        0
    ]
    files: dict[str, bytes | None] = {name: raw}
    verb = rng.choice(["data", "render", "grade", "dry-run"])
    if verb == "data":
        command = ["data", name, *(["--domain", domain] if domain else [])]
    elif verb == "render":
        command = ["render", "--rows", name, "--out", "out.jsonl"]
        command += ["--domain", domain] if domain and rng.random() < 0.5 else []
        command += ["--tokens", str(TINY)] if rng.random() < 0.5 else []
    elif verb == "grade":
        replies = [{"row": number, "text": "\\boxed{5}"} for number in range(len(lines))]
        if rng.random() < 0.5:
            replies = [mutations.value(rng, reply) for reply in replies]
        files["replies.jsonl"] = "".join(json.dumps(reply) + "\n" for reply in replies).encode()
        words = ["--rows", name, "--replies", "replies.jsonl", "--out", "out.jsonl"]
        command = ["grade", domain or "math", *words]
    else:
        tree = {"name": "r", "domains": {domain or "math": {"rows": name}}}
        tree["stages"] = [{"name": "sft", "kind": "sft", "steps": 1}]
        files["recipe.yaml"] = yaml.safe_dump(tree).encode()
        command = ["run", "recipe.yaml", "--dry-run"]
    if rng.random() < 0.3 and verb in ("data", "grade"):
        command.append("--skip-bad")
    return Case("rows", seed, command, files)


# ---------------------------------------------------------------- replies


def replies(rng: random.Random, seed: str) -> Case:
    """Damaged gold answers and odd texts, for the grader of a domain."""
    from linn.domains.load import NAMES, load

    name = rng.choice([name for name in NAMES if name not in ("swe_agentic", "genrm")])
    number = rng.randrange(1000)
    domain = load(name)
    gold = domain.gold(domain.make(random.Random(number)))
    domain.close()
    texts = []
    for _ in range(12):
        odd_one = rng.choice(mutations.ODD_TEXTS)
        texts.append(mutations.text(rng, gold.text) if rng.random() < 0.8 else odd_one)
    raw = json.dumps([[text, mutations.text(rng, gold.reasoning)] for text in texts]).encode()
    return Case("replies", seed, [name, str(number)], {"replies.json": raw})


# ---------------------------------------------------------------- model folders


def model(rng: random.Random, seed: str) -> Case:
    """A model folder of our own family or of another, one or two of its files damaged."""
    base = rng.choice(_models())
    files: dict[str, bytes | None] = {f"model/{name}": base[name] for name in base}
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(sorted(base))
        key = f"model/{name}"
        how = rng.random()
        given = files.get(key)
        if how < 0.08:
            files.pop(key, None)
        elif how < 0.14:
            files[key] = None
        elif how < 0.2:
            files[key] = base[rng.choice(sorted(base))]
        elif given and name.endswith(".json") and how < 0.75:
            tree = mutations.value(rng, json.loads(base[name]))
            files[key] = json.dumps(tree).encode(errors="surrogatepass")
        elif given and name.endswith(".safetensors") and how < 0.75:
            files[key] = _other_tensors(rng, base[name])
        elif given and name.endswith(".jinja"):
            files[key] = mutations.text(rng, base[name].decode()).encode(errors="surrogatepass")
        elif given:
            files[key] = mutations.content(rng, given)
    return Case("model", seed, ["check", "model"], files)


def _other_tensors(rng: random.Random, content: bytes) -> bytes:
    """The header of safetensors damaged: names, types, shapes, places."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    how = rng.randrange(6)
    if how == 0:
        entry["dtype"] = rng.choice(["F16", "I64", "BOOL", "F8_E4M3", "X", "BF16", "U8"])
    elif how == 1:
        entry["shape"] = [*entry["shape"], rng.choice([0, 1, 2, 2**40])]
    elif how == 2:
        entry["shape"] = entry["shape"][::-1]
    elif how == 3:
        del header[name]
    elif how == 4:
        header[f"{name}.x"] = header.pop(name)
    else:
        header = mutations.value(rng, header)
    raw = json.dumps(header).encode(errors="surrogatepass")
    return len(raw).to_bytes(8, "little") + raw + content[8 + size :]


@functools.cache
def _models() -> list[dict[str, bytes]]:
    """The files of a model of our own family, and of two small ones of transformers'."""
    found = [_files_of(TINY)]
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

    tokenizer = {name: found[0][name] for name in found[0] if "token" in name or "chat" in name}
    sizes: dict[str, Any] = {
        "vocab_size": 1024,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
    }
    torch.manual_seed(0)
    for kind in (LlamaConfig, Qwen3Config):
        built = AutoModelForCausalLM.from_config(kind(**sizes))
        with tempfile.TemporaryDirectory() as folder:
            built.save_pretrained(folder)
            found.append({**_files_of(Path(folder)), **tokenizer})
    return found


def _files_of(folder: Path) -> dict[str, bytes]:
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".safetensors"):
            files[path.name] = path.read_bytes()
    return files


TARGETS: dict[str, Callable[[random.Random, str], Case]] = {
    "recipe": recipe,
    "rows": rows,
    "replies": replies,
    "model": model,
}
"""Target -> what draws a case."""
