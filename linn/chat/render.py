"""The chat protocol (paper §6): messages to text, and sampled text to messages.

One core (`pieces_of`) writes every rendering. So what a row shows, what SFT trains and what a
rollout continues cannot drift apart. `chat.jinja` beside this file says the same in Jinja for
exported tokenizers; a test holds the two equal.

Departures from the published template, all where it fails or prints Python lists: content given
as a list of parts is joined, call arguments may be JSON text, a conversation may be empty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.chat.tool_calls import (
    CALL,
    CALL_END,
    FUNCTION,
    FUNCTION_END,
    PARAMETER,
    PARAMETER_END,
    outside_calls,
    read_calls,
)
from linn.types import Message, ToolCall

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
- Function calls MUST follow the specified format: \
an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language \
BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal \
with your current knowledge and do not tell the user about function calls
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
    """The text a model sees.

    `keep_thinking` leaves the thoughts of turns before the last user turn in place.
    """
    turns = [_turn_of(message) for message in messages]
    text = text_of(turns, tools, keep_thinking)
    if generation_prompt:
        text += generation(thinking)
    return text


def spans(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    keep_thinking: bool = False,
    trained_from: int = 0,
) -> list[tuple[str, bool]]:
    """`render(..., generation_prompt=False)` in pieces, True on what a model would have sampled.

    Messages before place `trained_from` are not trained. Flags alternate. A trained piece runs
    from just after the generation prompt to the closing mark; whether that prompt opened a thought
    shows in the turn itself. A turn whose thought was cut from the history is not trained: nobody
    would sample it like that.
    """
    turns = [_turn_of(message) for message in messages]
    merged: list[tuple[str, bool]] = []
    for text, trained in pieces_of(turns, tools, keep_thinking, trained_from):
        if merged and merged[-1][1] == trained:
            merged[-1] = (merged[-1][0] + text, trained)
        elif text:
            merged.append((text, trained))
    return merged


def samples(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> list[list[tuple[str, bool]]]:
    """A conversation as training texts in which every assistant turn is trained once.

    A turn stands in the text that it would be sampled in. Where a user turn cuts thoughts before
    it, what comes before that turn is a text of its own; otherwise the conversation is one text.
    """
    bounds = [i for i, message in enumerate(messages) if message.role == "user"]
    starts = sorted({0, *bounds})
    ends = [*starts[1:], len(messages)]

    found: list[list[tuple[str, bool]]] = []
    first = 0  # Where the stretches begin that no later cut has touched.
    for start, end in zip(starts, ends, strict=True):
        answers = [i for i in range(start, end) if messages[i].role == "assistant"]
        is_last = end == len(messages)
        if not is_last and not any(_is_cut(messages[i]) for i in answers):
            continue
        asked = [i for i in range(first, end) if messages[i].role == "assistant"]
        if asked:
            until = asked[-1] + 1
            found.append(spans(messages[:until], tools, trained_from=first))
        first = end
    return found


def _is_cut(message: Message) -> bool:
    """Whether a later user turn changes how an assistant's turn is written."""
    turn = _turn_of(message)
    return _assistant(turn, cut=True) != _assistant(turn, cut=False)


def generation(thinking: bool) -> str:
    """The generation prompt: opens the assistant's turn, with an open thought or an empty one."""
    opening = f"{THINK}\n" if thinking else NO_THOUGHT
    return f"{START}assistant\n{opening}"


def continuation(messages: Sequence[Message], thinking: bool = True) -> str:
    """The text between a sampled turn that ended in `<|im_end|>` and the next sampled turn.

    A newline, the turns in `messages`, the generation prompt.
    """
    turns = [_turn_of(message) for message in messages]
    between = "".join(text for text, _ in _pieces(turns, keep_thinking=True, previous="assistant"))
    return "\n" + between + generation(thinking)


_TURN_MARKS = re.compile(r"<(?=\|[^<>|\s]{1,64}\|>|/?tool_response>)")


def quoted(text: str) -> str:
    """A tool's result with the marks of turns broken by a space.

    So a result can neither end its own turn nor open another's.
    """
    return _TURN_MARKS.sub("< ", text)


# ---------------------------------------------------------------- the rendering core


@dataclass(frozen=True)
class ChatTurn:
    """A turn as the protocol sees it, whatever it was read from."""

    role: str
    """Any word; the protocol knows system, user, assistant and tool."""
    content: Any = ""
    """Text; anything else is written as Python writes it."""
    reasoning: str | None = None
    """The thought of an assistant turn, without its marks."""
    calls: tuple[ToolCall, ...] = ()
    """Calls of an assistant turn, in order."""
    call_id: str | None = None
    """Which call a tool turn answers."""


def text_of(
    turns: Sequence[ChatTurn], tools: Sequence[Mapping[str, Any]], keep_thinking: bool
) -> str:
    """The whole text, without a generation prompt."""
    return "".join(text for text, _ in pieces_of(turns, tools, keep_thinking))


def pieces_of(
    turns: Sequence[ChatTurn],
    tools: Sequence[Mapping[str, Any]],
    keep_thinking: bool,
    trained_from: int = 0,
) -> Iterator[tuple[str, bool]]:
    """The whole text as (text, trained): the system block, which is always there, then turns.

    Turns before place `trained_from` are not trained.
    """
    system = ""
    if turns and turns[0].role == "system":
        if turns[0].content is not None:
            system = str(turns[0].content)
        turns = turns[1:]
        trained_from -= 1

    block = system
    if tools:
        if system:
            block += "\n\n"
        block += TOOLS_HEADING
        block += "".join(_definition(tool) for tool in tools)
        block += CALL_FORMAT + CALL_REMINDER

    yield f"{START}system\n{block}{END}\n", False
    yield from _pieces(turns, keep_thinking, None, trained_from)


def _pieces(
    turns: Sequence[ChatTurn], keep_thinking: bool, previous: str | None, trained_from: int = 0
) -> Iterator[tuple[str, bool]]:
    """Turns after the system block as (text, trained); those before `trained_from` are not.

    `previous`: the role of the turn before the first of them, None behind the system block.
    """
    # A tool's result is no user turn here, so a loop of calls keeps its thoughts (paper §6.1).
    last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    for i, turn in enumerate(turns):
        if turn.role == "assistant":
            cut = not keep_thinking and i < last_user
            for text, trained in _assistant_pieces(turn, cut):
                yield text, trained and i >= trained_from
        elif turn.role == "tool":
            following = turns[i + 1].role if i + 1 < len(turns) else None
            yield _result(turn, previous, following), False
        else:
            yield f"{START}{turn.role}\n{turn.content}{END}\n", False
        previous = turn.role


def _assistant_pieces(turn: ChatTurn, cut: bool) -> Iterator[tuple[str, bool]]:
    """An assistant turn in three pieces: the generation prompt, what is sampled, the newline."""
    body = _assistant(turn, cut)
    trained = body == _assistant(turn, cut=False)

    opening = ""
    for mark in (f"{THINK}\n", NO_THOUGHT, THINK):
        if body.startswith(mark):
            opening = mark
            break

    yield f"{START}assistant\n{opening}", False
    yield body.removeprefix(opening) + END, trained
    yield "\n", False


def _result(turn: ChatTurn, previous: str | None, following: str | None) -> str:
    """A tool's result. Results have no role of their own: a run of them shares one user turn."""
    text = f"{RESULT}\n{turn.content}\n{RESULT_END}\n"
    # A result that opens a conversation opens no turn: so the published template has it.
    if previous not in (None, "tool"):
        text = f"{START}user\n{text}"
    if following != "tool":
        text += f"{END}\n"
    return text


def _assistant(turn: ChatTurn, cut: bool) -> str:
    """An assistant turn between its role and its closing mark.

    `cut`: its thought is replaced by an empty one.
    """
    content = turn.content or ""
    if turn.reasoning is not None and turn.reasoning.strip():
        content = f"{THINK}\n{turn.reasoning}\n{THINK_END}\n{content}"
    elif isinstance(content, str) and THINK not in content and THINK_END not in content:
        content = NO_THOUGHT + content

    if turn.calls:
        calls = "".join(_call(call) for call in turn.calls)
        return _before_calls(content, cut) + calls

    text = str(content)
    if cut and THINK in text and THINK_END in text:
        text = NO_THOUGHT + text.split(THINK_END)[-1]
    return text.strip()


def _before_calls(content: object, cut: bool) -> str:
    """Thought and answer of a turn that goes on with calls."""
    if not isinstance(content, str) or not content.strip():
        return NO_THOUGHT
    if not cut:
        return content.strip() + "\n"
    # A thought that lost one of its marks is cut as well; without calls the template leaves it.
    if THINK_END in content:
        answer = content.split(THINK_END)[-1]
    else:
        answer = content.split(THINK)[0]
    return f"{NO_THOUGHT}{answer.strip()}\n"


def _call(call: ToolCall) -> str:
    """One call as XML; arguments that could not be read stand as they were."""
    if isinstance(call.arguments, str):
        inside = f"{call.arguments}\n"
    else:
        inside = ""
        for key, value in call.arguments.items():
            inside += f"{PARAMETER}{key}>\n{_value(value)}\n{PARAMETER_END}\n"
    return f"{CALL}\n{FUNCTION}{call.name}>\n{inside}{FUNCTION_END}\n{CALL_END}\n"


def _definition(tool: Mapping[str, Any]) -> str:
    """One function definition of the system block.

    Takes `{"type": "function", "function": {…}}` and the flat form.
    """
    function = _mapping(tool.get("function", tool))
    lines = ["\n<function>", f"<name>{function.get('name', '')}</name>"]
    lines += _description(function)

    lines.append("<parameters>")
    schema = _mapping(function.get("parameters"))
    for name, declared in _mapping(schema.get("properties")).items():
        lines += _parameter(name, _mapping(declared))
    lines += _other_fields(schema, besides=("type", "properties", "required"))
    if "required" in schema:
        lines.append(f"<required>{_json(schema['required'])}</required>")
    lines.append("</parameters>")

    lines += _other_fields(function, besides=("type", "name", "description", "parameters"))
    lines.append("</function>")
    return "\n".join(lines)


def _parameter(name: str, schema: Mapping[str, Any]) -> list[str]:
    """One parameter of a definition, a line per tag."""
    lines = ["<parameter>", f"<name>{name}</name>"]
    if "type" in schema:
        lines.append(f"<type>{schema['type']}</type>")
    lines += _description(schema)
    if "enum" in schema:
        lines.append(f"<enum>{_json(schema['enum'])}</enum>")
    lines += _other_fields(schema, besides=("name", "type", "description", "enum"))
    lines.append("</parameter>")
    return lines


def _description(fields: Mapping[str, Any]) -> list[str]:
    if "description" not in fields:
        return []
    return [f"<description>{str(fields['description']).strip()}</description>"]


def _other_fields(fields: Mapping[str, Any], besides: tuple[str, ...]) -> list[str]:
    lines = []
    for key, value in fields.items():
        if key not in besides:
            lines.append(f"<{key}>{_value(value)}</{key}>")
    return lines


def _mapping(value: object) -> Mapping[str, Any]:
    """The value, or an empty mapping in place of anything else: broken definitions are shown."""
    return value if isinstance(value, Mapping) else {}


def _value(value: Any) -> str:
    """Text as it is, lists and mappings as JSON, anything else as Python writes it (`True`)."""
    if isinstance(value, (Mapping, list, tuple)):
        return _json(value)
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)


def _turn_of(message: Message) -> ChatTurn:
    return ChatTurn(
        role=message.role,
        content=message.content,
        reasoning=message.reasoning,
        calls=message.tool_calls,
    )


# ---------------------------------------------------------------- public: text to messages


def parse(text: str, thinking: bool = True, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
    """A sampled completion as an assistant `Message`; never raises, in time linear in the text.

    The answer is what follows the last `</think>`. In thinking mode the opening mark was in the
    prompt, so a text without a closing mark is all thought. Calls may be XML or JSON. One that
    cannot be read becomes a `ToolCall` whose arguments are its text, or stays in the content where
    not even a name is there. `tools` types XML values by the declared schemas; without them they
    are text.
    """
    text = text.split(END, 1)[0]
    # An argument of a call may hold the mark as text.
    end = outside_calls(text).rfind(THINK_END)
    opened = text.lstrip().startswith(THINK)
    if end < 0 and not thinking and not opened:
        return answered(text, None, tools)
    if end >= 0 and text[end + len(THINK_END) :].lstrip().startswith(THINK):
        end = -1
    return divided(text, end, tools)


def divided(text: str, end: int, tools: Sequence[Mapping[str, Any]]) -> Message:
    """A turn whose thought ends at place `end`; below 0: it never does."""
    thought, answer = text, ""
    if end >= 0:
        thought, answer = text[:end], text[end + len(THINK_END) :]
    reasoning = thought_of(thought)
    if reasoning is None:
        return answered(answer, None, tools)
    return answered(answer.removeprefix("\n"), reasoning, tools)


def thought_of(text: str) -> str | None:
    """A thought without its opening mark; None where it holds nothing but marks."""
    if text.lstrip().startswith(THINK):
        text = text.lstrip().removeprefix(THINK).removeprefix("\n")
    text = text.removesuffix("\n")
    # Marks alone are no thought: a model that was not to think may close one all the same.
    if not text.replace(THINK, "").replace(THINK_END, "").strip():
        return None
    return text


def answer_of(text: str, thinking: bool = False) -> str:
    """What follows a model's reasoning, up to the end of its turn.

    Empty if the reasoning never ends; `thinking`: see `unthought`.
    """
    return unthought(text.split(END, 1)[0], thinking)


def unthought(text: str, thinking: bool = False) -> str:
    """A text without its reasoning; empty if the reasoning never ends.

    `thinking`: the opening mark stood in the prompt, so the text begins within the reasoning.
    """
    # The last mark: a thought may quote the mark itself.
    _thought, mark, answer = text.rpartition(THINK_END)
    if not mark:
        still_thinking = thinking or answer.lstrip().startswith(THINK)
        if still_thinking:
            return ""
    return answer.strip()


def answered(text: str, reasoning: str | None, tools: Sequence[Mapping[str, Any]]) -> Message:
    """A turn of this thought, whose calls are read out of the text behind it."""
    content, calls = read_calls(text, tools)
    return Message("assistant", content, reasoning, calls)
