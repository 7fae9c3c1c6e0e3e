"""Find the logs: files, globs, folders, URLs, standard input, a local `datasets` folder, or a dataset on the Hub."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path

from fsspec.core import strip_protocol

from rpo_data import declared
from rpo_data.errors import LogError
from rpo_data.remote import file_link, is_url, list_folder, name_below, path_parts, shown
from rpo_data.standard_input import standard_input

SUFFIXES = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
COMPRESSED = (".gz", ".zst", ".zstd")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LOCAL = ("file://", "local://")


@dataclass(frozen=True)
class Source:
    """One log file, or one split of a `datasets` dataset.

    Attributes:
        name: what tables and messages call it: unique in a build, and never an absolute path or a secret.
        path: file, folder, URL or Hub id.
        kind: json, csv, parquet, dataset (a folder made by save_to_disk) or hub.
        shape: name of its shape, where a `dataset_info.json` declares it.
        columns: ours -> theirs, as declared.
        hidden: columns that the declaration leaves out.
        tags: declared names of message keys and roles (see `declared.py`).
    """

    name: str
    path: str
    kind: str
    shape: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    hidden: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)


def find_sources(logs: Iterable[str | Path], ignored: list[str] | None = None) -> list[Source]:
    """All log files that the arguments name, each once, sorted by name.

    Args:
        logs: files, globs, folders (all log files below, but hidden ones and datasets of ours), URLs of files, folders or
            globs, `-` for standard input, folders made by `Dataset.save_to_disk`, `dataset_info.json` files of
            LLaMA-Factory, or Hub ids.
        ignored: is given the files of folders and globs that are left aside for their ending, and the entries of a
            `dataset_info.json` that declare no preference data beside it.

    Raises:
        LogError: an argument names nothing, or a file of a kind that cannot be read.
    """
    named, ignored = [str(log) for log in logs], [] if ignored is None else ignored
    found: dict[str, Source] = {}
    for log in named:
        for item in _expand(log, ignored):
            real = item.path if item.kind == "hub" or is_url(item.path) else str(Path(item.path).resolve())
            found[real] = _merged(found[real], item) if real in found else item
    if not found:
        raise LogError(
            f"no logs found in {', '.join(map(shown, named)) or 'no arguments'}: files should end in {_endings()}"
        )
    return sorted(_named(found), key=lambda source: (source.name, source.path))


def _merged(one: Source, other: Source) -> Source:
    """One file found twice: with what is declared of it, and one name whatever the order of the arguments: the shortest."""
    said = [source for source in (one, other) if source.columns or source.hidden or source.shape]
    if len(said) == 2 and replace(one, name=other.name) != other:
        raise LogError(f"two entries of {declared.FILE_NAME} declare {one.name} differently: drop one of the entries")
    name = min((one.name, other.name), key=lambda name: (len(name), name))
    return replace((said or [one])[0], name=name)


def _expand(log: str, ignored: list[str]) -> Iterator[Source]:
    if log.startswith(_LOCAL) and "::" not in log:
        log = strip_protocol(log)
    path = Path(log)
    if log == "-":
        file = standard_input()
        yield Source("stdin", str(file), SUFFIXES[file.suffix])
    elif is_url(log):
        yield from _expand_url(log, ignored)
    elif path.is_dir():
        yield from _walk(path, path, ignored)
    elif path.exists():
        kind = _kind(log)
        if kind is None:
            raise LogError(f"{log} has an ending that is not known: rename it to one of {_endings()}")
        yield from _file(path, kind, ignored)
    elif has_magic(log):
        yield from _glob(log, ignored)
    elif _HUB_NAME.fullmatch(log) and not path.suffix and not path.parent.exists():
        yield Source(log, log, "hub")
    else:
        raise LogError(f"{log} does not exist: give a file, a glob, a folder, a URL or a Hub dataset (user/name)")


def _glob(pattern: str, ignored: list[str]) -> Iterator[Source]:
    matches = [Path(match) for match in sorted(glob(pattern, recursive=True))]
    if not matches:
        raise LogError(f"no file matches {pattern}: check the pattern (quote it, so that the shell leaves it alone)")
    for match in matches:
        if match.is_file() and (kind := _kind(match.name)):
            yield from _file(match, kind, ignored)
        elif match.is_file():
            ignored.append(match.name)


def _expand_url(url: str, ignored: list[str]) -> Iterator[Source]:
    kind = _kind(url)
    if kind and not has_magic(file_link(url)):
        yield Source(name_below(url), url, kind)
        return
    files = list_folder(url)
    if files is None:
        raise LogError(f"{shown(url)} is no folder and has no ending that is known: it should end in {_endings()}")
    if not files:
        raise LogError(f"no file is found at {shown(url)}: check the address or the pattern")
    for file in files:
        if file_link(file).rpartition("/")[2].startswith("."):
            continue
        if kind := _kind(file):
            yield Source(name_below(file), file, kind)
        else:
            ignored.append(name_below(file))


def _walk(folder: Path, base: Path, ignored: list[str]) -> Iterator[Source]:
    """Log files and saved datasets below a folder; names are relative to `base`."""

    def saved(split: Path) -> Source:
        return Source(split.relative_to(base.parent if folder == base else base).as_posix(), str(split), "dataset")

    if (folder / "state.json").exists():  # made by Dataset.save_to_disk
        yield saved(folder)
        return
    if (folder / "dataset_dict.json").exists():  # made by DatasetDict.save_to_disk
        yield from (saved(split) for split in sorted(folder.iterdir()) if (split / "state.json").exists())
        return
    info = folder / declared.FILE_NAME
    done = set()
    if info.is_file() and (found := declared.read_declared(info)):
        yield from _declared(found, base, ignored)
        files = [info, *(item.path for item in found[0]), *filter(None, found[1].values())]
        done = {file.resolve() for file in files}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.resolve() in done:
            continue
        if path.is_dir():
            if not ((path / "manifest.json").exists() and (path / "groups").exists()):  # a dataset of ours
                yield from _walk(path, base, ignored)
        elif kind := _kind(path.name):
            yield Source(path.relative_to(base).as_posix(), str(path), kind)
        else:
            ignored.append(path.relative_to(base).as_posix())


def _file(path: Path, kind: str, ignored: list[str]) -> Iterator[Source]:
    if path.name == declared.FILE_NAME and (found := declared.read_declared(path)):
        yield from _declared(found, path.parent, ignored)
    else:
        yield Source(path.name, str(path), kind)


def _declared(
    found: tuple[list[declared.Declared], dict[str, Path | None]], base: Path, ignored: list[str]
) -> Iterator[Source]:
    """The files that a `dataset_info.json` declares; their names are relative to `base`."""
    used, aside = found
    ignored += [f"{declared.FILE_NAME}: {entry}" for entry in aside]
    for item in used:
        inside = item.path.is_relative_to(base) and ".." not in item.path.parts
        if item.path.is_dir():
            folder = base if inside else item.path
            paths = [path for path in sorted(item.path.iterdir()) if path.is_file() and path.name != declared.FILE_NAME]
            files = [
                Source(path.relative_to(folder).as_posix(), str(path), kind)
                for path in paths
                if (kind := _kind(path.name))
            ]
        elif kind := _kind(item.path.name):
            name = item.path.relative_to(base).as_posix() if inside else item.path.name
            files = [Source(name, str(item.path), kind)]
        else:
            raise LogError(
                f"entry '{item.entry}' of {declared.FILE_NAME} names {item.path.name}, which has an ending that is not "
                f"known: rename it to one of {_endings()}"
            )
        for file in files:
            yield replace(file, shape=item.shape, columns=item.columns, hidden=item.hidden, tags=item.tags)


def _kind(name: str) -> str | None:
    return SUFFIXES.get(inner_suffix(name))


def inner_suffix(name: str) -> str:
    """Ending of a file name, path or URL without that of its compression, lower case."""
    path = Path((file_link(name) if is_url(name) else name).lower())
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix


def _endings() -> str:
    return ", ".join(SUFFIXES) + f" (also followed by {', '.join(COMPRESSED)})"


def _named(found: dict[str, Source]) -> Iterator[Source]:
    """Give each source more of its path while two have the same name."""
    names = {real: item.name for real, item in found.items()}
    for _ in range(50):
        taken = Counter(names.values())
        for real, name in list(names.items()):
            if taken[name] > 1:
                names[real] = "/".join(_parts(real)[-(name.count("/") + 2) :])
    same: Counter[str] = Counter()
    for real in sorted(found):
        same[names[real]] += 1
        number = f"#{same[names[real]]}" if same[names[real]] > 1 else ""  # URLs that differ in their query alone
        name = os.fsencode(names[real]).decode("utf-8", "backslashreplace")  # a file name may be no UTF-8
        yield replace(found[real], name=name + number, path=real)


def _parts(real: str) -> list[str]:
    return path_parts(real) if is_url(real) else [part for part in Path(real).parts if part != Path(real).anchor]
