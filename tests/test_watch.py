"""`linn report --watch`: a page that renews itself, and ends as it is told to."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import refused
from support.run_folder import make_hostile, make_run, write_lines

from linn.report import watch
from linn.report.watch import server_of

pytestmark = pytest.mark.slow


@pytest.fixture
def serve(monkeypatch: Any) -> Iterator[Callable[[Path], str]]:
    """Starts servers of run folders, which end with the test; gives the address of each."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(folder: Path) -> str:
        servers.append(server_of(folder, 0))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def get(address: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def mark_at(address: str) -> str:
    return str(json.loads(get(f"{address}/mark")[1])["mark"])


def mark_in(page: str) -> str:
    found = re.search(r'const mark = "(\w+)"', page)
    assert found is not None
    return found[1]


def test_the_page_is_another_one_only_when_the_run_went_on(
    tmp_path: Path, serve: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(watch, "SHARE", 1.0)
    folder = make_run(tmp_path / "run", steps=3, prompts=4)
    address = serve(folder)
    status, page = get(address)
    assert status == 200 and mark_in(page) == mark_at(address) == mark_at(address)
    (folder / "stages/01-sft/checkpoints").mkdir()  # nothing that the page shows

    assert mark_at(address) == mark_in(page) and get(address)[1] == page
    with (folder / "stages/01-sft/metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0.125}\n')
    assert mark_at(address) != mark_in(page)
    after = get(address)[1]
    assert mark_in(after) == mark_at(address)
    assert "<b>0.125</b>" in after and "<b>0.125</b>" not in page

    # A run that was moved away leaves its last page, which does not load itself over and over.
    (folder / "run.json").unlink()
    for name in ("recipe.yaml", "ledger.jsonl", "compare.json"):
        (folder / name).unlink()
    assert get(address) == (200, after) and mark_at(address) == mark_in(after)


def test_a_page_that_took_long_is_kept_for_longer(
    tmp_path: Path, serve: Any, monkeypatch: Any
) -> None:
    """Nine times as long as it took: training has the cores."""
    folder = make_run(tmp_path / "run", steps=3, prompts=4)
    monkeypatch.setattr(watch, "SHARE", 1e-6)
    address = serve(folder)
    before = mark_at(address)
    write_lines(folder / "stages/01-sft/metrics.jsonl", [{"step": 1, "loss": 1.0}])
    assert mark_at(address) == before and mark_in(get(address)[1]) == before


def test_only_the_pages_own_script_may_run(tmp_path: Path, serve: Any) -> None:
    address = serve(make_hostile(tmp_path / "run"))
    page = get(address)[1]
    assert re.findall(r"<script[^>]*>", page) == re.findall(r'<script nonce="[\w-]+">', page)
    (nonce,) = re.findall(r'<script nonce="([\w-]+)">', page)
    assert f"script-src 'nonce-{nonce}'" in page and "default-src 'none'" in page
    other = get(serve(tmp_path / "run"))[1]
    assert nonce not in other


def test_readers_from_elsewhere_get_nothing(tmp_path: Path, serve: Any) -> None:
    """A name of the web that points to this machine is not this machine."""
    address = serve(make_run(tmp_path / "run", steps=1, prompts=2))
    status, text = get(address, Host="evil.example:80")
    assert status == 403 and "sft" not in text
    assert get(f"{address}/run.json")[0] == 404 and get(f"{address}/../run.json")[0] == 404
    port = address.rpartition(":")[2]
    assert get(address, Host=f"localhost:{port}")[0] == 200


def test_a_taken_port_and_a_folder_without_a_run_are_one_line(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=1, prompts=2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused("report", folder, "--watch", "--port", port)
    assert f"--port {port}: Address already in use" in line and "0 for any" in line
    assert "no run there" in refused("report", tmp_path, "--watch")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_signals_end_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    folder = make_run(tmp_path / "run", steps=1, prompts=2)
    command = [sys.executable, "-m", "linn.cli.main", "report", str(folder), "--watch"]
    process = subprocess.Popen(
        [*command, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        # What a script starts with & has Ctrl-C ignored, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert address is not None, line
    # A reader who keeps a connection open does not hold it up.
    with socket.create_connection(("127.0.0.1", int(address[0].split(":")[2][:-1]))):
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
    assert process.stderr.read() == "stopped\n"
