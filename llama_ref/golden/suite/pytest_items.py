"""Golden cases as pytest items; loaded when `--llama-ref-ops` is given."""

from __future__ import annotations

import os
import traceback
from typing import Any

import pytest

from llama_ref.errors import BadRequest, CompareError
from llama_ref.golden.suite.case import OpCase, cases
from llama_ref.golden.suite.implementation import Implementation
from llama_ref.golden.suite.loading import load_ops


def add_cases(
    session: pytest.Session, items: list[pytest.Item], module: str, flags_off: str
) -> None:
    """Append an item for each case; those that are left out count as deselected.

    Raises
    ------
    pytest.UsageError
        If the module cannot be imported or there is no such flag.
    """
    try:
        holder = load_ops(module)
        wanted = cases(flags_off=[flag for flag in flags_off.split(",") if flag])
    except BadRequest as error:
        raise pytest.UsageError(str(error)) from error
    names = {str(case) for case in wanted}
    every = [CaseItem.of(session, case, holder, module) for case in cases()]
    left_out = [item for item in every if str(item.case) not in names]
    items += [item for item in every if str(item.case) in names]
    # By these two the count of the tests is right, in the header and at the end.
    report = pytest.CollectReport("llama_ref", "passed", longrepr=None, result=[*every])
    session.config.hook.pytest_collectreport(report=report)
    session.config.hook.pytest_deselected(items=left_out)


class CaseItem(pytest.Item):
    """One golden case against the implementation under test."""

    case: OpCase
    holder: object
    module: str

    @classmethod
    def of(cls, session: pytest.Session, case: OpCase, holder: object, module: str) -> CaseItem:
        """Return the item of a case, at the end of the session's tree."""
        # What stands before :: is what pytest groups by, on the terminal and in JUnit files.
        nodeid = f"llama_ref/{case.op}::{case.name}"
        item = cls.from_parent(session, name=f"llama_ref/{case}", nodeid=nodeid)
        item.case, item.holder, item.module = case, holder, module
        return item

    def runtest(self) -> None:
        """Check the case; skip it if there is no such function."""
        if Implementation(self.holder).function(self.case.function) is None:
            pytest.skip(f"{self.module} has no function {self.case.function}")
        self.case.check(self.holder)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Print the message; if the implementation raised, where it did, without our frames."""
        if not isinstance(excinfo.value, CompareError):
            return super().repr_failure(excinfo)
        cause = excinfo.value.__cause__
        if cause is None or cause.__traceback__ is None:
            return str(excinfo.value)
        its_own = cause.__traceback__.tb_next  # the first frame is the call in implementation.py
        raised = traceback.format_exception(type(cause), cause, its_own)
        return f"{excinfo.value}\n\n{''.join(raised)}"

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Say what failed, in place of a file and a line."""
        return self.path, None, self.name
