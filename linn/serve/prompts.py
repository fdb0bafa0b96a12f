"""Requests to what the model reads: the one reader of rows, and the template of training."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from linn.chat.codec import Codec
from linn.chat.request import Request, request_of
from linn.errors import UserError
from linn.serve.errors import ApiError
from linn.serve.generate import Ask
from linn.serve.limits import Limits
from linn.serve.models import Served
from linn.serve.requests import (
    ChatRequest,
    Common,
    CompletionRequest,
    ResponsesRequest,
    template_options,
    tools_shown,
)
from linn.types import Sampling, seed_of

_AT_ONCE = 4096
"""Bytes of a request that is read within the event loop."""


async def chat_asks(
    request: ChatRequest, served: Served, limits: Limits, thinking: bool
) -> list[Ask]:
    """The replies that a chat request asks for; `thinking`: the mode where it names none."""
    options = template_options(request, request.reasoning_effort)
    row = {
        "messages": request.messages,
        "tools": tools_shown(request, limits),
        "chat_template_kwargs": options,
    }
    # The older of two names for the same.
    most = request.max_completion_tokens or request.max_tokens
    top = _top(request.top_logprobs, limits) if request.logprobs else 0
    first = await _ask(row, "messages", request, served, limits, thinking, most, top)
    return _siblings(first, request.n)


async def response_asks(
    request: ResponsesRequest, served: Served, limits: Limits, thinking: bool
) -> list[Ask]:
    """The reply that a Responses request asks for."""
    effort = (request.reasoning or {}).get("effort")
    params: dict[str, Any] = {
        "input": request.input,
        "tools": tools_shown(request, limits),
        "chat_template_kwargs": template_options(request, effort),
    }
    if request.instructions:
        params["instructions"] = request.instructions
    row = {"responses_create_params": params}
    top = _top(request.top_logprobs, limits)
    most = request.max_output_tokens
    return [await _ask(row, "input", request, served, limits, thinking, most, top)]


async def completion_asks(request: CompletionRequest, served: Served, limits: Limits) -> list[Ask]:
    """The replies that a completion request asks for: `n` of each prompt, in this order."""
    prompts = _prompts(request.prompt)
    if len(prompts) * request.n > limits.choices:
        raise ApiError(
            400, f"{len(prompts)} prompts times n: allowed are {limits.choices} replies", "n"
        )
    how = _sampling(request, served.codec, _top(request.logprobs or 0, limits))
    seed = request.seed_or_any()
    asks = []
    for number, prompt in enumerate(prompts):
        ids = prompt
        if isinstance(prompt, str):
            ids = await asyncio.to_thread(_text_ids, served.codec, prompt, served.context)
        if not ids:
            raise ApiError(400, "an empty prompt", "prompt")
        # With 0 the prompt is scored and nothing is sampled.
        longest = request.max_tokens or 1
        _check_length(len(ids), longest if request.max_tokens else 0, served, "prompt")
        ask = Ask(
            ids=tuple(int(one) for one in ids),
            how=_with_most(how, longest),
            seed=seed_of(seed, number),
            stops=request.stop_strings(limits),
            chat=False,
        )
        asks += _siblings(ask, request.n)
    return asks


# ---------------------------------------------------------------- parts


async def _ask(
    row: dict[str, Any],
    param: str,
    request: Common,
    served: Served,
    limits: Limits,
    thinking: bool,
    most: int | None,
    top: int,
) -> Ask:
    if getattr(request, "n", 1) > limits.choices:
        raise ApiError(400, f"n: allowed are {limits.choices} replies", "n")
    stops = request.stop_strings(limits)
    try:
        arguments = (row, served.codec, served.context, thinking)
        # A megabyte takes a while to read, to write and to cut into tokens; a few lines take less
        # than a thread takes to begin.
        if request.size <= _AT_ONCE:
            asked, ids = _read(*arguments)
        else:
            asked, ids = await asyncio.to_thread(_read, *arguments)
    except UserError as error:
        raise ApiError(400, str(error), param) from None
    room = served.context - len(ids)
    _check_length(len(ids), most or 1, served, param)
    return Ask(
        ids=tuple(ids),
        how=_with_most(_sampling(request, served.codec, top), most or room),
        seed=request.seed_or_any(),
        stops=stops,
        thinking=asked.thinking,
        tools=asked.tools,
    )


def _read(
    row: dict[str, Any], codec: Codec, most: int, thinking: bool
) -> tuple[Request, list[int]]:
    """(what a row asks, what the model reads); a longer prompt than `most` is cut only so far."""
    asked = request_of(row, thinking=thinking)
    return asked, codec.prompt_ids(asked.prompt("serve", ""), most=most)


def _text_ids(codec: Codec, text: str, most: int) -> list[int]:
    """A text as a model reads it: behind the token that its texts begin with."""
    # Clients that rendered a conversation themselves have written it already.
    bos = codec.template.bos
    if bos and not text.startswith(bos):
        text = bos + text
    return codec.encode_spans([(text, False)], most)[0]


def _check_length(prompt: int, reply: int, served: Served, param: str) -> None:
    if prompt + reply > served.context:
        raise ApiError(
            400,
            f"the prompt has {prompt} tokens or more and the reply may take {reply}; "
            f"the model takes {served.context} together",
            param,
            "context_length_exceeded",
        )


def _sampling(request: Common, codec: Codec, top: int) -> Sampling:
    stop = () if request.ignore_eos else codec.stops
    return Sampling(
        max_tokens=1,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        stop=(*stop, *(request.stop_token_ids or ())),
        top=top,
    )


def _with_most(how: Sampling, most: int) -> Sampling:
    return Sampling(most, how.temperature, how.top_p, how.stop, top=how.top)


def _top(count: int, limits: Limits) -> int:
    if count > limits.top_logprobs:
        raise ApiError(
            400, f"{count} likely tokens; allowed: {limits.top_logprobs}", "top_logprobs"
        )
    return count


def _siblings(ask: Ask, count: int) -> list[Ask]:
    """The same request `count` times, each with a seed of its own."""
    siblings = []
    for number in range(count):
        seed = seed_of(ask.seed, "sibling", number)
        siblings.append(Ask(ask.ids, ask.how, seed, ask.stops, ask.chat, ask.thinking, ask.tools))
    return siblings


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [[int(one) for one in prompt if isinstance(one, int)]]
    return [one for one in prompt if isinstance(one, (str, list))]
