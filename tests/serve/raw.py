"""Requests as bytes on a socket, and what comes back."""

import json
import socket
import time
from contextlib import suppress

USER = [{"role": "user", "content": "hi"}]
BODY = json.dumps({"messages": USER, "max_tokens": 2, "seed": 1}).encode()
PATH = "/v1/chat/completions"
LONG = {"messages": USER, "max_tokens": 100_000, "ignore_eos": True}


LENGTH = len(BODY)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (LENGTH, BODY)
HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


def head(method="POST", path=PATH, length=LENGTH, **headers):
    """The head of a request; None leaves a header out."""
    lines = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": length}
    for name, value in headers.items():
        lines[name.replace("_", "-")] = value
    written = [f"{name}: {value}" for name, value in lines.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *written, "", ""]).encode()


def converse(port, *pieces, pause=0.0, seconds=10):
    """Send pieces, return all that comes back until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                if pause:
                    time.sleep(pause)
            while more := connection.recv(65536):
                answer += more
                if (
                    b"\r\n\r\n" in answer
                    and b"onnection: close" not in answer
                    and _is_whole(answer)
                ):
                    break
        except (ConnectionError, TimeoutError):
            pass
        return answer


def _is_whole(answer):
    top, _, rest = answer.partition(b"\r\n\r\n")
    for line in top.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return len(rest) >= int(line.split(b":")[1])
    return False


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def until_closed(port, *pieces):
    """Send pieces, return all that comes back until the server closes, which it must."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        answer = b""
        with suppress(ConnectionError):  # of what was left unread
            for piece in pieces:
                connection.sendall(piece)
            while more := connection.recv(65536):
                answer += more
        return answer
