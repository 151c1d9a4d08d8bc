"""`llama-ref doctor`: it tells what runs here, and advises only what was seen to help."""

import json
import platform
import re

import numpy as np
import pytest

from llama_ref.__main__ import main
from llama_ref.cli.doctor import BFLOAT16_ROUNDING
from llama_ref.cli.machine import AVX2_KERNELS, SKYLAKE_X_NEEDS, better_kernels, look
from tests.cli.commands import through_pipes

MACHINE = look()
HAS_OPENBLAS_AND_AVX2 = (
    "openblas" in MACHINE.blas.lower()
    and MACHINE.kernels in AVX2_KERNELS
    and {"avx2", "fma"} <= set(MACHINE.vector_flags)
)


def test_the_report_holds_versions_machine_and_problems(capsys):
    """--json tells what is installed, what it runs on, and what to fix, with its exit code."""
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if found["problems"] else 0)
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["numpy"] == np.__version__
    assert {"llama_ref", "ml_dtypes", "tiktoken", "sentencepiece", "safetensors"} <= set(
        found["versions"]
    )
    assert found["machine"]["cores"] >= 1 and found["machine"]["blas"]
    assert found["sgemm_gflops"] > 0


def test_the_page_names_what_matters_in_eighty_columns(capsys):
    """Every part of the report is a line for people too."""
    main(["doctor"])
    text = capsys.readouterr().out
    labels = {line.split()[0] for line in text.splitlines() if line.startswith("  ")}
    expected = {"llama_ref", "python", "numpy", "CPU", "vectors", "cores", "memory", "BLAS"}
    assert expected | {"kernels", "threads", "product"} <= labels
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.skipif(not HAS_OPENBLAS_AND_AVX2, reason="needs OpenBLAS and a CPU with AVX2")
def test_slow_kernels_are_found_and_the_line_that_fixes_them_is_printed():
    """OpenBLAS held to kernels of 2004 is a finding with both speeds, and the line helps."""
    code, output, errors = through_pipes("doctor", environment={"OPENBLAS_CORETYPE": "Prescott"})
    text = output.decode()
    assert (code, errors) == (1, "")
    assert "to fix: OpenBLAS runs its" in text and "GFLOP/s" in text
    assert "\n      export OPENBLAS_CORETYPE=" in text
    assert re.search(r"^  OPENBLAS_CORETYPE +Prescott$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("flags", "kernels", "better"),
    [
        ({"avx2", "fma"} | SKYLAKE_X_NEEDS, "Haswell", "SkylakeX"),
        ({"avx2", "fma"} | SKYLAKE_X_NEEDS, "Zen", "SkylakeX"),
        ({"avx2", "fma"} | SKYLAKE_X_NEEDS, "SkylakeX", None),
        ({"avx2", "fma"} | SKYLAKE_X_NEEDS, "Cooperlake", None),
        ({"avx2", "fma", "avx512f"}, "Haswell", None),
        ({"avx2", "fma"}, "Sandybridge", "Haswell"),
        ({"avx2", "fma"}, "Zen", None),
        ({"avx"}, "Nehalem", None),
        ({"asimd", "sve"}, "NEOVERSEV1", None),
        ({"avx2", "fma"} | SKYLAKE_X_NEEDS, None, None),
    ],
)
def test_kernels_are_suggested_only_for_units_the_cpu_has(flags, kernels, better):
    """A core type is named if the CPU has all it needs and the kernels in use are narrower."""
    assert better_kernels(sorted(flags), kernels) == better


@pytest.mark.parametrize(("value", "rounded"), BFLOAT16_ROUNDING.items())
def test_the_cases_of_bfloat16_follow_the_rule(value, rounded):
    """Adding half a step and cutting 16 bits, done on integers, gives the doctor's table."""
    bits = int(np.float32(value).view(np.uint32))
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    assert float(np.uint32(bits).view(np.float32)) == rounded
