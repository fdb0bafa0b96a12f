"""Players: a checkpoint over an engine's sampler, or a model behind an endpoint."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from linn.chat.codec import Codec
from linn.chat.template import TemplateName
from linn.checkpoints import resolve
from linn.domains.base import Domain
from linn.endpoint.address import Address, parse_endpoint
from linn.engine.open import open_engine
from linn.engine.protocol import Engine, Sampler
from linn.errors import UserError
from linn.play.rollout import play
from linn.recipe.schema import ScaleConfig
from linn.solve.account import JUDGE, MODEL, Apart, Player, Table, Together
from linn.solve.record import Record
from linn.types import Optim

_END_BYTES = 1 << 16
"""Bytes of each end of a file of weights that are hashed."""


@dataclass(frozen=True)
class Models:
    """Who answers, by the names of the command line."""

    model: str
    """RUN@STAGE[:STEP], a folder, or http(s)://HOST:PORT/v1#MODEL."""
    judge: str | None = None
    """The same, for the judge; None: the model itself."""
    template: TemplateName | None = None
    """Chat template of the model's checkpoint."""
    processes: int = 2
    """Worker processes, for a checkpoint."""
    concurrency: int = 64
    """Requests under way at once, at an endpoint."""
    key_env: str | None = None
    """Environment variable that holds the endpoints' key."""
    timeout_s: float = 1800.0
    """Seconds that one answer of an endpoint may take."""
    asks_mode: bool = True
    """Whether requests to an endpoint say if the model is to think; strict servers refuse that."""

    @property
    def names(self) -> list[str]:
        """The model and, where it is another, its judge."""
        names = [self.model, self.judge or self.model]
        return list(dict.fromkeys(names))

    @property
    def is_served(self) -> bool:
        """Whether all of them are endpoints, whose requests need no common batch."""
        return all(parse_endpoint(name) is not None for name in self.names)


@asynccontextmanager
async def table_for(
    models: Models, domains: Mapping[str, Domain], record: Record, max_failed: float = 0.1
) -> AsyncIterator[Table]:
    """The table at which tasks meet these models; what was opened is closed at the end."""
    async with AsyncExitStack() as stack:
        # No engine is started for endpoints alone.
        engine = None
        if not models.is_served:
            engine = open_engine(ScaleConfig(processes=models.processes))
            stack.callback(engine.close)

        player = await _player(models.model, models, domains, engine, stack)
        judge = player
        if models.judge not in (None, models.model):
            assert models.judge is not None
            judge = await _player(models.judge, models, domains, engine, stack)
        players = {MODEL: player, JUDGE: judge}
        if models.is_served:
            yield Apart(players, record, models.concurrency, max_failed)
        else:
            yield Together(players, record, max_failed)


async def _player(
    name: str,
    models: Models,
    domains: Mapping[str, Domain],
    engine: Engine | None,
    stack: AsyncExitStack,
) -> Player:
    endpoint = parse_endpoint(name)
    if endpoint is not None:
        return await _served(endpoint, models, domains, stack)
    assert engine is not None
    folder = resolve(name)
    is_policy = name == models.model
    codec = Codec.load(folder, models.template if is_policy else None)
    if is_policy:
        engine.load(folder, Optim())
        return _local(engine.sampler, codec, domains)
    return _local(engine.sampler_of(folder), codec, domains)


def _local(sampler: Sampler, codec: Codec, domains: Mapping[str, Domain]) -> Player:
    return functools.partial(play, domains=domains, sampler=sampler, codec=codec)


async def _served(
    endpoint: Address,
    models: Models,
    domains: Mapping[str, Domain],
    stack: AsyncExitStack,
) -> Player:
    from linn.endpoint.client import Endpoint
    from linn.play.remote import play_remote

    url, name = endpoint
    client = Endpoint(
        url,
        name,
        _key(models.key_env),
        key_name="--key-env",
        concurrency=models.concurrency,
        timeout_s=models.timeout_s,
    )
    # Connections are kept over all requests of the solve.
    await stack.enter_async_context(client)
    return functools.partial(
        play_remote, domains=domains, client=client, asks_mode=models.asks_mode
    )


def _key(variable: str | None) -> str | None:
    """The key in an environment variable; UserError where that is not set."""
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(f"--key-env {variable}: the environment variable is not set")
    return key


def weights_of(name: str) -> str | None:
    """A short hash of a checkpoint's weights, so that other weights in its place are noticed.

    It reads each file's size and both its ends: whole files may be tens of gigabytes. None for an
    endpoint, whose weights nobody here can see.
    """
    if parse_endpoint(name) is not None:
        return None
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(resolve(name).glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END_BYTES))
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    return digest.hexdigest()


def check_model(name: str) -> Path | None:
    """The folder of a checkpoint, None for an endpoint; UserError where it is neither."""
    if parse_endpoint(name) is not None:
        return None
    return resolve(name)
