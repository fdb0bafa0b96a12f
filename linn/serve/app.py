"""The paths of the server."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from linn.serve.chat_api import ChatAnswer
from linn.serve.completions_api import CompletionAnswer
from linn.serve.errors import ApiError
from linn.serve.prompts import chat_asks, completion_asks, response_asks
from linn.serve.requests import ChatRequest, CompletionRequest, ResponsesRequest, parsed
from linn.serve.responses_api import ResponseAnswer
from linn.serve.service import Answer, Begin, Receive, Scope, Send, Service

_Begun = tuple[Answer, Any, int, int, bool]


def app_of(service: Service) -> FastAPI:
    """The application; nothing of it is kept outside of `service`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # Plain routes: FastAPI's own would read a body before its length is looked at.
    for path, begin in _begins(service).items():
        app.add_route(path, _posted(service, begin), methods=["POST"])

    def models(request: Request) -> Response:
        return _guarded(service, request, lambda: _list(service))

    def model(request: Request) -> Response:
        name = request.path_params["name"]
        return _guarded(service, request, lambda: _entry(service.models.find(name).name))

    def health(request: Request) -> Response:
        status = 503 if service.closing else 200
        return JSONResponse({"status": "stopping" if service.closing else "ok"}, status)

    def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    app.add_route("/v1/models", models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", model, methods=["GET"])
    app.add_route("/health", health, methods=["GET"])
    app.add_route("/metrics", metrics, methods=["GET"])
    # Clients expect an object of the protocol for every refusal.
    for status in (404, 405):
        app.add_exception_handler(status, _no_such_path)
    return app


# ---------------------------------------------------------------- what is asked


def _begins(service: Service) -> dict[str, Begin]:
    """How the requests of each path begin."""
    models, limits, thinking = service.models, service.limits, service.thinking

    async def chat(body: bytes) -> _Begun:
        request = parsed(ChatRequest, body, limits)
        served = models.find(request.model)
        asks = await chat_asks(request, served, limits, thinking)
        answer = ChatAnswer(request, served, asks)
        return answer, served, len(asks), len(asks[0].ids), request.stream

    async def completion(body: bytes) -> _Begun:
        request = parsed(CompletionRequest, body, limits)
        served = models.find(request.model)
        asks = await completion_asks(request, served, limits)
        answer = CompletionAnswer(request, served, asks)
        read = sum(len(ids) for ids in {ask.ids for ask in asks})
        return answer, served, len(asks), read, request.stream

    async def response(body: bytes) -> _Begun:
        request = parsed(ResponsesRequest, body, limits)
        served = models.find(request.model)
        asks = await response_asks(request, served, limits, thinking)
        answer = ResponseAnswer(request, served, asks)
        return answer, served, 1, len(asks[0].ids), request.stream

    return {
        "/v1/chat/completions": chat,
        "/v1/completions": completion,
        "/v1/responses": response,
    }


class _Answering:
    """A response as ASGI has it: takes the connection and answers."""

    def __init__(self, service: Service, begin: Begin) -> None:
        self._service = service
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._service.answer(scope, receive, send, self._begin)


def _posted(service: Service, begin: Begin) -> Any:
    async def endpoint(request: Request) -> _Answering:
        return _Answering(service, begin)

    return endpoint


# ---------------------------------------------------------------- what is there


def _guarded(service: Service, request: Request, content: Any) -> Response:
    try:
        service.check_key(dict(request.headers.raw))
        return JSONResponse(content())
    except ApiError as error:
        return JSONResponse(error.body, error.status)


def _list(service: Service) -> dict[str, Any]:
    return {"object": "list", "data": [_entry(name) for name in service.models.served]}


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "linn"}


_STARTED = int(time.time())


def _no_such_path(request: Request, error: Any) -> Response:
    path = request.url.path[:100]
    refused = ApiError(404, f"{request.method} {path}: no such path", code="no_such_path")
    return JSONResponse(refused.body, error.status_code)
