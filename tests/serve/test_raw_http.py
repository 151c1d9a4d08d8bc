"""What arrives on the socket byte by byte: strangers, giants, slow senders, smuggled requests."""

import json
import socket
import threading
import time

import pytest

from llama_ref.serve.guard import Rules
from llama_ref.serve.run import MAX_CONNECTIONS, TimedProtocol
from tests.serve.conftest import serving
from tests.serve.raw import (
    BODY,
    CHUNKED,
    HIDDEN,
    LENGTH,
    LONG,
    converse,
    head,
    status,
    until_closed,
)


def test_a_plain_request_is_answered(served):
    """The baseline of all the others."""
    assert status(converse(served.port, head(), BODY)) == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": None}, 400),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": None}, 415),
        ({"Content_Type": "application/json; charset=utf-8"}, 200),
        ({"Content_Type": "multipart/form-data"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"length": "-1"}, 400),
        ({"length": "1_0"}, 400),
        ({"length": f"{len(BODY)}, {len(BODY) + 1}"}, 400),
        ({"length": 10**12}, 413),
        ({"length": "9" * 400}, 400),
        ({"Transfer_Encoding": "gzip", "length": None}, 400),
        ({"X_Long": "x" * 40_000}, 431),
        ({"X_Nul": "a\0b"}, 400),
    ],
)
def test_heads(served, headers, expected):
    """Each head that should not be is refused before its body is looked at."""
    answer = converse(served.port, head(**headers), BODY)
    assert status(answer) == expected or (expected == 400 and 400 <= (status(answer) or 400) < 500)
    assert b"Traceback" not in answer
    assert b"access-control-allow-origin" not in answer.lower()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET " + b"/" * 65_536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 101 + b"\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: y\r\n folded: z\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\tfolded: z\r\n\r\n"],
        [b"GET /health HTTP/1.1\nHost: localhost\n\n"],
        [b"GET /health HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX:", b" y\r\n", b" folded: z\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n"],
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
        [b"NOT HTTP AT ALL\r\n\r\n"],
        [head(length=None, Transfer_Encoding="chunked"), b"ZZ\r\nhello\r\n0\r\n\r\n"],
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(served, pieces):
    """Garbage, giants, folded headers and lines without CR end in 4xx and a closed connection."""
    answer = until_closed(served.port, *pieces)
    assert answer.count(b"HTTP/1.1") == 1
    assert status(answer) in (400, 431)


def test_a_chunked_body_is_read_within_the_limit(model):
    """A body in chunks is a body, and ends at the limit like any other."""
    with serving(model, rules=Rules(max_body=1000)) as served:
        chunked = head(length=None, Transfer_Encoding="chunked")
        assert status(converse(served.port, chunked, CHUNKED)) == 200
        data = b"400\r\n" + b" " * 1024 + b"\r\n"
        assert status(converse(served.port, chunked, data)) == 413
        assert status(converse(served.port, head(length=1001), b" " * 1001)) == 413


def test_a_request_behind_a_refused_one_is_not_answered(served):
    """After an error the connection ends: what follows is not taken for the next request."""
    answer = converse(
        served.port, head(length=len(HIDDEN), Content_Type="text/plain") + HIDDEN + HIDDEN
    )
    assert answer.count(b"HTTP/1.1") == 1
    assert status(answer) == 415


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (head(length=5) + BODY[:5] + HIDDEN, 400),
        (head(length=5) + BODY, 400),
        (head("GET", "/nowhere", length=0) + HIDDEN, 404),
        (head(length=LENGTH, Transfer_Encoding="chunked") + CHUNKED, 400),
        (head(length=len(CHUNKED + HIDDEN), Transfer_Encoding="chunked") + CHUNKED + HIDDEN, 400),
        (
            head("GET", "/health", length=0, Transfer_Encoding="chunked") + b"0\r\n\r\n" + HIDDEN,
            400,
        ),
    ],
)
def test_a_body_of_two_lengths_hides_no_request(served, sent, expected):
    """A length that lies, or two ways to tell it, end in one answer and a closed connection."""
    answer = until_closed(served.port, sent)
    assert answer.count(b"HTTP/1.1") == 1
    assert status(answer) == expected


def test_requests_in_a_row_on_one_connection_are_all_answered(served):
    """Where nothing is wrong a connection is kept, and what is sent ahead is answered in turn."""
    sent = HIDDEN * 3 + HIDDEN.replace(b"Host", b"Connection: close\r\nHost")
    answer = until_closed(served.port, sent)
    assert answer.count(b"HTTP/1.1 200") == 4


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/health", 405),
        ("GET", "/../../etc/passwd", 404),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("GET", "/%0d%0aX: y", 404),
    ],
)
def test_paths_and_methods(served, method, path, expected):
    """What does not exist is 404, what cannot be done with it 405, both as JSON."""
    answer = converse(served.port, head(method, path.replace(" ", "%20"), length=0))
    assert status(answer) == expected
    assert b'"error"' in answer


def test_slow_senders_are_not_waited_for(model):
    """A head, or a body, that comes a byte at a time ends in 408 or a closed connection."""

    class Quick(TimedProtocol):
        head_seconds = idle_seconds = 0.4

    with serving(model, rules=Rules(body_seconds=0.4), protocol=Quick) as served:
        began = time.monotonic()
        slow = [bytes([byte]) for byte in head()[:20]]
        answer = converse(served.port, *slow, pause=0.1)
        assert status(answer) in (408, None)
        answer = converse(served.port, head(), BODY[:5], seconds=5)
        assert status(answer) == 408
        assert status(converse(served.port)) in (408, None)
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as idle:
            idle.sendall(head() + BODY)
            answer = b""
            while more := idle.recv(65536):  # the answer, and after a while the end
                answer += more
            assert answer.startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 10
        assert status(converse(served.port, head(), BODY)) == 200
    with (
        serving(model, protocol=type("Patient", (Quick,), {"idle_seconds": 60})) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=5) as second,
    ):
        second.sendall(HIDDEN)
        answer = second.recv(65536)
        second.sendall(HIDDEN[:9])  # a head that begins within the idle time, and does not end
        while more := second.recv(65536):
            answer += more
        assert b"HTTP/1.1 408" in answer


@pytest.mark.slow
def test_who_does_not_read_is_cut_off(model):
    """A client that leaves its stream unread loses it, and the text is aborted."""

    class Impatient(TimedProtocol):
        unread_seconds = 0.5

    with serving(model, protocol=Impatient) as served:
        body = json.dumps(LONG | {"stream": True, "n": 16, "temperature": 1.0}).encode()
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head(length=len(body)) + body)
            until = time.monotonic() + 30
            while not served.worker.n_texts:
                assert time.monotonic() < until
                time.sleep(0.01)
            while served.worker.n_texts and time.monotonic() < until:
                time.sleep(0.05)
        served.wait_until_idle(1)


def test_health_answers_while_the_model_works(served):
    """The event loop is free while the engine's thread computes."""
    body = json.dumps(LONG | {"n": 8, "stream": True, "temperature": 1.0}).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head(length=len(body)) + body)
        connection.recv(100)
        for _ in range(20):
            began = time.monotonic()
            assert status(converse(served.port, head("GET", "/health", length=0))) == 200
            assert time.monotonic() - began < 1
    served.wait_until_idle()


def test_hundreds_of_connections_are_answered_or_turned_away(served):
    """More connections than there is room for are closed or told so; the server goes on."""
    connections, lock = [], threading.Lock()

    def open_one():
        try:
            connection = socket.create_connection(("127.0.0.1", served.port), timeout=5)
        except OSError:
            return
        with lock:
            connections.append(connection)

    threads = [threading.Thread(target=open_one) for _ in range(400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer = converse(served.port, head("GET", "/health", length=0))
    assert status(answer) in (200, 503)
    connections += [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
    time.sleep(0.3)
    assert len(served.server.server_state.connections) <= MAX_CONNECTIONS
    for connection in connections:
        connection.close()
    time.sleep(0.3)
    assert status(converse(served.port, head("GET", "/health", length=0))) == 200
