"""What a model folder says about its conversations: chat template, special tokens, stop tokens.

`template_of` decides which template a folder is used with: its own where it is a chat model's,
linn's own protocol otherwise, unless the person says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linn.chat import render
from linn.chat.own import Own, Writer
from linn.chat.probe import probe
from linn.chat.template import Nemotron, Template, TemplateName
from linn.errors import UserError
from linn.types import Message, ToolCall

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATES = "additional_chat_templates"
"""The folder of further templates; `tool_use` is the one for conversations with tools."""
_BOS = re.compile(r"\A\{\{-? ?'([^']*)' ?-?\}\}")
"""linn's protocol behind a BOS: what `Nemotron.jinja` writes first."""


def template_of(folder: Path, tokenizer: Tokenizer, choice: TemplateName | None = None) -> Template:
    """The template of a folder; UserError says what to do where `choice` cannot be had."""
    source = chat_template(folder)
    names = special_names(folder)
    as_linns = None if source is None else linns_protocol(source, names)
    if choice == "nemotron" or (choice is None and (source is None or as_linns is not None)):
        return _nemotron(folder, tokenizer, source, as_linns)
    if source is None:
        raise UserError(
            f"{folder}: template: own, but the folder has no chat template; "
            "template: nemotron writes linn's own protocol"
        )
    write = Writer(source, names)
    eos = [text for text in map(tokenizer.id_to_token, eos_ids(folder)) if text is not None]
    eos += [names["eos_token"]] if "eos_token" in names else []
    try:
        return Own(write, probe(write, special_texts(tokenizer), eos, source))
    except UserError as error:
        raise UserError(
            f"{folder}: {error}; template: nemotron writes linn's own protocol instead"
        ) from None


def template_name(folder: Path) -> TemplateName:
    """Which template a folder is used with where nobody says which."""
    source = chat_template(folder)
    if source is None or linns_protocol(source, special_names(folder)) is not None:
        return "nemotron"
    return "own"


def _nemotron(
    folder: Path, tokenizer: Tokenizer, source: str | None, as_linns: Nemotron | None
) -> Nemotron:
    if tokenizer.token_to_id(render.END) is None:
        remedy = "add it as a special token, or start from a chat model"
        if source is not None:
            remedy = "template: own speaks the folder's own chat template"
        raise UserError(
            f"the tokenizer has no token {render.END}, and template: nemotron speaks ChatML; "
            f"{remedy}"
        )
    if as_linns is not None:
        return as_linns
    return Nemotron(bos=added_bos(tokenizer))


def linns_protocol(source: str, names: dict[str, str]) -> Nemotron | None:
    """The protocol of a Jinja that is linn's own or renders the same; None for any other."""
    bos = ""
    if (found := _BOS.match(source)) is not None:
        bos, source = found[1], source[found.end() :]
    if source == render.TEMPLATE.read_text(encoding="utf-8"):
        return Nemotron(bos)
    write = Writer(source, names)
    try:
        same = all(_written(write, *case) == _rendered(*case) for case in _CASES)
    except UserError:
        return None
    return Nemotron(bos) if same else None


# ---------------------------------------------------------------- what the files hold


def chat_template(folder: Path) -> str | None:
    """The Jinja of a folder: its own file's, else its tokenizer config's; None where none is.

    Where the folder has another one for conversations with tools, which transformers takes by
    itself, the two are one Jinja.
    """
    path = folder / "chat_template.jinja"
    named: dict[str, Any] = {}
    if path.is_file():
        named["default"] = _text(path)
        with_tools = folder / TEMPLATES / "tool_use.jinja"
        if with_tools.is_file():
            named["tool_use"] = _text(with_tools)
    else:
        inline = _json(folder / "tokenizer_config.json").get("chat_template")
        entries = inline if isinstance(inline, list) else [{"name": "default", "template": inline}]
        fit = [entry for entry in entries if isinstance(entry, dict)]
        named = {str(entry.get("name")): entry.get("template") for entry in fit}

    source, with_tools_source = named.get("default"), named.get("tool_use")
    if not isinstance(source, str) or not source.strip():
        return None
    if not isinstance(with_tools_source, str) or with_tools_source == source:
        return source
    return _joined(with_tools_source, source)


def _joined(with_tools: str, without: str) -> str:
    """One Jinja of two: the first where there are tools."""
    # Blocks eat the white space next to them, which the empty texts keep.
    empty = "{{ '' }}"
    first, second = (text.removesuffix("\n") for text in (with_tools, without))
    return f"{{% if tools %}}{empty}{first}{empty}{{% else %}}{empty}{second}{empty}{{% endif %}}"


def special_names(folder: Path) -> dict[str, str]:
    """`bos_token`, `eos_token` and the like, as templates are given them."""
    names = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in _json(folder / file).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                names[key] = text
    return names


def eos_ids(folder: Path) -> list[int]:
    """The ids that end a reply: the generation config's, else the model config's."""
    for file in ("generation_config.json", "config.json"):
        if found := token_ids(_json(folder / file).get("eos_token_id")):
            return found
    return []


def token_ids(value: Any) -> list[int]:
    """The ids in an `eos_token_id`, which is one or a list; what no token can have is none."""
    ids = value if isinstance(value, list) else [value]
    whole = [i for i in ids if isinstance(i, int) and not isinstance(i, bool)]
    return [i for i in whole if 0 <= i < 2**32]


def special_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts of the tokens that no ordinary text becomes."""
    added = tokenizer.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]


def added_bos(tokenizer: Tokenizer) -> str:
    """The BOS that the tokenizer itself puts before a text; empty where it puts none."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    ids = tokenizer.encode("a").ids
    if len(ids) > len(plain) and ids[1 : 1 + len(plain)] == plain:
        return str(tokenizer.id_to_token(ids[0]))
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); put the file back") from None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); put the file back") from None
    return content if isinstance(content, dict) else {}


# ---------------------------------------------------------------- linn's protocol, recognised

_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string", "description": "Where."}},
            "required": ["at"],
        },
    },
}
_TALK = (
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello.", "They greet."),
    Message("user", "And now?"),
    Message("assistant", "", "I look.", (ToolCall("look", {"at": "Rome", "n": 2}),)),
    Message("tool", "sunny"),
    Message("assistant", "Sunny."),
)
_CASES = (
    (_TALK[:2], (), True),
    (_TALK[1:4], (), False),
    (_TALK[:6], (_TOOL,), True),
    (_TALK, (_TOOL,), None),
)
"""(messages, tools, mode of the generation prompt or None without one)."""


def _rendered(messages: Iterable[Message], tools: Any, mode: bool | None) -> str:
    asked = mode is not None
    return render.render(tuple(messages), tools, bool(mode), generation_prompt=asked)


def _written(write: Writer, messages: Iterable[Message], tools: Any, mode: bool | None) -> str:
    """The same conversation under a folder's template."""
    turns = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning:
            turn["reasoning_content"] = message.reasoning
        if message.tool_calls:
            calls = [{"name": c.name, "arguments": c.arguments} for c in message.tool_calls]
            turn["tool_calls"] = [{"type": "function", "function": call} for call in calls]
        turns.append(turn)
    values = {} if mode is None else {"enable_thinking": mode}
    return write(turns, tools=list(tools) or None, ask=mode is not None, **values)
