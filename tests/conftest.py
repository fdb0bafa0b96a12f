"""Test settings: a crowded machine fails no property test by its clock, and no worker ends late."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from support.served import serve  # noqa: F401 - a fixture

# Tests start `linn` and its workers some hundred times, and each xdist worker imports every test.
# Whatever the machine's setting is, a module is compiled once and not at every start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# As in `make test`: workers that each compute by every core wait for one another most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "linn",
    max_examples=int(os.environ.get("LINN_EXAMPLES", "60")),
    derandomize=False,  # few examples, but other ones each time; in CI as well
    print_blob=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("linn")


LONGEST = (
    "test_run.py",
    "test_run_among_sandboxes.py",
    "test_judged_run.py",
    "test_difficulty.py",
    "test_swe_agentic_hostile.py",
    "test_engine_contract.py",
    "test_streams.py",
    "test_hostile.py",
    "test_local_engine.py",
    "test_attacks.py",
    "test_publish.py",
    "test_shared_prompts.py",
    "test_live_batch.py",
    "test_instructions.py",
    "test_fuzz_rows.py",
    "test_swe_agentic_tasks.py",
    "test_swe_agentic_full.py",
    "test_domain_contract.py",
)
"""Files that take longest, longest first: what starts last must be short.

xdist keeps this order with `--no-loadscope-reorder`, as in `make test`.
"""


collect_ignore = ["cluster"]
"""Needs vLLM and Ray: `make cluster-test` names it, and then it is collected."""

OWN_FOLDER = "LINN_TESTS_FOLDER"
"""Set in a worker's environment: the folder for its temporary files."""


def _hide_gpu(config: pytest.Config) -> None:
    """Hide a GPU from tests that are not of one: what they promise, they promise of a CPU."""
    asked = [config.getoption("markexpr"), *map(str, config.args)]
    if not any("gpu" in words and "not gpu" not in words for words in asked):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_configure(config: pytest.Config) -> None:
    """Each worker has temporary files of its own: what others make is not taken for a leftover."""
    _hide_gpu(config)
    if not hasattr(config, "workerinput"):
        return
    folder = tempfile.mkdtemp(prefix="tests-of-linn-")
    os.chmod(folder, 0o1777)  # plain users use it too
    os.environ["TMPDIR"] = os.environ[OWN_FOLDER] = tempfile.tempdir = folder


def pytest_unconfigure() -> None:
    if folder := os.environ.pop(OWN_FOLDER, ""):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Garbage of the tests before is collected here, not where this one recurses to the limit.

    Its finalisers would fail there, and pytest would take that for this test's fault.
    """
    gc.collect(1)  # the young: what was dropped just now


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Test modules, torch and thousands of tests stay: no garbage collection looks through them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Before tests are chosen by their marks: whoever leaves out the slow ones means these too.
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
