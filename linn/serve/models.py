"""The checkpoints behind one server: read when they are asked for, within a limit of memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from linn.assets import model_config, trained_length
from linn.chat.codec import Codec
from linn.chat.template import TemplateName
from linn.checkpoints import kept_base, resolve
from linn.engine.protocol import Engine, Streams
from linn.errors import UserError
from linn.serve.errors import ApiError

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


@dataclass
class Served:
    """One checkpoint."""

    name: str
    """What clients call it."""
    folder: Path
    """Where it is."""
    codec: Codec
    """Its tokenizer and template."""
    streams: Streams
    """What samples from it."""
    context: int
    """Tokens of a prompt and its reply together."""
    size: int
    """Bytes of its weights in the memory of one process."""
    loaded: bool = False
    """Whether the engine has read it."""
    users: int = 0
    """Requests that are being answered by it."""
    last: int = 0
    """When it was used last, counted in requests."""


class Models:
    """Finds a checkpoint by its name and keeps as many in memory as fit."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        engine: Engine,
        processes: int = 1,
        template: TemplateName | None = None,
        memory: int | None = None,
        context: int = 32768,
    ) -> None:
        """`memory`: bytes of weights in all processes; None: no limit. `context`: see `Served`.

        UserError where a folder's tokenizer, template or size do not serve.
        """
        self._processes = processes
        self._memory = memory
        self._count = 0
        self._lock = asyncio.Lock()
        self.served: dict[str, Served] = {}
        for name, folder in folders.items():
            self.served[name] = Served(
                name=name,
                folder=folder,
                codec=Codec.load(folder, template),
                streams=engine.streams_of(folder),
                context=min(context, trained_length(folder) or context),
                size=_size(folder),
            )
            needed = self.served[name].size * processes
            if memory is not None and needed > memory:
                raise UserError(
                    f"--memory: {name} takes {needed / 1e6:,.0f} MB in {processes} processes, and "
                    f"the limit is {memory / 1e6:,.0f} MB"
                )

    @property
    def loaded(self) -> list[Served]:
        """Those that are in memory."""
        return [one for one in self.served.values() if one.loaded]

    def find(self, name: str | None) -> Served:
        """The checkpoint of this name, the first where none is given; raises ApiError."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            names = ", ".join(list(self.served)[:20])
            raise ApiError(
                404, f"no model {name[:100]!r}; there are {names}", "model", "model_not_found"
            )
        return self.served[name]

    @asynccontextmanager
    async def use(self, served: Served) -> AsyncIterator[Served]:
        """The checkpoint in memory, until the end of the block."""
        self._count += 1
        served.users += 1
        served.last = self._count
        try:
            await self._load(served)
            yield served
        finally:
            served.users -= 1

    async def _load(self, served: Served) -> None:
        if served.loaded:
            return
        # One at a time: two that are read at once could take more than there is.
        async with self._lock:
            if served.loaded:
                return
            await self._make_room(served.size)
            positions = await served.streams.open()
            if positions is not None:
                served.context = min(served.context, positions)
            served.loaded = True

    async def _make_room(self, size: int) -> None:
        """Forget checkpoints that nobody uses, the one first that was used longest ago."""
        if self._memory is None:
            return
        while (sum(one.size for one in self.loaded) + size) * self._processes > self._memory:
            idle = [one for one in self.loaded if not one.users]
            if not idle:
                raise ApiError(
                    503,
                    "other models are in use and leave no memory for this one; try again later",
                    "model",
                    "no_memory",
                )
            oldest = min(idle, key=lambda one: one.last)
            # First the word, then the memory: nobody may start on what is going away.
            oldest.loaded = False
            await oldest.streams.close()


def named_folders(names: list[str]) -> dict[str, Path]:
    """Checkpoints by the names that clients use: RUN@STAGE as it is said, of a folder its name.

    A run without a stage means the last checkpoint of each of its stages. UserError names what is
    none, or two of one name.
    """
    found: dict[str, Path] = {}
    for said in names:
        for name, folder in _named(said):
            if found.get(name, folder) != folder:
                raise UserError(
                    f"{said}: {found[name]} is called {name} too; rename one of the folders"
                )
            found[name] = folder
    return found


def _named(said: str) -> list[tuple[str, Path]]:
    # A base of linn's own goes before a run of its name, as everywhere; that is runs/NAME.
    if kept_base(said) is not None and not Path(said).is_dir():
        return [(said, resolve(said))]
    # A run by its path or its name; only stages that have got as far as a checkpoint.
    for run in (Path(said), Path("runs") / said):
        stages = sorted(run.glob("stages/[0-9]*-*"))
        names = [f"{said.rstrip('/')}@{stage.name.split('-', 1)[1]}" for stage in stages]
        has = [any(stage.glob("checkpoints/step-*")) for stage in stages]
        if any(has):
            return [(n, resolve(n)) for n, there in zip(names, has, strict=True) if there]
    if "@" in said:
        return [(said, resolve(said))]
    return [(Path(said).resolve().name, resolve(said))]


def _size(folder: Path) -> int:
    """Bytes of a model's weights in float32."""
    config = model_config(folder)
    kept = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return files * 4 // _BYTES.get(kept, 4)
