"""The company directory."""

from __future__ import annotations

from typing import Any

from linn.domains.workplace.office.reading import contains
from linn.domains.workplace.office.state import Office


def find_email_address(office: Office, /, name: str = "") -> Any:
    """Addresses that contain a name."""
    if name == "":
        return "Name not provided."
    match = contains(name)
    return [address for address in office.directory if match(address)]
