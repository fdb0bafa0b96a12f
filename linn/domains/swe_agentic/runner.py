"""Runs inside the sandbox: pytest over stripped tests, what they compute and how they end told on a private descriptor.

It shares its process with the tested code, so nothing it says is proof; `judge` believes values only.
"""

import builtins
import json
import os
import random
import sys

MOST_SENDS = 40


def main(settings_path: str) -> None:
    with open(settings_path, encoding="utf-8") as file:
        settings = json.load(file)
    os.unlink(settings_path)
    channel = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    sys.path[:0] = [*settings["path"], settings["here"]]
    from plain import encode  # type: ignore[import-not-found]

    sys.path.remove(settings["here"])
    import pytest

    write, nonce, wanted = os.write, settings["nonce"], settings["wanted"]
    current = [""]
    sent: dict[tuple[str, int, int], int] = {}

    def tell(what: dict) -> None:  # type: ignore[type-arg]
        data = (nonce + json.dumps(what) + "\n").encode("utf-8", "backslashreplace")
        while data:
            data = data[write(channel, data) :]

    def send(site: int, value: object, row: int = 0) -> None:
        key = (current[0], site, row)
        sent[key] = sent.get(key, 0) + 1
        if sent[key] > MOST_SENDS:
            return
        try:
            text = encode(value)
        except Exception as error:
            tell({"test": current[0], "site": site, "row": row, "unsendable": type(error).__name__})
        else:
            tell({"test": current[0], "site": site, "row": row, "value": text})

    class Plugin:
        def pytest_collection_modifyitems(self, config: object, items: list) -> None:  # type: ignore[type-arg]
            if wanted is not None:
                items[:] = [item for item in items if item.nodeid in wanted]
            items.sort(key=lambda item: item.nodeid)
            random.Random(settings["seed"]).shuffle(items)

        def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
            current[0] = nodeid
            random.seed(0)

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if type(report) is not pytest.TestReport:
                return  # a part of a test, whose own report follows
            if report.when == "call" or report.outcome != "passed":
                why = (
                    str(getattr(report.longrepr, "reprcrash", None) or "").partition(": ")[2]
                    if report.outcome == "failed"
                    else ""
                )
                tell(
                    {
                        "test": report.nodeid,
                        "outcome": report.outcome if report.when == "call" else "failed",
                        "why": why[:300],
                        "seconds": report.duration,
                    }
                )

    setattr(builtins, settings["send"], send)
    arguments = [
        "-q",
        "-c",
        settings["ini"],
        "--rootdir",
        settings["root"],
        "-p",
        "no:cacheprovider",
        "--assert=plain",
        "--capture=fd",
        "--tb=short",
    ]
    code = pytest.main(
        [*arguments, "--continue-on-collection-errors", *settings["files"]], plugins=[Plugin()]
    )
    tell({"code": int(code)})


main(sys.argv[1])
