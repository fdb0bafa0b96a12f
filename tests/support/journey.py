"""A folder that somebody brings, through SFT, RL, MOPD and export, and what is found at the end.

`bench/agreement/models.py` prints the table of docs/models.md from it; `tests/test_models.py` holds
that table.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from linn.chat.codec import Codec
from linn.chat.jinja import TODAY
from linn.chat.template import text_of
from linn.domains.base import Domain
from linn.engine.protocol import Engine
from linn.errors import UserError
from linn.progress import Progress
from linn.recipe import load as recipes
from linn.run.export import export_checkpoint
from linn.stages.distill import distill
from linn.stages.rl import rl
from linn.stages.sft import sft
from linn.stages.stage_run import StageRun
from linn.types import Message, Prompt, Reply, Verdict
from support import model_families

STAGES: dict[str, dict[str, Any]] = {
    "sft": {"kind": "sft", "steps": 3, "batch": 4, "lr": 3e-3},
    "rl": {"kind": "rl", "steps": 1, "prompts": 2, "rollouts": 6, "max_tokens": 12, "lr": 1e-3},
    "mopd": {"kind": "distill", "steps": 1, "prompts": 2, "rollouts": 2, "max_tokens": 12},
}
RECIPE = {
    "name": "t",
    "domains": {"capitals": {}},
    "stages": [{"name": name, "domains": {"capitals": 1}, **keys} for name, keys in STAGES.items()],
}


HEADING = """\
| family | template | ends a turn | ids | text | `generate()` ends at | export | log-probs |
|---|---|---|---|---|---|---|---|"""
"""Of the table whose rows `Arrival.row` writes."""


class Capitals(Domain):
    """A few words, asked and answered; even lengths earn 1, so that a random policy learns."""

    name = "capitals"

    def prompts(self, split: str, seed: int = 0) -> Iterator[Prompt]:
        for i in range(10_000):
            messages = (Message("user", f"What is the capital of number {i}? Count: 1, 2  3."),)
            yield Prompt(self.name, f"p{seed}.{i}", messages, thinking=False)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        return (Message("assistant", f"The capital is Paris, {rng.randint(10, 99)}."),)

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        return Verdict(float(len(reply.text) % 2 == 0))


CHATS: tuple[tuple[Message, ...], ...] = (
    (Message("user", "What is the capital of France?"),),
    (Message("user", "  two spaces, a tab\t, ümläut, 日本 and 12345\n\nlines"),),
    (
        Message("user", "Count to ten."),
        Message("assistant", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."),
        Message("user", "Then 12 + 34?"),
    ),
)
TOOLS: tuple[Any, ...] = (
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Looks a place up.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "Which."}},
                "required": ["place"],
            },
        },
    },
)
ANSWER = Message("assistant", "I think that the answer is yes.")


@dataclass(frozen=True)
class Arrival:
    """What came out at the end of a journey."""

    family: str
    """Which layout."""
    refused: str = ""
    """The line that refuses the folder; empty where it trains."""
    template: str = ""
    """Which template was trained: `own` or `nemotron`."""
    ids: str = ""
    """The first text whose ids are not the tokenizer's; empty where all are."""
    text: str = ""
    """The first text that `apply_chat_template` of the export writes otherwise."""
    stops: tuple[str, ...] = ()
    """Tokens at which `generate()` of the export ends."""
    missed: tuple[str, ...] = ()
    """Tokens of training's stops at which it does not."""
    dtype: str = ""
    """Of the export's weights, by default; the base's."""
    size: float = 0.0
    """The export's bytes of weights, as a share of the base's."""
    gap: float = 0.0
    """Largest difference of log-probs, linn's and stock transformers': of the checkpoint and its
    float32 export, and of the default export computed in float32."""
    rounding: float = 0.0
    """Mean |difference| of log-probs that the default export's rounding costs."""

    @property
    def row(self) -> str:
        """Its row of the table in docs/models.md."""
        if self.refused:
            return f"| {self.family} | refused: {_cell(self.refused)} | | | | | | |"
        ends = "every stop" if not self.missed else f"not {' '.join(self.missed)}"
        cells = [
            self.family,
            self.template,
            f"`{_cell(self.stops[0])}`",
            "equal" if not self.ids else "differ",
            "equal" if not self.text else "differs",
            ends,
            f"{self.dtype}, {self.size:.2f}",
            "1e-5" if self.gap <= 1e-5 else f"{self.gap:.1e}",
        ]
        return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def travel(family: str, home: Path, engine: Engine) -> Arrival:
    """The whole way of one family, with an engine that is used for nothing else meanwhile."""
    base = model_families.write(family, home / "base")
    try:
        codec = Codec.load(base)
        checkpoint = _train(base, home, codec, engine)
    except UserError as error:
        return Arrival(family, refused=str(error).replace(str(base), "DIR"))
    return _inspect(family, base, checkpoint, home, codec, engine)


def _train(base: Path, home: Path, codec: Codec, engine: Engine) -> Path:
    """SFT, RL and MOPD, whose teacher is the checkpoint of SFT; returns the last checkpoint."""
    recipe = recipes.parse(RECIPE, "t")
    start, teacher = base, base
    with open("/dev/null", "w") as nowhere:
        for config in recipe.stages:
            stage = StageRun(
                config=config,
                folder=home / config.name,
                start=start,
                seed=3,
                weights=recipe.weights_of(config),
                domains={"capitals": Capitals()},
                codec=codec,
                engine=engine,
                progress=Progress(Console(file=nowhere)),
            )
            stage.folder.mkdir()
            if config.kind == "sft":
                sft(stage)
                teacher = stage.checkpoint
            elif config.kind == "rl":
                rl(stage)
            else:
                distill(stage, {"capitals": teacher})
            start = stage.checkpoint
    return start


def _inspect(
    family: str, base: Path, checkpoint: Path, home: Path, codec: Codec, engine: Engine
) -> Arrival:
    from transformers import AutoTokenizer

    out = export_checkpoint(str(checkpoint), home / "out")
    exact = export_checkpoint(str(checkpoint), home / "exact", dtype="float32")
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    texts, ids = _texts(codec)

    sequences = [ids[0][:40], ids[-1][:60]]
    ours = engine.score(checkpoint, sequences)
    rounded = engine.score(out, sequences)
    theirs = _log_probs(exact, codec, sequences)
    theirs_rounded = _log_probs(out, codec, sequences)
    stops, missed = _stops(out, codec)
    return Arrival(
        family=family,
        template=codec.template.name,
        ids=_first_other_ids(tokenizer, texts, ids),
        text=_first_other_text(tokenizer, texts),
        stops=stops,
        missed=missed,
        dtype=json.loads((out / "config.json").read_text())["dtype"],
        size=_bytes(out) / _bytes(base),
        gap=max(_gap(ours, theirs)[1], _gap(rounded, theirs_rounded)[1]),
        rounding=_gap(ours, rounded)[0],
    )


# ---------------------------------------------------------------- text and ids

Written = list[tuple[tuple[Message, ...], tuple[Any, ...], bool, bool, str]]
"""(messages, tools, whether a reply is asked for, its mode, what training writes)."""


def _texts(codec: Codec) -> tuple[Written, list[list[int]]]:
    """Prompts and whole conversations, as they are trained, and their ids."""
    texts: Written = []
    ids: list[list[int]] = []
    modes = codec.template.modes or (True,)
    offered = ((), TOOLS) if codec.template.tools else ((),)
    for chat, mode, tools in itertools.product(CHATS, modes, offered):
        prompt = Prompt("capitals", "p", chat, thinking=mode, tools=tools)
        text = text_of(codec.template.prompt(chat, tools, mode))
        texts.append((chat, tools, True, mode, text))
        ids.append(codec.prompt_ids(prompt))
    for chat in CHATS:
        spans = codec.template.spans((*chat, ANSWER), (), False)
        texts.append(((*chat, ANSWER), (), False, False, text_of(spans)))
        ids.append(codec.encode_spans(spans)[0])
    return texts, ids


def _first_other_ids(tokenizer: Any, texts: Written, ids: list[list[int]]) -> str:
    """The first text that the export's tokenizer cuts otherwise; empty where there is none."""
    for (*_, text), own in zip(texts, ids, strict=True):
        if tokenizer(text, add_special_tokens=False)["input_ids"] != own:
            return text
    return ""


def _first_other_text(tokenizer: Any, texts: Written) -> str:
    """The first conversation that the export's template writes otherwise.

    A template that asks for the date gets today's; training has one for all days.
    """
    for messages, tools, asks, mode, text in texts:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        theirs = tokenizer.apply_chat_template(
            turns,
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=asks,
            enable_thinking=mode,
            reasoning_effort="medium" if mode else "low",
        )
        if theirs.replace(str(date.today()), str(TODAY)) != text:
            return str(theirs)
    return ""


# ---------------------------------------------------------------- the model


def _stops(folder: Path, codec: Codec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stops of training at which `generate()` ends, and those at which it does not."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    prompt = torch.tensor([[1, 2, 3]])
    ends, misses = [], []
    for stop in codec.stops:

        def forced(ids: torch.Tensor, scores: torch.Tensor, stop: int = stop) -> torch.Tensor:
            """`stop` is the fifth token, and none of the others ends a turn."""
            out = torch.full_like(scores, -torch.inf)
            out[:, stop if ids.shape[1] == 7 else 5] = 0.0
            return out

        done = model.generate(prompt, max_new_tokens=9, logits_processor=[forced])
        (ends if done.shape[1] == 8 else misses).append(codec.tokenizer.id_to_token(stop))
    return tuple(ends), tuple(misses)


def _log_probs(folder: Path, codec: Codec, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
    """Of every token but the first, by stock transformers in float32.

    Among the tokenizer's ids: linn neither samples nor trains those that pad the vocabulary.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    # The stock class of Nemotron-H floors dt, which Mamba-2 does not.
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = tuple(model.config.time_step_limit)
    rows = []
    for sequence in sequences:
        ids = torch.tensor([list(sequence)])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
        logits[:, codec.tokenizer.get_vocab_size() :] = -torch.inf
        own = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])
        rows.append([0.0, *own.flatten().tolist()])
    return rows


def _gap(one: Sequence[Sequence[float]], two: Sequence[Sequence[float]]) -> tuple[float, float]:
    """(mean, largest) |difference| of log-probs."""
    gaps = []
    for row, other in zip(one, two, strict=True):
        gaps += [abs(a - b) for a, b in zip(row[1:], other[1:], strict=True)]
    return sum(gaps) / len(gaps), max(gaps)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
