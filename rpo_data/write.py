"""Write the dataset folder: all of it under another name first, then renamed, so that a half-written one never shows."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from rpo_data.errors import DatasetError
from rpo_data.row_table import take_rows
from rpo_data.rows import JUDGEMENT, LeftOut
from rpo_data.schemas.tables import GROUPS, NEIGHBORS, PAIRS, REJECTS, RESPONSES, vectors_features

_CHUNK = 1000
_ENTRIES = {
    "manifest.json", "run.json", "README.md", "report.html", "rejects.parquet", "pairs", "responses", "groups",
    "neighbors", "vectors",
}  # fmt: skip


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `folder` when the block ends without an error.

    Raises:
        DatasetError: `folder` holds something that is no dataset of ours, or cannot be written.
    """
    check_replaceable(folder)
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    try:
        yield unfinished
        old = unfinished.with_suffix(".old")
        if folder.exists():
            os.replace(folder, old)
        os.replace(unfinished, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Refuse early what `replacing` would have to refuse after an hour of work.

    Raises:
        DatasetError: `folder` holds something that is no dataset of ours, or cannot be written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder)):
        raise DatasetError(f"{folder} exists and is no mined contrast dataset: choose another --out, or remove it")
    probe = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.probe")
    try:
        probe.mkdir(parents=True)
        probe.rmdir()
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a dataset of ours and nothing else: only then may it be replaced."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return {"format_version", "rpo_data_version"} <= set(manifest) and {
            p.name for p in folder.iterdir()
        } <= _ENTRIES
    except (OSError, ValueError, TypeError):
        return False


_COLUMNS = {"response_id": "pair_id", "completion": "chosen"}
"""What the table of checked rows calls columns of `responses`."""


def write_rows(folder: Path, rows: pa.Table, order: Mapping[str, np.ndarray], mode: str) -> dict[str, str]:
    """Write the `pairs` table, or `responses`: for each split the rows at these positions, in this order; hash by split.

    Weights of the logs are scaled to mean 1 over all splits; a row without one counts 1 before that.
    """
    name, features = ("pairs", PAIRS) if mode == "paired" else ("responses", RESPONSES)
    weights = rows["weight"].to_numpy().astype(np.float64)
    weights[np.isnan(weights)] = 1.0
    weights /= weights[np.concatenate(list(order.values()))].mean()
    names = features.arrow_schema.names
    theirs = names if mode == "paired" else [_COLUMNS.get(column, column) for column in names]
    published = rows.select(theirs).rename_columns(names)

    def chunks(positions: np.ndarray) -> Iterator[pa.Table]:
        for start in range(0, len(positions), _CHUNK):
            chunk = positions[start : start + _CHUNK]
            part = take_rows(published, chunk)
            columns = {"weight": pa.array(weights[chunk].astype(np.float32))}
            if mode == "scored":
                columns["label"] = pa.nulls(len(chunk), pa.bool_())  # score or rank decides
            for column, values in columns.items():
                part = part.set_column(part.schema.get_field_index(column), column, values)
            yield part.cast(features.arrow_schema)

    return _write_table(folder / name, features, {split: chunks(positions) for split, positions in order.items()})


def write_groups(folder: Path, groups: Mapping[str, pa.Table]) -> dict[str, str]:
    """Write the `groups` table by split."""
    return _write_table(folder / "groups", GROUPS, {split: table.to_batches(_CHUNK) for split, table in groups.items()})


def write_neighbors(
    folder: Path,
    prompt_ids: list[str],
    split_rows: Mapping[str, np.ndarray],
    neighbors: np.ndarray,
    similarity: np.ndarray,
) -> dict[str, str]:
    """Write the `neighbors` table; rows are renumbered inside their split."""

    def table(rows: np.ndarray) -> pa.Table:
        local = np.full(len(prompt_ids), -1, dtype=np.int64)
        local[rows] = np.arange(len(rows))
        present = neighbors[rows] >= 0
        columns = [
            pa.array([prompt_ids[row] for row in rows]),
            _lists(local[neighbors[rows]][present], present),
            _lists(similarity[rows][present], present),
        ]
        return pa.Table.from_arrays(columns, names=NEIGHBORS.arrow_schema.names).cast(NEIGHBORS.arrow_schema)

    return _write_table(folder / "neighbors", NEIGHBORS, {split: [table(rows)] for split, rows in split_rows.items()})


def write_vectors(
    folder: Path, prompt_ids: list[str], split_rows: Mapping[str, np.ndarray], vectors: np.ndarray
) -> dict[str, str]:
    """Write the `vectors` table, in the order of `neighbors`."""
    features = vectors_features(vectors.shape[1])

    def table(rows: np.ndarray) -> pa.Table:
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors[rows].ravel()), vectors.shape[1])
        ids = pa.array([prompt_ids[row] for row in rows])
        return pa.Table.from_arrays([ids, values], names=["prompt_id", "vector"]).cast(features.arrow_schema)

    return _write_table(folder / "vectors", features, {split: [table(rows)] for split, rows in split_rows.items()})


def write_rejects(folder: Path, rejects: pa.Table, rows: pa.Table, left_out: list[LeftOut]) -> None:
    """Write rejects.parquet: records that were left out when read, and rows left out later, by file and line."""
    tables = [rejects]
    for reason in left_out:
        part = take_rows(rows, np.array(reason.position, dtype=np.int64))
        raw = [_raw(row) for row in part.select(["prompt", "chosen", "rejected", *JUDGEMENT, "kind"]).to_pylist()]
        columns = {
            "code": [reason.code] * part.num_rows,
            "message": reason.sentence,
            "file": part["source"].to_pylist(),
            "line": part["source_row"].to_pylist(),
            "raw": [json.dumps(row, ensure_ascii=False) for row in raw],
        }
        tables.append(pa.table(columns, schema=REJECTS.arrow_schema))
    joined = pa.concat_tables(tables)
    keys = [(column, "ascending") for column in ("file", "line", "code", "message")]
    order = pc.sort_indices(joined.select([column for column, _ in keys]), sort_keys=keys).to_numpy().astype(np.int64)
    with pq.ParquetWriter(folder / "rejects.parquet", joined.schema, compression="zstd") as writer:
        for start in range(0, max(len(order), 1), 10 * _CHUNK):
            writer.write_table(take_rows(joined, order[start : start + 10 * _CHUNK]))


def _raw(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the rejects keep it: a pair, or a response with its judgement."""
    if row["kind"] != "response":
        return {side: row[side] for side in ("prompt", "chosen", "rejected")}
    return {"prompt": row["prompt"], "completion": row["chosen"]} | {name: row[name] for name in JUDGEMENT}


def _lists(values: np.ndarray, present: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _write_table(folder: Path, features: Features, splits: Mapping[str, Any]) -> dict[str, str]:
    """Write a DatasetDict in bounded memory; its fingerprints are content hashes, which are also given back."""
    hashes, opened, streams = {}, DatasetDict(), []
    for split, tables in splits.items():
        stream = folder.with_name(f"{folder.name}-{split}.stream")
        with pa.OSFile(str(stream), "wb") as sink, pa.ipc.new_stream(sink, features.arrow_schema) as writer:
            for table in tables:
                writer.write(table)
        rows = Dataset.from_file(str(stream))
        digest = file_hash(stream)
        hashes[f"{folder.name}/{split}"] = digest
        opened[split] = Dataset(rows.data, info=rows.info, fingerprint=digest)
        streams.append(stream)
    with _no_progress_bars():
        opened.save_to_disk(str(folder))
    del opened
    for stream in streams:
        stream.unlink()
    return hashes


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep `datasets` from drawing one bar for each table and split."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def file_hash(path: Path) -> str:
    """xxh3-128 of a file's bytes, 32 hex digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
