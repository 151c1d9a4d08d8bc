"""A port, a server on it, and its end.

The first SIGINT or SIGTERM stops taking requests in, and gives those that are running ten seconds;
the second ends at once. The socket is bound before anything is said to be ready. A connection that
sends no whole head within ten seconds, or none for a minute after an answer, is closed, and so is
one that leaves what it is sent unread for half a minute.

uvicorn speaks HTTP, with h11 as its parser: heads of at most 32 KiB. Two forms that h11 lets pass
are refused here, since a proxy may read them otherwise: a line that ends without CR, and a header
that goes on in the next line.

From 256 connections on a request is 503; the 513th connection is closed as it comes.

Source: RFC 9112, sections 2.2 and 5.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llama_ref.errors import BadRequest
from llama_ref.serve.guard import MAX_HEAD_BYTES
from llama_ref.serve.worker import Worker

HEAD_SECONDS, UNREAD_SECONDS, IDLE_SECONDS, END_SECONDS = 10.0, 30.0, 60, 10
MAX_BUSY, MAX_CONNECTIONS = 256, 512
HEAD_END, AMBIGUOUS = re.compile(rb"\n\r?\n"), re.compile(rb"(?<!\r)\n|\n[ \t]")
SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
LARGE = SLOW.replace(b"408 Request Timeout", b"431 Request Header Fields Too Large")
CANNOT_BIND = {
    errno.EADDRINUSE: "one that no other program uses",
    errno.EACCES: "one that this user may open; those below 1024 are reserved",
    errno.EADDRNOTAVAIL: "an address of this machine",
}


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound.

    Raises
    ------
    BadRequest
        If the port is taken or not allowed, or the host is not of this machine.
    """
    place = f"{host}:{port}"
    if not 0 <= port <= 65535:
        raise BadRequest("--port", expected="0 to 65535", found=port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        expected = CANNOT_BIND.get(error.errno or 0, "an address of this machine")
        found = os.strerror(error.errno) if error.errno in CANNOT_BIND else "no such host"
        raise BadRequest(f"address {place}", expected=expected, found=found) from None
    return bound


class TimedProtocol(H11Protocol):
    """A connection that waits only so long for a head, and for what it wrote to be read."""

    head_seconds, idle_seconds, unread_seconds = HEAD_SECONDS, IDLE_SECONDS, UNREAD_SECONDS
    _is_idle = False
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request, if there is room."""
        super().connection_made(transport)
        self._wait_for_head(self.head_seconds)
        if len(self.connections) > MAX_CONNECTIONS:
            self.transport.abort()

    def handle_events(self) -> None:
        """Look at a head as it was sent, before it is parsed."""
        if set(map(str, self.conn.states.values())) == {"IDLE"}:  # between two requests
            data, _ = self.conn.trailing_data
            if data and self._is_idle:
                self._is_idle = False
                self._wait_for_head(self.head_seconds)
            end = HEAD_END.search(data)
            n_bytes = end.end() if end else len(data)
            if n_bytes > MAX_HEAD_BYTES:  # which h11 says only of a head that comes in pieces
                self.transport.write(LARGE)
                return self.transport.close()
            if AMBIGUOUS.search(data, 0, n_bytes):
                return self.send_400_response("Ambiguous HTTP request received.")
        return super().handle_events()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._is_idle = True
        self._wait_for_head(self.idle_seconds)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for the client to read: the buffers between it and us are full."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()

    def _wait_for_head(self, seconds: float) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and not self.transport.is_closing():
            self.transport.write(SLOW)
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which ends with 0 when it is told to end."""

    def __init__(self, config: uvicorn.Config, worker: Worker):
        super().__init__(config)
        self._worker = worker

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at the second signal, end at once."""
        if self.should_exit:
            os._exit(1)
        self.should_exit = True
        # In a thread: the signal may have come while this one held the worker's lock.
        closing = threading.Thread(target=self._worker.close, args=(END_SECONDS - 2,))
        closing.start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen to signals while serving, if this is the thread that gets them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    app: Any, worker: Worker, bound: socket.socket, *, ready: Callable[[], None] | None = None
) -> None:
    """Serve until a signal ends it.

    Parameters
    ----------
    app : ASGI application
        From `make_app`.
    worker : Worker
        The same.
    bound : socket
        From `bound_socket`.
    ready : callable, optional
        Called when requests are answered.
    """
    server = make_server(app, worker)

    async def main() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[bound]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        if ready and server.started:
            ready()
        await serving

    asyncio.run(main())


def make_server(app: Any, worker: Worker) -> Server:
    """Return a server that does not run yet."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        limit_concurrency=MAX_BUSY,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
        backlog=128,
    )
    return Server(config, worker)
