"""What clients ask for, read strictly: nothing that would change a reply is passed over."""

from __future__ import annotations

import json
import secrets
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from linn.errors import nearest
from linn.serve.errors import ApiError
from linn.serve.limits import Limits

_IGNORED = frozenset(
    "user metadata store service_tier prompt_cache_key prompt_cache_retention safety_identifier "
    "verbosity truncation max_tool_calls stream_obfuscation".split()
)
"""Keys that name the client or ask for what a reply does not depend on."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "top_k": (0, -1),
    "response_format": ({"type": "text"},),
    "text": ({"format": {"type": "text"}}, {}, {"verbosity": "medium"}),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "background": (False,),
    "skip_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "suffix": ("",),
    "best_of": (1,),
    "logprob_start_len": (-1,),
}
"""Keys that change a reply in ways that linn does not, with the values that change nothing."""
_STRICT = ConfigDict(strict=True, extra="forbid")


class StreamOptions(BaseModel):
    """What a stream tells besides."""

    model_config = _STRICT
    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class Common(BaseModel):
    """What all three kinds of request have."""

    model_config = _STRICT

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    return_token_ids: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None

    _size: int = PrivateAttr(0)

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return self._size

    def stop_strings(self, limits: Limits) -> tuple[str, ...]:
        """The strings that end a reply."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > limits.stops:
            raise ApiError(400, f"{len(stops)} stop strings; allowed: {limits.stops}", "stop")
        if any(len(stop) > limits.stop_characters for stop in stops):
            raise ApiError(
                400, f"a stop string of over {limits.stop_characters} characters", "stop"
            )
        if "" in stops:
            raise ApiError(400, "an empty stop string would end every reply", "stop")
        return tuple(stops)

    def seed_or_any(self) -> int:
        """The seed, or one that nobody knows."""
        return secrets.randbits(62) if self.seed is None else self.seed


class ChatRequest(Common):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0)
    reasoning_effort: str | None = None
    return_tokens_as_token_ids: bool = False
    include_reasoning: bool = True


class CompletionRequest(Common):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(16, ge=0)
    n: int = Field(1, ge=1)
    logprobs: int | None = Field(None, ge=0)
    echo: bool = False
    return_tokens_as_token_ids: bool = False


class ResponsesRequest(Common):
    """`POST /v1/responses`."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    top_logprobs: int = Field(0, ge=0)
    include: list[str] | None = None
    reasoning: dict[str, Any] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None


Request = TypeVar("Request", bound=Common)


def parsed(kind: type[Request], body: bytes, limits: Limits) -> Request:
    """The request in a body; ApiError names the field that is wrong."""
    fields = _object(body, limits)
    for key in list(fields):
        # A null is the key's default everywhere in the protocol.
        if fields[key] is None:
            del fields[key]
        elif key in _NEUTRAL and key not in kind.model_fields:
            _check_neutral(key, fields.pop(key))
        elif key in _IGNORED:
            del fields[key]
    try:
        request = kind.model_validate(fields)
    except ValidationError as error:
        raise _api_error(error, kind) from None
    request._size = len(body)
    return request


def _check_neutral(key: str, value: Any) -> None:
    if value not in _NEUTRAL[key] or isinstance(value, bool) != isinstance(_NEUTRAL[key][0], bool):
        allowed = " or ".join(json.dumps(one) for one in _NEUTRAL[key])
        raise ApiError(
            400, f"{key} is not supported here; leave it out, or at {allowed}", key, "unsupported"
        )


def _object(body: bytes, limits: Limits) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_constant=_refuse)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is no JSON object")
    _check_depth(fields, limits.depth)
    return fields


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _check_depth(value: Any, limit: int) -> None:
    """ApiError where lists and objects stand deeper within each other than that."""
    # Level by level: what walks down a value by calls would end where the stack does.
    level = [value]
    for _ in range(limit + 1):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += [part for part in one.values() if isinstance(part, (dict, list))]
            elif isinstance(one, list):
                below += [part for part in one if isinstance(part, (dict, list))]
        level = below
        if not level:
            return
    raise ApiError(400, f"the body is nested deeper than {limit} levels")


def _api_error(error: ValidationError, kind: type[Common]) -> ApiError:
    # One is enough for a person to go on with.
    first = error.errors(include_url=False, include_context=False)[0]
    place = [str(part) for part in first["loc"]]
    param = place[0] if place else None
    if first["type"] == "extra_forbidden" and param is not None and len(place) == 1:
        hint = nearest(param, kind.model_fields)
        if len(hint) > 60:
            hint = ""
        return ApiError(400, f"unknown parameter {param[:60]!r}{hint}", param[:60], "unknown")
    return ApiError(400, f"{'.'.join(place)[:100]}: {first['msg']}", param)


def tools_shown(request: ChatRequest | ResponsesRequest, limits: Limits) -> list[dict[str, Any]]:
    """The definitions that the model is shown; ApiError for a choice that it cannot be held to."""
    tools = request.tools or []
    if len(tools) > limits.tools:
        raise ApiError(400, f"{len(tools)} tools; allowed: {limits.tools}", "tools")
    # Anything else would need a grammar that sampling is held to.
    choice = request.tool_choice
    if choice is None or choice == "auto":
        return tools
    if choice == "none":
        return []
    raise ApiError(
        400,
        f"tool_choice {json.dumps(choice)[:80]}: the model cannot be held to a call, since its "
        "sampling is free; allowed: auto, none",
        "tool_choice",
        "unsupported",
    )


def template_options(request: Common, effort: object) -> dict[str, Any]:
    """What the template is told; an effort of `none` is the mode without thoughts."""
    options = dict(request.chat_template_kwargs or {})
    if request.enable_thinking is not None:
        options.setdefault("enable_thinking", request.enable_thinking)
    if effort == "none":
        options.setdefault("enable_thinking", False)
    return options
