"""A served model: real weights (of the demonstration), a real port, a real server."""

import threading
import time
from contextlib import contextmanager

import pytest

import llama_ref as lr
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.serve.app import make_app
from llama_ref.serve.guard import Rules
from llama_ref.serve.run import bound_socket, make_server
from llama_ref.serve.service import Service
from llama_ref.serve.worker import Worker
from llama_ref.tokenizer import load_tokenizer
from tests.models import tiny_model


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory):
    """The demonstration checkpoint on disk."""
    folder = tmp_path_factory.mktemp("served") / "demo"
    write_demo(folder)
    return folder


@pytest.fixture(scope="session")
def model(demo_folder):
    return lr.load(demo_folder)


@pytest.fixture(scope="session")
def service(model):
    """The endpoints without a server around them."""
    return Service(lr.LLM(model), "demo")


class Served:
    """A server in a thread."""

    def __init__(self, model, rules=None, protocol=None, **worker_options):
        self.llm = lr.LLM(model, max_running=worker_options.pop("max_running", 16))
        self.worker = Worker(self.llm.engine, **worker_options)
        service = Service(self.llm, "demo")
        self.server = make_server(make_app(service, self.worker, rules or Rules()), self.worker)
        if protocol:
            self.server.config.http = protocol
        self.socket = bound_socket("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        run = self.server.run
        self.thread = threading.Thread(target=run, kwargs={"sockets": [self.socket]}, daemon=True)

    def wait_until_idle(self, seconds=10):
        """Wait until no text is being written."""
        until = time.monotonic() + seconds
        while self.worker.n_texts and time.monotonic() < until:
            time.sleep(0.01)
        assert self.worker.n_texts == 0
        assert self.llm.engine.cache_bytes == 0
        assert not self.llm.engine.has_work


@contextmanager
def serving(model, **options):
    served = Served(model, **options)
    served.thread.start()
    while not served.server.started:
        assert served.thread.is_alive()
        time.sleep(0.01)
    try:
        yield served
    finally:
        served.server.should_exit = True
        served.thread.join(20)
        served.socket.close()
        assert not served.thread.is_alive()


@pytest.fixture(scope="session")
def served(model):
    """A server with everything as by default."""
    with serving(model) as running:
        yield running


@pytest.fixture(scope="session")
def wide_service(llama3_ranks_file):
    """The endpoints with the vocabulary of Llama 3, as the recorded rows suppose."""
    wide = tiny_model(vocab_size=128_256, context_length=8192)
    wide.tokenizer = load_tokenizer(llama3_ranks_file)
    return Service(lr.LLM(wide), "m")
