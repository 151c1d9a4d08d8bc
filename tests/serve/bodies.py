"""Bodies of requests, and what a service makes of them without HTTP."""

import json
from pathlib import Path

from llama_ref.serve.errors import ApiError

DATA = Path(__file__).parents[1] / "data" / "serve"
USER = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


def accepted(service, body):
    """Return the job, or the error."""
    try:
        return service.chat(json.dumps(body).encode())
    except ApiError as error:
        return error


def run(service, job):
    """Run a job in the engine of the service; return its response, or its chunks."""
    for request in job.requests:
        service.llm.engine.add(request)
    chunks = []
    while service.llm.engine.has_work:
        chunks += [c for delta in service.llm.engine.step() for c in job.answer.push(delta)]
    return chunks + job.answer.finish() if job.is_stream else job.answer.result()
