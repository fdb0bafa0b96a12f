"""Processes placed by Ray: a bundle for each trainer rank and each sampler, all at once or none.

A sampler that computes on ranks' GPUs shares their bundle, so all are on one machine. Ray would
give a GPU to one process alone, so in such a bundle linn deals them by role, as `Local` does.

Ray's address comes from RAY_ADDRESS; without one, Ray starts on this machine. No torch here.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from linn.engine.local.answering import answer
from linn.errors import InfrastructureError, LinnError, UserError
from linn.scale.places import ONE_THREAD, Died, Process, Reply, Role, Unopened, make_folder
from linn.terminal import echo

PLACED_S = 600.0
"""Seconds in which Ray must find room for all processes."""
SAID_S = 10.0
"""Seconds without room after which the person is told."""
CPUS = 1
"""Cores of a process."""
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Which GPUs a process sees. Ray names AMD's by the second, which goes before the first there."""


def bundles_of(roles: Sequence[Role]) -> list[list[Role]]:
    """Roles that share GPUs together, every other alone.

    In the order of the roles: the first is in the first bundle.
    """
    tied = {role.name: [role.name] for role in roles}
    for role in roles:
        for name in role.beside:
            own, others = tied[role.name], tied[name]
            if own is not others:
                own += others
                tied |= dict.fromkeys(others, own)

    bundles: dict[int, list[Role]] = {}
    for role in roles:
        bundles.setdefault(id(tied[role.name]), []).append(role)
    return list(bundles.values())


def dealt(bundle: Sequence[Role], gpus: Sequence[str]) -> dict[str, list[str]]:
    """By role, which of a bundle's GPUs it sees: its own, or those of the roles it is beside."""
    assert len(gpus) == sum(role.gpus for role in bundle), gpus
    left = iter(gpus)
    own = {role.name: list(islice(left, role.gpus)) for role in bundle}
    seen = {}
    for role in bundle:
        seen[role.name] = [gpu for name in role.beside or (role.name,) for gpu in own[name]]
    return seen


class Ray:
    """Actors in one placement group; a replacement takes the bundle of its name."""

    def __init__(self, exchange: Path | None, roles: Sequence[Role]) -> None:
        """roles: of all processes there will be.

        exchange: a folder that all machines see; None will do where there is one machine.
        """
        try:
            import ray
        except ImportError as error:
            raise UserError(
                f"scale.places: ray: it cannot be imported ({error}); install linn[ray], or set "
                "places: local"
            ) from None
        self._ray: Any = ray
        self._exchange = exchange
        self._bundles = bundles_of(roles)
        self._gpus = [sum(role.gpus for role in bundle) for bundle in self._bundles]
        """By bundle."""
        self._numbers: dict[str, int] = {}
        """Of the bundles, by role."""
        for number, bundle in enumerate(self._bundles):
            self._numbers |= dict.fromkeys((role.name for role in bundle), number)
        self._group: Any = None
        self._connected = False
        """Whether this object connected to Ray."""
        self._folder: Path | None = None
        self._started: list[RayProcess] = []

    def start(self, roles: Sequence[Role]) -> list[Process]:
        """One actor per role, in the bundle of its name."""
        self._placed()
        self.folder()  # if there can be none, say so before hours of training
        shared = self._shared_gpus({self._numbers[role.name] for role in roles})

        processes: list[Process] = []
        for role in roles:
            gpus = shared.get(role.name, [])
            # A process without a GPU shares its machine with others, so one thread is its share.
            own = dict(role.environment or {}) | ({} if gpus or role.gpus else ONE_THREAD)
            actor = self._ray.remote(_Actor).options(
                num_cpus=CPUS,
                num_gpus=0 if gpus else role.gpus,
                max_restarts=0,
                scheduling_strategy=self._within(self._numbers[role.name]),
                runtime_env={"env_vars": own},
            )
            process = RayProcess(role.name, actor.remote(role, gpus), self._ray)
            processes.append(process)
            self._started.append(process)
        return processes

    def answered(self, processes: Sequence[Process], seconds: float) -> list[Process]:
        """By their references; one whose actor died counts as answered."""
        by_answer: dict[Any, Process] = {}
        for process in processes:
            assert isinstance(process, RayProcess), process
            by_answer[process.answer] = process
        ready, _ = self._ray.wait(list(by_answer), num_returns=1, timeout=seconds)
        # Whoever is ready beside the first one is found by the next look, which does not wait.
        return [by_answer[one] for one in ready]

    def meeting(self) -> str:
        """The first rank's machine, at a port that is free there now."""
        first = self._within(0)
        asked = self._ray.remote(_free_port).options(num_cpus=0, scheduling_strategy=first)
        host, port = self._ray.get(asked.remote())
        return f"tcp://{host}:{port}"

    def folder(self) -> Path:
        """In `exchange`, or among the temporary files of the only machine."""
        if self._folder is None:
            # Temporary files are of one machine alone.
            machines = [node for node in self._ray.nodes() if node["Alive"]]
            if self._exchange is None and len(machines) > 1:
                raise UserError(
                    f"scale.exchange: Ray has {len(machines)} machines, and weights go from the "
                    "trainers to the samplers by files: give a folder that all of them see"
                )
            # Ray's processes may be another user's.
            self._folder = make_folder(self._exchange, mode=0o777)
        return self._folder

    def close(self) -> None:
        """End the actors and give their bundles back."""
        for process in self._started:
            process.end()
        self._started = []
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
            self._group = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._connected:  # by us; whoever was before stays
            self._ray.shutdown()
            self._connected = False

    def _placed(self) -> Any:
        """The placement group; all bundles are there when it is."""
        if self._group is not None:
            return self._group
        self._connect()
        bundles = []
        for roles, gpus in zip(self._bundles, self._gpus, strict=True):
            bundles.append({"CPU": CPUS * len(roles)} | ({"GPU": gpus} if gpus else {}))
        # Close together, since gradients and weights go between them at every step.
        group = self._ray.util.placement_group(bundles, strategy="PACK")
        if not group.wait(SAID_S):
            echo(f"engine: {self._no_room()}; waiting for up to {PLACED_S:.0f} s", err=True)
            if not group.wait(PLACED_S):
                self._ray.util.remove_placement_group(group)
                raise InfrastructureError(f"{self._no_room()} after {PLACED_S:.0f} s")
        self._group = group
        return group

    def _within(self, bundle: int) -> Any:
        """Where what Ray starts is to be."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return PlacementGroupSchedulingStrategy(self._placed(), bundle)

    def _shared_gpus(self, numbers: set[int]) -> dict[str, list[str]]:
        """By role, the GPUs that it sees, in those of these bundles whose roles share them.

        Asked at each start: a bundle keeps its GPUs, but is made anew where its machine is lost.
        """
        asked = {}
        for number in sorted(numbers):
            gpus = self._gpus[number]
            if gpus and len(self._bundles[number]) > 1:
                # The processes there take none by Ray's count, so all are free to be asked for.
                where = self._within(number)
                task = self._ray.remote(_gpu_ids).options(
                    num_cpus=0, num_gpus=gpus, scheduling_strategy=where
                )
                asked[number] = task.remote()
        try:
            told = self._ray.get(list(asked.values()), timeout=PLACED_S)
        except self._ray.exceptions.RayError as error:
            words = " ".join(str(error).split())[:300]
            raise InfrastructureError(
                f"Ray does not say which GPUs it gave ({type(error).__name__}: {words}); see that "
                "its machines are up"
            ) from None
        seen: dict[str, list[str]] = {}
        for number, gpus in zip(asked, told, strict=True):
            seen |= dealt(self._bundles[number], gpus)
        return seen

    def _connect(self) -> None:
        """To the Ray of RAY_ADDRESS, or to one of our own."""
        if self._ray.is_initialized():
            return
        own: dict[str, Any] = {}
        if not os.environ.get("RAY_ADDRESS"):
            # On one machine processes may share a core, as those of `places: local` do. And a
            # machine without a network has no other address.
            cores = max(len(os.sched_getaffinity(0)), CPUS * len(self._numbers))
            own = {"num_cpus": cores, "_node_ip_address": "127.0.0.1"}
            # By default whatever else runs on the machine goes before Ray's processes.
            os.environ.setdefault("RAY_worker_niceness", "0")
        own |= {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        try:
            self._ray.init(**own)
        except Exception as error:  # Ray raises plain ones: no answer in time, no such address
            self._ray.shutdown()
            words = " ".join(str(error).split())[:300]
            raise InfrastructureError(
                f"Ray cannot be started or reached ({words}); on a busy machine try again, or set "
                "scale.places: local; elsewhere see that RAY_ADDRESS names a Ray that runs, and "
                "where it was started with tokens (2.60 does by default) set RAY_AUTH_MODE=token"
            ) from None
        self._connected = True

    def _no_room(self) -> str:
        has = self._ray.cluster_resources()
        most = max(self._gpus)
        together = f", {most} of them on one machine" if most > 1 else ""
        return (
            f"Ray has no room for {len(self._numbers)} processes with {sum(self._gpus)} GPUs"
            f"{together}: it has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs in all"
        )


class RayProcess:
    """An actor and the answer that is awaited of it."""

    def __init__(self, name: str, actor: Any, ray: Any) -> None:
        self.name = name
        self.answer: Any = None
        """A reference to the reply to the last message."""
        self._actor = actor
        self._ray = ray

    @property
    def pid(self) -> int:
        """Its number, on its own machine."""
        pid: int = self._ray.get(self._actor.pid.remote())
        return pid

    def send(self, message: str, arguments: tuple[Any, ...]) -> None:
        """It is queued; Ray tells of a death with the answer."""
        # Its working folder is Ray's: a relative name would be another file there.
        whole = tuple(one.absolute() if isinstance(one, Path) else one for one in arguments)
        self.answer = self._actor.answer.remote(message, whole)

    def receive(self) -> Reply:
        """Waits for it."""
        try:
            reply: Reply = self._ray.get(self.answer)
        except self._ray.exceptions.RayError as error:
            words = " ".join(str(error).split())[:500]
            raise Died(f"{self.name} is gone ({type(error).__name__}): {words}") from None
        return reply

    def end(self, kill: bool = False) -> None:
        """An actor that computes is ended all the same: nobody waits for its answer."""
        self._ray.kill(self._actor)


class _Actor:
    """What Ray runs: the object of a role, whose methods are the messages."""

    def __init__(self, role: Role, gpus: Sequence[str]) -> None:
        """gpus: ids of those it shares with others; with none it has what Ray gave it."""
        # Before anything opens CUDA. Ray itself says nothing of GPUs to a process that asked for
        # none, or hides all: that depends on its version.
        if gpus:
            os.environ.update(dict.fromkeys(VISIBLE, ",".join(gpus)))
        self._role = role
        try:
            self._worker: Any = importlib.import_module(role.kind).opened(role.options)
        except LinnError as error:
            self._worker = Unopened(error)

    def answer(self, message: str, arguments: tuple[Any, ...]) -> Reply:
        return answer(self._worker, self._role.name, message, arguments)

    def pid(self) -> int:
        return os.getpid()


def _gpu_ids() -> list[str]:
    """Of the bundle it runs in. Sorted: Ray tells a set, and equal starts must deal equally."""
    import ray

    return sorted(map(str, ray.get_gpu_ids()))


def _free_port() -> tuple[str, int]:
    import socket

    import ray

    with socket.socket() as found:
        found.bind(("", 0))
        return str(ray.util.get_node_ip_address()), int(found.getsockname()[1])
