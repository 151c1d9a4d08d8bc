"""Faults of ours, and of the clock: who waits is told, and the server goes on."""

import json
import socket
import threading
import time

from tests.serve.conftest import serving
from tests.serve.raw import BODY, LONG, converse, head, status


def test_a_fault_of_ours_is_500_and_the_next_request_is_served(model, monkeypatch, caplog):
    """An exception inside a pass ends its requests without a word of where; the server goes on."""
    with serving(model) as served:
        engine = served.llm.engine
        step = engine.step

        def broken():
            monkeypatch.setattr(engine, "step", step)
            raise RuntimeError("/secret/path")

        monkeypatch.setattr(engine, "step", broken)
        answer = converse(served.port, head(), BODY)
        assert status(answer) == 500
        assert b"secret" not in answer
        assert "secret" in caplog.text
        assert status(converse(served.port, head(), BODY)) == 200
        served.wait_until_idle()


def test_a_fault_before_the_first_pass_is_500_too(model, monkeypatch):
    """The thread outlives a request that it cannot take in."""
    with serving(model) as served:
        engine = served.llm.engine
        add = engine.add

        def broken(request):
            monkeypatch.setattr(engine, "add", add)
            raise RuntimeError("/secret/path")

        monkeypatch.setattr(engine, "add", broken)
        answer = converse(served.port, head(), BODY)
        assert status(answer) == 500
        assert b"secret" not in answer
        assert status(converse(served.port, head(), BODY)) == 200
        served.wait_until_idle()


def test_a_pass_that_does_not_end_holds_up_no_end(model, monkeypatch):
    """A server that is told to end does not wait for a pass of minutes."""
    free = threading.Event()
    with serving(model) as served:
        step = served.llm.engine.step
        monkeypatch.setattr(served.llm.engine, "step", lambda: (free.wait(30), step())[1])
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head() + BODY)
            until = time.monotonic() + 5
            while not served.worker.n_texts and time.monotonic() < until:
                time.sleep(0.01)
        served.server.should_exit = True
        served.thread.join(10)
        is_ended = not served.thread.is_alive()
        free.set()
        assert is_ended


def test_a_fault_in_the_middle_of_a_stream_is_an_event(model, monkeypatch):
    """A stream that has begun ends with an event that says so, and [DONE]."""
    with serving(model) as served:
        engine = served.llm.engine
        step, n_steps = engine.step, []

        def broken():
            n_steps.append(1)
            if len(n_steps) == 5:
                raise RuntimeError("/secret/path")
            return step()

        monkeypatch.setattr(engine, "step", broken)
        body = json.dumps(LONG | {"stream": True}).encode()
        answer = converse(served.port, head(length=len(body), Connection="close"), body)
        events = answer.split(b"data: ")
        assert b"internal_error" in events[-2]
        assert events[-1].startswith(b"[DONE]")
        assert b"secret" not in answer


def test_a_clock_that_goes_back_changes_nothing(served, monkeypatch):
    """Deadlines do not come sooner or later, and ids stay unique."""
    ids = []
    for now in (2e9, 1e9, 1e9, 0.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        answer = converse(served.port, head(), BODY)
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["choices"][0]["stop_reason"] != "time_limit"
        ids.append(body["id"])
    assert len(set(ids)) == 4
