"""Errors as the protocol writes them: a status and an object that clients know to read."""

from __future__ import annotations

from typing import Any

from linn.errors import InfrastructureError, LinnError, UserError


class ApiError(Exception):
    """A request that is not answered."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        """`param`: the field that is wrong. `code`: a word for programs."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """The protocol's object."""
        kind = _KINDS.get(self.status, "invalid_request_error")
        if self.status >= 500:
            kind = "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def api_error(error: Exception) -> ApiError:
    """Any error as one of the protocol. What nobody foresaw is told without its text."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InfrastructureError):
        return ApiError(503, f"{error}; try again", code="engine_failed")
    if isinstance(error, (UserError, ValueError)):
        return ApiError(400, str(error))
    if isinstance(error, LinnError):
        return ApiError(500, str(error), code="model_failed")
    return ApiError(500, f"{type(error).__name__} in the server; its log says more")


CLOSING = ApiError(503, "the server is stopping; try again", code="server_stopping")
"""For whom the server's end came first."""
