"""What a rank says that cannot run: one line, and no traceback."""

import os
import subprocess
import sys


def test_without_mpi4py_a_rank_says_what_to_install(tmp_path):
    """Started by a launcher where the package is missing: exit code 2, and what to install."""
    (tmp_path / "mpi4py.py").write_text("raise ModuleNotFoundError('No module named mpi4py')\n")
    ran = subprocess.run(
        [sys.executable, "-m", "llama_ref", "generate", "anything"],
        env=os.environ | {"PMI_SIZE": "2", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert "llama_ref[mpi]" in ran.stderr
    assert "Traceback" not in ran.stderr
