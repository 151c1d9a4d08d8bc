"""`llama-ref serve` as a process: ready, ending, refusing; and a load with everything at once."""

import asyncio
import json
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from llama_ref.cli.serve import LogLines

USER = [{"role": "user", "content": "hi"}]


@contextmanager
def process(folder, *words, env=()):
    """Run the command; yield the process and its address once it is ready."""
    command = [sys.executable, "-m", "llama_ref", "serve", str(folder), "--port", "0", *words]
    started = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | dict(env)
    )
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = started.stderr.readline()
            assert line, f"ended with {started.wait()}: {said}"
            said += line
        yield started, re.search(r"(http://\S+)/v1", said).group(1), said
    finally:
        started.kill()
        started.wait()
        started.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(demo_folder, number):
    """When nothing runs, the end comes at once, with exit code 0 and no traceback."""
    with process(demo_folder) as (server, url, _):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        server.send_signal(number)
        assert server.wait(10) == 0
        assert "Traceback" not in server.stderr.read()


@pytest.mark.slow
def test_a_signal_under_load_ends_streams_in_order(demo_folder):
    """Running streams get an end and [DONE] within ten seconds; new requests are refused."""
    body = {"messages": USER, "max_tokens": 100_000, "ignore_eos": True, "stream": True}
    with process(demo_folder) as (server, url, _):
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as stream:
            lines = stream.iter_lines()
            next(lines)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert server.wait(12) == 0
        assert time.monotonic() - began < 12


def test_a_second_signal_ends_it_at_once(demo_folder):
    """Who cannot wait says so twice."""
    body = {"messages": USER, "max_tokens": 100_000, "ignore_eos": True, "stream": True}
    with (
        process(demo_folder) as (server, url, _),
        httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        server.send_signal(signal.SIGINT)
        time.sleep(0.3)
        server.send_signal(signal.SIGINT)
        assert server.wait(2) == 1


def test_no_text_forges_a_line_of_the_log():
    """Control characters are escaped, and what follows the first line is indented."""
    record = logging.LogRecord("llama_ref", 40, "", 1, "a \x1b[31m\nuvicorn: b\r\x9b", None, None)
    said = LogLines("%(name)s: %(message)s").format(record)
    assert said == "llama_ref: a \\x1b[31m\n    uvicorn: b\\r\\x9b"


def run(folder, *words, env=()):
    command = [sys.executable, "-m", "llama_ref", "serve", str(folder), *words]
    clean = {k: v for k, v in os.environ.items() if k != "LLAMA_REF_API_KEY"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, env=clean | dict(env), check=False
    )


def test_what_it_cannot_listen_on_is_said(demo_folder):
    """A port in use or out of range, a foreign address, an open one without a key: exit 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(demo_folder, "--port", port)
        assert (ended.returncode, "in use" in ended.stderr) == (2, True)
    for words in (["--port", "99999"], ["--host", "no such host"], ["--host", "203.0.113.7"]):
        ended = run(demo_folder, *words, env={"LLAMA_REF_API_KEY": "k"})
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
    ended = run(demo_folder, "--host", "0.0.0.0", "--port", "0")
    assert (ended.returncode, "LLAMA_REF_API_KEY" in ended.stderr) == (2, True)


def test_with_a_key_it_may_listen_to_all_and_says_so(demo_folder):
    """The warning is there, the key is nowhere in what it prints."""
    env = {"LLAMA_REF_API_KEY": "very-secret"}
    with process(demo_folder, "--host", "0.0.0.0", env=env) as (server, url, warning):
        assert "other machines" in warning
        port = url.rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401
        headers = {"Authorization": "Bearer very-secret"}
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers).status_code == 200
        httpx.get(f"http://127.0.0.1:{port}/x%0d%0a%1b[31m", headers=headers)
        server.send_signal(signal.SIGTERM)
        said = warning + server.stderr.read()
        assert "very-secret" not in said
        assert "\x1b[31m" not in said


N_STREAMS = 64
MAX_THREADS = 50  # 40 for what is computed beside the event loop, the engine's, and NumPy's
SECONDS = float(os.environ.get("LLAMA_REF_LOAD_SECONDS", "20"))


def memory_and_threads(pid):
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    n_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return (
        int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024,
        int(re.search(r"Threads:\s+(\d+)", text)[1]),
        n_files,
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.timeout(600)
def test_a_load_of_everything_loses_nothing(demo_folder):
    """64 streams with aborts and malformed requests: all accounted for, memory and threads flat."""
    counts, health, problems = dict.fromkeys(("whole", "left", "refused"), 0), [], []

    async def one(client, rng, until):
        while time.monotonic() < until:
            kind = rng.random()
            if kind < 0.15:
                bad = rng.choice([b"{", b"[]", b'{"messages": 1}', b'{"messages": [], "n": 99}'])
                headers = {"content-type": "application/json"}
                answer = await client.post("/v1/chat/completions", content=bad, headers=headers)
                counts["refused"] += 1
                if answer.status_code != 400:
                    problems.append(answer.text)
                continue
            n = rng.randint(1, 40)
            body = {"messages": USER, "max_tokens": n, "ignore_eos": True, "stream": True}
            body |= {"seed": rng.randrange(1000), "stream_options": {"include_usage": True}}
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = []
                async for line in answer.aiter_lines():
                    lines += [line] if line else []
                    if kind < 0.4 and len(lines) > 2:
                        break
            if kind < 0.4:
                counts["left"] += 1
                continue
            counts["whole"] += 1
            usage = json.loads(lines[-2][6:])["usage"] if lines[-1] == "data: [DONE]" else None
            if not usage or usage["completion_tokens"] != n:
                problems.append(lines[-3:])

    async def watch(client, until):
        while time.monotonic() < until:
            began = time.monotonic()
            answer = await client.get("/health")
            health.append(time.monotonic() - began)
            if answer.status_code != 200:
                problems.append(answer.text)
            await asyncio.sleep(0.2)

    async def load(url, seconds):
        until = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            rngs = [random.Random(k) for k in range(N_STREAMS)]
            await asyncio.gather(*(one(client, rng, until) for rng in rngs), watch(client, until))

    with process(demo_folder, "--max-waiting", "200", "--prefix-mib", "4") as (server, url, _):
        drain = threading.Thread(target=server.stderr.read, daemon=True)
        drain.start()
        n_files_idle = memory_and_threads(server.pid)[2]

        def settled():
            """What it uses once the connections of the load are closed."""
            until = time.monotonic() + 15
            while memory_and_threads(server.pid)[2] > n_files_idle and time.monotonic() < until:
                time.sleep(0.2)
            return memory_and_threads(server.pid)

        asyncio.run(load(url, SECONDS / 4))
        before = settled()
        asyncio.run(load(url, SECONDS))
        after = settled()
        print(f"\n{counts}, health at most {max(health):.3f} s, before {before}, after {after}")
        assert httpx.get(f"{url}/health").status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(12) == 0
    assert not problems
    assert min(counts.values()) > 10
    assert max(health) < 1
    assert after[0] - before[0] < 40
    assert after[1] <= MAX_THREADS
    assert after[2] <= n_files_idle
