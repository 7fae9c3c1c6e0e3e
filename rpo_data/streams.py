"""The bytes of a source: local or remote, plain or compressed."""

import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from rpo_data.errors import LogError
from rpo_data.remote import is_url, open_remote


@contextmanager
def open_bytes(path: str) -> Iterator[Any]:
    """A buffered stream of a file's bytes as they are, and with `peek`.

    Raises:
        LogError: the file cannot be opened.
    """
    if is_url(path):
        with open_remote(path) as (stream, _):
            yield stream
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - an error inside the block below is not ours to explain
    except OSError as error:
        raise LogError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    with file:
        yield file


@contextmanager
def open_seekable(path: str) -> Iterator[Any]:
    """A stream of a file's bytes that can seek; where the place cannot, of a copy on disk.

    Raises:
        LogError: the file cannot be opened.
    """
    if not is_url(path):
        with open_bytes(path) as file:
            yield file
        return
    with open_remote(path) as (stream, seekable):
        if seekable:
            yield stream
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            copy.seek(0)
            yield copy


@contextmanager
def open_text(path: str) -> Iterator[Any]:
    """A buffered binary stream of the file's text, uncompressed by what its first bytes say (not by its name).

    Raises:
        LogError: the file cannot be opened.
    """
    with open_bytes(path) as file, _uncompressed(file) as stream:
        yield stream


@contextmanager
def _uncompressed(file: Any) -> Iterator[Any]:
    magic = file.peek(4)[:4]
    if magic.startswith(b"\x1f\x8b"):
        with gzip.open(file) as stream:
            yield stream
    elif magic == b"\x28\xb5\x2f\xfd":
        yield io.BufferedReader(_ArrowRaw(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")))
    else:
        yield file


class _ArrowRaw(io.RawIOBase):
    """Lets Python's buffered reader read from an Arrow stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
