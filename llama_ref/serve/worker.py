"""One thread owns the engine; whoever waits for an answer has a queue of its own.

    event loop                          thread
    submit(job)  ── orders ──────────►  engine.add
    cancel(ticket) ─────────────────►   engine.abort
    ticket.take() ◄──── deltas ──────   engine.step, again and again

A model has one owner, so two requests can never meet inside it. The queue of orders has a limit:
who comes when it is full is told so at once. A request that takes longer than its time is ended
where it is; one whose client has gone is aborted before the next token.

Times are read from a clock that never goes back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from llama_ref.engine import Delta, Engine
from llama_ref.errors import LlamaRefError
from llama_ref.serve.errors import ApiError, api_error, internal_error
from llama_ref.serve.job import Job

LOG = logging.getLogger("llama_ref.serve")
RETRY_SECONDS, JOIN_SECONDS = 5, 1.0


class Ticket:
    """A job's place; made by `Worker.submit` in the event loop that waits for it."""

    def __init__(self, job: Job, deadline: float):
        self.job, self.deadline = job, deadline
        self.n_left = job.n_texts
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[object]()

    async def take(self) -> list[Delta]:
        """Return what the last pass added.

        Raises
        ------
        ApiError
            If the request cannot go on.
        """
        item = await self._queue.get()
        if isinstance(item, ApiError):
            raise item
        return item  # type: ignore[return-value]

    def give(self, item: list[Delta] | ApiError) -> None:
        """Hand something over, from the thread."""
        with suppress(RuntimeError):  # the event loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


class Worker:
    """Runs jobs.

    Parameters
    ----------
    engine : Engine
        From now on the thread's alone.
    max_waiting : int
        Texts that may wait for a place in a pass.
    time_limit : float
        Seconds for a request, from its arrival.
    """

    def __init__(self, engine: Engine, *, max_waiting: int = 128, time_limit: float = 600.0):
        self._engine, self._max_waiting, self._time_limit = engine, max_waiting, time_limit
        self._orders, self._changed = deque[Callable[[], None]](), threading.Condition()
        self._tickets: dict[str, Ticket] = {}
        self._n_texts, self._is_closing, self._is_ended = 0, False, False
        self._thread = threading.Thread(target=self._run, name="llama_ref engine", daemon=True)

    @property
    def is_usable(self) -> bool:
        """Whether a request would be taken in."""
        return self._thread.is_alive() and not self._is_closing

    @property
    def n_texts(self) -> int:
        """Texts that are being written or wait."""
        return self._n_texts

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Job) -> Ticket:
        """Take a job in.

        Raises
        ------
        ApiError
            429 if too many wait, 503 if the server is about to end.
        """
        headers = {"Retry-After": str(RETRY_SECONDS)}
        with self._changed:
            if not self.is_usable:
                message = "The server is shutting down."
                raise ApiError(503, message, kind="unavailable", headers=headers)
            room = self._engine.max_running + self._max_waiting - self._n_texts
            if job.n_texts > room:
                raise ApiError(
                    429,
                    "Too many requests are waiting; try again later.",
                    kind="rate_limit_error",
                    code="rate_limit_exceeded",
                    headers=headers,
                )
            ticket = Ticket(job, time.monotonic() + self._time_limit)
            self._n_texts += job.n_texts
            self._order(lambda: self._add(ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """End a job that nobody waits for any more; one that has ended is none."""
        with self._changed:
            self._order(lambda: self._drop(ticket))

    def close(self, seconds: float) -> None:
        """Take nothing in any more, and end what is running within some seconds."""
        with self._changed:
            self._is_closing = True
            latest = time.monotonic() + seconds
            self._order(lambda: self._hurry(latest))

    def join(self, seconds: float = JOIN_SECONDS) -> None:
        """Wait until nothing is running, but not for a pass that takes longer than some seconds."""
        with self._changed:
            self._is_closing = self._is_ended = True
            self._changed.notify()
        self._thread.join(seconds)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            try:
                self._pass()
            except Exception:  # a fault of ours: nobody waits forever for it
                LOG.exception("a pass of the model failed")
                for ticket in set(self._tickets.values()):
                    ticket.give(internal_error())
                    self._drop(ticket)

    def _wait(self) -> bool:
        """Carry out orders; wait while there is nothing to do. False at the end."""
        with self._changed:
            while not (self._orders or self._engine.has_work):
                if self._is_ended:
                    return False
                self._changed.wait()
            orders, self._orders = self._orders, deque()
        for order in orders:
            order()
        return True

    def _pass(self) -> None:
        """Run the model once, and hand out what it says."""
        given: dict[Ticket, list[Delta]] = {}
        for delta in [*self._overdue(), *self._engine.step()]:
            ticket = self._tickets.get(delta.request_id)
            if ticket:
                given.setdefault(ticket, []).append(delta)
        for ticket, deltas in given.items():
            ticket.n_left -= sum(delta.finish_reason is not None for delta in deltas)
            ticket.give(deltas)
            if not ticket.n_left:
                self._forget(ticket)

    def _overdue(self) -> list[Delta]:
        """End what has had its time."""
        now = time.monotonic()
        late = [name for name, ticket in self._tickets.items() if ticket.deadline < now]
        return [delta for name in late for delta in self._engine.abort(name)]

    def _add(self, ticket: Ticket) -> None:
        try:
            for request in ticket.job.requests:
                self._tickets[request.request_id] = ticket
                self._engine.add(request)
        except LlamaRefError as error:
            ticket.give(api_error(error))
            self._drop(ticket)
        except Exception:  # a fault of ours must not end the thread that all the others wait for
            LOG.exception("a request could not be taken in")
            ticket.give(internal_error())
            self._drop(ticket)

    def _drop(self, ticket: Ticket) -> None:
        if any(self._tickets.get(r.request_id) is ticket for r in ticket.job.requests):
            for request in ticket.job.requests:
                self._engine.abort(request.request_id)
            self._forget(ticket)

    def _forget(self, ticket: Ticket) -> None:
        for request in ticket.job.requests:
            self._tickets.pop(request.request_id, None)
        with self._changed:
            self._n_texts -= ticket.job.n_texts

    def _hurry(self, latest: float) -> None:
        for ticket in self._tickets.values():
            ticket.deadline = min(ticket.deadline, latest)
