"""The chat protocol (paper §6): messages to text, text to messages, text to token ids.

One core (`_pieces`) writes every rendering, so what a row shows, what SFT trains and what a rollout continues cannot drift apart.
`chat.jinja` beside this file says the same in Jinja for exported tokenizers; a test holds the two equal.
Departures from the published template, all where it fails or prints Python lists: content given as a list of parts is joined,
call arguments may be JSON text, a conversation may be empty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linn.chat.tool_calls import (
    CALL,
    CALL_END,
    FUNCTION,
    FUNCTION_END,
    PARAMETER,
    PARAMETER_END,
    arguments_of,
    decoded,
    read_calls,
)
from linn.errors import UserError
from linn.types import Message, Prompt, Role, ToolCall

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<|im_start|>", "<|im_end|>"
THINK, THINK_END = "<think>", "</think>"
NO_THOUGHT = THINK + THINK_END
RESULT, RESULT_END = "<tool_response>", "</tool_response>"

TOOLS_HEADING = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
CALL_FORMAT = """
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>"""
CALL_REMINDER = """

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls
</IMPORTANT>"""

TEMPLATE = Path(__file__).with_name("chat.jinja")
"""The protocol as Jinja, for exported tokenizers."""


# ---------------------------------------------------------------- public: messages to text


def render(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    thinking: bool = True,
    keep_thinking: bool = False,
    generation_prompt: bool = True,
) -> str:
    """The text a model sees. `keep_thinking` leaves the thoughts of turns before the last user turn in place."""
    turns = [_turn_of(m) for m in messages]
    text = "".join(piece for piece, _ in _conversation(turns, tools, keep_thinking))
    return text + generation(thinking) if generation_prompt else text


def render_row(row: Mapping[str, Any]) -> str:
    """The text a model would see for a row of the released layout (paper §10); UserError names the field that is wrong.

    Reads `responses_create_params` (`input`, `instructions`, `tools`) or, in SFT rows, `messages` and `tools`; then
    `chat_template_kwargs` and `add_generation_prompt`, in the row, in its parameters or in their `metadata`.
    """
    params = row.get("responses_create_params")
    if params is None:
        params = {"input": row.get("messages", ()), "tools": row.get("tools")}
    if not isinstance(params, Mapping):
        raise UserError(f"responses_create_params: expected an object, found {_short(params)}")
    turns = _turns_of(params.get("input"))
    if params.get("instructions"):
        turns.insert(0, _Turn("system", str(params["instructions"])))
    tools = params.get("tools") or ()
    if (
        isinstance(tools, (str, Mapping))
        or not isinstance(tools, Sequence)
        or not all(isinstance(t, Mapping) for t in tools)
    ):
        raise UserError(f"tools: expected a list of function definitions, found {_short(tools)}")
    options = _options(row, params)
    text = "".join(
        piece
        for piece, _ in _conversation(
            turns, tools, not options.get("truncate_history_thinking", True)
        )
    )
    return (
        text + generation(bool(options.get("enable_thinking", True)))
        if options.get("add_generation_prompt", True)
        else text
    )


def spans(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    thinking: bool = True,
    keep_thinking: bool = False,
) -> list[tuple[str, bool]]:
    """`render(..., generation_prompt=False)` in pieces, True on what a model would have sampled; flags alternate.

    A trained piece runs from just after the generation prompt to the closing mark. Each turn's own form says which prompt that is, so
    `thinking` changes nothing here; it is taken so that callers pass the same arguments as to `render`. A turn whose thought was cut
    from the history is not trained: nobody would sample it like that.
    """
    del thinking
    merged: list[tuple[str, bool]] = []
    for text, trained in _conversation([_turn_of(m) for m in messages], tools, keep_thinking):
        if merged and merged[-1][1] == trained:
            merged[-1] = (merged[-1][0] + text, trained)
        elif text:
            merged.append((text, trained))
    return merged


def generation(thinking: bool) -> str:
    """The generation prompt: opens the assistant's turn, with an open thought or an empty one."""
    return f"{START}assistant\n" + (f"{THINK}\n" if thinking else NO_THOUGHT)


def continuation(messages: Sequence[Message], thinking: bool = True) -> str:
    """The text between a sampled turn that ended in `<|im_end|>` and the next: newline, these turns, generation prompt."""
    turns = [_turn_of(m) for m in messages]
    return (
        "\n" + "".join(text for text, _ in _pieces(turns, True, "assistant")) + generation(thinking)
    )


_TURN_MARKS = re.compile(r"<(?=\|[^<>|\s]{1,64}\|>|/?tool_response>)")


def quoted(text: str) -> str:
    """What a tool said, with the marks of turns broken by a space: it can neither end its own turn nor open another's."""
    return _TURN_MARKS.sub("< ", text)


# ---------------------------------------------------------------- the rendering core


@dataclass(frozen=True)
class _Turn:
    """A turn as the protocol sees it, whatever it was read from; content other than text is written as Python writes it."""

    role: str
    content: Any = ""
    reasoning: Any = None
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None


def _conversation(
    turns: Sequence[_Turn], tools: Sequence[Mapping[str, Any]], keep: bool
) -> Iterator[tuple[str, bool]]:
    """The whole text in pieces: the system block, which is always there, then the turns."""
    system = ""
    if turns and turns[0].role == "system":
        system = "" if turns[0].content is None else str(turns[0].content)
        turns = turns[1:]
    text = f"{START}system\n{system}"
    if tools:
        text += (
            ("\n\n" if system else "")
            + TOOLS_HEADING
            + "".join(map(_definition, tools))
            + CALL_FORMAT
            + CALL_REMINDER
        )
    yield f"{text}{END}\n", False
    yield from _pieces(turns, keep, None)


def _pieces(turns: Sequence[_Turn], keep: bool, previous: str | None) -> Iterator[tuple[str, bool]]:
    """Turns after the system block as (text, trained); `previous` is the role before the first of them."""
    last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    for i, turn in enumerate(turns):
        if turn.role == "assistant":
            body, whole = (
                _assistant(turn, cut=not keep and i < last_user),
                _assistant(turn, cut=False),
            )
            head = next(
                (mark for mark in (f"{THINK}\n", NO_THOUGHT, THINK) if body.startswith(mark)), ""
            )
            yield f"{START}assistant\n{head}", False
            yield body[len(head) :] + END, body == whole
            yield "\n", False
        elif turn.role == "tool":
            # Results have no role of their own: a run of them shares one user turn. A result that opens a conversation opens no turn
            # (so the published template has it).
            opening = f"{START}user\n" if previous not in (None, "tool") else ""
            closing = f"{END}\n" if i + 1 == len(turns) or turns[i + 1].role != "tool" else ""
            yield f"{opening}{RESULT}\n{turn.content}\n{RESULT_END}\n{closing}", False
        else:
            yield f"{START}{turn.role}\n{turn.content}{END}\n", False
        previous = turn.role


def _assistant(turn: _Turn, cut: bool) -> str:
    """An assistant turn between its role and its closing mark; `cut`: its thought is replaced by an empty one."""
    content = turn.content or ""
    if isinstance(turn.reasoning, str) and turn.reasoning.strip():
        content = f"{THINK}\n{turn.reasoning}\n{THINK_END}\n{content}"
    elif isinstance(content, str) and THINK not in content and THINK_END not in content:
        content = NO_THOUGHT + content
    if not turn.calls:
        text = str(content)
        if cut and THINK in text and THINK_END in text:
            text = NO_THOUGHT + text.split(THINK_END)[-1]
        return text.strip()
    if not isinstance(content, str) or not content.strip():
        opening = NO_THOUGHT
    elif not cut:
        opening = content.strip() + "\n"
    else:
        # With calls, a thought that lost one of its marks is cut as well; without them the template leaves it.
        answer = content.split(THINK_END)[-1] if THINK_END in content else content.split(THINK)[0]
        opening = f"{NO_THOUGHT}{answer.strip()}\n"
    return opening + "".join(map(_call, turn.calls))


def _call(call: ToolCall) -> str:
    """One call as XML; arguments that could not be read stand as they were."""
    if isinstance(call.arguments, str):
        inside = f"{call.arguments}\n"
    else:
        inside = "".join(
            f"{PARAMETER}{key}>\n{_value(value)}\n{PARAMETER_END}\n"
            for key, value in call.arguments.items()
        )
    return f"{CALL}\n{FUNCTION}{call.name}>\n{inside}{FUNCTION_END}\n{CALL_END}\n"


def _definition(tool: Mapping[str, Any]) -> str:
    """One function definition of the system block; takes `{"type": "function", "function": {…}}` and the flat form."""
    tool = tool.get("function", tool)
    if not isinstance(tool, Mapping):
        tool = {}
    lines = ["\n<function>", f"<name>{tool.get('name', '')}</name>"]
    if "description" in tool:
        lines.append(f"<description>{str(tool['description']).strip()}</description>")
    lines.append("<parameters>")
    parameters = tool.get("parameters")
    schema = parameters if isinstance(parameters, Mapping) else {}
    properties = schema.get("properties")
    for name, declared in properties.items() if isinstance(properties, Mapping) else ():
        one = declared if isinstance(declared, Mapping) else {}
        lines += ["<parameter>", f"<name>{name}</name>"]
        if "type" in one:
            lines.append(f"<type>{one['type']}</type>")
        if "description" in one:
            lines.append(f"<description>{str(one['description']).strip()}</description>")
        if "enum" in one:
            lines.append(f"<enum>{_json(one['enum'])}</enum>")
        lines += _others(one, ("name", "type", "description", "enum"))
        lines.append("</parameter>")
    lines += _others(schema, ("type", "properties", "required"))
    if "required" in schema:
        lines.append(f"<required>{_json(schema['required'])}</required>")
    lines.append("</parameters>")
    lines += _others(tool, ("type", "name", "description", "parameters"))
    return "\n".join([*lines, "</function>"])


def _others(fields: Mapping[str, Any], known: tuple[str, ...]) -> list[str]:
    return [f"<{key}>{_value(value)}</{key}>" for key, value in fields.items() if key not in known]


def _value(value: Any) -> str:
    """Text as it is, lists and mappings as JSON, anything else as Python writes it (`True`, `None`)."""
    return _json(value) if isinstance(value, (Mapping, list, tuple)) else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)


# ---------------------------------------------------------------- reading OpenAI-style turns


def to_messages(items: object) -> tuple[Message, ...]:
    """OpenAI-style chat turns or Responses API items as `Message`s; thoughts and calls written inside content are taken out of it."""
    found = []
    for turn in _turns_of(items):
        content = "" if turn.content is None else str(turn.content)
        if turn.role == "assistant":
            told = parse(content, thinking=False)
            reasoning = (
                turn.reasoning
                if isinstance(turn.reasoning, str) and turn.reasoning.strip()
                else told.reasoning
            )
            found.append(
                Message("assistant", told.content, reasoning, turn.calls or told.tool_calls)
            )
        else:
            found.append(Message(_ROLES.get(turn.role, "user"), content, tool_call_id=turn.answers))
    return tuple(found)


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


def _turn_of(message: Message) -> _Turn:
    return _Turn(message.role, message.content, message.reasoning, message.tool_calls)


def _turns_of(items: object) -> list[_Turn]:
    """Turns of a row's input: text, chat messages, Responses API items. Reasoning, text and calls that follow each other are one turn."""
    if isinstance(items, str):
        return [_Turn("user", items)]
    if items is None:
        return []
    if isinstance(items, Mapping) or not isinstance(items, Sequence):
        raise UserError(f"input: expected text or a list of messages, found {_short(items)}")
    turns: list[_Turn] = []
    joinable = (
        False  # The last turn came from a Responses item that what follows may still belong to.
    )
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise UserError(f"input[{i}]: expected an object, found {_short(item)}")
        kind = item.get("type")
        last = turns[-1] if turns and turns[-1].role == "assistant" else None
        if kind == "function_call":
            call = _tool_call(item, item.get("call_id") or item.get("id"))
            if last is None:
                turns.append(_Turn("assistant", calls=(call,)))
            else:
                turns[-1] = _Turn("assistant", last.content, last.reasoning, (*last.calls, call))
            joinable = False
        elif kind == "function_call_output":
            turns.append(
                _Turn(
                    "tool", _content(item.get("output", ""), i), answers=_name(item.get("call_id"))
                )
            )
        elif kind == "reasoning":
            thought = "\n".join(
                t
                for t in (
                    _content(item.get("content") or [], i),
                    _content(item.get("summary") or [], i),
                )
                if t
            )
            if last is not None and joinable:
                turns[-1] = _Turn("assistant", reasoning=f"{last.reasoning}\n{thought}")
            else:
                turns.append(_Turn("assistant", reasoning=thought))
            joinable = True
        elif "role" in item:
            turn = _chat_turn(item, i)
            if turn.role == "assistant" and last is not None and joinable and not turn.reasoning:
                turns[-1] = _Turn("assistant", turn.content, last.reasoning, turn.calls)
            else:
                turns.append(turn)
            joinable = False
        else:
            raise UserError(
                f"input[{i}]: no role, and type {kind!r} is unknown; known: message, reasoning, function_call, function_call_output"
            )
    return turns


def _chat_turn(item: Mapping[str, Any], i: int) -> _Turn:
    """An OpenAI-style chat message."""
    reasoning = next(
        (item[key] for key in ("reasoning_content", "reasoning") if isinstance(item.get(key), str)),
        None,
    )
    calls = item.get("tool_calls") or ()
    if (
        isinstance(calls, (str, Mapping))
        or not isinstance(calls, Sequence)
        or not all(isinstance(c, Mapping) for c in calls)
    ):
        raise UserError(f"input[{i}].tool_calls: expected a list of objects, found {_short(calls)}")
    content = _content(item.get("content", ""), i)
    told = tuple(_tool_call(call.get("function", call), call.get("id")) for call in calls)
    return _Turn(str(item["role"]), content, reasoning, told, _name(item.get("tool_call_id")))


def _tool_call(function: object, identity: object) -> ToolCall:
    """A call of a row; JSON text of arguments is read, and kept as text where it is not an object."""
    fields = function if isinstance(function, Mapping) else {}
    return ToolCall(
        str(fields.get("name", "")), arguments_of(fields.get("arguments")), _name(identity)
    )


def _content(content: object, i: int) -> Any:
    """Content as the template takes it; a list of parts becomes the text of its parts."""
    if not isinstance(content, (list, tuple)) or not all(
        isinstance(part, (str, Mapping)) for part in content
    ):
        return content
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            raise UserError(
                f"input[{i}].content: a part of type {part.get('type')!r} holds no text; the protocol knows text only"
            )
        texts.append(text)
    return "".join(texts)


def _options(row: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Template options, the more specific place winning: metadata, parameters, row."""
    options: dict[str, Any] = {}
    metadata = params.get("metadata")
    for place in (metadata if isinstance(metadata, Mapping) else {}, params, row):
        told = place.get("chat_template_kwargs") or {}
        if isinstance(told, str):
            told = decoded(told)
        if not isinstance(told, Mapping):
            raise UserError(
                f"chat_template_kwargs: expected an object, found {_short(place['chat_template_kwargs'])}"
            )
        options.update(told)
        if "add_generation_prompt" in place:
            options["add_generation_prompt"] = place["add_generation_prompt"]
    return options


def _name(value: object) -> str | None:
    return None if value is None else str(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------- public: text to messages


def parse(text: str, thinking: bool = True, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
    """A sampled completion as an assistant `Message`; never raises, in time linear in the text.

    The answer is what follows the last `</think>`. In thinking mode the opening mark was in the prompt, so a text without a closing
    mark is all thought. Calls may be XML or JSON; one that cannot be read becomes a `ToolCall` whose arguments are its text, or stays in
    the content where not even a name is there. `tools` types XML values by the declared schemas; without them they are text.
    """
    text = text.split(END, 1)[0]
    thought, mark, answer = text.rpartition(THINK_END)
    opened = text.lstrip().startswith(THINK)
    if not mark:
        if not thinking and not opened:
            return _said(text, None, tools)
        thought, answer = text, ""
    if opened:
        thought = thought.lstrip().removeprefix(THINK)
        thought = thought.removeprefix("\n")
    thought = thought.removesuffix("\n")
    if not thought.strip():
        return _said(answer, None, tools)
    return _said(answer.removeprefix("\n"), thought, tools)


def _said(answer: str, reasoning: str | None, tools: Sequence[Mapping[str, Any]]) -> Message:
    content, calls = read_calls(answer, tools)
    return Message("assistant", content, reasoning, calls)


# ---------------------------------------------------------------- public: text to token ids


class Codec:
    """Text to token ids and back, with the tokenizer of a model folder."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """UserError when the tokenizer has no `<|im_end|>`."""
        eos = tokenizer.token_to_id(END)
        if eos is None:
            raise UserError(
                f"the tokenizer has no token {END}; linn speaks ChatML: add it as a special token, or start from a chat model"
            )
        self.tokenizer = tokenizer
        self.eos: int = eos
        self._longest = 0

    @classmethod
    def load(cls, folder: str | Path) -> Codec:
        """Read `tokenizer.json` of a model folder; UserError says what to do when that fails."""
        from tokenizers import Tokenizer

        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; linn needs a fast tokenizer: load the tokenizer with transformers and save it with save_pretrained"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise UserError(
                f"{path}: not a tokenizer this version of `tokenizers` reads ({error}); save it anew or update `tokenizers`"
            ) from None
        try:
            return cls(tokenizer)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added before or after. Halves of surrogate pairs, which are no text, become `?`."""
        return list(
            self.tokenizer.encode(
                text.encode("utf-8", "replace").decode(), add_special_tokens=False
            ).ids
        )

    def decode(self, ids: Sequence[int], specials: bool = True) -> str:
        """The text of token ids; `specials=False` leaves out special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not specials))

    def encode_spans(
        self, pieces: Iterable[tuple[str, bool]], most: int | None = None
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask of `spans`. Each piece is tokenised by itself, so tokens meet at the borders that sampling has.

        With `most`, no more of a text is tokenised than shows that it has more tokens: a megabyte of text takes 200 MB.
        """
        ids: list[int] = []
        mask: list[bool] = []
        for text, trained in pieces:
            if most is not None and len(ids) > most:
                break
            new = self.encode(text if most is None else text[: self._characters(most + 1)])
            ids += new
            mask += [trained] * len(new)
        return ids, mask

    def _characters(self, tokens: int) -> int | None:
        """Characters that have so many tokens at least; None where one token may stand for any number: a normaliser, an unknown token."""
        model = self.tokenizer.model
        if (
            self.tokenizer.normalizer is not None
            or getattr(model, "unk_token", None) is not None
            or getattr(model, "unk_id", None) is not None
        ):
            return None
        self._longest = self._longest or max(map(len, self.tokenizer.get_vocab()))
        return tokens * self._longest

    def prompt_ids(self, prompt: Prompt, keep_thinking: bool = False) -> list[int]:
        """What the model reads before its first turn, earlier turns cut into tokens as they were when they were sampled."""
        pieces = spans(prompt.messages, prompt.tools, prompt.thinking, keep_thinking)
        pieces[-1] = (pieces[-1][0] + generation(prompt.thinking), False)
        return self.encode_spans(pieces)[0]
