"""Conformance of single ops: the golden cases, and the implementation under test as a parameter.

compare.py          dtype, then shape, then values: how a result has to meet a golden one
implementation.py   the functions that a backend offers, and how they are called
case.py             one golden case; `cases()` reads those of every op
checking.py         `check_ops`: all cases against one implementation
outcome.py          what came out, as lines, as JSON and as an exit code
loading.py          an implementation by the name of its module or file
own.py              our own ops as such an implementation
pytest_plugin.py    `pytest --llama-ref-ops my_backend.ops`: one test per case (pytest_items.py)
cases/              the cases: `<op>.json`, computed by torch and transformers, never by our ops

A backend is a module (or a class, or a mapping) with some of these functions:

    embed(ids_T, table_VD, *, dtype)                                       -> y_TD
    linear(x_TD, weight_FD)                                                -> y_TF
    rms_norm(x_TD, gain_D, *, eps)                                         -> y_TD
    rope_frequencies(head_dim, *, theta, dtype)                            -> frequency_P
    stretched_frequencies(frequency_P, *, factor, low_freq_factor,
                          high_freq_factor, original_context)              -> frequency_P
    rope_table(position_T, frequency_P, *, dtype)                          -> (cos_TP, sin_TP)
    rope_interleaved(x_TNH, cos_TP, sin_TP)                                -> y_TNH
    rope_half_split(x_TNH, cos_TP, sin_TP)                                 -> y_TNH
    softmax(x)                                                             -> y
    attention(query_TNH, key_SKH, value_SKH, *, scaling)                   -> ctx_TNH
    swiglu(gate_TF, up_TF)                                                 -> y_TF

They mean what the functions of those names in `llama_ref.ops` mean, with one difference: `scaling`
is a word, "meta" (scores are divided by sqrt(H)) or "hf" (they are multiplied by H^-0.5). The two
differ by a rounding, and a backend that knows only one of them may ignore the word. What stands
before the `*` is passed by position, so a backend names it as it likes; the rest by name. Arrays
are NumPy's, bfloat16 ones as `ml_dtypes` has them; `dtype` is a NumPy dtype, whose `str()` is
"bfloat16". A result is anything that `numpy.asarray` takes, of the dtype that the signature implies
(that of the first array, or `dtype`). A backend with arrays of its own adds two functions:

    asarray(array)                      -> whatever its functions take
    to_numpy(result)                    -> a NumPy array

A suite of tests of its own runs the cases with the plugin, or without it:

    @pytest.mark.parametrize("case", llama_ref.golden.suite.cases(), ids=str)
    def test_my_ops(case):
        case.check(my_backend.ops)
"""

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "FLAGS": "llama_ref.golden.suite.case",
    "FUNCTIONS": "llama_ref.golden.suite.case",
    "OpCase": "llama_ref.golden.suite.case",
    "OpResult": "llama_ref.golden.suite.outcome",
    "cases": "llama_ref.golden.suite.case",
    "check_ops": "llama_ref.golden.suite.checking",
    "disagreement": "llama_ref.golden.suite.compare",
    "exit_code": "llama_ref.golden.suite.outcome",
    "load_ops": "llama_ref.golden.suite.loading",
    "ops_report": "llama_ref.golden.suite.outcome",
    "ops_report_lines": "llama_ref.golden.suite.outcome",
    "own": "llama_ref.golden.suite.own",
}
__getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.golden.suite import own as own
    from llama_ref.golden.suite.case import FLAGS as FLAGS
    from llama_ref.golden.suite.case import FUNCTIONS as FUNCTIONS
    from llama_ref.golden.suite.case import OpCase as OpCase
    from llama_ref.golden.suite.case import cases as cases
    from llama_ref.golden.suite.checking import check_ops as check_ops
    from llama_ref.golden.suite.compare import disagreement as disagreement
    from llama_ref.golden.suite.loading import load_ops as load_ops
    from llama_ref.golden.suite.outcome import OpResult as OpResult
    from llama_ref.golden.suite.outcome import exit_code as exit_code
    from llama_ref.golden.suite.outcome import ops_report as ops_report
    from llama_ref.golden.suite.outcome import ops_report_lines as ops_report_lines
