"""Find the logs: files, globs, folders, a local `datasets` folder, or a dataset on the Hugging Face Hub."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from rpo_data.errors import LogError

SUFFIXES = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
COMPRESSED = (".gz", ".zst", ".zstd")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Source:
    """One log file, or one split of a `datasets` dataset.

    `kind` is json, csv, parquet, dataset (a folder made by save_to_disk) or hub. `name` is what tables and messages
    call it: unique in a build, and never an absolute path.
    """

    name: str
    path: str
    kind: str


@dataclass(frozen=True)
class _Found:
    name: str
    path: Path
    kind: str


def find_sources(logs: Iterable[str | Path], ignored: list[str] | None = None) -> list[Source]:
    """All log files that the arguments name, each once, sorted by name.

    Args:
        logs: files, globs, folders (all log files below, but hidden ones and datasets of ours), folders made by
            `Dataset.save_to_disk`, or Hub ids.
        ignored: is given the files of folders and globs that are left aside for their ending.

    Raises:
        LogError: an argument names nothing, or a file of a kind that cannot be read.
    """
    named, ignored = [str(log) for log in logs], [] if ignored is None else ignored
    found: dict[str, _Found] = {}
    for log in named:
        for item in _expand(log, ignored):
            real = item.name if item.kind == "hub" else str(item.path.resolve())
            known = found.get(real)
            # one name whatever the order of the arguments: the shortest
            if known is None or (len(item.name), item.name) < (len(known.name), known.name):
                found[real] = item
    if not found:
        raise LogError(f"no logs found in {', '.join(named) or 'no arguments'}: files should end in {_endings()}")
    return sorted(_named(found), key=lambda source: (source.name, source.path))


def _expand(log: str, ignored: list[str]) -> Iterator[_Found]:
    path = Path(log)
    if path.is_dir():
        yield from _walk(path, path, ignored)
    elif path.exists():
        kind = _kind(path)
        if kind is None:
            raise LogError(f"{log} has an ending that is not known: rename it to one of {_endings()}")
        yield _Found(path.name, path, kind)
    elif has_magic(log):
        matches = [Path(match) for match in sorted(glob(log, recursive=True))]
        if not matches:
            raise LogError(f"no file matches {log}: check the pattern (quote it, so that the shell leaves it alone)")
        for match in matches:
            if match.is_file() and (kind := _kind(match)):
                yield _Found(match.name, match, kind)
            elif match.is_file():
                ignored.append(match.name)
    elif _HUB_NAME.fullmatch(log) and not path.suffix and not path.parent.exists():
        yield _Found(log, path, "hub")
    else:
        raise LogError(f"{log} does not exist: give a file, a glob, a folder or a Hub dataset (user/name)")


def _walk(folder: Path, base: Path, ignored: list[str]) -> Iterator[_Found]:
    """Log files and saved datasets below a folder; names are relative to `base`."""
    if (folder / "state.json").exists():  # made by Dataset.save_to_disk
        yield _Found(folder.relative_to(base.parent if folder == base else base).as_posix(), folder, "dataset")
        return
    if (folder / "dataset_dict.json").exists():  # made by DatasetDict.save_to_disk
        for split in sorted(p for p in folder.iterdir() if (p / "state.json").exists()):
            yield _Found(split.relative_to(base.parent if folder == base else base).as_posix(), split, "dataset")
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not ((path / "manifest.json").exists() and (path / "groups").exists()):  # a dataset of ours
                yield from _walk(path, base, ignored)
        elif kind := _kind(path):
            yield _Found(path.relative_to(base).as_posix(), path, kind)
        else:
            ignored.append(path.relative_to(base).as_posix())


def _kind(path: Path) -> str | None:
    return SUFFIXES.get(inner_suffix(path.name))


def inner_suffix(name: str) -> str:
    """Ending of a file name without that of its compression, lower case."""
    path = Path(name.lower())
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix


def _endings() -> str:
    return ", ".join(SUFFIXES) + f" (also followed by {', '.join(COMPRESSED)})"


def _named(found: dict[str, _Found]) -> Iterator[Source]:
    """Give each source more of its path while two have the same name."""
    names = {real: item.name for real, item in found.items()}
    for _ in range(50):
        taken = Counter(names.values())
        for real, name in list(names.items()):
            if taken[name] > 1:
                names[real] = "/".join(Path(real).parts[-(name.count("/") + 2) :])
    for real, item in found.items():
        name = os.fsencode(names[real]).decode("utf-8", "backslashreplace")  # a file name may be no UTF-8
        yield Source(name, real, item.kind)
