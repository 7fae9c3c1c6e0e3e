"""Read log files record by record. Memory holds one record (or one Parquet batch) at a time, however large the file.

What cannot be read comes out as a `Fault` with its place, and reading goes on behind it where the format allows.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from rpo_data.declared import as_declared
from rpo_data.errors import LogError
from rpo_data.read_json import read_json
from rpo_data.read_tables import read_csv, read_parquet
from rpo_data.records import Fault, Record, corrupt
from rpo_data.sources import Source
from rpo_data.streams import open_bytes

__all__ = ["Fault", "Record", "content_hash", "read_records"]


def read_records(source: Source) -> Iterator[Record | Fault]:
    """All records of one source, in file order; an empty source gives one `empty_file` fault.

    Raises:
        LogError: the file or Hub dataset cannot be opened at all.
    """
    empty = True
    edited = bool(source.hidden or source.tags)
    for item in _READERS[source.kind](source):
        empty = False
        if edited and isinstance(item, Record):
            item = as_declared(item, source.hidden, source.tags, source.columns)
        yield item
    if empty:
        yield Fault(0, "empty_file", f"{source.name} holds no record: leave it out", "")


def content_hash(source: Source) -> str:
    """xxh3-128 of every byte the source holds, 32 hex digits (for a Hub dataset: of its local Arrow files).

    Raises:
        LogError: a file cannot be read.
    """
    if source.kind == "hub":
        files = [part["filename"] for split in _hub_splits(source) for part in split.cache_files]
    elif source.kind == "dataset":
        files = sorted(map(str, Path(source.path).glob("*.arrow")))
    else:
        files = [source.path]
    digest = xxhash.xxh3_128()
    for file in files:
        try:
            with open_bytes(file) as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise LogError(f"{file} cannot be read ({error.strerror}): check its disk and permissions") from error
    return digest.hexdigest()


def _read_dataset(source: Source) -> Iterator[Record | Fault]:
    from datasets import load_from_disk

    try:
        rows = load_from_disk(source.path)
        rows.data.validate(full=True)  # a damaged Arrow file is mapped as it is, and ends the process where it is read
    except Exception as error:  # datasets raises many kinds here, down to pyarrow's own
        yield corrupt(source.name, 1, error)
        return
    number = 0
    try:
        for data in rows:
            number += 1
            yield Record(number, data)
    except Exception as error:  # and as many where a value cannot be decoded
        yield corrupt(source.name, number + 1, error)


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


_READERS: dict[str, Callable[[Source], Iterator[Record | Fault]]] = {
    "json": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
    "dataset": _read_dataset,
    "hub": _read_hub,
}
