"""Runs the server until a signal ends it: uvicorn, with an end in good order."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from linn.chat.template import TemplateName
from linn.engine.local.device import say_device
from linn.engine.open import open_engine
from linn.errors import UserError
from linn.recipe.schema import ScaleConfig
from linn.serve.limits import Limits
from linn.serve.models import Models
from linn.serve.service import Service
from linn.terminal import echo


def serve(
    folders: dict[str, Path],
    host: str,
    port: int,
    *,
    processes: int = 2,
    capacity: int = 64,
    key: str | None = None,
    template: TemplateName | None = None,
    memory: int | None = None,
    cache: int = 4 * 10**9,
    context: int = 32768,
    thinking: bool = True,
    limits: Limits | None = None,
) -> None:
    """Serve checkpoints by name until SIGINT or SIGTERM; returns when all replies have ended.

    `memory`: bytes of weights; see `Models`. `cache`: bytes of the states of the replies that one
    process writes at once, per checkpoint. UserError where the address is taken.
    """
    limits = limits or Limits()
    # A request that names no length is counted with the whole context.
    scale = ScaleConfig(processes=processes, capacity=capacity, cache=max(1, cache >> 20))
    say_device(partial(echo, err=True), scale)
    engine = open_engine(scale)
    # Before anything is read: a model takes a while, a taken port is told at once.
    listening = _socket(host, port)
    try:
        models = Models(folders, engine, processes, template, memory, context)
        service = Service(models, limits, key, thinking)
        asyncio.run(_serve(service, listening, host))
    finally:
        listening.close()
        engine.close()


async def _serve(service: Service, listening: socket.socket, host: str) -> None:
    import uvicorn

    from linn.serve.app import app_of

    # The first is read before anybody asks: a folder without weights is found out now.
    first = service.models.find(None)
    async with service.models.use(first):
        pass
    config = uvicorn.Config(
        app_of(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=service.limits.connections,
        timeout_keep_alive=int(service.limits.idle_s),
        timeout_graceful_shutdown=int(service.limits.grace_s) + 10,
        http=_protocol(service.limits),
    )
    server: Any = uvicorn.Server(config)
    # Its own handlers would raise the signal once more at the end.
    server.capture_signals = nullcontext
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, service, server)
    where = listening.getsockname()
    for one in service.models.served.values():
        echo(f"{one.name}: {one.codec.described()}; {one.context:,} tokens", err=True)
    echo(f"serving at http://{host}:{where[1]}/v1", err=True)
    await server.serve(sockets=[listening])
    echo("stopped", err=True)


def _stop(service: Service, server: Any) -> None:
    """The first signal lets replies come to their end for a while; the second does not."""
    loop = asyncio.get_running_loop()
    if service.closing:
        service.abort()
        return
    service.closing = True
    server.should_exit = True
    grace = service.limits.grace_s
    if service.open:
        echo(f"stopping: {service.open} replies have {grace:g} s to end", err=True)
    # uvicorn waits for them; it would cut off what is left without a word.
    loop.call_later(grace, service.abort)


def _protocol(limits: Limits) -> Any:
    """Connections that are closed where no request comes on them."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    def made(*arguments: Any, **options: Any) -> Any:
        protocol = H11Protocol(*arguments, **options)

        def look() -> None:
            # `scope` is there as soon as a request's head is.
            if getattr(protocol, "scope", None) is None and protocol.transport is not None:
                protocol.transport.close()

        asyncio.get_running_loop().call_later(limits.header_s, look)
        return protocol

    return made


def _socket(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a taken port is told before a model is read."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UserError(
            f"--host {host} --port {port}: {error.strerror or error}; take another port or address"
        ) from None
    return listening
