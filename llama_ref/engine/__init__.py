"""Many requests at once: packed into one pass of the model, each as if it were alone.

    request.py      what is asked, and the pieces it is answered in
    sequence.py     one text of one request, and its cache
    prefixes.py     keys and values that several prompts begin with are computed once
    scheduler.py    who takes part in the next pass: `Engine`

The weights of a model are read once a pass, whoever takes part in it. One token of one request
costs as much reading as one token of each of sixteen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "Engine": "llama_ref.engine.scheduler",
    "Request": "llama_ref.engine.request",
    "Delta": "llama_ref.engine.request",
}
__getattr__ = names_of(__name__, _HOMES)

if TYPE_CHECKING:
    from llama_ref.engine.request import Delta as Delta
    from llama_ref.engine.request import Request as Request
    from llama_ref.engine.scheduler import Engine as Engine
