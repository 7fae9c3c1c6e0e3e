"""Find the logs: files, globs, folders, a local `datasets` folder, or a dataset on the Hugging Face Hub."""

import re
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
    call it: never an absolute path.
    """

    name: str
    path: str
    kind: str
    split: str = ""


def find_sources(logs: Iterable[str | Path]) -> list[Source]:
    """All log files that the arguments name, each once, sorted by name.

    Args:
        logs: files, globs, folders (all log files below), folders made by `Dataset.save_to_disk`, or Hub ids.

    Raises:
        LogError: an argument names nothing, or a file of a kind that cannot be read.
    """
    found: dict[str, tuple[Path, Path, str]] = {}  # real path -> path, folder the name is relative to, kind
    others: list[Source] = []
    for log in map(str, logs):
        path = Path(log)
        if path.is_dir():
            if _is_saved_dataset(path):
                others += _dataset_sources(path)
            else:
                _add(found, ((file, path) for file in _files_below(path)))
        elif path.exists():
            if _kind(path) is None:
                raise LogError(f"{log} has an ending that is not known: rename it to one of {_endings()}")
            _add(found, [(path, path.parent)])
        elif has_magic(log):
            matches = [Path(match) for match in glob(log, recursive=True)]
            if not matches:
                raise LogError(
                    f"no file matches {log}: check the pattern (quote it, so that the shell leaves it alone)"
                )
            _add(found, ((m, m.parent) for m in matches if m.is_file()))
        elif _HUB_NAME.fullmatch(log) and not path.suffix:
            others.append(Source(log, log, "hub"))
        else:
            raise LogError(f"{log} does not exist: give a file, a glob, a folder or a Hub dataset (user/name)")
    sources = [*_named(found), *others]
    if not sources:
        raise LogError(f"no logs found below {', '.join(map(str, logs))}: files should end in {_endings()}")
    return sorted(set(sources), key=lambda source: (source.name, source.path))


def _kind(path: Path) -> str | None:
    suffix = path.with_suffix("").suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return SUFFIXES.get(suffix.lower())


def _endings() -> str:
    return ", ".join(SUFFIXES) + f" (also followed by {', '.join(COMPRESSED)})"


def _is_saved_dataset(path: Path) -> bool:
    return (path / "dataset_dict.json").exists() or (path / "state.json").exists()


def _dataset_sources(path: Path) -> Iterator[Source]:
    if (path / "state.json").exists():
        yield Source(path.name, str(path), "dataset")
        return
    for split in sorted(p for p in path.iterdir() if (p / "state.json").exists()):
        yield Source(f"{path.name}/{split.name}", str(split), "dataset", split.name)


def _files_below(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and _kind(p) and not p.name.startswith(".")]


def _add(found: dict[str, tuple[Path, Path, str]], files: Iterable[tuple[Path, Path]]) -> None:
    for path, base in files:
        kind = _kind(path)
        if kind is not None:
            found.setdefault(str(path.resolve()), (path, base, kind))


def _named(found: dict[str, tuple[Path, Path, str]]) -> Iterator[Source]:
    """Name each file relative to what the user named, with more of its path where two names would be the same."""
    names = {real: path.relative_to(base).as_posix() for real, (path, base, _) in found.items()}
    depth = 1
    while len(set(names.values())) < len(names) and depth < 50:
        taken = list(names.values())
        for real, name in list(names.items()):
            if taken.count(name) > 1:
                parts = Path(real).parts
                names[real] = "/".join(parts[-(name.count("/") + 2) :])
        depth += 1
    for real, (_, _, kind) in found.items():
        yield Source(names[real], real, kind)
