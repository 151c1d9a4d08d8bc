"""What this machine is: its CPU, its memory, and the BLAS library that does nearly all the work.

OpenBLAS chooses its kernels when it is loaded, by a table of CPUs; a CPU newer than the table, or
one behind a hypervisor, may get kernels for a narrower vector unit. `OPENBLAS_CORETYPE` overrules
the choice, and must be set before Python starts. So kernels are asked for, and timed, in processes
of their own.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

BLAS_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
VECTOR_FLAGS = re.compile(r"avx|fma$|f16c$|amx|asimd|sve|bf16|i8mm")
SKYLAKE_X_NEEDS = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
WIDE_KERNELS = {"SkylakeX", "Cooperlake", "SapphireRapids"}
AVX2_KERNELS = {"Haswell", "Zen", *WIDE_KERNELS}

# Best of several products, since the first one starts the threads.
TIME_SGEMM = """
import time, numpy
a = numpy.ones((768, 768), numpy.float32)
def once():
    start = time.perf_counter()
    a @ a
    return time.perf_counter() - start
print(2 * 768**3 / min(once() for _ in range(12)) / 1e9)
"""


@dataclass(frozen=True)
class Machine:
    """What was found out about the machine; None where it would not say."""

    cpu: str
    vector_flags: list[str]
    cores: int
    memory: int | None
    memory_available: int | None
    load: float | None
    blas: str
    kernels: str | None
    threads: int | None
    variables: dict[str, str] = field(default_factory=dict)


def look() -> Machine:
    """Find out what this machine is."""
    cpu, flags = _cpu()
    blas, kernels, threads = _blas()
    cores = _usable_cores()
    return Machine(
        cpu=cpu,
        vector_flags=flags,
        cores=cores,
        memory=_memory(),
        memory_available=_memory_available(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        blas=blas,
        kernels=kernels,
        threads=threads,
        variables={name: os.environ[name] for name in BLAS_VARIABLES if name in os.environ},
    )


def better_kernels(vector_flags: list[str], kernels: str | None) -> str | None:
    """Name the OpenBLAS core type that would use more of the CPU; None if this one does.

    Examples
    --------
    >>> better_kernels(sorted(SKYLAKE_X_NEEDS), "Haswell")
    'SkylakeX'
    >>> better_kernels(["avx2", "fma"], "Haswell") is None
    True
    """
    flags = set(vector_flags)
    if kernels is None:
        return None
    if flags >= SKYLAKE_X_NEEDS and kernels not in WIDE_KERNELS:
        return "SkylakeX"
    if flags >= {"avx2", "fma"} and kernels not in AVX2_KERNELS:
        return "Haswell"
    return None


def sgemm_speed(core_type: str | None = None) -> float | None:
    """Return the GFLOP/s of a float32 matrix product in a new process; None if it does not run.

    Parameters
    ----------
    core_type : str, optional
        The value of OPENBLAS_CORETYPE; by default it is left as it is.
    """
    change = {"OPENBLAS_CORETYPE": core_type} if core_type else {}
    try:
        return float(_python(TIME_SGEMM, change).stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _python(code: str, change: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a few lines in a new interpreter, which finds no modules in the current folder."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | change,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def _blas() -> tuple[str, str | None, int | None]:
    """Return the library NumPy uses, its kernels, and its threads."""
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            name = f"{pool['internal_api']} {pool['version']}"
            return name, pool.get("architecture"), pool["num_threads"]
    built_with = _numpy_config("Build Dependencies").get("blas", {})
    name = f"{built_with.get('name', 'unknown')} {built_with.get('version', '')}".strip()
    return name, _openblas_kernels(), _threads_asked_for()


def _openblas_kernels() -> str | None:
    """Let OpenBLAS say which kernels it chose: it does so when it is loaded under this variable."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = _python("import numpy", {"OPENBLAS_VERBOSE": "2"}).stderr
        if match := re.search(r"^Core: (\w{1,40})$", said, re.MULTILINE):
            return match[1]
    return None


def _threads_asked_for() -> int:
    """Return the threads BLAS will start: those of the environment, else one per usable core."""
    for name in BLAS_VARIABLES[1:]:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return _usable_cores()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> tuple[str, list[str]]:
    """Return the CPU's name and its vector extensions, as the system lists them or NumPy found."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        known = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.MULTILINE))
        flags = known.get("flags") or known.get("Features") or ""
        name = known.get("model name") or platform.processor() or platform.machine()
        return name, [flag for flag in flags.split() if VECTOR_FLAGS.match(flag)]
    found = _numpy_config("SIMD Extensions")
    flags = [flag.lower() for kind in ("baseline", "found") for flag in found.get(kind, ())]
    return platform.processor() or platform.machine(), flags


def _numpy_config(section: str) -> dict[str, Any]:
    """Return a part of what NumPy says about how it was built."""
    config: Any = np.show_config(mode="dicts")
    return config.get(section, {})


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _memory_available() -> int | None:
    """Return what new work may use, which is more than what is free: files cached in it go."""
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        if match := re.search(r"^MemAvailable:\s+(\d{1,12}) kB", text, re.MULTILINE):
            return 1024 * int(match[1])
    return None
