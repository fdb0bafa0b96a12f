"""The chat protocol (paper §6): messages to text, and sampled text to messages.

One core (`_pieces`) writes every rendering, so what a row shows, what SFT trains and what a rollout continues cannot drift apart.
`chat.jinja` beside this file says the same in Jinja for exported tokenizers; a test holds the two equal.
Departures from the published template, all where it fails or prints Python lists: content given as a list of parts is joined,
call arguments may be JSON text, a conversation may be empty.
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
    text = "".join(piece for piece, _ in conversation(turns, tools, keep_thinking))
    return text + generation(thinking) if generation_prompt else text


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
    for text, trained in conversation([_turn_of(m) for m in messages], tools, keep_thinking):
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
class Turn:
    """A turn as the protocol sees it, whatever it was read from; content other than text is written as Python writes it."""

    role: str
    content: Any = ""
    reasoning: Any = None
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None


def conversation(
    turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], keep: bool
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


def _pieces(turns: Sequence[Turn], keep: bool, previous: str | None) -> Iterator[tuple[str, bool]]:
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


def _assistant(turn: Turn, cut: bool) -> str:
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


def _turn_of(message: Message) -> Turn:
    return Turn(message.role, message.content, message.reasoning, message.tool_calls)


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
