"""Real processes under mpiexec: the bits of the emulation in one, and a share of memory each."""

import json
import os
import shutil
import subprocess
import sys

import mpi4py
import pytest

import llama_ref as lr
from llama_ref.checkpoint import synthetic, write_hf
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.config import to_hf_dict
from llama_ref.golden.answer import make_answer
from llama_ref.ranks import run_ranks
from tests.models import TINY

assert mpi4py
MPIEXEC = shutil.which("mpiexec")
ALLOWED = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
CONFIG = TINY.__class__(**{**vars(TINY), "n_heads": 8, "n_kv_heads": 4, "vocab_size": 96})


def mpi(n, *words, ok=True):
    assert MPIEXEC, "the mpi tests need an MPI library: pip install mpich"
    command = [MPIEXEC, "-n", str(n), *words]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | ALLOWED
    )
    assert (ran.returncode == 0) == ok, ran.stderr
    return ran


@pytest.mark.parametrize("n", [2, 4])
def test_ranks_have_the_bits_of_the_emulation(n, tmp_path):
    """With 2 and 4 processes the logits are, bit for bit, those of 2 and 4 ranks in one."""
    write_hf(tmp_path / "m", to_hf_dict(CONFIG), synthetic.checkpoint(CONFIG))
    out = tmp_path / "a.json"
    words = ["golden", "answer", str(out), "--model", str(tmp_path / "m"), "--tokens", "9"]
    mpi(n, sys.executable, "-m", "llama_ref", *words)
    found = json.loads(out.read_text())
    model = lr.load(tmp_path / "m")
    emulated = run_ranks(model, n, lambda own, rank: make_answer(own, "m", 9))
    assert len({answer["logits"]["sha256"] for answer in emulated}) == 1
    assert found["logits"] == emulated[0]["logits"]
    assert found["taps"] == emulated[0]["taps"]


def test_a_text_is_written_by_the_first_rank_alone(tmp_path):
    """Both ranks draw the same tokens; one prints them, though no seed was given."""
    write_demo(tmp_path / "demo")
    words = ["generate", str(tmp_path / "demo"), "Hello", "--max-tokens", "20", "--json"]
    ran = mpi(2, sys.executable, "-m", "llama_ref", *words, "--temperature", "1.5")
    (line,) = ran.stdout.splitlines()
    assert len(json.loads(line)["ids"]) > 0
    greedy = [*words, "--temperature", "0"]
    alone = subprocess.run(
        [sys.executable, "-m", "llama_ref", *greedy], capture_output=True, text=True, check=True
    )
    split = mpi(2, sys.executable, "-m", "llama_ref", *greedy)
    assert json.loads(split.stdout)["ids"] == json.loads(alone.stdout)["ids"]


def test_a_prompt_from_standard_input_reaches_all_ranks(tmp_path):
    """The launcher gives it to the first rank alone; the others hear it from that one."""
    write_demo(tmp_path / "demo")
    words = ["generate", str(tmp_path / "demo"), "-", "--max-tokens", "5", "--temperature", "0"]
    command = [sys.executable, "-m", "llama_ref", *words, "--json"]
    how = {"input": "Hello", "capture_output": True, "text": True, "env": os.environ | ALLOWED}
    alone = subprocess.run(command, check=True, **how)
    split = subprocess.run([MPIEXEC, "-n", "2", *command], check=True, timeout=100, **how)
    assert json.loads(split.stdout)["ids"] == json.loads(alone.stdout)["ids"]


def test_a_rank_that_fails_ends_all_with_a_line(tmp_path):
    """A model that cannot be cut, a folder that is not there, another verb: no rank is left."""
    for words in (
        ["golden", "answer", str(tmp_path / "x.json"), "--model", "golden-tiny"],
        ["golden", "answer", str(tmp_path / "x.json"), "--model", str(tmp_path / "none")],
        ["doctor"],
    ):
        ran = mpi(3, sys.executable, "-m", "llama_ref", *words, ok=False)
        assert "ends all" in ran.stderr
        assert "Traceback" not in ran.stderr
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("tier", ["full", "fingerprint", "dump"])
def test_a_bundle_is_the_same_made_by_several(tmp_path, tier):
    """Over three processes, cases of two models give the files and the manifest of one process."""
    cases = "two,five,ragged-a,tied" if tier == "full" else "two,tied"
    words = ["golden", "make", "--model", "synthetic:golden-tiny?n_layers=1", "--tier", tier]
    module = [sys.executable, "-m", "llama_ref", *words, "--cases", cases]
    mpi(3, *module, str(tmp_path / "several"))
    subprocess.run([*module, str(tmp_path / "one")], check=True, capture_output=True)
    several, one = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("several", "one")
    )
    manifests = [json.loads(files.pop("manifest.json")) for files in (several, one)]
    assert manifests[0] == manifests[1]
    assert several == one


def test_making_over_processes_leaves_nothing_half_made(tmp_path):
    """Where a bundle stands, or a case is unknown, each process ends and nothing is written."""
    module = [sys.executable, "-m", "llama_ref", "golden", "make", str(tmp_path / "b")]
    ran = mpi(2, *module, "--cases", "none", ok=False)
    assert "case: expected one of" in ran.stderr
    assert not (tmp_path / "b").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    ran = mpi(2, *module, "--cases", "two", ok=False)
    assert "expected an empty one, or a bundle" in ran.stderr
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine.txt"]


MEASURE = """
import sys
import llama_ref as lr
from llama_ref import mpi
def resident():
    words = open("/proc/self/status").read().split()
    return sum(1024 * int(words[words.index(kind) + 1]) for kind in ("RssFile:", "RssAnon:"))
before = resident()
model = mpi.shared(lr.load(sys.argv[1]))
model.forward([1, 2, 3], model.new_cache(8))
with open(f"{sys.argv[2]}-{mpi.rank()}", "w") as file:  # what ranks print may be mixed
    file.write(str(resident() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident")
def test_each_rank_holds_its_share(tmp_path):
    """Of 300 MB of matrices each of two ranks has half in memory, and each of four a quarter."""
    sizes = {"d_model": 1024, "d_ff": 4096, "n_layers": 4, "vocab_size": 4096, "head_dim": 64}
    config = CONFIG.__class__(**{**vars(CONFIG), **sizes, "n_heads": 16})
    write_hf(tmp_path / "m", to_hf_dict(config), synthetic.checkpoint(config))
    whole = 4 * config.n_matrix_params
    for n in (1, 2, 4):
        mpi(n, sys.executable, "-c", MEASURE, str(tmp_path / "m"), str(tmp_path / f"{n}"))
        for rank in range(n):
            n_bytes = int((tmp_path / f"{n}-{rank}").read_text())
            assert whole / n * 0.9 < n_bytes < whole / n * 1.1 + 60e6
