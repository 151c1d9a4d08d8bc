"""The pytest plugin: a backend's own test suite runs the golden cases of the ops.

    pytest --llama-ref-ops my_backend.ops
    pytest --llama-ref-ops ./ops.py --llama-ref-flags-off float64,16-bit -k rope

adds one test per case, named `llama_ref/rope/<name of the case>`, to whatever else is collected;
cases of functions that the backend lacks are skipped and say so. pytest loads this file in every
run on a machine that has llama_ref, so it imports nothing else, and without the option it does
nothing.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("llama_ref", "golden cases of llama_ref")
    group.addoption(
        "--llama-ref-ops",
        metavar="MODULE",
        help="run the golden cases of the ops of a Llama against this module, or this .py file",
    )
    group.addoption(
        "--llama-ref-flags-off",
        metavar="FLAGS",
        default="",
        help="leave out cases with one of these flags, such as float64,16-bit",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Append the cases to what was collected, before -k and -m choose among all of it."""
    module = config.getoption("llama_ref_ops")
    if module is not None:
        from llama_ref.golden.suite.pytest_items import add_cases  # noqa: PLC0415

        add_cases(session, items, module, config.getoption("llama_ref_flags_off"))
