"""Opening files that are none: what the system calls regular, and yet holds nothing."""

import io

import pytest

from llama_ref import files
from llama_ref.errors import BadFile


class NothingYet(io.BytesIO):
    """A file opened without blocking whose data has not come, as /proc/kmsg."""

    def __init__(self, descriptor, mode):
        self.descriptor = descriptor

    def fileno(self):
        return self.descriptor

    def read(self, n):
        return None


def test_a_file_that_has_nothing_yet_is_refused(tmp_path, monkeypatch):
    """A read that would have to wait gives None, and ends in an error of ours."""
    (tmp_path / "x.json").write_bytes(b"{}")
    monkeypatch.setattr(files.os, "fdopen", NothingYet)
    with pytest.raises(BadFile, match=r"x\.json: cannot be read: found nothing to read yet"):
        files.read_bytes(tmp_path / "x.json", limit=10)
