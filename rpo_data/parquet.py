"""Tables of a dataset as Parquet files, the form in which they are published, and back.

Equal rows give equal bytes under one version of pyarrow. With content-defined chunking the Hub stores only what changed, with
the page index its viewer reads single rows. Other trainers hold on to old versions of `datasets`, which refuse a file whose
features they do not know (`List` came with 4.0, `Json` with 4.7): files name none where they can do without.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features

from rpo_data.errors import DatasetError

SHARD_BYTES = 500 * 2**20
GROUP_BYTES = 32 * 2**20  # a stream starts after one row group
_KEY = b"rpo_data"

Convert = Callable[[pa.Table], pa.Table]


def write_parquet(
    rows: Dataset,
    folder: Path,
    name: str,
    split: str,
    *,
    schema: pa.Schema,
    digest: str = "",
    convert: Convert = lambda batch: batch,
    wrote: Callable[[int], None] = lambda rows: None,
) -> dict[str, Path]:
    """Write one split of a table in as many files as its size wants; gives them by path below `folder`.

    Args:
        rows: the rows.
        folder: where to; the files are called `name/split-00000-of-00001.parquet`.
        name: of the table.
        split: of the table.
        schema: of what is written, as `file_schema` gives it.
        digest: content hash of the table as the manifest has it, which each file carries; none for a table made here.
        convert: makes what is written from a batch of rows.
        wrote: called with the number of rows of each batch.
    """
    size, count = max(rows.data.nbytes, 1), len(rows)
    shards, step = math.ceil(size / SHARD_BYTES), max(1, count * GROUP_BYTES // size)
    mark = {_KEY: json.dumps({"table": f"{name}/{split}", "hash": digest})} if digest else {}
    schema = schema.with_metadata({**(schema.metadata or {}), **mark})
    (folder / name).mkdir(parents=True, exist_ok=True)
    paths = {}
    for shard in range(shards):
        path = f"{name}/{split}-{shard:05}-of-{shards:05}.parquet"
        with pq.ParquetWriter(
            folder / path, schema, compression="zstd", use_content_defined_chunking=True, write_page_index=True
        ) as writer:
            for batch in _batches(rows, count * shard // shards, count * (shard + 1) // shards, step):
                part = convert(batch).combine_chunks().cast(schema)
                writer.write_table(part, row_group_size=max(1, part.num_rows))
                wrote(batch.num_rows)
        paths[path] = folder / path
    return paths


def file_schema(features: Features, calls: bool) -> pa.Schema:
    """The schema of a published table: as any version of `datasets` reads it, or with its features where it needs them.

    Args:
        features: of the table.
        calls: messages of the dataset call tools, so that `tool_calls` must be read as JSON, and not as text.
    """
    fields = [pa.field(field.name, _plain(field.type)) for field in features.arrow_schema]
    plain = pa.schema(fields)
    same = plain.equals(features.arrow_schema.remove_metadata())
    return features.arrow_schema if calls and not same else plain


def _plain(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    return pa.list_(pa.field(kind.value_field.name, _plain(kind.value_type))) if pa.types.is_list(kind) else kind


def calls_tools(rows: Dataset) -> bool:
    """Whether any message of a table of rows calls a tool."""
    sides = [name for name in ("prompt", "chosen", "rejected", "completion") if name in rows.column_names]
    for batch in _batches(rows, 0, len(rows), 10_000):
        for side in sides:
            calls = pc.list_flatten(batch[side].combine_chunks()).field("tool_calls")
            if calls.null_count < len(calls):
                return True
    return False


def _batches(rows: Dataset, start: int, stop: int, step: int) -> Iterator[pa.Table]:
    arrow = rows.with_format("arrow")
    for first in range(start, stop, step):
        yield arrow[first : min(first + step, stop)]


def read_parquet(folder: Path, name: str, hashes: Mapping[str, str], known: Features) -> DatasetDict:
    """Open a table that `write_parquet` wrote, all splits, with the features that it had.

    Args:
        folder: holds `name/split-*.parquet`.
        name: of the table.
        known: features of all columns that there may be.
        hashes: content hash of each split, as the manifest has it.

    Raises:
        DatasetError: a file is missing or damaged, or is of another build than the manifest.
    """
    files = {split: _shards(folder, name, split) for split in hashes}
    for split, paths in files.items():
        for path in paths:
            if _digest(path) != hashes[split]:
                raise DatasetError(
                    f"{name}/{path.name} is not the table that the manifest names, it is from another build: push the "
                    "dataset again"
                )
    columns = pq.read_schema(next(iter(files.values()))[0]).names
    features = Features({column: known[column] for column in columns}) if {*columns} <= {*known} else None
    try:
        opened = DatasetDict.from_parquet(
            {split: [str(path) for path in paths] for split, paths in files.items()}, features=features
        )
    except Exception as error:  # datasets raises many kinds here, down to pyarrow's own
        raise DatasetError(f"{name}/ cannot be read ({error}): load it again, or push it again") from error
    return DatasetDict(
        {split: Dataset(rows.data, info=rows.info, fingerprint=hashes[split]) for split, rows in opened.items()}
    )


def _shards(folder: Path, name: str, split: str) -> list[Path]:
    paths = sorted((folder / name).glob(f"{split}-*-of-*.parquet"))
    wanted = int(paths[0].stem.rpartition("-")[2]) if paths else 1
    if len(paths) != wanted:
        raise DatasetError(f"{name}/ has {len(paths)} of {wanted} files of split '{split}': push the dataset again")
    return paths


def _digest(path: Path) -> str | None:
    try:
        found = (pq.read_schema(path).metadata or {}).get(_KEY)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path.parent.name}/{path.name} is damaged ({error}): push the dataset again") from error
    return json.loads(found)["hash"] if found else None
