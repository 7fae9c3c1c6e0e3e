"""Logs from standard input: kept in a temporary file while the program runs, since they are read more than once."""

import atexit
import re
import shutil
import sys
import tempfile
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from rpo_data.errors import LogError
from rpo_data.streams import open_text

_HEAD = 1 << 16
_WHOLE_OBJECT = re.compile(rb"^\{[^\n]*\}[ \t\r]*$", re.MULTILINE)


@cache
def standard_input() -> Path:
    """A file that holds all of standard input; it is read once, and the file goes when the program ends.

    Raises:
        LogError: standard input is closed or a terminal, or cannot be stored.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise LogError(
            "nothing comes in on standard input: pipe the logs in, as in: zcat logs.jsonl.gz | rpo-data lint -"
        )
    folder = Path(tempfile.mkdtemp(prefix="rpo-data-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return spool(sys.stdin.buffer, folder)


def spool(stream: BinaryIO, folder: Path) -> Path:
    """Copy a stream into a file of the folder; the ending of its name says what its first bytes are.

    Raises:
        LogError: the stream cannot be read, or the folder is full.
    """
    file = folder / "stdin"
    try:
        with file.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
    except OSError as error:
        raise LogError(
            f"standard input cannot be kept in {folder} ({error.strerror}): set TMPDIR to a larger disk"
        ) from error
    return file.rename(file.with_suffix(_ending(file)))


def _ending(file: Path) -> str:
    """JSON lines unless the content says otherwise: whatever is broken then costs one line."""
    with file.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return ".parquet"
    with open_text(str(file)) as stream:
        head = _head(stream).removeprefix(b"\xef\xbb\xbf").lstrip()
    first = head.partition(b"\n")[0]
    if head.startswith((b"{", b"[")):
        lines = head.startswith(b"{") and (b"\n" not in head or _WHOLE_OBJECT.search(head))
        return ".jsonl" if lines else ".json"
    if b"\t" in first:
        return ".tsv"
    return ".csv" if b"," in first else ".jsonl"


def _head(stream: Any) -> bytes:
    """The first bytes, as far as they can be read; what is torn is for the reader to say."""
    head = b""
    with suppress(EOFError, OSError, zlib.error, pa.ArrowException):
        while len(head) < _HEAD and (more := stream.read1(_HEAD)):
            head += more
    return head
