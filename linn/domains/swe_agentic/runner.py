"""Runs inside the sandbox: pytest over stripped tests, reported on a private descriptor.

What the tests compute and how they end is written as lines of JSON behind a nonce. This process is
shared with the tested code, so nothing it says is proof; `run_tests` believes values only.

It runs without linn: it imports the standard library, pytest, and `plain.py`, which is copied
beside it.
"""

import builtins
import json
import os
import random
import sys
from collections.abc import Callable
from typing import Any

MOST_SENDS = 40
"""Values that one site of a test may send; more are dropped."""
_LONGEST_WHY = 300


class Channel:
    """Lines to who started this process."""

    def __init__(self, descriptor: int, nonce: str) -> None:
        self._descriptor = descriptor
        self._nonce = nonce
        self._write = os.write  # kept, since tested code may replace it

    def tell(self, what: dict[str, Any]) -> None:
        data = (self._nonce + json.dumps(what) + "\n").encode("utf-8", "backslashreplace")
        while data:
            written = self._write(self._descriptor, data)
            data = data[written:]


class Plugin:
    """Chooses and orders the tests, and tells how each ended."""

    def __init__(
        self,
        channel: Channel,
        wanted: list[str] | None,
        seed: int,
        report_class: Any,
    ) -> None:
        self._channel = channel
        self._wanted = wanted
        self._seed = seed
        self._report_class = report_class  # kept, since tested code may unload pytest
        self.test = ""
        """The test that is running."""

    def pytest_collection_modifyitems(self, config: object, items: list[Any]) -> None:
        if self._wanted is not None:
            items[:] = [item for item in items if item.nodeid in self._wanted]
        items.sort(key=lambda item: item.nodeid)
        random.Random(self._seed).shuffle(items)

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self.test = nodeid
        random.seed(0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if type(report) is not self._report_class:
            return  # a part of a test, whose own report follows
        if report.when != "call" and report.outcome == "passed":
            return  # a set-up or a clean-up as it should be

        why = ""
        if report.outcome == "failed":
            crash = getattr(report.longrepr, "reprcrash", None)
            why = str(crash or "").partition(": ")[2]
        self._channel.tell(
            {
                "test": report.nodeid,
                "outcome": report.outcome if report.when == "call" else "failed",
                "why": why[:_LONGEST_WHY],
                "seconds": report.duration,
            }
        )


class Sender:
    """The function that stripped tests call with the values they compute."""

    def __init__(self, channel: Channel, plugin: Plugin, encode: Callable[[object], str]) -> None:
        self._channel = channel
        self._plugin = plugin
        self._encode = encode
        self._counts: dict[tuple[str, int, int], int] = {}

    def send(self, site: int, value: object, row: int = 0) -> None:
        """Tell a value, or the kind of error where it is not plain data."""
        test = self._plugin.test
        key = (test, site, row)
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        if count > MOST_SENDS:
            return

        # The value is compared outside; here nothing is known of what it should be.
        line: dict[str, Any] = {"test": test, "site": site, "row": row}
        try:
            line["value"] = self._encode(value)
        except Exception as error:
            line["unsendable"] = type(error).__name__
        self._channel.tell(line)


def main(settings_path: str) -> None:
    """Run the tests that the settings name; the settings are removed before tested code runs."""
    with open(settings_path, encoding="utf-8") as file:
        settings = json.load(file)
    os.unlink(settings_path)

    # What tests print goes nowhere; the real stdout is the channel.
    channel = Channel(os.dup(1), settings["nonce"])
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)

    # `here` is on the path for one import only: tested code must not find the runner's files.
    sys.path[:0] = [*settings["path"], settings["here"]]
    from plain import encode  # type: ignore[import-not-found]

    sys.path.remove(settings["here"])
    import pytest

    plugin = Plugin(channel, settings["wanted"], settings["seed"], pytest.TestReport)
    sender = Sender(channel, plugin, encode)
    setattr(builtins, settings["send"], sender.send)

    # Not the package's own configuration of pytest, which a repair could change.
    options = ["-q", "-c", settings["ini"], "--rootdir", settings["root"]]
    options += ["-p", "no:cacheprovider", "--assert=plain", "--capture=fd", "--tb=short"]
    options += ["--continue-on-collection-errors"]
    code = pytest.main([*options, *settings["files"]], plugins=[plugin])
    channel.tell({"code": int(code)})


main(sys.argv[1])
