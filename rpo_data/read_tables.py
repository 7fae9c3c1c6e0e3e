"""Records of tables: CSV, TSV, Parquet."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rpo_data.records import MAX_RECORD_BYTES, Fault, Record, corrupt, guarded
from rpo_data.sources import Source, inner_suffix
from rpo_data.streams import open_seekable, open_text


def read_csv(source: Source) -> Iterator[Record | Fault]:
    """Records of a CSV or TSV file.

    Raises:
        LogError: the file cannot be opened.
    """
    with open_text(source.path) as stream:
        yield from guarded(source.name, _csv_rows(source, stream))


def _csv_rows(source: Source, stream: BinaryIO) -> Iterator[Record | Fault]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if inner_suffix(source.path) == ".tsv" else ",", strict=True)
    try:
        header = next(filter(None, rows), None)
    except csv.Error as error:
        message = (
            f"{source.name}:{rows.line_num}: the header is not valid CSV, {error}: mend it, nothing can be read without"
        )
        yield Fault(rows.line_num, "broken_row", message, "")
        return
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


def read_parquet(source: Source) -> Iterator[Record | Fault]:
    """Records of a Parquet file.

    Raises:
        LogError: the file cannot be opened.
    """
    row = 0
    try:
        with open_seekable(source.path) as stream, pq.ParquetFile(stream) as file:
            if fault := _header_fault(source, file.schema_arrow.names):
                yield fault
                return
            for batch in file.iter_batches(batch_size=1000):
                for item in _parquet_rows(source, batch, row):
                    row += 1
                    yield item
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: names of columns that are no UTF-8
        yield corrupt(source.name, row + 1, error)


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
