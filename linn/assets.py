"""What a checkpoint holds beside its weights: tokenizer, chat template, stops, code, licence.

They are its base's, and say of conversations what training did: whoever opens the folder with
transformers writes the text that was trained, and stops where a turn ends.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from linn import files
from linn.chat.codec import Codec
from linn.chat.folder import TEMPLATES
from linn.errors import UserError

_ASSETS = (
    "*.json",
    "*.jinja",
    "*.txt",
    "*.model",
    "*.model.v[0-9]*",
    "*.tiktoken",
    "*.vocab",
    "*.bpe",
    "*.py",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
)
"""Files beside the weights that a checkpoint keeps of its base: the tokenizer in all its layouts,
generation settings, code that `auto_map` names, the licence."""

_NOT_ASSETS = (
    "config.json",  # the engine writes it
    "*.index.json",
    "trainer.json",
    "adapter_config.json",
    "*quant*_config.json",
    "quantize_config.json",
    "requirements*.txt",
)
"""Files of these kinds that tell about weights which the checkpoint does not have."""


_PADS = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Tokens that pad where the base names none, the first that the tokenizer has."""


_LENGTHS = ("max_position_embeddings", "max_seq_len", "context_length", "n_positions")
"""What configs call the tokens that a model was made for, the usual name first."""


def model_config(folder: Path) -> dict[str, Any]:
    """The content of config.json; empty where there is none that can be read.

    For what is told beside the weights: whoever reads the weights says what is wrong with it.
    """
    try:
        return _read(folder / "config.json")
    except (OSError, UserError):
        return {}


def trained_length(folder: Path) -> int | None:
    """Tokens of the longest sequences that a model was made for; None where it does not say."""
    config = model_config(folder)
    text = config.get("text_config")
    # Models of text and images say it one level below.
    for block in (config, text if isinstance(text, dict) else {}):
        for name in _LENGTHS:
            value = block.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def copy_assets(source: Path, folder: Path) -> None:
    """Copy what a model's folder holds beside its weights, in whatever format these are.

    Files that `folder` has already stay. Modes are those of new files.
    """
    for file in [*source.glob("*"), *source.glob(f"{TEMPLATES}/*.jinja")]:
        target = folder / file.relative_to(source)
        if file.is_file() and _is_asset(file.name) and not target.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)  # of a link, what it points to


def _is_asset(name: str) -> bool:
    wanted = any(fnmatchcase(name, pattern) for pattern in _ASSETS)
    return wanted and not any(fnmatchcase(name, pattern) for pattern in _NOT_ASSETS)


def write_chat(folder: Path, codec: Codec) -> None:
    """Say in a model's folder how the conversations of `codec` are written, and where turns end.

    The template is `chat_template.jinja` and no other file; the ids that end a turn stand in
    config.json and generation_config.json, whose other settings stay, and one of them is the
    tokenizer's `eos_token`. Saying it twice changes nothing.
    """
    files.write_text(folder / "chat_template.jinja", codec.template.jinja)
    _drop_other_templates(folder, keeps_named=codec.template.name == "own")

    # One number where there is one: some readers of config.json know no list.
    others = sorted(set(codec.stops) - {codec.eos})
    eos: int | list[int] = [codec.eos, *others]
    if not others:
        eos = codec.eos
    pad = _write_specials(folder, codec)

    # Only for generation: in config.json it would be the row of the embeddings that is not trained.
    generation = _read(folder / "generation_config.json")
    generation.pop("_from_model_config", None)
    if pad is not None:
        generation["pad_token_id"] = pad
    _write(folder / "generation_config.json", generation | {"eos_token_id": eos})

    config = _read(folder / "config.json")
    config["eos_token_id"] = eos
    # Models of text and images say it once more.
    text = config.get("text_config")
    if isinstance(text, dict) and "eos_token_id" in text:
        text["eos_token_id"] = eos
    _write(folder / "config.json", config)


def _drop_other_templates(folder: Path, keeps_named: bool) -> None:
    """Remove what would be written in place of `chat_template.jinja`.

    transformers takes a template called `tool_use` by itself wherever there are tools. Others are
    used by name alone; they stay, in the files of today, where the base's own template was trained
    (`keeps_named`).
    """
    file = folder / "tokenizer_config.json"
    config = _read(file)
    named: dict[str, str] = {}
    inline = config.pop("chat_template", None)
    if isinstance(inline, list):
        named = {str(one["name"]): str(one["template"]) for one in inline}
    if inline is not None:
        _write(file, config)
    (folder / "chat_template.json").unlink(missing_ok=True)

    others = folder / TEMPLATES
    if keeps_named:
        # A name comes from a stranger's file: it must not lead out of the folder.
        for name in named.keys() - {"default", "tool_use"}:
            if "/" not in name:
                files.write_text(others / f"{name}.jinja", named[name])
        (others / "tool_use.jinja").unlink(missing_ok=True)
    if others.is_dir() and not (keeps_named and any(others.iterdir())):
        shutil.rmtree(others)


def _write_specials(folder: Path, codec: Codec) -> int | None:
    """Name the token that ends a turn, and one that pads; returns the id of the latter."""
    if not (folder / "tokenizer.json").is_file():
        return None
    file = folder / "tokenizer_config.json"
    config = _read(file)
    specials = {"eos_token": _eos(config, codec), "pad_token": _pad(config, codec)}
    _write(file, _named(config, specials))

    # An older file, which says the same and must not say anything else.
    older = folder / "special_tokens_map.json"
    if older.is_file():
        _write(older, _named(_read(older), specials))
    return codec.tokenizer.token_to_id(specials["pad_token"])


def _eos(config: Mapping[str, Any], codec: Codec) -> str:
    """What training writes at a turn's end.

    A model's own template may write `eos_token` itself (Phi-3 does, behind the turn's own end):
    there the base's stays, if it ends a turn too or the template asks for it.
    """
    own = _text(config.get("eos_token"))
    if own and codec.template.name == "own":
        ends_a_turn = codec.tokenizer.token_to_id(own) in codec.stops
        if ends_a_turn or "eos_token" in codec.template.jinja:
            return own
    return codec.template.stops[0]


def _pad(config: Mapping[str, Any], codec: Codec) -> str:
    """The base's own padding; else a token made for it; else what ends a turn."""
    for name in (_text(config.get("pad_token")), *_PADS):
        if name and codec.tokenizer.token_to_id(name) is not None:
            return name
    return codec.template.stops[0]


def _named(config: Mapping[str, Any], specials: Mapping[str, str]) -> dict[str, Any]:
    """The config with these special tokens; one that is named already keeps its form."""
    changed = dict(config)
    for key, text in specials.items():
        if _text(config.get(key)) != text:
            changed[key] = text
    return changed


def _text(token: Any) -> str | None:
    """The text of a special token, which may be written with its properties."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _write(file: Path, content: Mapping[str, Any]) -> None:
    """A JSON object, indented as transformers does it."""
    files.write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error}); take it from the model's source") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no keys; take it from the model's source")
    return content
