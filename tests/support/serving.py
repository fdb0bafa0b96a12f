"""A server without a model: real requests to the real application, scripted replies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from linn.chat.codec import Codec
from linn.checkpoints import BASES
from linn.serve.app import app_of
from linn.serve.limits import Limits
from linn.serve.models import Models
from linn.serve.service import Service
from support.fake_engine import FakeEngine
from support.scripted import Scripted

TINY = BASES / "tiny-0"


class Server:
    """An application over scripted models; each request has an event loop of its own."""

    def __init__(
        self,
        reply: Callable[[str, int], str] = lambda text, seed: "hm</think>\nHi.<|im_end|>",
        folders: dict[str, Path] | None = None,
        limits: Limits | None = None,
        key: str | None = None,
        **options: Any,
    ) -> None:
        folders = folders or {"tiny": TINY}
        self.codec = Codec.load(next(iter(folders.values())))
        scripted = Scripted(self.codec, reply)
        names = {folder.name: scripted for folder in folders.values()}
        self.engine = FakeEngine(scripted, samplers=names)
        self.models = Models(folders, self.engine, **options)
        self.service = Service(self.models, limits or Limits(), key)
        self.app = app_of(self.service)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """One request."""
        return self.post_all([(path, body)], **headers)[0]

    def post_all(self, requests: Sequence[tuple[str, Any]], **headers: str) -> list[httpx.Response]:
        """Requests at once."""

        async def all_at_once() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                sent = [self._send(client, path, body, headers) for path, body in requests]
                return await asyncio.gather(*sent)

        return asyncio.run(all_at_once())

    async def _send(
        self, client: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str]
    ) -> httpx.Response:
        content = body if isinstance(body, (bytes, str)) else json.dumps(body)
        given = {"content-type": "application/json", **headers}
        return await client.post(f"/v1{path}", content=content, headers=given)

    def get(self, path: str, **headers: str) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(once())

    def chat(self, text: str = "Hi", **more: Any) -> dict[str, Any]:
        """The message of a chat request."""
        answer = self.post("/chat/completions", asks(text, **more))
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]


def asks(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}


def events_in(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, without its end."""
    found = []
    for block in response.text.split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: ") and line != "data: [DONE]":
                found.append(json.loads(line.removeprefix("data: ")))
    return found
