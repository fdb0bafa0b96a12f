"""A user's own domain: one file, as CONTRIBUTING.md says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import linn
from linn.domains.check import check
from linn.domains.load import load
from linn.errors import UserError


def test_the_domain_to_copy_can_be_copied(tmp_path, monkeypatch):
    """CONTRIBUTING.md: copy arithmetic.py, give it its own name, and `linn check` proves it."""
    monkeypatch.chdir(tmp_path)
    text = (Path(linn.__file__).parent / "domains" / "arithmetic.py").read_text()
    Path("mine.py").write_text(text.replace('"arithmetic"', '"mine"'))
    assert not [finding for finding in check(load("./mine.py"), 5) if not finding.ok]


def test_an_error_in_a_users_file_names_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("import random\n\nrandom.nothing()\n")
    with pytest.raises(UserError, match=r"domain file mine\.py line 3: AttributeError"):
        load("./mine.py")
    assert "linn_user_mine" not in sys.modules
