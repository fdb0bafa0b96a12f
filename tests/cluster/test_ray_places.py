"""Ray on this machine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from linn.errors import UserError
from linn.scale.places import Role
from linn.scale.ray_places import Ray


def test_an_exchange_that_is_not_there_is_refused_before_any_process_starts(tmp_path: Path) -> None:
    role = Role("trainer rank 0", "linn.scale.rank", None)
    with closing(Ray(tmp_path / "missing", [role])) as places:
        with pytest.raises(UserError, match="scale.exchange: .*missing cannot be written"):
            places.start([role])
        (tmp_path / "missing").mkdir()
        folder = places.folder()
        assert folder.parent == tmp_path / "missing" and folder.is_dir()
    assert not folder.exists()
