"""The stage store: what a stage made, kept under a key of its inputs' content, its settings and the code's version.

A folder of the store is made under another name and renamed when it is whole, so whatever is there is finished.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

import rpo_data
from rpo_data.errors import RpoDataError


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The cache: as given, else $XDG_CACHE_HOME/rpo-data, else ~/.cache/rpo-data."""
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rpo-data"


def stored_stage(cache: Path, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """Folder that holds what a stage made from these inputs; it is made now where it is not there yet.

    Args:
        cache: the cache folder.
        name: of the stage.
        inputs: everything the result depends on (JSON values; hash large ones first).
        make: writes the result into the folder it is given.
    """
    folder = cache / "stages" / stage_key(name, inputs)
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
        try:
            unfinished.mkdir(parents=True)
        except OSError as error:
            raise RpoDataError(f"the cache {cache} cannot be written ({error.strerror}): choose --cache-dir") from error
        try:
            make(unfinished)
            os.replace(unfinished, folder)
        except OSError:
            if not folder.exists():  # else another run finished the same stage first
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def stage_key(name: str, inputs: Mapping[str, Any]) -> str:
    """The name under which the result of a stage is kept: it changes with the inputs and with the code."""
    text = json.dumps({"code": code_version(), **inputs}, sort_keys=True)
    return f"{name}-{xxhash.xxh3_128_hexdigest(text.encode())}"


def stored_arrays(
    cache: Path, name: str, inputs: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The same for a stage whose result is a few arrays."""

    def write(folder: Path) -> None:
        for key, array in make().items():
            np.save(folder / f"{key}.npy", array, allow_pickle=False)

    folder = stored_stage(cache, name, inputs, write)
    return {file.stem: np.load(file, allow_pickle=False) for file in sorted(folder.glob("*.npy"))}


def array_hash(*arrays: np.ndarray) -> str:
    """xxh3-128 over the bytes, shapes and types of arrays."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


@cache
def code_version() -> str:
    """Hash of the library's own source: a changed rule never meets a result of the old one."""
    digest = xxhash.xxh3_128()
    roots = [Path(rpo_data.__file__).parent, Path(__import__("rpo_data.schemas.tables").schemas.__file__).parent]
    for root in roots:
        for file in sorted(root.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def cache_sizes(cache: Path) -> dict[str, tuple[int, int]]:
    """Part of the cache (vectors, stages, search, reference) -> number of files and bytes."""
    sizes = {}
    for part in ("vectors", "stages", "search", "reference"):
        files = [file for file in (cache / part).rglob("*") if file.is_file()]
        sizes[part] = (len(files), sum(file.stat().st_size for file in files))
    return sizes


def clear_cache(cache: Path) -> None:
    """Delete what this package keeps in the cache folder, and nothing else there."""
    for part in ("vectors", "stages", "search", "reference"):
        shutil.rmtree(cache / part, ignore_errors=True)
