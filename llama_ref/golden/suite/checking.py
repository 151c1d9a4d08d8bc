"""All golden cases of the ops against one implementation."""

from __future__ import annotations

from collections.abc import Collection

from llama_ref.golden.suite.case import OpCase, cases
from llama_ref.golden.suite.implementation import Implementation
from llama_ref.golden.suite.outcome import FAIL, MISSING, OFF, PASS, OpResult


def check_ops(
    implementation: object, ops: Collection[str] | None = None, flags_off: Collection[str] = ()
) -> list[OpResult]:
    """Run the golden cases of the ops against an implementation.

    Parameters
    ----------
    implementation : module, object or mapping of str to function
        With functions of the names and signatures that `llama_ref.golden.suite` lists.
    ops : collection of str, optional
        Ops (`rope`) or single functions (`rope_table`); all by default.
    flags_off : collection of str
        Flags of the cases to leave out, such as `float64` on a device that has none.

    Returns
    -------
    list of OpResult
        One per case, in the order of a layer. A function that the implementation lacks makes its
        cases `missing`; one that raises makes them fail with what it raised.

    Raises
    ------
    BadRequest
        If there is no such op or flag.

    Examples
    --------
    >>> from llama_ref.golden.suite import own
    >>> {result.status for result in check_ops(own, ops=["swiglu"])}
    {'pass'}
    """
    kept = {str(case) for case in cases(ops, flags_off)}
    under_test = Implementation(implementation)
    return [_result(case, under_test, str(case) in kept) for case in cases(ops)]


def _result(case: OpCase, implementation: Implementation, wanted: bool) -> OpResult:
    status, text = PASS, ""
    if not wanted:
        status = OFF
    elif implementation.function(case.function) is None:
        status = MISSING
    else:
        problem = case.find_problem(implementation)
        if problem is not None:
            status, text = FAIL, str(problem)
    return OpResult(
        case.op, case.function, case.name, status, text, case.why, case.catches, case.flags
    )
