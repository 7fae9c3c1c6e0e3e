"""The store of reference log-probs: one folder a model, and in it numbers by the key of their sequence."""

import functools
import json
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from rpo_data.errors import TrainingError

_ABOUT = "reference.json"
_COLUMNS = pa.schema({"key": pa.binary(16), "logp": pa.float32()})

_warn_once = functools.cache(logging.getLogger(__name__).warning)  # each split reads and writes the same store


@dataclass(frozen=True)
class ReferenceStore:
    """Log-probs of one reference model, by sequence key, in any number of Arrow files.

    A file is written whole or not at all and never changed. Its name is the hash of the model's id and of its bytes, so
    a torn file, a damaged one and one of another model are all known by their name.

    folder  of the files, and of reference.json, which names the model
    model   name of the model: what it holds, its number type and its autocast
    """

    folder: Path
    model: str

    def read(self, keys: Sequence[bytes]) -> np.ndarray:
        """Log-probs, float32 (S,), NaN where there is none. Files that cannot be used are passed over, with a warning."""
        files = sorted(self.folder.glob("*.arrow"))
        tables = [table for file in files if (table := self._read_file(file)) is not None]
        if len(tables) < len(files):
            _warn_once(
                f"{len(files) - len(tables)} of {len(files)} files in {self.folder} are damaged, or not of this model: "
                "they are passed over, and what they held is computed again"
            )
        stored = pa.concat_tables([_COLUMNS.empty_table(), *tables])
        places = pc.index_in(pa.array(keys, pa.binary(16)), value_set=stored["key"].combine_chunks())
        return stored["logp"].take(places).to_numpy().astype(np.float32)

    def write(self, keys: Sequence[bytes], logps: np.ndarray) -> None:
        """Add log-probs. What a folder that cannot be written lacks is in memory only, and one line warns of it."""
        stream = pa.BufferOutputStream()
        with pa.ipc.new_file(stream, _COLUMNS) as writer:
            writer.write_table(pa.table({"key": keys, "logp": logps}, _COLUMNS))
        content = stream.getvalue()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if _owner(self.folder) is None:
                _write_whole(self.folder / _ABOUT, json.dumps({"model": self.model}).encode())
            _write_whole(self.folder / f"{self._hash(content)}.arrow", content)
        except OSError as error:
            _warn_once(
                f"{self.folder} cannot be written ({error.strerror}): the log-probs it lacks are computed and kept in "
                "memory only"
            )

    def _read_file(self, file: Path) -> pa.Table | None:
        try:
            content = pa.py_buffer(file.read_bytes())
        except OSError:
            return None
        return pa.ipc.open_file(content).read_all() if self._hash(content) == file.stem else None

    def _hash(self, content: pa.Buffer) -> str:
        digest = xxhash.xxh3_128(f"1 {self.model}".encode())  # 1: version of the files' format
        digest.update(memoryview(content))
        return digest.hexdigest()


def open_store(cache_dir: str | Path | None, model: str) -> ReferenceStore:
    """The store of a model: `cache_dir` where that is a store itself, else a folder below it (default: ~/.cache/rpo-data).

    Raises:
        TrainingError: `cache_dir` is the store of another model, or what it says of its model cannot be read.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rpo-data")
    root = Path(default if cache_dir is None else cache_dir).expanduser()
    folder = root if (root / _ABOUT).is_file() else root / "reference" / model
    owner = _owner(folder)
    if owner not in (None, model):
        raise TrainingError(
            f"{folder} holds the log-probs of another model or number type ({owner}, and this one is {model}): give another "
            "folder, or that model"
        )
    return ReferenceStore(folder, model)


def store_owner(cache_dir: str | Path | None) -> str | None:
    """Id of the model whose store `cache_dir` is itself; None where it is no store, or nobody's yet."""
    return None if cache_dir is None else _owner(Path(cache_dir).expanduser())


def make_store(folder: Path) -> None:
    """Make a folder a store that belongs to the first model that writes to it; a store stays as it is.

    Raises:
        TrainingError: it holds something else, or cannot be written.
    """
    if (folder / _ABOUT).is_file():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [item for item in folder.iterdir() if item.suffix != ".tmp" and item.name != _ABOUT]  # of other ranks
        if others:
            raise TrainingError(f"{folder} exists and is no store of reference log-probs: choose another folder")
        _write_whole(folder / _ABOUT, json.dumps({"model": None}).encode())
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error


def _owner(folder: Path) -> str | None:
    """Id of the model whose log-probs a folder holds; None where no model has written to it yet."""
    try:
        return json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["model"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"{folder / _ABOUT} does not name a model: delete the folder, or give another one"
        ) from error


def _write_whole(file: Path, content: bytes | pa.Buffer) -> None:
    """Write under another name, then rename: a kill leaves no half-written file under this one."""
    unfinished = file.with_name(f"{uuid.uuid4().hex}.tmp")  # two runs may write at the same time
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
