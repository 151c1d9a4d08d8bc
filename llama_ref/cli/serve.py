"""`llama-ref serve`: a checkpoint behind the endpoint that OpenAI's clients know."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import sys
from pathlib import Path
from typing import Any

from llama_ref.cli.model_options import add_model_arguments, load_model
from llama_ref.cli.terminal import Paint
from llama_ref.errors import BadRequest, Unsupported, printable
from llama_ref.llm import LLM
from llama_ref.strict_json import read_json

DESCRIPTION = (
    "Answer requests of OpenAI's clients: chat and text completions, streams, tools, JSON mode.\n"
    "Listens on this machine alone unless told otherwise; another address needs a key."
)
EXAMPLE = """\
  llama-ref serve path/to/checkpoint
  LLAMA_REF_API_KEY=secret llama-ref serve path/to/checkpoint --host 0.0.0.0 --port 8080"""

KEY_VARIABLE = "LLAMA_REF_API_KEY"
MAX_CONFIG = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", help="checkpoint folder, in the HF or the Meta layout")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8000, help="port; 0 takes a free one (%(default)s)")
    add("--allow-host", action="append", default=[], metavar="NAME", help="a name to answer under")
    add("--name", help="of the model in requests; by default that of the folder")
    add("--dialect", choices=("hf", "meta"), default="hf", help="how conversations are written")
    add("--llama", choices=("3.1", "3.2", "3.3"), default="3.1", help="whose template (3.1)")
    add("--date", help="the day to write into prompts, such as '26 Jul 2024'")
    add("--max-running", type=int, default=16, metavar="N", help="texts written at once (16)")
    add("--max-waiting", type=int, default=128, metavar="N", help="texts that may wait (128)")
    add("--prefix-mib", type=int, default=256, metavar="N", help="kept of finished texts (256)")
    add("--time-limit", type=float, default=600, metavar="S", help="seconds for a request (600)")
    add_model_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    try:
        from llama_ref.serve.app import make_app  # noqa: PLC0415 - loads an extra
        from llama_ref.serve.run import bound_socket, serve  # noqa: PLC0415
        from llama_ref.serve.service import Service  # noqa: PLC0415
        from llama_ref.serve.worker import Worker  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Unsupported(
            "serve",
            expected=f"the package {error.name}",
            next_step="python -m pip install 'llama_ref[serve]'",
        ) from None

    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    rules = _rules(options)
    bound = bound_socket(options.host, options.port)
    model = load_model(options)
    if model.tokenizer is None:
        raise BadRequest("serve", expected="a checkpoint with a tokenizer", found="none")
    llm = LLM(model, max_running=options.max_running, prefix_bytes=options.prefix_mib * 2**20)
    name = options.name or Path(options.path).resolve().name
    chat_options = {"dialect": options.dialect, "version": options.llama, "date": options.date}
    service = Service(llm, name, defaults=_defaults(options.path), chat_options=chat_options)
    worker = Worker(llm.engine, max_waiting=options.max_waiting, time_limit=options.time_limit)
    host, port = bound.getsockname()[:2]
    place = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def ready() -> None:
        paint = Paint(sys.stderr)
        print(f"{paint('bold', printable(name))} at {place}/v1, Ctrl-C ends", file=sys.stderr)
        sys.stderr.flush()

    serve(make_app(service, worker, rules), worker, bound, ready=ready)
    return 0


class LogLines(logging.Formatter):
    """Lines that no text of a client can forge: escaped, and what follows the first is indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's lines."""
        return "\n    ".join(map(printable, super().format(record).split("\n")))


def _rules(options: argparse.Namespace) -> Any:
    """Return who is let in: callers of this machine, or whoever has the key."""
    from llama_ref.serve.guard import LOCAL_HOSTS, Rules  # noqa: PLC0415

    key = os.environ.get(KEY_VARIABLE) or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise BadRequest(KEY_VARIABLE, expected="visible ASCII characters", found="others")
    if not _is_local(options.host):
        if key is None:
            raise BadRequest(
                "--host",
                expected="an address of this machine alone, as long as there is no key",
                found=options.host,
                next_step=f"set the environment variable {KEY_VARIABLE}",
            )
        paint = Paint(sys.stderr)
        print(paint("bold", f"listening to other machines on {options.host}"), file=sys.stderr)
    return Rules((*LOCAL_HOSTS, options.host.lower(), *map(str.lower, options.allow_host)), key)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _defaults(path: str) -> dict[str, Any]:
    """Return the sampling parameters of a checkpoint's generation_config.json."""
    file = Path(path) / "generation_config.json"
    found = read_json(file, limit=MAX_CONFIG) if file.is_file() else {}
    return found if isinstance(found, dict) and found.get("do_sample", True) else {}
