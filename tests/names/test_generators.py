"""The page "Synthetic weights" holds complete generators: they run, and compute our weights.

What is compared are the numbers of `llama_ref.checkpoint.synthetic` and those that the code on the
page prints, so neither is measured by itself. Python is always run, the others where their compiler
or interpreter is on the machine, which the names of the tests tell. Continuous integration, which
sets LLAMA_REF_REQUIRE_REAL=1, runs C in any case.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.checkpoint.counter_hash import hash_blocks, keys

PAGE = Path(__file__).resolve().parents[2] / "docs" / "synthetic-weights.md"
TEXT = PAGE.read_text(encoding="utf-8")
MOST_LINES = 15

# Each reads lines "what name seed index x y" and prints a number for each.
DRIVERS = {
    "python": """
import sys
for line in sys.stdin:
    what, name, seed, i, x, y = line.split()
    bits = h(name, int(seed), int(i))
    if what == "element": print(element(bits, int(y)))
    if what == "scaled": print(element(bits, exponent(int(x), float(y))))
    if what == "gain": print(norm_gain(bits))
    if what == "token": print(token(bits, int(x)))
""",
    "c": r"""
#include <stdio.h>
#include <string.h>
int main(void) {
  char what[16], name[128]; uint32_t seed, i, x; double y;
  while (scanf("%15s %127s %u %u %u %lf", what, name, &seed, &i, &x, &y) == 6) {
    uint32_t bits = h(name, seed, i);
    if (!strcmp(what, "element")) printf("%.9g\n", element(bits, (int)y));
    if (!strcmp(what, "scaled")) printf("%.9g\n", element(bits, exponent(x, y)));
    if (!strcmp(what, "gain")) printf("%.9g\n", norm_gain(bits));
    if (!strcmp(what, "token")) printf("%u\n", token(bits, x));
  }
}
""",
    "rust": """
fn main() {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let bits = h(words[1], words[2].parse().unwrap(), words[3].parse().unwrap());
        let (x, y): (u32, f64) = (words[4].parse().unwrap(), words[5].parse().unwrap());
        match words[0] {
            "element" => println!("{}", element(bits, y as i32)),
            "scaled" => println!("{}", element(bits, exponent(x as f64, y))),
            "gain" => println!("{}", norm_gain(bits)),
            _ => println!("{}", token(bits, x)),
        }
    }
}
""",
    "javascript": r"""
for (const line of require("fs").readFileSync(0, "utf8").trim().split("\n")) {
  const [what, name, seed, i, x, y] = line.split(" ");
  const bits = h(name, +seed, +i);
  if (what === "element") console.log(element(bits, +y));
  if (what === "scaled") console.log(element(bits, exponent(+x, +y)));
  if (what === "gain") console.log(normGain(bits));
  if (what === "token") console.log(token(bits, +x));
}
""",
}
COMPILERS = {
    "c": ("generator.c", ["cc", "-std=c11", "-Wall", "-Werror", "-O2", "{}", "-lm", "-o", "run"]),
    "rust": ("generator.rs", ["rustc", "-D", "warnings", "{}", "-o", "run"]),
}
TOOLS = {"python": sys.executable, "c": "cc", "rust": "rustc", "javascript": "node"}
LANGUAGES = [name for name in DRIVERS if shutil.which(TOOLS[name])]
if os.environ.get("LLAMA_REF_REQUIRE_REAL") and "c" not in LANGUAGES:
    LANGUAGES.append("c")  # and fail


def code(language):
    """Return the generator in a language, as it stands on the page."""
    return re.search(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[1]


def rows(first_column):
    """Return the rows of the table whose first heading that is, without their back quotes."""
    table = re.search(rf"^\| {first_column} \|.*\n\|[-:| ]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)[1]
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in table.splitlines()]


@pytest.fixture(scope="module", params=LANGUAGES)
def generator(request, tmp_path_factory):
    """The generator of one language, as a function of requests."""
    language, folder = request.param, tmp_path_factory.mktemp("generator")
    source = code(language) + DRIVERS[language]
    if language in COMPILERS:
        file, words = COMPILERS[language]
        (folder / file).write_text(source, encoding="utf-8")
        words = [word.format(file) for word in words]
        built = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
        assert built.returncode == 0, built.stderr
        command = [str(folder / "run")]
    elif language == "javascript":
        (folder / "generator.js").write_text(source, encoding="utf-8")
        command = ["node", str(folder / "generator.js")]
    else:
        command = [sys.executable, "-c", source]

    def run(requests):
        lines = "".join(" ".join(map(str, request)) + "\n" for request in requests)
        ran = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
        return np.array(ran.stdout.split(), np.float64)

    return run


# name, shape of the whole tensor, row, gain of its kind
MATRICES = [
    ("lm_head.weight", (128_256, 4096), 77, 2.0),
    ("model.layers.0.self_attn.q_proj.weight", (3072, 3072), 3071, 2.0),
    ("model.layers.5.self_attn.k_proj.weight", (1024, 4096), 1000, 1.2),
    ("model.layers.5.self_attn.v_proj.weight", (1024, 4096), 0, 1.0),
    ("model.layers.31.self_attn.o_proj.weight", (4096, 4096), 2048, 0.5),
    ("model.layers.9.mlp.gate_proj.weight", (896, 256), 895, 1.5),
    ("model.layers.9.mlp.up_proj.weight", (53248, 16384), 53247, 1.0),
    ("model.layers.125.mlp.down_proj.weight", (16384, 53248), 16383, 0.5),
    # Indices around the largest of 405B, and up to the last that the hash can count.
    ("lm_head.weight", (2**28, 16), 2101346303 // 16, 2.0),
    ("model.layers.0.self_attn.q_proj.weight", (2**28, 16), 2**28 - 1, 2.0),
]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_matrices_are_ours_bit_for_bit(generator, seed):
    """Rows of every kind of matrix, of real widths and at the highest indices, are the same."""
    requests, expected = [], []
    for name, shape, row, gain in MATRICES:
        columns = min(shape[1], 300)
        first = row * shape[1]
        requests += [("scaled", name, seed, first + i, shape[1], gain) for i in range(columns)]
        expected.append(synthetic.tensor(name, shape, seed, row, row + 1)[0, :columns])
    found = generator(requests).astype(np.float32)
    assert found.tobytes() == np.concatenate(expected).tobytes()


def test_embedding_is_ours_bit_for_bit(generator):
    """The embedding has the exponent 12 whatever its width."""
    name = "model.embed_tokens.weight"
    requests = [("element", name, 4, 50 * 4096 + i, 0, 12) for i in range(200)]
    expected = synthetic.tensor(name, (128_256, 4096), 4, 50, 51)[0, :200]
    assert generator(requests).astype(np.float32).tobytes() == expected.tobytes()


def test_gains_are_ours_bit_for_bit(generator):
    """Gains of norms are the same."""
    name = "model.layers.125.post_attention_layernorm.weight"
    requests = [("gain", name, 2, i, 0, 0) for i in range(1000)]
    expected = synthetic.tensor(name, (16384,), 2)[:1000]
    assert generator(requests).astype(np.float32).tobytes() == expected.tobytes()


def test_token_ids_are_ours(generator):
    """Token ids are the same for small vocabularies and the largest."""
    for vocab_size in (97, 1024, 128_256, 2**32 - 1):
        requests = [("token", "tokens", 6, i, vocab_size, 0) for i in range(100)]
        expected = synthetic.token_ids(100, vocab_size, 6)
        assert generator(requests).astype(np.int64).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "n"), [("model.norm.weight", 3), ("model.embed_tokens.weight", 1)]
)
def test_outlier_channels_are_ours(generator, name, n):
    """The channels that stand out are the last hashes of the tensor's name, modulo the width."""
    requests = [("token", name, 1, 2**32 - 1 - j, 4096, 0) for j in range(n)]
    plain = synthetic.tensor(name, (9, 4096) if n == 1 else (4096,), 1)
    ratio = synthetic.tensor(name, plain.shape, 1, variant="outliers") / np.where(plain, plain, 1)
    expected = np.flatnonzero(ratio.reshape(-1, 4096).max(axis=0) > 1)
    assert sorted(generator(requests).astype(int)) == expected.tolist()


@pytest.mark.parametrize("language", DRIVERS)
def test_a_generator_is_short(language):
    """Each generator on the page has at most fifteen lines, blank ones not counted."""
    assert len([line for line in code(language).splitlines() if line]) <= MOST_LINES


def test_hashes_on_the_page_are_ours():
    """The table of keys and hashes is what the library computes."""
    table = rows("name")
    assert len(table) >= 13
    for name, seed, k0, k1, *first in table:
        assert [f"{key:08x}" for key in keys(name, int(seed))] == [k0, k1]
        hashes = next(hash_blocks(name, int(seed), 0, 2))[1]
        assert [f"{found:08x}" for found in hashes.tolist()] == first


def test_integers_on_the_page_are_ours():
    """The table of integers is what `tensor` computes, power of two removed."""
    table = rows("matrix, seed 1")
    assert len(table) >= 8
    for name, index, integers in table:
        expected = [int(word) for word in integers.split()]
        row, column = divmod(int(index), 16)
        found = synthetic.tensor(name, (2**28, 16), 1, row, min(row + 2, 2**28)).reshape(-1)
        exponent = 12 if "embed" in name else {"q": 7, "l": 7, "d": 9}[name.split(".")[-2][0]]
        found = found[column : column + len(expected)] * 2.0**exponent
        assert found.tolist() == expected


def test_vectors_on_the_page_are_ours():
    """The tables of gains, token ids and outliers are what the library computes."""
    for name, index, values in rows("gain, seed 1"):
        expected = [float(word) for word in values.split()]
        first = int(index)
        assert synthetic.tensor(name, (4096,), 1)[first : first + 4].tolist() == expected
    for seed, vocab_size, ids in rows("tokens"):
        found = synthetic.token_ids(8, int(vocab_size), int(seed.removeprefix("seed ")))
        assert found.tolist() == [int(word) for word in ids.split()]
    for name, width, channels in rows("outliers, seed 1"):
        found, _ = synthetic.outlier_channels(name, int(width), 1)
        assert found == sorted(int(word) for word in channels.split())


def test_exponents_on_the_page_are_ours():
    """The table of exponents is what `tensor` scales by."""
    kinds = {2.0: "lm_head", 1.5: "gate_proj", 1.2: "k_proj", 1.0: "up_proj", 0.5: "o_proj"}
    for fan_in, *exponents in rows("fan_in"):
        for (gain, kind), exponent in zip(kinds.items(), exponents, strict=True):
            assert synthetic.GAINS[kind] == gain
            row = synthetic.tensor(f"{kind}.weight", (1, int(fan_in)))[0]
            integers = row * 2.0 ** int(exponent)
            assert (integers == np.round(integers)).all()
            assert 100 < np.abs(integers).max() <= 127
