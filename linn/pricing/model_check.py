"""Tries a model folder before any work: weights and arithmetic, tokenizer, template, lengths.

What takes torch is the engine's to try (`Engine.check`). Here is what a conversation needs, and
what a recipe asks of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from linn.chat.codec import Codec
from linn.chat.folder import token_ids
from linn.chat.template import TemplateName, text_of
from linn.checkpoints import BASES, devices_of, start_folder
from linn.domains.load import load
from linn.engine.local.device import (
    computed_on,
    device_line,
    gpu_bytes,
    gpus,
    local_device,
    say_device,
)
from linn.engine.local.host_memory import machine_bytes
from linn.engine.open import open_engine
from linn.engine.protocol import ModelCheck
from linn.errors import UserError
from linn.pricing.layout import lines
from linn.pricing.memory import Memory
from linn.pricing.price import price
from linn.pricing.prompt_lengths import prompt_lengths
from linn.pricing.shape import read_shape
from linn.recipe.base import short
from linn.recipe.schema import NewModelConfig, Recipe, ScaleConfig
from linn.recipe.stages import RolloutConfig, SftConfig
from linn.types import Finding, Message

_QUESTION = Message("user", "What is 2 + 3?")
_THOUGHT, _ANSWER = "Two and three are five.", "It is 5."
_NEXT = Message("user", "And 4 + 4?")


def check_folder(
    folder: Path, recipe: Recipe | None = None, template: TemplateName | None = None
) -> list[Finding]:
    """Everything that is tried of a folder; with `recipe`, also what it asks of the model.

    `template`: the chat template, where there is no recipe to say it.

    Opens an engine of one process for it. Raises nothing for a bad folder: that is a finding.
    """
    engine = open_engine(ScaleConfig(processes=1, device="cpu"))
    try:
        checked = engine.check(folder)
    finally:
        engine.close()

    findings = list(checked.findings)
    try:
        codec = Codec.load(folder, template if recipe is None else recipe.template)
    except UserError as error:
        findings.append(Finding("tokenizer", False, str(error)))
    else:
        findings += _conversation(codec, checked.vocab)
        findings.append(_vocabulary(codec, checked.vocab))
        findings.append(_stops(codec, folder))
    findings.append(_positions(checked))
    if recipe is not None:
        findings += _lengths(recipe, checked)
        findings.append(_memory(recipe, folder))
    scale = ScaleConfig() if recipe is None else recipe.scale
    if scale.engine == "local":
        findings.append(_device(scale))
    return findings


def check_start(recipe: Recipe, run_folder: Path, say: Callable[[str], None]) -> None:
    """Try the model of a recipe before its run begins.

    A run that has begun was checked, and linn's own bases need no check. Raises UserError with
    everything that would go wrong, in one line.
    """
    here = computed_on(recipe.scale)
    if recipe.scale.engine == "cluster":
        say(f"computing on {recipe.scale.devices} {here}, a cluster (docs/cluster.md)")
    else:
        say_device(say, recipe.scale)

    before = devices_of(run_folder)
    if before and before[-1] != here:
        say(
            f"⚑ this run computed on {before[-1]} so far and goes on on {here}: its state is kept, "
            "its bytes are no longer those of an unbroken run (docs/running.md)"
        )
    if isinstance(recipe.model, NewModelConfig) or (run_folder / "run.json").exists():
        return
    folder = start_folder(recipe, run_folder)
    if not is_kept(folder):
        refuse_unfit(folder, recipe, say)


def refuse_unfit(
    folder: Path,
    recipe: Recipe | None,
    say: Callable[[str], None],
    template: TemplateName | None = None,
) -> None:
    """Raise UserError for a folder that would go wrong, under a recipe or anyhow.

    `template`: the chat template, where there is no recipe to say it.
    """
    say(f"checking {folder} (linn check {folder} tells more)")
    wrong = [finding for finding in check_folder(folder, recipe, template) if not finding.ok]
    if wrong:
        found = "; ".join(f"{finding.what}: {finding.detail}" for finding in wrong)
        raise UserError(f"model {folder}: {found}")


def is_kept(folder: Path) -> bool:
    """Whether it is a base that comes with linn."""
    return folder.resolve().is_relative_to(BASES.resolve())


# ---------------------------------------------------------------- conversations


def _conversation(codec: Codec, vocab: int) -> Iterator[Finding]:
    """A short conversation, in each mode of the template."""
    for thinking in codec.template.modes or (True,):
        what = f"template {codec.template.name}"
        if len(codec.template.modes) > 1:
            what += f", thinking {'on' if thinking else 'off'}"
        try:
            fault, note = _tried_turns(codec, thinking, vocab)
        except UserError as error:
            fault, note = str(error), ""
        yield Finding(what, not fault, fault or note)


def _tried_turns(codec: Codec, thinking: bool, vocab: int) -> tuple[str, str]:
    """(what is wrong with a conversation of two turns, what else is worth telling)."""
    template = codec.template
    thought = _THOUGHT if thinking and template.thought_end else None
    turn = Message("assistant", _ANSWER, thought)
    spans = template.spans((_QUESTION, turn), (), thinking)
    text = text_of(spans)

    # Token ids and text, both ways.
    ids, _ = codec.encode_spans(spans)
    again = codec.decode(ids)
    # Llama 2's and Phi-3's own tokenizers move white space around special tokens.
    if "".join(again.split()) != "".join(text.split()):
        return f"{text!r} comes back from its token ids as {again!r}", ""
    if vocab and max(ids) >= vocab:
        token = codec.tokenizer.id_to_token(max(ids))
        return (
            f"it writes {token!r}, token {max(ids)}, and the embedding has {vocab:,} rows: "
            "call resize_token_embeddings(len(tokenizer)) and save the model anew",
            "",
        )

    # What a model reads, and what it would have sampled behind it.
    asked = text_of(template.prompt((_QUESTION,), (), thinking))
    if not text.startswith(asked):
        return f"a prompt ({asked!r}) is not the beginning of its conversation ({text!r})", ""
    sampled, stop, _ = text[len(asked) :].partition(template.stops[0])
    if not stop:
        return f"a turn does not end in {template.stops[0]!r}: {text!r}", ""
    read = template.parse(sampled, thinking)
    if (read.content, read.reasoning or None) != (_ANSWER, thought):
        return f"{sampled!r} is read back as {read.content!r}, thought {read.reasoning!r}", ""

    # One turn further: does the conversation grow, or is its past written anew?
    turns = (_QUESTION, turn, _NEXT)
    further = text_of(template.prompt(turns, (), thinking, keep_thinking=True))
    grown = asked + sampled + stop + template.continuation(turns[:2], turns[2:], (), thinking)
    if further != grown:
        return "", "a further turn writes the turns before it anew"
    return "", "conversations grow turn by turn"


def _vocabulary(codec: Codec, vocab: int) -> Finding:
    """The tokenizer's ids against the rows of the embedding."""
    ids = set(codec.tokenizer.get_vocab(with_added_tokens=True).values())
    padded = sum(token not in ids for token in range(vocab))
    beyond = sum(token >= vocab for token in ids) if vocab else 0
    text = f"{len(ids):,} tokens"
    if padded:
        text += f"; {padded:,} rows of the embedding have none, these are never sampled"
    if beyond:
        text += f"; {beyond:,} have no row in the embedding, a row that uses one is refused"
    return Finding("tokenizer", True, text)


def _stops(codec: Codec, folder: Path) -> Finding:
    """What ends a sampled turn. What the folder's own generation stops at should be among it."""
    names = [f"{codec.tokenizer.id_to_token(stop)} ({stop})" for stop in codec.stops]
    text = f"a turn ends at {', '.join(names)}"
    others = [stop for stop in _generation_stops(folder) if stop not in codec.stops]
    if others:
        tokens = ", ".join(str(codec.tokenizer.id_to_token(stop)) for stop in others)
        text += f"; generation_config.json also stops at {tokens}, linn does not"
    return Finding("stop tokens", True, text)


def _generation_stops(folder: Path) -> list[int]:
    try:
        config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        return token_ids(config["eos_token_id"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


# ---------------------------------------------------------------- what a recipe asks


def _positions(checked: ModelCheck) -> Finding:
    if checked.positions is not None:
        return Finding("positions", True, f"sequences of up to {checked.positions:,} tokens")
    text = "sequences of any length"
    if checked.trained_length is not None:
        text += f"; trained on up to {checked.trained_length:,} tokens, as its config says"
    return Finding("positions", True, text)


def _lengths(recipe: Recipe, checked: ModelCheck) -> Iterator[Finding]:
    """The recipe's limits of tokens against the model's positions."""
    last, trained = checked.positions, checked.trained_length
    wrong = []
    longer = []
    for key, limit, turn in _limits(recipe):
        if last is not None and (limit is None or limit > last):
            found = "has no limit" if limit is None else f"is {limit:,}"
            wrong.append(f"{key} {found}; set it to {last:,} or less")
        elif trained is not None and (limit or turn) > trained:
            longer.append(f"{key} {limit or turn:,}")

    if wrong:
        yield Finding("lengths", False, "; ".join(wrong))
    elif longer:
        text = f"{', '.join(longer)}: more tokens than the model was trained on"
        yield Finding("lengths", True, text)
    else:
        yield Finding("lengths", True, "the recipe's limits are within the model's")


def _limits(recipe: Recipe) -> Iterator[tuple[str, int | None, int]]:
    """(key, tokens of a whole sequence at most, tokens of one turn at most) of what is computed."""
    for stage in recipe.stages:
        if isinstance(stage, SftConfig):
            yield f"stage {stage.name}: max_length", stage.max_length, stage.max_length
        elif isinstance(stage, RolloutConfig):
            yield f"stage {stage.name}: max_sequence", stage.max_sequence, stage.max_tokens
    config = recipe.evaluate
    yield "evaluate: max_sequence", config.max_sequence, config.max_tokens


def _memory(recipe: Recipe, folder: Path) -> Finding:
    """What the recipe holds at once, by the plan's figures, against what the machine has."""
    domains = {}
    for name, config in recipe.domains.items():
        domain = load(name, config.options)
        domains[short(name)] = domain
        domain.close()
    try:
        shape = read_shape(folder)
        prompts = prompt_lengths(recipe, domains, None)
    except UserError as error:  # a family without a formula can be trained all the same
        return Finding("memory", True, f"not known: {error}")
    try:
        priced = price(recipe, shape, domains, None, prompts)
    except UserError as error:  # what a cluster cannot share out
        return Finding("layout", False, str(error))

    if priced.layout is not None:
        said = "; ".join(line.strip() for line in lines(priced.layout))
        # What GPUs hold is arithmetic that nobody has measured: told, and not refused.
        return Finding("memory", True, said)

    if local_device(recipe.scale, gpus()) == "cuda":
        return _gpu_memory(priced.memory)
    processes = recipe.scale.processes
    needed = priced.memory.whole * processes
    has = machine_bytes()
    text = f"about {_gb(needed)} in {processes} processes; this machine has {_gb(has)}"
    remedy = priced.memory.remedy(processes, has)
    if not remedy:
        return Finding("memory", True, text)
    return Finding("memory", False, f"{text}: {remedy}")


def _gpu_memory(memory: Memory) -> Finding:
    """What one process holds on a GPU, against what the card has."""
    has = gpu_bytes()
    text = f"about {_gb(memory.on_gpu)} on the GPU"
    if has is None:
        return Finding("memory", True, text)
    text += f", which has {_gb(has)}"
    if memory.on_gpu > has:
        # By formulas that were measured on CPUs: told, and not refused.
        text += (
            "; if it is too small: scale.recompute: true, trainers.moments: host, a smaller cache"
        )
    return Finding("memory", True, text)


def _device(scale: ScaleConfig) -> Finding:
    try:
        return Finding("device", True, device_line(scale, gpus()))
    except UserError as error:
        return Finding("device", False, str(error))


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
