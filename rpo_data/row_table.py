"""Checked rows and rejects as Arrow tables on disk: built batch by batch, read back memory-mapped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data.check import flags, sides
from rpo_data.read import Fault, Record
from rpo_data.schemas.tables import PAIRS, REJECTS
from rpo_data.shapes import Row


@dataclass(slots=True)
class Kept:
    """A row that stays, with its record and that one's shape, its content hashes and its vector."""

    record: Record
    row: Row
    ids: dict[str, str | None]
    vector: list[float] | None
    shape: str


def rows_schema(with_vectors: bool) -> pa.Schema:
    """Schema of the table of checked rows: the pairs table plus what only some kinds of row have.

    `kind` is pair, tie or response; a response stands in `chosen`, with nothing in `rejected`.
    """
    text, number = pa.string(), pa.float64()
    more = [("chosen_id", text), ("rejected_id", text), ("kind", text)]
    more += [("label", pa.bool_()), ("score", number), ("rank", pa.int64())]
    vectors = [pa.field("vector", pa.list_(pa.float32()))] if with_vectors else []
    return pa.schema([*PAIRS.arrow_schema, *(pa.field(*column) for column in more), *vectors])


_VALUES = ("score_chosen", "score_rejected", "strength", "annotator", "language", "weight", "label", "score", "rank")


def rows_table(source: str, kept: list[Kept], schema: pa.Schema) -> pa.Table:
    """Rows of one source as a table of this schema."""
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for item in kept:
        prompt, chosen, *rejected = sides(item.row)
        row: dict[str, Any] = {column: getattr(item.row, column, None) for column in _VALUES} | item.ids
        row |= {
            "prompt": _stored(prompt),
            "chosen": _stored(chosen),
            "rejected": _stored(rejected[0]) if rejected else [],
            "kind": "tie" if getattr(item.row, "tie", False) else "pair" if rejected else "response",
            "source": source,
            "source_row": item.record.line,
            "flags": flags(item.row),
            "vector": item.vector,
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


def no_messages(count: int, kind: pa.DataType) -> pa.Array:
    """So many empty lists of messages."""
    return pa.array([[]] * count, type=_storage(kind)).cast(kind)


def rejects_table(source: str, faults: list[Fault]) -> pa.Table:
    """Faults of one source as rows of the rejects table."""
    rows = [
        {"code": f.code, "message": _printable(f.message), "file": source, "line": f.line, "raw": f.raw} for f in faults
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS.arrow_schema)


def _printable(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate (of a broken record's key, say) becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_batch(writer: Any, table: pa.Table) -> None:
    """Write a table as one batch, if it holds anything."""
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


def side_texts(rows: pa.Table, side: str, positions: np.ndarray) -> pl.Series:
    """The texts of one side (prompt, chosen or rejected) of the rows at these positions: contents, a line between two."""
    taken = take_rows(rows.select([side]), positions)[side].combine_chunks()
    contents = pa.LargeListArray.from_arrays(taken.offsets.cast(pa.int64()), taken.values.field("content"))
    return pl.Series(side, contents).list.join("\n", ignore_nulls=True)
