"""`/v1/responses`: what NeMo-Gym's model servers speak; nothing is stored."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from linn.serve.generate import Ask, Whole, reply, whole
from linn.serve.models import Served
from linn.serve.requests import ResponsesRequest
from linn.serve.wire import TokenTexts, arguments_text, event, new_id, token_fields
from linn.types import ToolCall


class ResponseAnswer:
    """The answer to one Responses request."""

    def __init__(self, request: ResponsesRequest, served: Served, asks: Sequence[Ask]) -> None:
        self.request = request
        self.served = served
        (self.ask,) = asks
        self._texts = TokenTexts(served.codec)
        self._head: dict[str, Any] = {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": int(time.time()),
            "model": served.name,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": self.ask.how.temperature,
            "top_p": self.ask.how.top_p,
            "max_output_tokens": request.max_output_tokens,
            "tool_choice": request.tool_choice or "auto",
            "tools": request.tools or [],
            "previous_response_id": None,
            "store": False,
        }

    async def whole(self) -> tuple[dict[str, Any], int]:
        """(the object, tokens made)."""
        made = await whole(self.served.streams, self.served.codec, self.ask)
        return self._response(made, self._items(made)), len(made.tokens)

    # ------------------------------------------------------------ the object

    def _response(self, made: Whole, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        response = {**self._head, "status": "completed", "output": list(items)}
        if made.finish == "length":
            response["status"] = "incomplete"
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        # How many tokens the thought had is counted anew: marks belong to neither.
        thought = len(self.served.codec.encode(made.thought)) if made.thought else 0
        response["usage"] = {
            "input_tokens": len(self.ask.ids),
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(made.tokens),
            "output_tokens_details": {"reasoning_tokens": min(thought, len(made.tokens))},
            "total_tokens": len(self.ask.ids) + len(made.tokens),
        }
        return response

    def _items(self, made: Whole) -> list[dict[str, Any]]:
        """Thought, message and calls, the last of them with the tokens where they are asked for."""
        items: list[dict[str, Any]] = []
        if made.thought:
            items.append(_reasoning(new_id("rs_"), made.thought))
        if made.content or not made.calls:
            message = _message(new_id("msg_"), "completed")
            items.append({**message, "content": [self.part(made.content, made)]})
        items += [_call(new_id("fc_"), call) for call in made.calls]
        self._add_tokens(items, made)
        return items

    def _add_tokens(self, items: list[dict[str, Any]], made: Whole) -> None:
        if self.request.return_token_ids:
            items[-1].update(token_fields(self.ask, made))

    def part(self, text: str, made: Whole) -> dict[str, Any]:
        """A message's text, with log-probs where they are asked for."""
        part = _part(text)
        if "message.output_text.logprobs" in (self.request.include or ()):
            part["logprobs"] = self._texts.entries(made.tokens)
        return part

    # ------------------------------------------------------------ the stream

    async def events(self) -> AsyncGenerator[tuple[bytes, int], None]:
        """(what is sent, tokens made since the last)."""
        told = _Events(self)
        # Clients build the response from events; each carries the whole item once more at its end.
        begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
        yield told.of("response.created", response=begun), 0
        yield told.of("response.in_progress", response=begun), 0
        made = Whole()
        async with aclosing(reply(self.served.streams, self.served.codec, self.ask)) as pieces:
            async for piece in pieces:
                made.add(piece)
                sent = told.text("reasoning", piece.delta.thought, made)
                sent += told.text("message", piece.delta.content, made)
                yield sent, len(piece.tokens)

        # Calls are known only now, when the reply has ended.
        sent = told.close(made)
        for call in made.calls:
            sent += told.call(call)
        if not told.items:
            # A reply of nothing is a message of nothing.
            sent += told.open("message") + told.close(made)
        self._add_tokens(told.items, made)
        response = self._response(made, told.items)
        yield sent + told.of(f"response.{response['status']}", response=response), 0


class _Events:
    """Numbers the events of one stream, and knows the item that is being written."""

    def __init__(self, answer: ResponseAnswer) -> None:
        self._answer = answer
        self.items: list[dict[str, Any]] = []
        """Items that are complete."""
        self._number = 0
        self._kind = ""
        """Of the item that is open."""
        self._id = ""
        self._text = ""

    def of(self, kind: str, **fields: Any) -> bytes:
        """An event."""
        told = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event(told, kind)

    def open(self, kind: str) -> bytes:
        """Begin an item."""
        self._kind, self._text = kind, ""
        self._id = new_id("rs_" if kind == "reasoning" else "msg_")
        if kind == "reasoning":
            item = {"id": self._id, "type": "reasoning", "summary": [], "status": "in_progress"}
            return self.of("response.output_item.added", output_index=len(self.items), item=item)
        item = _message(self._id, "in_progress")
        sent = self.of("response.output_item.added", output_index=len(self.items), item=item)
        return sent + self._at("response.content_part.added", part=_part(""))

    def text(self, kind: str, text: str, made: Whole) -> bytes:
        """More of an item's text; begins the item where it has not begun."""
        if not text:
            return b""
        sent = b""
        if self._kind != kind:
            sent = self.close(made) + self.open(kind)
        self._text += text
        if kind == "reasoning":
            return sent + self._at("response.reasoning_text.delta", delta=text)
        return sent + self._at("response.output_text.delta", delta=text, logprobs=[])

    def close(self, made: Whole) -> bytes:
        """End the item that is open, if any is."""
        kind, self._kind = self._kind, ""
        if not kind:
            return b""
        if kind == "reasoning":
            item = _reasoning(self._id, self._text)
            sent = self._at("response.reasoning_text.done", text=self._text)
        else:
            part = self._answer.part(self._text, made)
            item = {**_message(self._id, "completed"), "content": [part]}
            sent = self._at("response.output_text.done", text=self._text, logprobs=[])
            sent += self._at("response.content_part.done", part=part)
        return sent + self._done(item)

    def call(self, call: ToolCall) -> bytes:
        """A whole call."""
        item = _call(new_id("fc_"), call)
        begun = {**item, "arguments": "", "status": "in_progress"}
        place: dict[str, Any] = {"output_index": len(self.items), "item_id": item["id"]}
        sent = self.of("response.output_item.added", output_index=len(self.items), item=begun)
        text = item["arguments"]
        sent += self.of("response.function_call_arguments.delta", **place, delta=text)
        sent += self.of(
            "response.function_call_arguments.done", **place, name=call.name, arguments=text
        )
        return sent + self._done(item)

    def _at(self, kind: str, **fields: Any) -> bytes:
        return self.of(
            kind, item_id=self._id, output_index=len(self.items), content_index=0, **fields
        )

    def _done(self, item: dict[str, Any]) -> bytes:
        sent = self.of("response.output_item.done", output_index=len(self.items), item=item)
        self.items.append(item)
        return sent


def _reasoning(identity: str, thought: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": thought}]
    # NeMo-Gym reads the thought from the summary, other clients from the content.
    summary = [{"type": "summary_text", "text": thought}]
    return {
        "id": identity,
        "type": "reasoning",
        "summary": summary,
        "content": content,
        "encrypted_content": None,
        "status": "completed",
    }


def _message(identity: str, status: str) -> dict[str, Any]:
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(identity: str, call: ToolCall) -> dict[str, Any]:
    return {
        "id": identity,
        "type": "function_call",
        "call_id": new_id("call_"),
        "name": call.name,
        "arguments": arguments_text(call),
        "status": "completed",
    }
