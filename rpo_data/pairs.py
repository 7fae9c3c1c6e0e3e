"""From log files to a table of checked rows on disk: the read and check stages, in one pass and in bounded memory."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rpo_data.check import check_batch, row_ids
from rpo_data.read import Fault, Record, read_records
from rpo_data.schemas.tables import PAIRS, REJECTS
from rpo_data.shapes import Candidate, ShapeError, detect_shape, to_candidate
from rpo_data.sources import Source

BATCH_ROWS = 1000
BATCH_CHARACTERS = 16 * 2**20
_PEEK = 1000

_ADVICE = {
    "missing_column": "name the columns as the shape has them",
    "missing_value": "fill it, or drop the record",
    "wrong_type": "write it as the shape has it, or drop the record",
    "no_turn_marker": "write whole dialogues from the first human turn to the last answer",
    "not_a_number": "write a text, or drop the record",
    "bad_vector": "write one list of finite numbers for each record",
}

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do (0: not known)."""


@dataclass
class RecordCounts:
    """Records of one source: read = used + rejected."""

    name: str
    read: int = 0
    used: int = 0
    rejected: int = 0


@dataclass
class _Batch:
    records: list[Record] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    vectors: list[list[float] | None] = field(default_factory=list)
    characters: int = 0


def rows_schema(with_vectors: bool) -> pa.Schema:
    """Schema of the table of checked rows: the pairs table plus content hashes of the responses (and given vectors)."""
    hashes = [pa.field("chosen_id", pa.string()), pa.field("rejected_id", pa.string())]
    vectors = [pa.field("vector", pa.list_(pa.float32()))] if with_vectors else []
    return pa.schema([*PAIRS.arrow_schema, *hashes, *vectors])


def collect_rows(
    sources: list[Source],
    folder: Path,
    *,
    shape: str = "auto",
    limit: int | None = None,
    vector_column: str | None = None,
    progress: Progress | None = None,
) -> list[RecordCounts]:
    """Read and check all sources; write `rows.arrow` and `rejects.arrow` (Arrow streams) into the folder.

    Args:
        sources: read in this order.
        folder: must exist.
        shape: auto (found for each source from its first records), hh or preference.
        limit: read this many records at most, over all sources.
        vector_column: column that holds the user's own prompt vectors.
        progress: called with (records read, 0).

    Returns:
        Counts for each source; the two files hold `used` and `rejected` lines in total.
    """
    counts = []
    left = limit
    dimension: list[int] = []
    schema = rows_schema(vector_column is not None)
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as rows_file,
        pa.OSFile(str(folder / "rejects.arrow"), "wb") as rejects_file,
        pa.ipc.new_stream(rows_file, schema) as rows,
        pa.ipc.new_stream(rejects_file, REJECTS.arrow_schema) as rejects,
    ):
        for source in sources:
            count = RecordCounts(source.name)
            counts.append(count)
            for batch, faults in _batches(source, shape, left, vector_column, dimension):
                kept = _check(source, batch, faults)
                _write(rows, _rows_table(source, kept, schema))
                _write(rejects, _rejects_table(source, faults))
                count.used += len(kept.records)
                count.rejected += len(faults)
                count.read = count.used + count.rejected
                if progress:
                    progress(sum(c.read for c in counts), 0)
            left = None if left is None else left - count.read
    return counts


def _batches(
    source: Source, shape: str, limit: int | None, vector_column: str | None, dimension: list[int]
) -> Iterator[tuple[_Batch, list[Fault]]]:
    """Batches of candidates with the faults met on the way."""
    if limit is not None and limit <= 0:
        return
    items = islice(read_records(source), limit)
    head = list(islice(items, _PEEK))
    shapes = (detect_shape(item.data) for item in head if isinstance(item, Record))
    default = next((found for found in shapes if found), "preference")  # for records that have none themselves
    batch, faults = _Batch(), []
    for item in chain(head, items):
        if isinstance(item, Fault):
            faults.append(item)
        else:
            _add(batch, faults, source, item, shape, default, vector_column, dimension)
        if len(batch.records) + len(faults) >= BATCH_ROWS or batch.characters >= BATCH_CHARACTERS:
            yield batch, faults
            batch, faults = _Batch(), []
    yield batch, faults


def _add(
    batch: _Batch,
    faults: list[Fault],
    source: Source,
    record: Record,
    shape: str,
    default: str,
    vector_column: str | None,
    dimension: list[int],
) -> None:
    try:
        # rows of two shapes in one file are each read as what they are, unless a shape was named
        candidate = to_candidate(record.data, (detect_shape(record.data) or default) if shape == "auto" else shape)
        vector = _vector(record.data, vector_column, dimension) if vector_column else None
    except ShapeError as error:
        faults.append(_fault(source, record, error.code, f"{error}: {_ADVICE[error.code]}"))
        return
    batch.records.append(record)
    batch.candidates.append(candidate)
    batch.vectors.append(vector)
    batch.characters += len(record.text or "") or 1000


def _vector(data: dict[str, Any], column: str, dimension: list[int]) -> list[float]:
    """The user's own vector of a record; the first one met sets the dimension for all."""
    if column not in data:
        raise ShapeError("missing_column", f"has no column '{column}' (it has: {', '.join(data) or 'none'})")
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(data[column], dtype=np.float64).astype(np.float32)  # as it is stored
    except (TypeError, ValueError, OverflowError):
        vector = np.empty((0, 0), dtype=np.float32)
    if vector.ndim != 1 or not vector.size:
        raise ShapeError("bad_vector", f"column '{column}' holds no list of numbers")
    dimension[:] = dimension or [vector.size]
    if vector.size != dimension[0]:
        raise ShapeError("bad_vector", f"column '{column}' has {vector.size} numbers where others have {dimension[0]}")
    if not np.isfinite(vector).all() or not vector.any():
        raise ShapeError("bad_vector", f"column '{column}' is all zero, or holds NaN or an infinite number")
    return vector.tolist()


def _check(source: Source, batch: _Batch, faults: list[Fault]) -> _Batch:
    """Move what fails a check from the batch to the faults; the rest comes back with its ids among the extras."""
    kept = _Batch()
    verdicts = check_batch(batch.candidates)
    for record, candidate, vector, refusal in zip(
        batch.records, batch.candidates, batch.vectors, verdicts, strict=True
    ):
        if refusal is not None:
            faults.append(_fault(source, record, refusal.code, refusal.sentence))
            continue
        try:
            candidate.extras.update(row_ids(candidate))
            "".join(str(value) for value in candidate.extras.values()).encode("utf-8")
        except UnicodeEncodeError:
            sentence = "a text holds half of a surrogate pair (\\ud800 to \\udfff alone): mend the escape"
            faults.append(_fault(source, record, "lone_surrogate", sentence))
            continue
        kept.records.append(record)
        kept.candidates.append(candidate)
        kept.vectors.append(vector)
    faults.sort(key=lambda fault: fault.line)
    return kept


def _fault(source: Source, record: Record, code: str, sentence: str) -> Fault:
    return Fault(record.line, code, f"{source.name}:{record.line}: {sentence}", record.raw())


def _rows_table(source: Source, batch: _Batch, schema: pa.Schema) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for record, candidate, vector in zip(batch.records, batch.candidates, batch.vectors, strict=True):
        row: dict[str, Any] = candidate.extras | {
            "prompt": _stored(candidate.prompt),
            "chosen": _stored(candidate.chosen),
            "rejected": _stored(candidate.rejected),
            "source": source.name,
            "source_row": record.line,
            "flags": [],
            "vector": vector,
        }
        for name, values in columns.items():
            values.append(row.get(name))
    arrays = [pa.array(columns[f.name], type=_storage(f.type)).cast(f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _stored(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as the table stores them: tool calls as JSON text."""
    return [
        m | {"tool_calls": json.dumps(m["tool_calls"], ensure_ascii=False, default=str)} if "tool_calls" in m else m
        for m in messages
    ]


def _storage(kind: pa.DataType) -> pa.DataType:
    """The same type without extension types, which Arrow cannot build from Python objects."""
    if pa.types.is_list(kind):
        return pa.list_(_storage(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _storage(f.type)) for f in kind])
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _rejects_table(source: Source, faults: list[Fault]) -> pa.Table:
    rows = [
        {"code": f.code, "message": _printable(f.message), "file": source.name, "line": f.line, "raw": f.raw}
        for f in faults
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS.arrow_schema)


def _printable(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate (of a broken record's key, say) becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _write(writer: Any, table: pa.Table) -> None:
    if table.num_rows:
        writer.write_table(table)


def open_rows(folder: Path) -> pa.Table:
    """The rows that `collect_rows` wrote, memory-mapped."""
    return _open_stream(folder / "rows.arrow")


def open_rejects(folder: Path) -> pa.Table:
    """The rejects that `collect_rows` wrote, memory-mapped."""
    return _open_stream(folder / "rejects.arrow")


def _open_stream(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return reader.read_all()


def take_rows(table: pa.Table, positions: np.ndarray) -> pa.Table:
    """Rows at these positions, in this order, touching only the batches that hold them.

    Arrow's own `take` joins all chunks of a text column first: memory then grows with the table, and 2 GiB is the end.
    """
    batches = table.to_batches()
    starts = np.concatenate([[0], np.cumsum([batch.num_rows for batch in batches])])
    order = np.argsort(positions, kind="stable")
    owner = np.searchsorted(starts, positions[order], side="right") - 1
    parts = []
    for number in np.unique(owner):
        local = positions[order][owner == number] - starts[number]
        parts.append(pa.Table.from_batches([batches[number].take(pa.array(local))]))
    taken = pa.concat_tables(parts) if parts else table.slice(0, 0)
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return taken.take(pa.array(back))
