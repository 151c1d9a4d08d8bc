"""What never reaches an endpoint: pages of strangers, giants, slow senders, callers without a key.

A server on this machine can be reached by any page that its user looks at, since the browser runs
here too. Such a page gives itself away: by the `Host` it thinks it talks to, by its `Origin`, or by
a body that is not JSON, the only kind that it may send without asking.

    431  more than 100 headers, 32 KiB  403  another Host, or an Origin of somewhere else
    400  two lengths of a body
    401  no key, or a wrong one         415  a body that is not JSON, or is compressed
    413  a body beyond the limit        408  a body that takes too long

An answer that refuses closes the connection, as every error does, so that what was left unread of
the request is never taken for the next one.

Source: Fetch Standard, "CORS-safelisted request-header"; RFC 9112, message body length.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llama_ref.serve.errors import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
MAX_HEADERS, MAX_HEAD_BYTES = 100, 2**15
MAX_BODY = 8 * 2**20
BODY_SECONDS = 30.0
OPEN_PATHS = ("/health",)


@dataclass(frozen=True, slots=True)
class Rules:
    """Who is let in.

    Attributes
    ----------
    hosts : tuple of str
        Names under which this server may be called.
    api_key : str, optional
        What `Authorization: Bearer` must bring.
    max_body : int
        Bytes.
    body_seconds : float
        For a whole body to arrive.
    """

    hosts: tuple[str, ...] = LOCAL_HOSTS
    api_key: str | None = None
    max_body: int = MAX_BODY
    body_seconds: float = BODY_SECONDS


class Guard:
    """Stands before an application.

    Parameters
    ----------
    app : ASGI application
    rules : Rules
    refuse : callable of ApiError
        Returns the ASGI application that answers with an error.
    """

    def __init__(self, app: App, rules: Rules, refuse: Callable[[ApiError], App]):
        self._app, self._rules, self._refuse = app, rules, refuse

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Let a request through, with its body read, or answer it here."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            self._check(scope)
            body = await asyncio.wait_for(self._body(scope, receive), self._rules.body_seconds)
        except TimeoutError:
            error = ApiError(408, "The body took too long.")
            return await self._refuse(error)(scope, receive, send)
        except ApiError as error:
            return await self._refuse(error)(scope, receive, send)
        if body is None:  # the client has gone
            return None
        return await self._app(scope, _once(body, receive), send)

    def _check(self, scope: Any) -> None:
        """Look at the head of a request."""
        if len(scope["headers"]) > MAX_HEADERS:
            raise ApiError(431, f"More than {MAX_HEADERS} headers.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            raise ApiError(431, f"Headers of more than {MAX_HEAD_BYTES:,} bytes.")
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or self._name_of("//" + hosts[0]) not in self._rules.hosts:
            raise ApiError(403, "This server does not answer under that host name.")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise ApiError(400, "Content-Length and Transfer-Encoding exclude each other.")
        for origin in headers.get("origin", []):
            if self._name_of(origin) not in self._rules.hosts:
                raise ApiError(403, "Requests from pages of other sites are not answered.")
        if self._rules.api_key is not None and scope["path"] not in OPEN_PATHS:
            self._check_key(headers.get("authorization", []), self._rules.api_key)
        if scope["method"] == "POST":
            self._check_body_head(headers)

    def _name_of(self, url: str) -> str | None:
        try:
            return urlsplit(url).hostname
        except ValueError:
            return None

    def _check_key(self, given: list[str], key: str) -> None:
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        is_right = hmac.compare_digest(token.strip().encode(), key.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise ApiError(
                401,
                "Incorrect API key, or none.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_body_head(self, headers: dict[str, list[str]]) -> None:
        kind = ",".join(headers.get("content-type", [])).partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, "The body must be application/json.")
        if any(value.lower() != "identity" for value in headers.get("content-encoding", [])):
            raise ApiError(415, "The body must not be compressed.")
        length = headers.get("content-length", ["0"])[0]
        if length.isascii() and length.isdigit() and int(length[:20]) > self._rules.max_body:
            raise self._too_large()

    async def _body(self, scope: Any, receive: Receive) -> bytes | None:
        """Read the body; None if the client goes away meanwhile."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._rules.max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is larger than {self._rules.max_body:,} bytes.")


def _once(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that has the whole body first."""
    waiting = [body]

    async def next_message() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return next_message
