"""The protocol's JSON: conversations to requests, responses to answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from linn.chat.tool_calls import UnreadableCall, call_of
from linn.chat.turns import content_text
from linn.endpoint.answer import Answer, CallPart, Delta, TokenLogprob
from linn.types import Message, Sampling, ToolCall

_REASONING_KEYS = ("reasoning_content", "reasoning")
"""Where servers put a thought."""


# ---------------------------------------------------------------- requests


def request_body(
    model: str,
    messages: Sequence[Message],
    how: Sampling,
    seed: int,
    tools: Sequence[Mapping[str, Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
    reasoning_key: str | None = None,
) -> dict[str, Any]:
    """The JSON of a request.

    `extra` goes in last; a None in it takes a key out. `stop` of `how` holds token ids, which the
    protocol does not know: the server has its own. `reasoning_key`: under which earlier thoughts
    are sent; None leaves them out.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": turns_json(messages, reasoning_key),
        "seed": seed % 2**31,  # servers take no more than 32 bits
        "temperature": how.temperature,
        "top_p": how.top_p,
        "max_tokens": how.max_tokens,
    }
    # Servers refuse an empty list of tools.
    if tools:
        body["tools"] = [dict(tool) for tool in tools]
    for key, value in (extra or {}).items():
        if value is None:
            body.pop(key, None)
        else:
            body[key] = value
    return sendable(body)  # type: ignore[no-any-return]


def turns_json(
    messages: Sequence[Message], reasoning_key: str | None = None
) -> list[dict[str, Any]]:
    """Turns as the protocol writes them; calls without an id get one, and so do their results."""
    turns = []
    waiting: list[str] = []
    for number, message in enumerate(messages):
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning and reasoning_key is not None:
            turn[reasoning_key] = message.reasoning

        if message.tool_calls:
            calls = []
            for place, call in enumerate(message.tool_calls):
                calls.append(_call_json(call, number, place))
            turn["tool_calls"] = calls
            waiting = [call["id"] for call in calls]

        if message.role == "tool":
            # Results without an id belong to the calls in their order.
            identity = message.tool_call_id
            if identity is None and waiting:
                identity = waiting[0]
            if identity in waiting:
                waiting.remove(identity)
            if identity is not None:
                turn["tool_call_id"] = identity
        turns.append(turn)
    return turns


def _call_json(call: ToolCall, turn: int, place: int) -> dict[str, Any]:
    """A call as the protocol writes it, its arguments as JSON text."""
    arguments = call.arguments
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": call.id or f"call_{turn}_{place}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def sendable(value: Any) -> Any:
    """The value with every half of a surrogate pair as `?`.

    A model may write such halves; JSON over UTF-8 cannot carry them.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {sendable(key): sendable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [sendable(inner) for inner in value]
    return value


# ---------------------------------------------------------------- responses


def read_answer(body: bytes) -> Answer | None:
    """The answer of a chat completion; None if `body` is not one."""
    try:
        response = json.loads(body)
        choice = response["choices"][0]
        turn = choice["message"]
        content = _text(turn.get("content"))
        calls = tuple(_call(call) for call in turn.get("tool_calls") or ())
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if content is None:
        return None
    return Answer(
        content=content,
        reasoning=_reasoning(turn) or None,
        tool_calls=calls,
        finish_reason=_word(choice.get("finish_reason")),
        model=_word(response.get("model")),
        prompt_tokens=_count(response, "prompt_tokens"),
        completion_tokens=_count(response, "completion_tokens"),
        logprobs=_logprobs(choice),
    )


def read_delta(data: str) -> Delta | None:
    """A piece of a streamed completion; None if `data` is not one."""
    # Whatever a server sends is read or is no piece: nothing here raises.
    try:
        response = json.loads(data)
        choices = response["choices"]
        choice = choices[0] if choices else {}  # the last piece may only count tokens
        turn = choice.get("delta") or {}
        content = _text(turn.get("content"))
        parts = enumerate(turn.get("tool_calls") or ())
        calls = tuple(_call_part(place, part) for place, part in parts)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if content is None:
        return None
    return Delta(
        content=content,
        reasoning=_reasoning(turn),
        calls=calls,
        finish_reason=_word(choice.get("finish_reason")),
        model=_word(response.get("model")),
        prompt_tokens=_count(response, "prompt_tokens"),
        completion_tokens=_count(response, "completion_tokens"),
        logprobs=_logprobs(choice) or (),
    )


def _text(content: object) -> str | None:
    """Content as text: empty where there is none, None where it is something else."""
    if content is None:  # calls alone, or the limit came within the thought
        return ""
    # Some servers answer in parts, as requests may be written.
    text = content_text(content, "message", skip_other_parts=True)
    return text if isinstance(text, str) else None


def _reasoning(turn: Mapping[str, Any]) -> str:
    for key in _REASONING_KEYS:
        thought = turn.get(key)
        if isinstance(thought, str) and thought:
            return thought
    return ""


def _call(call: Mapping[str, Any]) -> ToolCall:
    """A call of an answer. TypeError if it has no name."""
    try:
        return call_of(call)
    except UnreadableCall as error:
        raise TypeError(str(error)) from None


def _call_part(place: int, part: Mapping[str, Any]) -> CallPart:
    """A piece of a call; where a server does not count its calls, by its place in the list."""
    index = part.get("index")
    function = part.get("function") or {}
    return CallPart(
        index=index if isinstance(index, int) else place,
        id=_word(part.get("id")),
        name=_word(function.get("name")) or "",
        arguments=_word(function.get("arguments")) or "",
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(response: Mapping[str, Any], key: str) -> int | None:
    """A number of tokens that a response tells."""
    usage = response.get("usage")
    value = usage.get(key) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _logprobs(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...] | None:
    """Log-probs of the sampled tokens; None unless every one is there and a number."""
    given = choice.get("logprobs")
    entries = given.get("content") if isinstance(given, Mapping) else None
    if not isinstance(entries, list):
        return None

    # Half of them would be worse than none: sums over an answer would look like others'.
    tokens = []
    for entry in entries:
        token = _token_logprob(entry)
        if token is None:
            return None
        tokens.append(token)
    return tuple(tokens)


def _token_logprob(entry: object) -> TokenLogprob | None:
    """One token's log-prob; None where the entry holds no finite number."""
    if not isinstance(entry, Mapping):
        return None
    token = entry.get("token")
    logprob = entry.get("logprob")
    if not isinstance(token, str) or not isinstance(logprob, (int, float)):
        return None
    if not math.isfinite(logprob):
        return None
    return TokenLogprob(token, float(logprob))


def read_models(body: bytes) -> list[str]:
    """Names of the models that a server lists; empty if `body` is no such list."""
    try:
        entries = json.loads(body)["data"]
        return [entry["id"] for entry in entries if isinstance(entry["id"], str)]
    except (ValueError, RecursionError, LookupError, TypeError):
        return []
