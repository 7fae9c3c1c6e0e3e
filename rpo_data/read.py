"""Read log files record by record. Memory holds one record (or one Parquet batch) at a time, however large the file.

What cannot be read comes out as a `Fault` with its place, and reading goes on behind it where the format allows.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from rpo_data.errors import LogError
from rpo_data.sources import Source, inner_suffix

MAX_RECORD_BYTES = 64 * 2**20
"""A longer line or JSON value is taken for something else than a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """One raw log record: `line` counts from 1: lines of JSON lines and CSV, records of all else."""

    line: int
    data: Any
    text: str | None = None

    def raw(self) -> str:
        """The record as text: as it stood in the file, or as JSON where the file was no text."""
        if self.text is not None:
            return self.text
        return json.dumps(self.data, ensure_ascii=True, default=str)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that could not be read, or not be used: a code of `schemas/reasons.py` and the whole sentence."""

    line: int
    code: str
    message: str
    raw: str


def read_records(source: Source) -> Iterator[Record | Fault]:
    """All records of one source, in file order; an empty source gives one `empty_file` fault.

    Raises:
        LogError: the file or Hub dataset cannot be opened at all.
    """
    empty = True
    for item in _READERS[source.kind](source):
        empty = False
        yield item
    if empty:
        yield Fault(0, "empty_file", f"{source.name} holds no record: leave it out", "")


def content_hash(source: Source) -> str:
    """xxh3-128 of every byte the source holds, 32 hex digits (for a Hub dataset: of its local Arrow files).

    Raises:
        LogError: a file cannot be read.
    """
    if source.kind == "hub":
        files = [Path(part["filename"]) for split in _hub_splits(source) for part in split.cache_files]
    else:
        files = sorted(Path(source.path).glob("*.arrow")) if source.kind == "dataset" else [Path(source.path)]
    digest = xxhash.xxh3_128()
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise LogError(f"{file} cannot be read ({error.strerror}): check its permissions") from error
    return digest.hexdigest()


# -- JSON ---------------------------------------------------------------------------------------------------------------


def _read_json(source: Source) -> Iterator[Record | Fault]:
    with _open(source) as stream:
        yield from _guarded(source, _json_items(source, stream))


def _json_items(source: Source, stream: Any) -> Iterator[Record | Fault]:
    start = stream.peek(1 << 14).lstrip(b"\xef\xbb\xbf \t\r\n")
    # a first line that is a whole object means JSON lines, whatever the ending says
    lines = not start.startswith(b"[") and (
        inner_suffix(source.path) != ".json" or re.match(rb"\{[^\n]*\}[ \t\r]*(\n|$)", start) is not None
    )
    yield from _json_lines(source, stream) if lines else _json_values(source, stream)


def _json_lines(source: Source, stream: BinaryIO) -> Iterator[Record | Fault]:
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES):
        number += 1
        if len(line) >= MAX_RECORD_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield _too_long(source, number, line)
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield _json_record(source, number, line.rstrip(b"\r\n"))


_STRUCTURE = re.compile(rb'"(?:[^"\\\n]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb'"(?:[^"\\\n]|\\.)*"?|[^,\s]+')
_OPENED_BY = {b"}": b"{", b"]": b"["}


def _json_values(source: Source, stream: BinaryIO) -> Iterator[Record | Fault]:
    """Objects of one JSON array, or written one after the other over several lines; records are counted from 1.

    A broken record costs only itself where its last brace is there; else everything up to the end is one fault.
    """
    for number, text in enumerate(_json_pieces(stream), start=1):
        if len(text) > MAX_RECORD_BYTES:
            yield _too_long(source, number, text)
        else:
            yield _json_record(source, number, text)


def _json_pieces(stream: BinaryIO) -> Iterator[bytes]:
    """The text of each value, cut where its brackets close; whatever stands between two of them, too."""
    buffer, position, piece = b"", 0, 0  # piece: where the value (or the gap between two values) begins
    opened: list[bytes] = []
    first = True
    while chunk := stream.read(1 << 20):
        buffer = buffer[piece:] + chunk
        position, piece = position - piece, 0
        for token in _STRUCTURE.finditer(buffer, position):
            text = token.group()
            if text[:1] == b'"' and token.end() == len(buffer):
                break  # perhaps half a string: look again with the next chunk behind it
            position = token.end()
            if text in (b"[", b"{"):
                if not opened:
                    yield from _scalars(buffer[piece : token.start()])
                    piece = token.start()
                if first and text == b"[":
                    first, piece = False, position  # the array of records itself
                    continue
                first = False
                opened.append(text)
            elif text in _OPENED_BY:
                if not opened:
                    yield from _scalars(buffer[piece : token.start()])
                    piece = position
                    continue
                # a bracket that closes an outer one closes what was left open inside; a stray "]" ends a broken record
                while opened and opened.pop() != _OPENED_BY[text]:
                    pass
                if not opened:
                    yield buffer[piece:position]
                    piece = position
        if len(buffer) - piece > MAX_RECORD_BYTES:
            yield buffer[piece:]
            return
    yield from [buffer[piece:]] if opened else _scalars(buffer[piece:])


def _scalars(gap: bytes) -> Iterator[bytes]:
    """What stands where a record should: nothing, or values that are none."""
    return (match.group() for match in _SCALAR.finditer(gap.removeprefix(b"\xef\xbb\xbf")))


def _json_record(source: Source, number: int, line: bytes) -> Record | Fault:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{source.name}:{number}: byte {error.start + 1} is not valid UTF-8: export the logs as UTF-8"
        return Fault(number, "invalid_utf8", message, line.decode("utf-8", "backslashreplace"))
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        detail = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return Fault(
            number, "broken_json", f"{source.name}:{number}: not valid JSON ({detail}): mend or drop the line", text
        )
    if not isinstance(data, dict):
        message = f"{source.name}:{number}: a record must be a JSON object, this is {_type_name(data)}: wrap or drop it"
        return Fault(number, "not_an_object", message, text)
    return Record(number, data, text)


def _too_long(source: Source, number: int, line: bytes) -> Fault:
    message = (
        f"{source.name}:{number}: longer than {MAX_RECORD_BYTES // 2**20} MiB without a line end: "
        "write one record a line (JSON lines)"
    )
    return Fault(number, "line_too_long", message, line[:1000].decode("utf-8", "backslashreplace"))


def _type_name(value: Any) -> str:
    names = {
        str: "a text",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return names.get(type(value), "null")


# -- tables -------------------------------------------------------------------------------------------------------------


def _read_csv(source: Source) -> Iterator[Record | Fault]:
    with _open(source) as stream:
        yield from _guarded(source, _csv_rows(source, stream))


def _csv_rows(source: Source, stream: BinaryIO) -> Iterator[Record | Fault]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if inner_suffix(source.path) == ".tsv" else ",", strict=True)
    header = next(rows, None)
    if header is not None and (fault := _header_fault(source, header)):
        yield fault
        return
    line = rows.line_num + 1
    while header is not None:
        try:
            row = next(rows, None)
        except csv.Error as error:
            lost = " (a quote opened here is never closed, what follows is lost)" if "end of data" in str(error) else ""
            message = f"{source.name}:{line}: not valid CSV, {error}{lost}: mend or drop the row"
            yield Fault(line, "broken_row", message, "")
            line = rows.line_num + 1
            continue
        if row is None:
            return
        if row:
            yield _csv_record(source, line, header, row)
        line = rows.line_num + 1


def _header_fault(source: Source, columns: list[str]) -> Fault | None:
    """Why a table's columns cannot be used, if they cannot."""
    text = ",".join(columns)
    printable = text.encode("utf-8", "backslashreplace").decode()
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if printable != text:
        return Fault(1, "invalid_utf8", f"{source.name}:1: the header is not valid UTF-8: export as UTF-8", printable)
    if twice:
        message = f"{source.name}:1: column '{twice[0]}' is there twice: rename or drop one of them"
        return Fault(1, "duplicate_column", message, text)
    return None


def _csv_record(source: Source, line: int, header: list[str], row: list[str]) -> Record | Fault:
    joined = ",".join(row)
    printable = joined.encode("utf-8", "backslashreplace").decode()
    if len(row) != len(header):
        message = (
            f"{source.name}:{line}: {len(row)} cells where the header has {len(header)}: quote cells that hold commas"
        )
        return Fault(line, "broken_row", message, printable)
    if printable != joined:
        return Fault(
            line, "invalid_utf8", f"{source.name}:{line}: not valid UTF-8: export the logs as UTF-8", printable
        )
    data: dict[str, Any] = {}
    for column, cell in zip(header, row, strict=True):
        try:
            data[column] = json.loads(cell) if cell.startswith("[{") and cell.endswith("}]") else cell
        except ValueError:
            message = (
                f"{source.name}:{line}: '{column}' looks like a Python list: write message lists as JSON (json.dumps)"
            )
            return Fault(line, "broken_row", message, joined)
    return Record(line, data)


def _read_parquet(source: Source) -> Iterator[Record | Fault]:
    row = 0
    try:
        with pq.ParquetFile(source.path) as file:
            if fault := _header_fault(source, file.schema_arrow.names):
                yield fault
                return
            for batch in file.iter_batches(batch_size=1000):
                for item in _parquet_rows(source, batch, row):
                    row += 1
                    yield item
    except (pa.ArrowException, OSError) as error:
        yield _corrupt(source, row + 1, error)


def _parquet_rows(source: Source, batch: pa.RecordBatch, before: int) -> Iterator[Record | Fault]:
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):  # a text that is no UTF-8, or a date that Python cannot hold: find the row
        rows = None
    if rows is not None:
        yield from (Record(before + place, data) for place, data in enumerate(rows, start=1))
        return
    for place in range(batch.num_rows):
        number, data = before + place + 1, {}
        try:
            for column in batch.schema.names:
                value = batch.column(column)[place]
                data[column] = value.cast(pa.int64()).as_py() if pa.types.is_timestamp(value.type) else value.as_py()
            yield Record(number, data)
        except (ValueError, OverflowError) as error:
            message = f"{source.name}:{number}: '{column}' cannot be read ({error}): mend or drop the row"
            yield Fault(number, "invalid_utf8", message, "")


def _read_dataset(source: Source) -> Iterator[Record | Fault]:
    from datasets import load_from_disk

    try:
        rows = load_from_disk(source.path)
    except Exception as error:  # datasets raises many kinds here, down to pyarrow's own
        yield _corrupt(source, 1, error)
        return
    for number, data in enumerate(rows, start=1):
        yield Record(number, data)


def _read_hub(source: Source) -> Iterator[Record | Fault]:
    number = 0
    for split in _hub_splits(source):
        for data in split:
            number += 1
            yield Record(number, data)


def _hub_splits(source: Source) -> list[Any]:
    from datasets import load_dataset

    try:
        splits = load_dataset(source.path)
    except Exception as error:  # network, authentication and format errors of three libraries
        first_line = str(error).strip().split("\n", 1)[0]
        raise LogError(
            f"dataset {source.path} cannot be loaded from the Hub ({first_line}): "
            "check the name and the connection; there is no file or folder of that name here either"
        ) from error
    return [splits[name] for name in sorted(splits)]


# -- bytes --------------------------------------------------------------------------------------------------------------


@contextmanager
def _open(source: Source) -> Iterator[Any]:
    """A buffered binary stream of the file's text, uncompressed by what its first bytes say (not by its name).

    Raises:
        LogError: the file cannot be opened.
    """
    try:
        file = open(source.path, "rb")  # noqa: SIM115 - an error inside the block below is not ours to explain
    except OSError as error:
        raise LogError(f"{source.path} cannot be read ({error.strerror}): check its permissions") from error
    with file:
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


def _guarded(source: Source, items: Iterator[Record | Fault]) -> Iterator[Record | Fault]:
    """Turn the error of a torn or damaged file into a last fault; what was read before it counts."""
    line = 0
    try:
        for item in items:
            line = item.line
            yield item
    except (EOFError, zlib.error, OSError, pa.ArrowException) as error:
        if isinstance(error, EOFError) or "runcated" in str(error):
            message = f"{source.name}:{line + 1}: the compressed file ends too early: copy it again"
            yield Fault(line + 1, "truncated_file", message, "")
        else:
            yield _corrupt(source, line + 1, error)


def _corrupt(source: Source, line: int, error: Exception) -> Fault:
    first_line = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return Fault(
        line, "corrupt_file", f"{source.name}:{line}: cannot be read from here on ({first_line}): export it again", ""
    )


_READERS: dict[str, Callable[[Source], Iterator[Record | Fault]]] = {
    "json": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "dataset": _read_dataset,
    "hub": _read_hub,
}
