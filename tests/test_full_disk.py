"""A disk that fills up where files are written: which file, which stage and step, in one line."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from linn import files
from linn.engine.local.answering import answer
from linn.errors import DiskFull, InfrastructureError
from linn.progress import Progress
from linn.recipe import load as recipes
from linn.recipe.stages import SftConfig
from linn.run.run import Run
from linn.scale.places import Died, Local, Role

FULL = "/dev/full"
RECIPE = {"name": "r", "domains": {"mcqa": {}}, "stages": [{"name": "sft", "kind": "sft"}]}


@contextmanager
def no_room() -> Iterator[None]:
    """Meanwhile no file may grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not os.path.exists(FULL), reason="no device that is always full")
def test_a_write_that_finds_no_room_names_its_file(tmp_path):
    os.symlink(FULL, tmp_path / ".rows.jsonl.part")
    with pytest.raises(OSError, match="No space left") as failed:
        files.write_text(tmp_path / "rows.jsonl", "text")
    assert failed.value.filename == str(tmp_path / "rows.jsonl")

    os.symlink(FULL, tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match="No space left") as failed:
        files.append_text(tmp_path / "metrics.jsonl", "text")
    assert failed.value.filename == str(tmp_path / "metrics.jsonl")


def test_a_log_without_room_does_not_hide_why_the_run_ended(tmp_path):
    log = Progress().logging(tmp_path)
    with pytest.raises(InfrastructureError, match="the cause"), no_room(), log:
        raise InfrastructureError("the cause")


def test_a_full_disk_in_a_stage_is_told_with_stage_and_step(tmp_path, monkeypatch):
    def writes(stage):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")

    monkeypatch.setattr("linn.run.run.sft", writes)
    recipe = recipes.parse(RECIPE, "t")
    config = recipe.stages[0]
    assert isinstance(config, SftConfig)
    for made, step in ((0, 1), (99, 100), (100, 100)):
        stage = SimpleNamespace(config=config, steps_made=made)
        with pytest.raises(InfrastructureError) as failed:
            Run(recipe, tmp_path)._train(stage, "base")  # type: ignore[arg-type]
        expected = f"stage sft step {step}: metrics.jsonl: No space left on device"
        assert str(failed.value) == expected


def test_a_worker_that_ends_without_a_word_on_a_full_disk_is_told_with_it(monkeypatch):
    from linn.engine.local import disk, processes

    usage = SimpleNamespace(free=4096)
    for free, begins in (
        (4096, "No space left on device for temporary"),
        (10**9, "engine process"),
    ):
        usage.free = free
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage)
        workers = processes.Workers(processes.WorkerOptions(width=64, capacity=4))
        workers._start()
        os.kill(workers.pids[0], 6)
        with pytest.raises(InfrastructureError, match=f"^{begins}.* exit code -6"):
            workers.call("cpu_seconds")


def test_a_clusters_process_that_ends_on_a_full_disk_is_not_started_again(tmp_path, monkeypatch):
    from linn.engine.local import disk

    usage = SimpleNamespace(free=4096)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage)
    full = "No space left on device for temporary files in .*: sampler 0 ended"
    for free, kind, said in ((4096, DiskFull, full), (10**9, Died, "sampler 0 ended")):
        usage.free = free
        places = Local(tmp_path)
        try:
            (process,) = places.start([Role("sampler 0", "linn.scale.no_such_module", None)])
            with pytest.raises(kind, match=f"^{said} with exit code"):
                process.receive()
        finally:
            places.close()


def test_a_worker_without_room_says_so_by_the_errors_kind():
    def writes(number):
        raise OSError(number, os.strerror(number))

    worker = SimpleNamespace(writes=writes)
    for number, kind in ((errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, None)):
        fine, error = answer(worker, "trainer rank 0", "writes", (number,))
        assert not fine and type(error) is (kind or InfrastructureError)
        assert str(error).startswith("trainer rank 0: writes: OSError: ")
