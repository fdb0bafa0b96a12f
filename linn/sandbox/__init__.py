"""Running untrusted code; every class says what it does not protect against."""

from linn.sandbox.client import Limits, Outcome, Sandbox, scrub
from linn.sandbox.session import Answer, Session
from linn.sandbox.workspace import Ran, Running, Workspace, WorkspaceLimits

__all__ = ["Answer", "Limits", "Outcome", "Ran", "Running", "Sandbox", "Session", "Workspace", "WorkspaceLimits", "scrub"]
