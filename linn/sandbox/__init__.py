"""Running untrusted code; every class says what it does not protect against."""

from linn.sandbox.client import Sandbox
from linn.sandbox.compiler import Compiled
from linn.sandbox.outcome import Limits, Outcome, scrub
from linn.sandbox.session import Answer, Session
from linn.sandbox.workspace import Ran, Running, Workspace, WorkspaceLimits

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
