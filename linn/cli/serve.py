"""The verb `linn serve`."""

from __future__ import annotations

import importlib.util
import os
from typing import Annotated

import typer

from linn.cli.filter import Template, template_choice
from linn.errors import UserError
from linn.terminal import echo

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")
KEY = "LINN_API_KEY"
"""The variable that is looked at where none is named."""


def serve(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN@STAGE|RUN|FOLDER …",
            help="what is served: checkpoints, all stages of a run, Hugging Face folders",
        ),
    ],
    host: Annotated[str, typer.Option(help="address; 0.0.0.0 opens it to the network")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
    processes: Annotated[int, typer.Option(min=1, help="processes that sample")] = 2,
    capacity: Annotated[
        int, typer.Option(min=1, help="replies that a process writes at once, per checkpoint")
    ] = 64,
    memory: Annotated[
        float | None,
        typer.Option(min=0.001, help="GB of weights in memory; others are read when asked for"),
    ] = None,
    cache: Annotated[
        float,
        typer.Option(
            min=0.001,
            help="GB of keys, values and states in each process, per checkpoint; of long replies "
            "fewer are written at once",
        ),
    ] = 4.0,
    context: Annotated[
        int, typer.Option(min=2, help="tokens of a prompt and its reply, at most")
    ] = 32768,
    no_think: Annotated[
        bool, typer.Option("--no-think", help="no thoughts where a request names no mode")
    ] = False,
    key_env: Annotated[
        str, typer.Option(metavar="VARIABLE", help="holds the key that clients must send, if any")
    ] = KEY,
    grace: Annotated[
        float, typer.Option(min=0, help="seconds that replies may go on after SIGTERM")
    ] = 20.0,
    queue: Annotated[int, typer.Option(min=1, help="replies under way or waiting, at most")] = 1024,
    engine: Annotated[str, typer.Option(help="linn, or vllm: vLLM's own server")] = "linn",
    template: Template = None,
) -> None:
    """Serve checkpoints by the protocol of OpenAI's servers."""
    from linn.serve.limits import Limits
    from linn.serve.models import named_folders

    folders = named_folders(checkpoints)
    key = key_in(key_env)
    chosen = template_choice(template)
    _warn_if_open(host, key, key_env)
    _check_engine(engine, len(folders))
    if engine == "vllm":
        from linn.serve.vllm import start_vllm, vllm_command

        ((name, folder),) = folders.items()
        start_vllm(vllm_command(folder, name, host, port, chosen, context), key)
        return

    from linn.serve import server

    server.serve(
        folders,
        host,
        port,
        processes=processes,
        capacity=capacity,
        key=key,
        template=chosen,
        memory=None if memory is None else int(memory * 1e9),
        cache=int(cache * 1e9),
        context=context,
        thinking=not no_think,
        limits=Limits(grace_s=grace, queue=queue),
    )


def key_in(variable: str) -> str | None:
    """The key that an environment variable holds, if any.

    UserError where a variable was named and holds none: nobody should serve openly by a typo.
    """
    key = os.environ.get(variable) or None
    if key is None and variable != KEY:
        raise UserError(f"--key-env {variable}: the environment variable is not set")
    return key


def _check_engine(engine: str, checkpoints: int) -> None:
    """Refuse an engine that is none, and to start without what the extra `serve` brings."""
    if engine not in ("linn", "vllm"):
        raise UserError(f"--engine {engine!r}: allowed: linn, vllm")
    if engine == "vllm":
        if checkpoints > 1:
            raise UserError("--engine vllm: it serves one checkpoint; name one")
        return

    # Named one by one: an environment may have some of them.
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"linn serve needs {', '.join(missing)}: pip install 'linn[serve]'")


def _warn_if_open(host: str, key: str | None, key_env: str) -> None:
    if host not in ("127.0.0.1", "::1", "localhost") and key is None:
        echo(f"⚠ {host}: whoever reaches it can use it; {key_env} sets a key", err=True)
