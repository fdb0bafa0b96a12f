"""What all answers have in common on the wire: ids, calls, log-probs, counts, events."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from linn.chat.codec import Codec
from linn.engine.protocol import Token
from linn.serve.generate import Ask, Whole
from linn.types import ToolCall


def new_id(kind: str) -> str:
    """An id that no other answer has."""
    return f"{kind}{secrets.token_hex(12)}"


def json_bytes(value: Any) -> bytes:
    """JSON without line breaks; halves of surrogate pairs, which are no text, become `?`."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def event(value: Any, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + json_bytes(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def arguments_text(call: ToolCall) -> str:
    """A call's arguments as JSON; those that could not be read, as they stand."""
    if isinstance(call.arguments, str):
        return call.arguments
    return json.dumps(dict(call.arguments), ensure_ascii=False)


def chat_call(call: ToolCall, index: int | None = None) -> dict[str, Any]:
    """A call as chat answers have it; `index`: its place, in a stream."""
    function = {"name": call.name, "arguments": arguments_text(call)}
    made: dict[str, Any] = {"id": new_id("call_"), "type": "function", "function": function}
    return made if index is None else {"index": index, **made}


def usage(asks: Sequence[Ask], made: int) -> dict[str, int]:
    """Counts of tokens: `made` by the model, and those it read. A prompt counts once."""
    # Siblings share their prompt, and its prefill.
    read = sum(len(ids) for ids in {ask.ids for ask in asks})
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


class TokenTexts:
    """The texts of single tokens, for log-probs."""

    def __init__(self, codec: Codec, as_ids: bool = False) -> None:
        """`as_ids`: `token_id:5` in place of its text, which several tokens may share."""
        self._codec = codec
        self._as_ids = as_ids

    def text(self, token: int) -> str:
        """A token's text."""
        return f"token_id:{token}" if self._as_ids else self._codec.decode([token])

    def entry(self, token: int, logprob: float) -> dict[str, Any]:
        """A token as chat answers have it."""
        text = self._codec.decode([token])
        # A part of a character has no text of its own.
        whole = None if "\ufffd" in text else list(text.encode())
        return {"token": self.text(token), "logprob": _finite(logprob), "bytes": whole}

    def entries(self, tokens: Sequence[Token]) -> list[dict[str, Any]]:
        """Tokens as chat answers have them, each with the likely ones in its place."""
        found = []
        for token in tokens:
            tops = [self.entry(place, value) for place, value in token.top]
            found.append({**self.entry(token.id, token.logprob), "top_logprobs": tops})
        return found


def _finite(logprob: float) -> float:
    """A log-prob that JSON can hold; the protocol writes -9999 for impossible ones."""
    return max(logprob, -9999.0)


def token_fields(ask: Ask, reply: Whole) -> dict[str, Any]:
    """Ids and log-probs under the names by which NeMo-Gym's training reads them."""
    return {
        "prompt_token_ids": list(ask.ids),
        "generation_token_ids": [token.id for token in reply.tokens],
        "generation_log_probs": [token.logprob for token in reply.tokens],
    }
