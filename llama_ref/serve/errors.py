"""An error as OpenAI's clients expect it: a status, and a body that says what and where.

    {"error": {"message": …, "type": "invalid_request_error", "param": "top_p", "code": null}}

The message is this library's sentence; `param` names the field. What goes wrong inside is told
without paths, and without anything of the machine.

Source: the error object of the OpenAI API reference.
"""

from __future__ import annotations

import re
from typing import Any

from llama_ref.errors import BadRequest, LimitExceeded, LlamaRefError, Unsupported

FIELD = re.compile(r"[a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*")


class ApiError(Exception):
    """What is answered instead of a result.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
    kind : str
        The `type` of the body.
    param : str, optional
        The field.
    code : str, optional
        A word that programs can look for.
    headers : dict, optional
        Of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.headers = param, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """What the client reads."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def api_error(error: LlamaRefError) -> ApiError:
    """Return the answer to an error of this library.

    Examples
    --------
    >>> answer = api_error(BadRequest("stop", expected="text", found="3"))
    >>> answer.status, answer.param, answer.message
    (400, 'stop', 'stop: expected text, found 3')
    """
    if not isinstance(error, BadRequest | Unsupported | LimitExceeded):
        return internal_error()
    field = FIELD.match(error.thing)
    return ApiError(400, str(error), param=field.group() if field else None)


def internal_error() -> ApiError:
    """Return the answer when the fault is ours; what it was is in the log."""
    message = "the model could not go on with this request"
    return ApiError(500, message, kind="internal_error")
