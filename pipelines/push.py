"""`rpo-data push`: a dataset folder as Parquet tables with a card, in one commit on the Hub."""

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from rpo_data.card import dataset_card
from rpo_data.dataset import ContrastDataset, load_folder, read_manifest
from rpo_data.errors import DatasetError, RecipeError
from rpo_data.exports import LLAMAFACTORY, UNPAIRED, dataset_info, llamafactory_batch, unpaired_batch
from rpo_data.hub import Files, Pause, Pushed, Target, Track, Version, check_login, is_repository, push_files
from rpo_data.parquet import calls_tools, file_schema, write_parquet
from rpo_data.plots import card_plots
from rpo_data.schemas.manifest import Manifest

Say = Callable[[str], None]

EXTRAS = ("unpaired", "llamafactory")
"""Tables that are made for other trainers where they are asked for."""
OWNED = re.compile(
    r"(pairs|responses|groups|neighbors|unpaired|llamafactory)/[^/]+\.parquet|plots/[a-z]+\.svg"
    r"|manifest\.json|report\.html|dataset_info\.json"
)
"""Paths that a push may have written: those that a later version does not have are deleted."""
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def push(
    dataset: str | Path,
    target: Target,
    *,
    licenses: Mapping[str, str] | None = None,
    extras: Sequence[str] = (),
    message: str | None = None,
    dry_run: bool = False,
    say: Say = lambda line: None,
    track: Track = lambda stage, done, total: None,
    pause: Pause = time.sleep,
) -> Pushed | None:
    """Put a dataset on the Hugging Face Hub.

    Args:
        dataset: folder that `build` or `regroup` wrote.
        target: repository, branch, tag, and whether a pull request is opened.
        licenses: licence by source or pattern of sources; goes over what the recipe says.
        extras: tables to make for other trainers, of `EXTRAS`.
        message: of the commit.
        dry_run: say what would go up and what the card says; nothing is sent or asked.
        say: called with a line on what is done.
        track: called as long work proceeds.
        pause: waits some seconds before a next try.

    Returns:
        what was done, None for a dry run.

    Raises:
        DatasetError: the folder holds no dataset, or none that an extra can be made from.
        RecipeError: the name of the repository, the target or a licence is wrong, or a source has none.
        HubError: as of `check_login` and `push_files`.
    """
    if not is_repository(target.repository):
        raise RecipeError(
            f"'{target.repository}' is no name on the Hub: give USER/NAME, of letters, digits, '.', '_', '-'"
        )
    if target.create_pr and (target.tag or target.branch != "main"):
        raise RecipeError("--create-pr opens a pull request on main: leave --branch and --tag")
    data = load_folder(Path(dataset))
    stated = source_licenses(data.manifest, licenses or {})
    waits = partial(_wait, say, pause)
    if not dry_run:
        check_login(target.repository, waits)
    with tempfile.TemporaryDirectory(prefix="rpo-data-push-") as scratch:
        files = prepare(data, Path(scratch), target.repository, stated, extras, track, say)
        sizes = {path: len(c) if isinstance(c, bytes) else c.stat().st_size for path, c in files.items()}
        if dry_run:
            _say_plan(files, sizes, say)
            return None
        count, total = len(files), _size(sum(sizes.values()))
        say(f"push      {count} files, {total}, to {target.repository}")
        text = message or f"{_rows(data.manifest)}, by rpo-data {data.manifest.rpo_data_version}"
        pushed = push_files(target, Version(files, OWNED, text), track=track, pause=waits)
    say(_outcome(target, pushed))
    return pushed


def _wait(say: Say, pause: Pause, seconds: float) -> None:
    say(f"waiting   {seconds:g} s: the Hub does not answer as it should")
    pause(seconds)


def ask_licenses(dataset: Path, given: Mapping[str, str], ask: Callable[[str], str]) -> dict[str, str]:
    """The licences given, and what a person answers for each source that has none.

    Raises:
        DatasetError: the folder holds no dataset.
    """
    manifest = read_manifest(dataset)
    missing = [source.name for source in manifest.sources if _stated(manifest, source.name, given) is None]
    return dict(given) | {name: ask(f"Licence of {name}, such as mit or cc-by-4.0") for name in missing}


def source_licenses(manifest: Manifest, given: Mapping[str, str]) -> dict[str, str]:
    """The licence of each source: as given, else as in the recipe; a name goes before a pattern.

    Raises:
        RecipeError: a licence is no id, a source has none, or one is given for no source (a mistyped name would leave the
            licence of another pattern in its place).
    """
    names = [source.name for source in manifest.sources]
    for name in given:
        if not any(name == source or fnmatchcase(source, name) for source in names):
            raise RecipeError(
                f"a licence is given for '{name}', which is no log file of this dataset: name one of {', '.join(names[:5])}"
            )
    found = {}
    for source in manifest.sources:
        licence = _stated(manifest, source.name, given)
        if licence is None:
            raise RecipeError(
                f"no licence is given for {source.name}: add --license ID (such as mit or cc-by-4.0; other where none fits), "
                f"or --license '{source.name}=ID', or the recipe key license"
            )
        found[source.name] = licence
    for name, licence in found.items():
        if not _LICENCE.fullmatch(licence):
            raise RecipeError(
                f"'{licence}' is no licence id ({name}): use one of the Hub's, such as mit, cc-by-4.0, other"
            )
    return found


def _stated(manifest: Manifest, source: str, given: Mapping[str, str]) -> str | None:
    for known in (given, manifest.recipe.license):
        matching = [name for name in known if name == source] or [name for name in known if fnmatchcase(source, name)]
        if matching:
            return known[matching[0]]
    return None


def prepare(
    data: ContrastDataset,
    folder: Path,
    repository: str,
    licenses: Mapping[str, str],
    extras: Sequence[str] = (),
    track: Track = lambda stage, done, total: None,
    say: Say = lambda line: None,
) -> Files:
    """What goes up, by path in the repository; Parquet files are written into `folder`.

    Raises:
        DatasetError: an extra cannot be made from this dataset.
    """
    manifest = data.manifest
    _check_extras(manifest, extras)
    rows = "pairs" if data.paired else "responses"
    tables = {rows: data.rows, "groups": data.groups, "neighbors": data.neighbors}
    total = sum(len(split) for table in tables.values() for split in table.values())
    total += len(extras) * sum(len(split) for split in data.rows.values())
    done = 0

    def wrote(count: int) -> None:
        nonlocal done
        done += count
        track("write", done, total)

    calls = any(calls_tools(split) for split in data.rows.values())
    files: dict[str, Path | bytes] = {}
    for name, table in tables.items():
        for split in _ordered(table):
            schema, digest = file_schema(table[split].features, calls), manifest.tables[f"{name}/{split}"]
            files |= write_parquet(table[split], folder, name, split, schema=schema, digest=digest, wrote=wrote)
    made = {name: {split: len(table[split]) for split in _ordered(table)} for name, table in tables.items()}
    for name in extras:
        features, convert = (
            (UNPAIRED, unpaired_batch) if name == "unpaired" else (LLAMAFACTORY[manifest.mode], llamafactory_batch)
        )
        made[name] = {}
        for split in _ordered(data.rows):
            schema = file_schema(features, calls)
            written = write_parquet(data.rows[split], folder, name, split, schema=schema, convert=convert, wrote=wrote)
            made[name][split] = _row_count(written)
            files |= written
    if "llamafactory" in extras:
        _say_left_out(sum(made[rows].values()), sum(made["llamafactory"].values()), say)
        files["dataset_info.json"] = _json(dataset_info(repository, manifest.mode))
    files["manifest.json"] = manifest.to_json().encode()
    if data.path is not None and (data.path / "report.html").is_file():
        files["report.html"] = data.path / "report.html"
    plots = card_plots(manifest)
    files |= {path: svg.encode() for path, (svg, _) in plots.items()}
    captions = {path: caption for path, (_, caption) in plots.items()}
    files["README.md"] = dataset_card(data, repository, licenses, made, captions, calls).encode()
    return files


def _ordered(splits: Mapping[str, object]) -> list[str]:
    """The splits in the order in which pages name them: train before test."""
    return sorted(splits, reverse=True)


def _check_extras(manifest: Manifest, extras: Sequence[str]) -> None:
    for name in extras:
        if name not in EXTRAS:
            raise RecipeError(f"there is no extra table '{name}': there are {', '.join(EXTRAS)}")
    if "unpaired" in extras and not manifest.paired:
        raise DatasetError("this dataset holds responses one by one already: push it without unpaired")
    if "llamafactory" in extras and manifest.mode == "scored":
        raise DatasetError("LLaMA-Factory reads no scored responses: push this dataset without llamafactory")


def _say_left_out(rows: int, readable: int, say: Say) -> None:
    """Say how many rows LLaMA-Factory cannot read.

    Raises:
        DatasetError: it can read none.
    """
    if not readable:
        raise DatasetError("LLaMA-Factory can read no row of this dataset: push it without llamafactory")
    if readable < rows:
        say(
            f"left out  {rows - readable:,} of {rows:,} rows of llamafactory: it reads user and assistant in turn, no tools"
        )


def _row_count(paths: Mapping[str, Path]) -> int:
    return sum(pq.read_metadata(path).num_rows for path in paths.values())


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _say_plan(files: Files, sizes: Mapping[str, int], say: Say) -> None:
    for path, size in sorted(sizes.items()):
        say(f"{_size(size):>12}  {path}")
    say(f"{_size(sum(sizes.values())):>12}  in {len(files)} files; dry run: nothing was sent. The card (README.md):")
    say("")
    card = files["README.md"]
    assert isinstance(card, bytes)
    say(card.decode())


def _outcome(target: Target, pushed: Pushed) -> str:
    version = pushed.commit[:12]
    if pushed.pull_request:
        opened = "opened" if pushed.changed else "open already"
        return f"{opened:<9} {pushed.pull_request} with commit {version}"
    tag = f", tag {target.tag}" if target.tag else ""
    if not pushed.changed:
        return f"unchanged {target.repository} holds all of it already, in commit {version}{tag}"
    changed = f"{pushed.changed} file{'s' * (pushed.changed != 1)} changed"
    return f"pushed    {target.repository}, commit {version}{tag}: {changed}, all read back"


def _rows(manifest: Manifest) -> str:
    rows = sum(info.rows for info in manifest.splits.values())
    groups = sum(info.groups for info in manifest.splits.values()) * manifest.recipe.views
    return f"{rows:,} {manifest.what} in {groups:,} contrast groups"


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
