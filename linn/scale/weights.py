"""The trainers' weights on their way to the samplers: by files, or from the first rank to all.

No torch in this process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linn.errors import EngineLost, LinnError, is_final
from linn.scale.places import Died, Places, Process
from linn.scale.ranks import LOOK_S, Ranks

_LAST_LOOKS = 60
"""Looks in which a sampler must have put the weights in place that it was sent."""


class NotReached(LinnError):
    """Who sends or receives weights does not reach the others, or no longer."""


@dataclass(frozen=True)
class Weights:
    """The policy that samplers are to have."""

    base: Path
    """The Hugging Face folder that it was loaded from."""
    moved: bool
    """Whether its weights are others than those of `base`."""
    version: int
    """Grows with every change."""


@dataclass(frozen=True)
class Broadcast:
    """How samplers take weights that come from the first rank."""

    processes: int
    """Of each sampler, which hold it together; each takes all weights."""
    file_names: bool
    """Whether they know tensors by their names in a file, and not by those in linn's models."""


class WeightSource:
    """Where samplers get weights that are in no checkpoint's folder."""

    def __init__(
        self,
        places: Places,
        ranks: Ranks,
        export: Callable[[Path], None],
        broadcast: Broadcast | None,
    ) -> None:
        """export: has the ranks write their weights. broadcast: None for files."""
        self.version = 0
        """Of the weights that the ranks have; grows with every load, step and restore."""
        self._places = places
        self._ranks = ranks
        self._export = export
        self._broadcast = broadcast
        self._written: tuple[int, Path] | None = None
        """A version, and its files."""

    @property
    def writes(self) -> bool:
        """Whether weights go by files."""
        return self._broadcast is None

    def folder(self, version: int) -> Path | None:
        """The files of a version; None where the ranks have trained on and it is gone.

        A sampler that replaces a lost one reads them, also where weights are broadcast otherwise:
        the ranks rest while samplers compute.
        """
        if self._written is not None and self._written[0] == version:
            return self._written[1]
        if version != self.version:
            return None
        folder = self._places.folder() / f"weights-{version}"
        folder.mkdir(parents=True)
        self._export(folder)
        self._remove_written()
        self._written = version, folder
        return folder

    def send(self, samplers: Sequence[Process]) -> str:
        """Broadcast the weights to all samplers, which have loaded a policy of the same shape.

        The result says why some have not taken them: who is lost on the way takes others along, and
        nobody knows who received how much. EngineLost where a rank is lost, or where a sampler
        that all was sent to refuses it.
        """
        how = self._broadcast
        assert how is not None
        meeting = self._places.meeting()
        members = 1 + len(samplers) * how.processes
        try:
            for number, sampler in enumerate(samplers):
                place = 1 + number * how.processes
                sampler.send("take_broadcast", (meeting, place, members, self.version))
        except Died as death:
            return str(death)

        fault: str = self._ranks.call("broadcast", meeting, members, how.file_names)[0]
        if fault:
            return self._cause(samplers) or fault
        # Those before are of no use to anybody.
        self._remove_written()
        for sampler in samplers:
            if self._is_silent(sampler):
                seconds = _LAST_LOOKS * LOOK_S
                return f"{sampler.name} has not put the weights in place for {seconds:.0f} s"
            try:
                fine, value = sampler.receive()
            except Died as death:
                return str(death)
            if not fine and is_final(value):
                raise value
            if not fine:
                raise EngineLost(f"{sampler.name} has not taken the weights: {value}")
        return ""

    def _is_silent(self, sampler: Process) -> bool:
        """Whether it has neither answered nor died in all its looks."""
        return not any(self._places.answered([sampler], LOOK_S) for _ in range(_LAST_LOOKS))

    def _cause(self, samplers: Sequence[Process]) -> str:
        """Which sampler is gone, or else refuses the weights, and why; empty where none says so."""
        owing, refusal = list(samplers), ""
        while ready := self._places.answered(owing, LOOK_S) if owing else []:
            for sampler in ready:
                owing.remove(sampler)
                try:
                    fine, value = sampler.receive()
                except Died as death:
                    return str(death)
                # Who merely missed the others has nothing to say.
                if not fine and not isinstance(value, NotReached):
                    refusal = f"{sampler.name} has not taken the weights: {value}"
        return refusal

    def forget(self) -> None:
        """What was written is gone with the places' folder."""
        self._written = None

    def _remove_written(self) -> None:
        if self._written is not None:
            shutil.rmtree(self._written[1], ignore_errors=True)
            self._written = None
