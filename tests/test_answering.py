"""What a worker tells the engine of an error."""

from __future__ import annotations

import pickle
import threading

import pytest

from linn.engine.local.answering import answer
from linn.errors import LinnError, UserError


class Holds(ValueError):
    """Holds what no pipe takes."""

    def __init__(self) -> None:
        super().__init__("modes: no such key")
        self.lock = threading.Lock()


class Asks(ValueError):
    """Cannot be made of its own words alone."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")


class Worker:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def load(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", [Holds(), Asks("modes", "no such key")])
def test_an_error_that_cannot_be_sent_goes_by_its_words(error: ValueError) -> None:
    fine, told = answer(Worker(error), "sampler 0", "load", ())
    assert not fine and str(told) == "sampler 0: load: modes: no such key"
    assert isinstance(pickle.loads(pickle.dumps(told)), ValueError)


@pytest.mark.parametrize("error", [UserError("no such folder"), ValueError("temperature = 0")])
def test_any_other_is_told_as_it_is(error: LinnError | ValueError) -> None:
    assert answer(Worker(error), "sampler 0", "load", ()) == (False, error)
