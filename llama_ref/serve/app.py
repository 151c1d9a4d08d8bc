r"""Routes: a body goes to the service, its job to the worker, and the answer to the client.

A stream is Server-Sent Events: `data: {…}\n\n` for each chunk, and `data: [DONE]\n\n` at the end.
JSON is written on one line and in ASCII, so no character of a text can end an event. An error after
the first chunk is a chunk with `error`, then the end. Who goes away ends the request.

Source: the HTML Standard, Server-sent events; Starlette's documentation of routing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llama_ref.serve.errors import ApiError, internal_error
from llama_ref.serve.guard import Guard, Rules
from llama_ref.serve.job import Job
from llama_ref.serve.service import Service
from llama_ref.serve.worker import Ticket, Worker

EVENTS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
DONE = b"data: [DONE]\n\n"


def make_app(service: Service, worker: Worker, rules: Rules) -> Any:
    """Return the ASGI application.

    Parameters
    ----------
    service : Service
    worker : Worker
        Started with the application, and joined at its end.
    rules : Rules
    """
    endpoints = _Endpoints(service, worker)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.close(0)
        await run_in_threadpool(worker.join)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/completions", endpoints.completions, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/tokenize", endpoints.tokenize, methods=["POST"]),
            Route("/detokenize", endpoints.detokenize, methods=["POST"]),
            Route("/health", endpoints.health),
        ],
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            Exception: _fault,
        },
        lifespan=lifespan,
    )
    return Guard(app, rules, error_response)


class _Endpoints:
    """What each route does."""

    def __init__(self, service: Service, worker: Worker):
        self._service, self._worker = service, worker

    async def chat(self, request: HttpRequest) -> Response:
        return await self._generate(request, self._service.chat)

    async def completions(self, request: HttpRequest) -> Response:
        return await self._generate(request, self._service.completions)

    async def models(self, _: HttpRequest) -> Response:
        return json_response(self._service.models())

    async def tokenize(self, request: HttpRequest) -> Response:
        return await self._compute(request, self._service.tokenize)

    async def detokenize(self, request: HttpRequest) -> Response:
        return await self._compute(request, self._service.detokenize)

    async def health(self, _: HttpRequest) -> Response:
        is_usable = self._worker.is_usable
        status = "ok" if is_usable else "shutting down"
        return json_response({"status": status}, 200 if is_usable else 503)

    async def _compute(
        self, request: HttpRequest, endpoint: Callable[[bytes], dict[str, Any]]
    ) -> Response:
        return json_response(await run_in_threadpool(endpoint, await request.body()))

    async def _generate(self, request: HttpRequest, endpoint: Callable[[bytes], Job]) -> Response:
        job = await run_in_threadpool(endpoint, await request.body())
        return Answering(self._worker.submit(job), self._worker)


class Answering(Response):
    """The response to a job, written as the engine writes its texts."""

    def __init__(self, ticket: Ticket, worker: Worker):
        super().__init__()
        self._ticket, self._worker = ticket, worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; whatever interrupts this ends the job."""
        is_stream = self._ticket.job.is_stream
        answering = asyncio.ensure_future((self._stream if is_stream else self._whole)(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
        finally:
            for task in (answering, leaving):
                task.cancel()
            self._worker.cancel(self._ticket)

    async def _whole(self, send: Send) -> None:
        job = self._ticket.job
        n_left = job.n_texts
        try:
            while n_left:
                for delta in await self._ticket.take():
                    job.answer.push(delta)
                    n_left -= delta.finish_reason is not None
            response = json_response(job.answer.result())
        except ApiError as error:
            response = error_response(error)
        await self._send_response(response, send)

    async def _stream(self, send: Send) -> None:
        job, n_left, has_begun = self._ticket.job, self._ticket.job.n_texts, False
        try:
            while n_left:
                deltas = await self._ticket.take()
                n_left -= sum(delta.finish_reason is not None for delta in deltas)
                chunks = [chunk for delta in deltas for chunk in job.answer.push(delta)]
                if not has_begun:
                    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
                    has_begun = True
                await self._send_chunks(chunks, send)
            await self._send_chunks(job.answer.finish(), send)
        except ApiError as error:
            if not has_begun:  # there is still a status to say it with
                await self._send_response(error_response(error), send)
                return
            await self._send_chunks([error.body], send)
        await send({"type": "http.response.body", "body": DONE})

    async def _send_chunks(self, chunks: Iterable[dict[str, Any]], send: Send) -> None:
        data = b"".join(b"data: " + as_json(chunk) + b"\n\n" for chunk in chunks)
        if data:
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _send_response(self, response: Response, send: Send) -> None:
        start = {"status": response.status_code, "headers": response.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": response.body})


async def _left(receive: Receive) -> None:
    """Wait until the client goes away."""
    with suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass


async def _api_error(_: HttpRequest, error: Exception) -> Response:
    """Answer for what an endpoint refuses."""
    return error_response(error) if isinstance(error, ApiError) else await _fault(_, error)


async def _http_error(_: HttpRequest, error: Exception) -> Response:
    """Answer for a path or a method that does not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "Error"
    return error_response(ApiError(status, f"{detail}.", kind="not_found_error"))


async def _fault(_: HttpRequest, __: Exception) -> Response:
    """Answer for a fault of ours; it is in the log, and the client is told nothing of it."""
    return error_response(internal_error())


def as_json(value: Any) -> bytes:
    """Return JSON on one line, in ASCII; a number that is none would be a fault of ours."""
    return json.dumps(value, allow_nan=False).encode("ascii")


def json_response(value: Any, status: int = 200) -> Response:
    """Return a response with a JSON body."""
    return Response(as_json(value), status, media_type="application/json")


def error_response(error: ApiError) -> Response:
    """Return the response that an error is; the connection ends with it."""
    response = json_response(error.body, error.status)
    response.headers.update(error.headers | {"Connection": "close"})
    return response
