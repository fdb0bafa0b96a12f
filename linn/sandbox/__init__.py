"""Running untrusted code; every class says what it does not protect against."""

from linn.sandbox.client import Sandbox
from linn.sandbox.compiler import Compiled
from linn.sandbox.outcome import Limits, Outcome, Ran, WorkspaceLimits, scrub
from linn.sandbox.running import Running
from linn.sandbox.session import Answer, Session
from linn.sandbox.workspace import Workspace

__all__ = [
    "Answer",
    "Compiled",
    "Limits",
    "Outcome",
    "Ran",
    "Running",
    "Sandbox",
    "Session",
    "Workspace",
    "WorkspaceLimits",
    "scrub",
]
