"""Writing a bundle: all of it or nothing, whatever happens in between. B14, rows 234 to 239."""

import os
import resource
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from llama_ref.errors import BadFile, BadRequest
from llama_ref.golden import Bundle, make
from tests.cli.commands import start

ONE_LAYER = "synthetic:golden-tiny?n_layers=1"
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.fixture
def old(one_layer, tmp_path):
    """A bundle that stands where another is to be written."""
    return Path(shutil.copytree(one_layer.path, tmp_path / "bundle"))


def content(folder):
    """Return the bytes of every file in a folder, without what a killed writer left behind."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".writing-")}


def left_behind(folder):
    return list(folder.glob(".writing-*"))


def writer(folder, *words, model=ONE_LAYER, **options):
    """Start a process that makes a bundle."""
    return start("golden", "make", folder, "--model", model, *words, **PIPES, **options)


def test_235_what_stands_there_is_not_replaced_unasked(old):
    """A bundle is replaced only on request, and the message says how."""
    before = content(old)
    with pytest.raises(BadRequest, match="found a bundle; overwrite=True, --overwrite replaces it"):
        make(ONE_LAYER, old, cases=["two"])
    assert content(old) == before


def test_235_on_request_the_new_one_takes_its_place(old):
    """Overwritten, the folder has the files of the new bundle and none of the old one's."""
    before = content(old)
    bundle = make(ONE_LAYER, old, cases=["two"], overwrite=True)
    assert [case.name for case in bundle.cases] == ["two"]
    assert set(content(old)) == {*bundle.manifest.files, "manifest.json"}
    assert not set(before) & set(bundle.manifest.files)


def test_235_a_dump_in_the_folder_is_not_the_bundles_to_remove(old):
    """Files that were never part of a bundle stay, even if they are safetensors."""
    (old / "mine.safetensors").write_bytes(b"precious")
    (old / "notes.txt").write_text("mine")
    make(ONE_LAYER, old, cases=["two"], overwrite=True)
    assert (old / "mine.safetensors").read_bytes() == b"precious"
    assert (old / "notes.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["link to a bundle", "dangling link", "file", "folder of others"])
def test_235_what_is_no_bundle_is_never_replaced(old, tmp_path, kind, overwrite):
    """A link, a file and a folder with something else in it stay as they are, asked or not."""
    path = tmp_path / "target"
    if kind == "link to a bundle":
        path.symlink_to(old)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "thesis.tex").write_text("mine")
    before = content(old)
    with pytest.raises(BadRequest, match="folder to write to"):
        make(ONE_LAYER, path, cases=["two"], overwrite=overwrite)
    assert content(old) == before and not (tmp_path / "nowhere").exists()
    assert kind != "file" or path.read_text() == "mine"
    assert kind != "folder of others" or [p.name for p in path.iterdir()] == ["thesis.tex"]


def test_235_an_empty_folder_is_filled(tmp_path):
    """A folder that was made for the bundle is taken."""
    (tmp_path / "b").mkdir()
    assert make(ONE_LAYER, tmp_path / "b", cases=["two"]).cases


def test_234_a_folder_that_is_missing_is_not_invented(tmp_path):
    """The parent has to exist: a misspelt path makes no tree of folders."""
    with pytest.raises(BadRequest, match="in one that exists"):
        make(ONE_LAYER, tmp_path / "a" / "b", cases=["two"])
    assert list(tmp_path.iterdir()) == []


def test_234_where_nothing_can_be_written_nothing_is_computed():
    """A place that refuses new folders is an error at once, and not after the passes."""
    told = []
    with pytest.raises(BadFile, match="cannot be written"):
        make(ONE_LAYER, "/proc/golden", cases=["two"], advance=told.append)
    assert told == []


def limited(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


@pytest.mark.parametrize("n_bytes", [0, 20_000, 150_000], ids=lambda n: f"{n} bytes")
def test_234_a_full_disk_leaves_the_old_bundle(old, n_bytes):
    """However much still fits, the old bundle is intact, nothing is left, and the code is 2."""
    before = content(old)
    process = writer(
        old, "--cases", "two,five", "--overwrite", preexec_fn=partial(limited, n_bytes)
    )
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "cannot be written" in errors.decode() and "Traceback" not in errors.decode()
    assert content(old) == before and not left_behind(old)


def test_234_a_full_disk_leaves_no_folder_where_none_was(tmp_path):
    """A bundle that could not be begun leaves no empty folder."""
    process = writer(tmp_path / "b", "--cases", "two", preexec_fn=partial(limited, 20_000))
    process.communicate(timeout=200)
    assert process.returncode == 2 and not (tmp_path / "b").exists()


def stopped(folder, number):
    """Stop a writer in the middle by a signal; return its exit code and what it said."""
    process = writer(folder, "--cases", "far", "--overwrite", model="golden-tiny")
    deadline = time.monotonic() + 200
    while not left_behind(folder):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    return process.returncode, errors.decode()


def test_238_an_interrupt_leaves_the_old_bundle(old):
    """Ctrl-C in the middle removes what was begun, keeps what was there, and is no traceback."""
    before = content(old)
    code, errors = stopped(old, signal.SIGINT)
    assert code == 130 and "Traceback" not in errors
    assert content(old) == before and not left_behind(old)


def test_238_an_interrupt_leaves_no_folder_where_none_was(tmp_path):
    """Ctrl-C while a first bundle is written leaves nothing at all."""
    (tmp_path / "b").mkdir()
    stopped(tmp_path / "b", signal.SIGINT)
    assert list((tmp_path / "b").iterdir()) == []


def test_234_a_writer_that_is_killed_leaves_the_old_bundle(old):
    """Killed outright, a writer leaves the old bundle whole, and the next one is not hindered."""
    before = content(old)
    code, _ = stopped(old, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert content(old) == before
    assert make(ONE_LAYER, old, cases=["two"], overwrite=True).cases


def test_236_of_two_writers_one_whole_bundle_wins(old):
    """Two at once leave the files of one of them, all of them, and nothing of the other."""
    both = [writer(old, "--cases", name, "--overwrite") for name in ("two", "decode")]
    for process in both:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    bundle = Bundle(old)
    assert [case.name for case in bundle.cases] in (["two"], ["decode"])
    assert set(content(old)) == {*bundle.manifest.files, "manifest.json"}
    assert not left_behind(old)


def test_237_who_has_the_old_bundle_open_keeps_it(old):
    """The files are new ones: what another process has mapped stays what it was."""
    opened = Bundle(old)
    (case,) = opened.cases
    arrays = {tap: opened.truth(case, tap) for tap in opened.taps(case)}
    before = {tap: array.copy() for tap, array in arrays.items()}
    make(ONE_LAYER, old, cases=["five"], seed=5, overwrite=True)
    assert all(np.array_equal(arrays[tap], before[tap]) for tap in before)
    assert not np.array_equal(Bundle(old).truth(case, "logits"), before["logits"])


def test_a_reader_never_sees_half_a_bundle(old):
    """While bundles replace each other, whoever opens one gets a whole one, or is told to retry."""
    process = writer(old, "--cases", "two", "--overwrite")
    seen = set()
    while process.poll() is None:
        try:
            seen.add(tuple(case.name for case in Bundle(old).cases))
        except BadFile:  # the manifest was read before the exchange, its files are gone after it
            seen.add("exchanged")
    process.communicate()
    assert seen <= {("five",), ("two",), "exchanged"} and ("five",) in seen


def test_files_are_as_readable_as_any_other(tmp_path):
    """A bundle is not private to who made it: its files have the mode of the umask."""
    before = os.umask(0o022)
    try:
        bundle = make(ONE_LAYER, tmp_path / "b", cases=["two"])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in bundle.path.iterdir()} == {0o644}
    assert bundle.path.stat().st_mode & 0o777 == 0o755
