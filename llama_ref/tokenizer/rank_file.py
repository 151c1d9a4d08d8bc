"""Meta's tokenizer.model for Llama 3: one token a line, its bytes in base64 and its rank.

    IQ== 0
    Ig== 1
    …
    IHRoZQ== 279

A line that is lost or skipped shifts every id after it, and all special ones, so nothing is
skipped: the file is good if writing what was read gives the same lines, and the ranks are 0 to
n - 1. The order of lines is free.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from binascii import a2b_base64, b2a_base64

from llama_ref.errors import BadFile, LimitExceeded, UnknownFileWarning, shown
from llama_ref.files import recognise

MAX_FILE_BYTES = 16 * 2**20
MAX_TOKEN_BYTES = 1024
"""The longest token of Llama 3 has 128 bytes, all of them blanks."""

MAX_RANKS = 2**18
"""More than twice as many as Llama 3 has; a file of 16 MB could hold a million."""

N_RANKS = 128_000
OFFICIAL_SHA256 = {
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55": "Llama 3, 3.1, 3.2, 3.3",
}


def parse_ranks(data: bytes, *, file: str | os.PathLike[str]) -> dict[bytes, int]:
    """Read a rank file.

    Parameters
    ----------
    data : bytes
        The whole file.
    file : path-like
        Its name, for messages.

    Returns
    -------
    dict of bytes to int
        Every token and its rank, in the order of ranks.

    Raises
    ------
    BadFile
        If any line is not a token and its rank as they would be written, a token or rank occurs
        twice, a rank or one of the 256 single bytes is missing, or the file is another kind.
    LimitExceeded
        If it has more than 262,144 lines.

    Warns
    -----
    UnknownFileWarning
        If it has the 128,000 ranks of Llama 3, but not the content of the published file.
    """
    n_lines = data.count(b"\n")
    if n_lines > MAX_RANKS:
        if _other_kind(data):
            raise _first_bad_line(data, [], file)
        limit = f"at most {MAX_RANKS:,}"
        raise LimitExceeded("lines", expected=limit, found=f"{n_lines:,}", file=file)
    lines = data.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    try:
        ranks = dict(map(_token_and_rank, lines))
    except ValueError:
        ranks = {}
    written = [b"%b %d" % (b2a_base64(token, newline=False), ranks[token]) for token in ranks]
    is_sound = written == lines and b"" not in ranks and min(ranks.values()) >= 0
    if not is_sound or max(map(len, ranks)) > MAX_TOKEN_BYTES:
        raise _first_bad_line(data, lines, file)
    ranks = dict(sorted(ranks.items(), key=lambda item: item[1]))
    _check_complete(ranks, file)
    if len(ranks) == N_RANKS and hashlib.sha256(data).hexdigest() not in OFFICIAL_SHA256:
        warnings.warn(_unknown_file(data, file), UnknownFileWarning, stacklevel=4)
    return ranks


def _token_and_rank(line: bytes) -> tuple[bytes, int]:
    """Read one line leniently; what this forgives shows when the line is written again."""
    code, rank = line.split(b" ")
    return a2b_base64(code), int(rank)


def _first_bad_line(data: bytes, lines: list[bytes], file: str | os.PathLike[str]) -> BadFile:
    """Return the error for the first line that cannot stand in a rank file."""
    kind = "an empty file" if not data.strip() else _other_kind(data)
    if kind:
        return BadFile("rank file", expected="base64 and rank lines", found=kind, file=file)
    line_of: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        expected = _fault(line)
        token = line.split(b" ")[0]
        if expected is None and token in line_of:
            expected = f"a token other than that of line {line_of[token]}"
        if expected:
            return BadFile(f"line {number}", expected=expected, found=shown(line), file=file)
        line_of[token] = number
    return BadFile("rank file", expected="a token and its rank in each line", file=file)


def _fault(line: bytes) -> str | None:
    """Say what a line should be if it is not that."""
    fields = line.split(b" ")
    if len(fields) != 2:
        return "base64, one blank, rank"
    try:
        token = a2b_base64(fields[0])
    except ValueError:
        token = b""
    if not token or b2a_base64(token, newline=False) != fields[0]:
        return "a token in canonical base64"
    if len(token) > MAX_TOKEN_BYTES:
        return f"a token of at most {MAX_TOKEN_BYTES} bytes"
    if not (fields[1].isdigit() and len(fields[1]) < 20 and b"%d" % int(fields[1]) == fields[1]):
        return "a rank in plain decimal digits"
    return None


def _other_kind(data: bytes) -> str | None:
    """Name what is found in the place of a rank file."""
    if data.lstrip()[:1] in (b"{", b"["):
        return "JSON: a tokenizer.json keeps its name"
    if is_sentencepiece(data):
        return "a sentencepiece model, as Llama 2 has"
    return recognise(data) or ("binary data" if b"\0" in data[:4096] else None)


def is_sentencepiece(data: bytes) -> bool:
    r"""Return whether a file begins as a sentencepiece model does: its first piece, a record.

    Examples
    --------
    >>> is_sentencepiece(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    True
    >>> is_sentencepiece(b"IQ== 0\nIg== 1\n")
    False
    """
    record, piece = int.from_bytes(data[1:2], "big"), int.from_bytes(data[3:4], "big")
    return data[:1] == b"\n" and data[2:3] == b"\n" and 0 < piece < record


def _check_complete(ranks: dict[bytes, int], file: str | os.PathLike[str]) -> None:
    """Refuse ranks, in their order, that are not 0 to n - 1, or that leave a byte without token."""
    for place, (token, rank) in enumerate(ranks.items()):
        if rank != place:
            what = "written twice" if rank < place else "missing"
            raise BadFile(
                f"rank {min(rank, place)}",
                expected=f"the ranks 0 to {len(ranks) - 1}, each once",
                found=f"{what}, beside the token {shown(token)}",
                next_step="fetch the file again: a lost line shifts every id after it",
                file=file,
            )
    for byte in range(256):
        if bytes([byte]) not in ranks:
            raise BadFile(
                f"byte 0x{byte:02x}", expected="a token for every byte", found="none", file=file
            )


def _unknown_file(data: bytes, file: str | os.PathLike[str]) -> str:
    known = "; ".join(f"{digest} ({models})" for digest, models in OFFICIAL_SHA256.items())
    digest = hashlib.sha256(data).hexdigest()
    return f"{os.fspath(file)}: {N_RANKS:,} ranks, SHA-256 {digest}; known are {known}"
