"""Runs a comparison: picks each peer's best setting, then linn and peers in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import workload
from bench.peers.comparisons import Comparison, Peer, Setting
from bench.peers.turns import Side, SideFailed

Told = dict[str, Any]
"""What a side told of a turn: `cpu` and `wall` seconds, `tokens`, and anything else it has."""

MEASURED = ("cpu", "wall", "tokens")


@dataclass(frozen=True)
class Options:
    """How a comparison is run."""

    rounds: int
    """Pairs that are counted."""
    known: bool
    """Whether a peer's first setting is taken untried."""
    pythons: Mapping[str, Path]
    """By side, the interpreter with its packages; sides that are not there are not compared."""
    say: Callable[[str], None]
    """Tells a person how far it is."""


class Compared:
    """Runs one comparison in a folder with its model."""

    def __init__(self, comparison: Comparison, folder: Path, options: Options) -> None:
        self._comparison = comparison
        self._folder = folder
        self._options = options

    def result(self) -> dict[str, Any]:
        """Figures of linn and of every peer, as JSON."""
        found: dict[str, Any] = {
            "work": self._comparison.work,
            "lengths": self._comparison.lengths,
            "model": self._comparison.model,
            "peers": {},
        }
        for peer in self._comparison.peers:
            if peer.side not in self._options.pythons:
                found["peers"][peer.name] = {"skipped": "its packages are not installed here"}
                continue
            found["peers"][peer.name] = self._against(peer)
        return found

    def _against(self, peer: Peer) -> dict[str, Any]:
        tried = self._tried(peer)
        fit = [one for one in tried if "refused" not in one]
        if not fit:
            return {"skipped": "no setting works", "settings": tried}
        # CPU seconds: those of a wall clock would choose by what else the machine does.
        best = min(fit, key=lambda one: one["cpu_per_token"])
        # linn is started anew for each peer, so that both have been through as much.
        with self._side("linn", {}) as linn, self._side(peer.side, best["setting"]) as other:
            for side in (linn, other):
                side.turn()  # warms up
            pairs = []
            for number in range(self._options.rounds):
                self._say(f"{peer.name}, round {number + 1} of {self._options.rounds}")
                pairs.append((linn.turn(), other.turn()))
            peaks = [linn.peak_bytes(), other.peak_bytes()]
        return {
            "linn": figures([mine for mine, _ in pairs], peaks[0]),
            "peer": figures([theirs for _, theirs in pairs], peaks[1]),
            "ratio": {kind: ratio(pairs, kind) for kind in ("cpu", "wall")},
            "setting": best["setting"],
            "settings": tried,
        }

    def _tried(self, peer: Peer) -> list[dict[str, Any]]:
        """Each setting's CPU seconds per token, or why it does not work."""
        if self._options.known or len(peer.settings) == 1:
            return [{"setting": dict(peer.settings[0]), "cpu_per_token": 0.0, "untried": True}]
        tried = []
        for setting in peer.settings:
            tried.append(self._trial(peer, setting))
            one = tried[-1]
            told = one.get("refused") or f"{1000 * one['cpu_per_token']:.2f} CPU-ms a token"
            self._say(f"{peer.name}, {dict(setting) or 'its defaults'}: {told}")
        return tried

    def _trial(self, peer: Peer, setting: Setting) -> dict[str, Any]:
        one: dict[str, Any] = {"setting": dict(setting)}
        try:
            with self._side(peer.side, setting) as side:
                side.turn()  # warms up
                told = side.turn()
        except SideFailed as error:
            return one | {"refused": str(error)}
        lengths = workload.LENGTHS[self._comparison.lengths]
        if lengths.most and not lengths.stops:
            asked = workload.GROUPS[self._comparison.work].replies * lengths.most
            if told["tokens"] != asked:
                return one | {"refused": f"{told['tokens']} tokens where {asked} were asked for"}
        one["cpu_per_token"] = told["cpu"] / told["tokens"]
        return one | {key: value for key, value in told.items() if key not in MEASURED}

    @contextmanager
    def _side(self, name: str, setting: Setting) -> Iterator[Side]:
        task = {
            "side": name,
            "work": self._comparison.work,
            "lengths": self._comparison.lengths,
            "folder": str(self._folder),
            "setting": dict(setting),
        }
        side = Side(self._options.pythons[name], task)
        try:
            yield side
        finally:
            side.close()

    def _say(self, what: str) -> None:
        self._options.say(f"{self._comparison.name}: {what}")


def figures(turns: Sequence[Told], peak: int | None) -> dict[str, Any]:
    """Medians of a side's turns."""
    found: dict[str, Any] = {}
    for kind in ("cpu", "wall"):
        found[f"{kind} seconds"] = statistics.median(turn[kind] for turn in turns)
        speeds = [turn["tokens"] / turn[kind] for turn in turns]
        found[f"tokens per {kind} second"] = statistics.median(speeds)
    found["tokens"] = statistics.median(turn["tokens"] for turn in turns)
    found["peak bytes"] = peak
    found["turns"] = list(turns)
    return found


def ratio(pairs: Sequence[tuple[Told, Told]], kind: str) -> dict[str, float]:
    """How many times as many tokens linn does in a second: the median over pairs, and the range."""
    # Per token: natural lengths differ from turn to turn.
    ratios = []
    for linn, peer in pairs:
        ratios.append(linn["tokens"] / linn[kind] * peer[kind] / peer["tokens"])
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
