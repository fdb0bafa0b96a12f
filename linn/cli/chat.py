"""The verb `linn chat`: a conversation at the terminal, or from what is piped in."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linn.cli.filter import Template, template_choice
from linn.cli.serve import KEY, key_in
from linn.errors import LinnError, UserError, nearest
from linn.terminal import echo

if TYPE_CHECKING:
    from linn.serve.screen import Screen
    from linn.serve.session import Session, Speaker, Step

HELP = """\
/think, /no-think   whether replies open with a thought
/thought            show the last thought again
/retry              another answer to what you said last
/system TEXT        what the model is told before all else; without TEXT, what that is
/clear              begin anew
/save FILE          the conversation as a row, as linn render and linn data read it
/help               this
/quit               the end (Ctrl-D too); Ctrl-C stops a reply
\"\"\" on a line of its own begins and ends a text of several lines"""


def chat(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN@STAGE|FOLDER|URL#MODEL",
            help="a checkpoint, or a model of a server, http://HOST:PORT/v1#MODEL",
        ),
    ],
    no_think: Annotated[bool, typer.Option("--no-think", help="replies without thoughts")] = False,
    system: Annotated[str, typer.Option(help="what the model is told before all else")] = "",
    tools: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="FILE.py: functions it may call; FILE.json: definitions alone"
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="of one reply")] = 4096,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.001, max=1)] = 1.0,
    seed: Annotated[int | None, typer.Option(help="the same replies each time")] = None,
    context: Annotated[int, typer.Option(min=2, help="tokens of the conversation")] = 32768,
    show_thoughts: Annotated[
        bool, typer.Option("--show-thoughts", help="leave thoughts on the screen")
    ] = False,
    key_env: Annotated[
        str, typer.Option(metavar="VARIABLE", help="holds the key of a server, if it wants one")
    ] = KEY,
    template: Template = None,
) -> None:
    """Talk to a checkpoint, or to a model of a server."""
    from linn.endpoint.address import parse_endpoint
    from linn.serve.functions import Functions
    from linn.serve.screen import Screen
    from linn.serve.session import Session
    from linn.types import Sampling

    functions = Functions.load(tools) if tools is not None else None
    chosen = template_choice(template)
    how = Sampling(max_tokens, temperature, top_p)
    screen = Screen(fold=not show_thoughts)
    address = parse_endpoint(model)
    if address is not None and chosen is not None:
        raise UserError("--template: only a checkpoint has one; a server has its own")

    def session_with(speaker: Speaker) -> Session:
        return Session(speaker, how, system, functions, not no_think, seed)

    try:
        if address is not None:
            asyncio.run(_with_server(address, key_in(key_env), key_env, session_with, screen))
        else:
            asyncio.run(_with_checkpoint(model, chosen, context, session_with, screen))
    finally:
        if functions is not None:
            functions.close()


async def _with_server(
    address: Any, key: str | None, key_env: str, session_with: Any, screen: Screen
) -> None:
    from linn.endpoint.client import Endpoint
    from linn.serve.remote import Remote

    endpoint = Endpoint(address.url, address.model, key, key_name=key_env, tries=2)
    async with endpoint:
        await _converse(session_with(Remote(endpoint)), screen, str(address))


async def _with_checkpoint(
    name: str, template: Any, context: int, session_with: Any, screen: Screen
) -> None:
    from linn.checkpoints import resolve
    from linn.engine.local.device import say_device
    from linn.engine.open import open_engine
    from linn.recipe.schema import ScaleConfig
    from linn.serve.models import Models
    from linn.serve.session import Checkpoint

    say_device(partial(echo, err=True))
    # One conversation has one row, and takes one process.
    engine = open_engine(ScaleConfig(processes=1, capacity=1))
    try:
        models = Models({name: resolve(name)}, engine, template=template, context=context)
        served = models.find(name)
        echo(f"reading {name}; {served.codec.described()}", err=True)
        async with models.use(served):
            speaker = Checkpoint(served.streams, served.codec, served.context)
            await _converse(session_with(speaker), screen, name)
    finally:
        engine.close()


# ---------------------------------------------------------------- the conversation


async def _converse(session: Session, screen: Screen, name: str) -> None:
    """Line by line until the end of the input or /quit."""
    if screen.live:
        echo(f"{name}: /help tells what you can do; Ctrl-D ends", err=True)
    while True:
        try:
            # In this thread, where Ctrl-C arrives: nothing else is to be done meanwhile.
            text, is_quoted = _read()
        except KeyboardInterrupt:
            continue
        is_command = not is_quoted and text is not None and text.startswith("/")
        if text is None or (is_command and text.strip() in ("/quit", "/exit")):
            return
        try:
            if is_command:
                await _command(text, session, screen)
            elif text.strip():
                await _shown(session.ask(text), screen)
        except LinnError as error:
            # A mistake ends no conversation; without a terminal nobody could mend it.
            screen.end()
            if not screen.live:
                raise
            echo(f"linn: {error}", err=True)


async def _shown(steps: AsyncGenerator[Step, None], screen: Screen) -> None:
    """An answer as it comes; Ctrl-C ends it, and not the program."""
    task = asyncio.ensure_future(_show_all(steps, screen))
    loop = asyncio.get_running_loop()
    # Meanwhile Ctrl-C means the reply; at the prompt it means the line.
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
        screen.end("stopped")
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _show_all(steps: AsyncGenerator[Step, None], screen: Screen) -> None:
    async with aclosing(steps):
        async for step in steps:
            screen.show(step)
    screen.end()


async def _command(text: str, session: Session, screen: Screen) -> None:
    """What begins with a slash."""
    word, _, rest = text.strip().partition(" ")
    match word:
        case "/think" | "/no-think":
            session.thinking = word == "/think"
            echo(f"thinking: {'on' if session.thinking else 'off'}", err=True)
        case "/thought":
            echo(screen.thought or "no thought yet")
        case "/retry":
            await _shown(session.retry(), screen)
        case "/system":
            session.system = rest.strip() or session.system
            echo(f"system: {session.system or '(nothing)'}", err=True)
        case "/clear":
            session.clear()
            echo("begun anew", err=True)
        case "/save":
            if not rest.strip():
                raise UserError("/save FILE: where?")
            session.save(Path(rest.strip()))
            echo(f"saved: {rest.strip()}", err=True)
        case "/help":
            echo(HELP, err=True)
        case _:
            known = re.findall(r"(?:^|, )(/[\w-]+)", HELP, re.MULTILINE)
            raise UserError(f"no command {word}{nearest(word, known)}")


def _read() -> tuple[str | None, bool]:
    """(what is said next, whether it stood in quotes); None at the end of the input."""
    lines: list[str] = []
    quoting = False
    while True:
        line = _line("… " if quoting else "> ")
        if line is None:
            return ("\n".join(lines) if lines else None), quoting
        if line.strip() == '"""':
            quoting = not quoting
            if not quoting:
                return "\n".join(lines), True
            continue
        if not quoting:
            return line, False
        lines.append(line)


def _line(prompt: str) -> str | None:
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    with suppress(ImportError):
        import readline  # noqa: F401 - history and keys of the line that is being written
    try:
        return input(prompt)
    except EOFError:
        return None
