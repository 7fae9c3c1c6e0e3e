"""From log files to a table of checked rows on disk: the read and check stages, in one pass and in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data.check import Refusal, check_batch, row_ids, sides
from rpo_data.errors import LogError
from rpo_data.read import Fault, Record, read_records
from rpo_data.row_table import Kept, rejects_table, rows_schema, rows_table, write_batch
from rpo_data.schemas.tables import REJECTS
from rpo_data.shapes import Row, Shape, ShapeError, claiming_shapes, get_shape, map_columns, read_rows, shapes
from rpo_data.shapes.base import kind
from rpo_data.sources import Source

BATCH_ROWS = 1000
BATCH_CHARACTERS = 16 * 2**20
_PEEK = 1000

_ADVICE = {
    "missing_column": "name the columns as the shape has them, or map them with --columns",
    "missing_value": "fill it, or drop the record",
    "wrong_type": "write it as the shape has it, or drop the record",
    "no_turn_marker": "write whole dialogues from the first human turn to the last answer",
    "not_a_number": "write a text, or drop the record",
    "bad_vector": "write one list of finite numbers for each record",
    "no_judgement": "judge it, or drop the record",
    "unknown_judgement": "write it as the shape has it, or drop the record",
    "unknown_shape": "map its columns with --columns, or name the shape with --format",
    "ambiguous_shape": "say which with --format",
}

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do (0: not known)."""


@dataclass(frozen=True)
class Reading:
    """How logs are read.

    Attributes:
        shape: name of the shape, or auto (found for each record).
        columns: ours -> theirs, for logs that name their columns otherwise.
        ignore: codes of checks that are not applied.
        vector_column: column that holds the user's own prompt vectors.
        redact: replace personal data by its kind.
        detect_language: fill in the language of each prompt where the logs do not name it.
    """

    shape: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    vector_column: str | None = None
    redact: bool = False
    detect_language: bool = False


@dataclass
class RecordCounts:
    """Records of one source: read = used + rejected; `rows` came of the used ones, `rows_rejected` of these failed a check.

    `shapes` counts records by shape; `types` says for each column how many values of each JSON type it holds.
    """

    name: str
    read: int = 0
    used: int = 0
    rejected: int = 0
    rows: int = 0
    rows_rejected: int = 0
    shapes: dict[str, int] = field(default_factory=dict)
    types: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class _Batch:
    """Records with their shapes and rows (and vectors), and the faults met on the way."""

    records: list[Record] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    rows: list[list[Row]] = field(default_factory=list)
    vectors: list[list[float] | None] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    characters: int = 0


def collect_rows(
    sources: list[Source],
    folder: Path,
    reading: Reading | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> list[RecordCounts]:
    """Read and check all sources; write `rows.arrow` and `rejects.arrow` (Arrow streams) into the folder.

    Args:
        sources: read in this order.
        folder: must exist.
        reading: how to read them.
        limit: read this many records at most, over all sources.
        progress: called with (records read, 0).

    Returns:
        Counts for each source; the two files hold `rows - rows_rejected` and `rejected + rows_rejected` lines in total.

    Raises:
        LogError: two shapes claim a source; a file or Hub dataset cannot be opened.
        RecipeError: there is no shape of that name.
    """
    reading = reading or Reading()
    counts = []
    left = limit
    dimension: list[int] = []
    schema = rows_schema(reading.vector_column is not None)
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as rows_file,
        pa.OSFile(str(folder / "rejects.arrow"), "wb") as rejects_file,
        pa.ipc.new_stream(rows_file, schema) as rows,
        pa.ipc.new_stream(rejects_file, REJECTS.arrow_schema) as rejects,
    ):
        for source in sources:
            count = RecordCounts(source.name)
            counts.append(count)
            for kept, faults in judged_rows(source, reading, count, limit=left, dimension=dimension):
                write_batch(rows, rows_table(source.name, kept, schema))
                write_batch(rejects, rejects_table(source.name, faults))
                if progress:
                    progress(sum(c.read for c in counts), 0)
            left = None if left is None else max(left - count.read, 0)
    return counts


def judged_rows(
    source: Source,
    reading: Reading,
    count: RecordCounts,
    *,
    limit: int | None = None,
    items: Iterator[Record | Fault] | None = None,
    dimension: list[int] | None = None,
) -> Iterator[tuple[list[Kept], list[Fault]]]:
    """The rows of a source that stay and the faults, batch by batch; `count` is kept up to date.

    Args:
        source: where the records are.
        reading: how to read them.
        count: is added to.
        limit: read this many records at most.
        items: these records instead of all of the source; the source's first ones still say what is read as what.
        dimension: of the user's own vectors, over several sources.

    Raises:
        LogError: two shapes claim the source; a file or Hub dataset cannot be opened.
        RecipeError: there is no shape of that name.
    """
    records = islice(read_records(source) if items is None else items, limit)
    first = None if items is None else read_records(source)
    for batch in _batches(source, reading, records, first, [] if dimension is None else dimension, count):
        yield _check(source, batch, reading, count), batch.faults


def _batches(
    source: Source,
    reading: Reading,
    items: Iterator[Record | Fault],
    first: Iterator[Record | Fault] | None,
    dimension: list[int],
    count: RecordCounts,
) -> Iterator[_Batch]:
    """Batches of the items; a default shape is that of the first ones, or of those of `first` where it is given."""
    head: list[Record | Fault] = []
    mapping = {**source.columns, **reading.columns}
    named = source.shape if reading.shape == "auto" and source.shape else reading.shape
    if named != "auto":
        shape_of = _by_name(named)
    else:
        head = list(islice(items, _PEEK)) if first is None else []
        shape_of = _by_claim(source, _default_shape(source, head if first is None else islice(first, _PEEK), mapping))
    batch = _Batch()
    for item in chain(head, items):
        if isinstance(item, Fault):
            batch.faults.append(item)
        else:
            _add(batch, source, item, mapping, shape_of, reading, dimension, count)
        if len(batch.records) + len(batch.faults) >= BATCH_ROWS or batch.characters >= BATCH_CHARACTERS:
            yield batch
            batch = _Batch()
    yield batch


def _default_shape(source: Source, head: Iterable[Record | Fault], mapping: Mapping[str, str]) -> str | None:
    """The shape of the first records that have one, for records that have none themselves.

    Raises:
        LogError: two shapes claim a record.
    """
    default, texts = None, False
    for item in head:
        if isinstance(item, Record):
            data = map_columns(item.data, mapping)
            claims = claiming_shapes(data)
            if len(claims) > 1:
                raise LogError(
                    f"{source.name}:{item.line} could be read as {' or as '.join(claims)}: say which with --format"
                )
            default = default or next(iter(claims), None)
            texts = texts or "chosen" in data or "rejected" in data
    return default or ("preference" if texts else None)


def _by_name(name: str) -> Callable[[Mapping[str, Any]], Shape]:
    shape = get_shape(name)
    return lambda data: shape


def _by_claim(source: Source, default: str | None) -> Callable[[Mapping[str, Any]], Shape]:
    """Rows of two shapes in one file are each read as what they are."""

    def find(data: Mapping[str, Any]) -> Shape:
        claims = claiming_shapes(data)
        if len(claims) > 1:
            raise ShapeError("ambiguous_shape", f"could be read as {' or as '.join(claims)}")
        name = claims[0] if claims else default
        if name is None:
            columns = ", ".join(list(map(str, data))[:8]) or "none"
            raise ShapeError("unknown_shape", f"has no shape that is known (its columns: {columns}{_nearest(data)})")
        return get_shape(name)

    return find


def _nearest(data: Mapping[str, Any]) -> str:
    """A hint: the shape that shares most columns with a record, and those it lacks."""
    needs = [(shape.name, need) for shape in shapes().values() for need in shape.needs]
    name, need = max(needs, key=lambda known: len(set(known[1]) & set(data)) / len(known[1]))
    missing = [column for column in need if column not in data]
    return f"; {name} also needs {', '.join(missing)}" if missing and len(missing) < len(need) else ""


def _add(
    batch: _Batch,
    source: Source,
    record: Record,
    mapping: Mapping[str, str],
    shape_of: Callable[[Mapping[str, Any]], Shape],
    reading: Reading,
    dimension: list[int],
    count: RecordCounts,
) -> None:
    for column, value in record.data.items():
        seen = count.types.setdefault(column, {})
        seen[kind(value)] = seen.get(kind(value), 0) + 1
    try:
        data = map_columns(record.data, mapping) if mapping else record.data
        shape = shape_of(data)
        rows = read_rows(data, shape)
        vector = _vector(data, reading.vector_column, dimension) if reading.vector_column else None
    except ShapeError as error:
        batch.faults.append(_fault(source, record, error.code, f"{error}: {_ADVICE[error.code]}"))
        return
    count.shapes[shape.name] = count.shapes.get(shape.name, 0) + 1
    batch.records.append(record)
    batch.shapes.append(shape.name)
    batch.rows.append(rows)
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


def _check(source: Source, batch: _Batch, reading: Reading, count: RecordCounts) -> list[Kept]:
    """The rows that stay; the others go to the batch's faults, a record none of whose rows stays as one."""
    if reading.redact:
        _redact(batch)
    if reading.detect_language:
        _detect_language(batch)
    verdicts = iter(check_batch(list(chain.from_iterable(batch.rows)), reading.ignore))
    kept: list[Kept] = []
    rejected = len(batch.faults)
    for record, shape, rows, vector in zip(batch.records, batch.shapes, batch.rows, batch.vectors, strict=True):
        refusals, stay = [], []
        for row in rows:
            refusal, ids = next(verdicts), None
            if refusal is None:
                ids = _ids(row)
                refusal = None if ids else Refusal("lone_surrogate", _SURROGATE)
            if refusal is not None:
                refusals.append(_fault(source, record, refusal.code, refusal.sentence))
            elif ids:
                stay.append(Kept(record, row, ids, vector, shape))
        if not stay:
            rejected += 1
            batch.faults.append(refusals[0])
            continue
        kept += stay
        batch.faults += refusals
        count.used += 1
        count.rows += len(rows)
        count.rows_rejected += len(refusals)
    count.rejected += rejected
    count.read = count.used + count.rejected
    batch.faults.sort(key=lambda fault: fault.line)
    return kept


_SURROGATE = "a text holds half of a surrogate pair (\\ud800 to \\udfff alone): mend the escape"


def _ids(row: Row) -> dict[str, str | None] | None:
    """Content hashes of a row; None where a text holds half of a surrogate pair."""
    try:
        f"{row.annotator}{row.language}".encode()
        prompt, chosen, *rejected = sides(row)
        return row_ids(prompt, chosen, rejected[0] if rejected else None)
    except UnicodeEncodeError:
        return None


def _redact(batch: _Batch) -> None:
    from rpo_data.personal import redact

    for row in chain.from_iterable(batch.rows):
        for side in sides(row):
            for message in side:
                if message.get("content"):
                    message["content"] = redact(message["content"])


def _detect_language(batch: _Batch) -> None:
    from rpo_data.language import languages

    rows = [row for row in chain.from_iterable(batch.rows) if row.language is None]
    texts = [next((m.get("content") or "" for m in reversed(row.prompt) if m["role"] == "user"), "") for row in rows]
    printable = pl.Series([text.encode("utf-8", "replace").decode() for text in texts], dtype=pl.String)
    for row, language in zip(rows, languages(printable), strict=True):
        row.language = language


def _fault(source: Source, record: Record, code: str, sentence: str) -> Fault:
    return Fault(record.line, code, f"{source.name}:{record.line}: {sentence}", record.raw())
