"""The build: raw preference logs in, a mined contrast dataset out. `build` is the one order of stages."""

import json
import platform
import resource
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rpo_data.dataset import ContrastDataset, load
from rpo_data.errors import LogError
from rpo_data.pipelines.checking import Checked, Say, Track, read_and_check
from rpo_data.pipelines.mining import Mined, mine
from rpo_data.pipelines.prompts import Prompts, embed_and_split
from rpo_data.pipelines.report import write_report
from rpo_data.pipelines.store import cache_folder
from rpo_data.readme import folder_readme
from rpo_data.schemas.manifest import Manifest, SplitInfo
from rpo_data.schemas.recipe import Recipe
from rpo_data.schemas.tables import FORMAT_VERSION
from rpo_data.splits import crossing_edges
from rpo_data.write import (
    check_replaceable,
    file_hash,
    replacing,
    write_groups,
    write_neighbors,
    write_rejects,
    write_rows,
    write_vectors,
)

_PACKAGES = (
    "datasets", "faiss-cpu", "numba", "numpy", "polars", "pyarrow", "sentence-transformers", "torch", "transformers",
)  # fmt: skip


def build(
    logs: str | Path | Sequence[str | Path],
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    limit: int | None = None,
    previous: str | Path | None = None,
    evaluation: Sequence[str | Path] = (),
    cache_dir: str | Path | None = None,
    batch_size: int = 1024,
    say: Say = lambda line: None,
    track: Track = lambda stage, done, total: None,
) -> ContrastDataset:
    """Build a mined contrast dataset from preference logs and open it.

    Args:
        logs: files, globs, folders or Hub ids.
        out: folder to write; a dataset of ours that stands there is replaced, anything else refused.
        recipe: the settings; defaults where not given.
        limit: read this many records at most.
        previous: a dataset of ours whose test prompts stay test prompts and train prompts stay train prompts.
        evaluation: files of evaluation sets; rows whose prompt overlaps with one are left out.
        cache_dir: of vectors and finished stages; $XDG_CACHE_HOME/rpo-data where not given.
        batch_size: prompts embedded between two writes to the cache; changes no bit of the result.
        say: called with a line on what a stage found.
        track: called as long work proceeds.

    Raises:
        RpoDataError: one of its kinds, with what is wrong, where, and what to do.
    """
    started, recipe, out, cache = time.time(), recipe or Recipe(), Path(out).resolve(), cache_folder(cache_dir)
    check_replaceable(out)

    checked = read_and_check(logs, recipe, limit=limit, cache=cache, evaluation=evaluation, say=say, track=track)
    checked, prompts = embed_and_split(
        checked, recipe, cache=cache, batch_size=batch_size, say=say, track=track, previous=previous
    )
    mined = mine(checked.ids, checked.ties, prompts, recipe, checked.mode, cache=cache, say=say)

    with replacing(out) as folder:
        tables = _write_tables(folder, checked, prompts, mined)
        manifest = _manifest(checked, prompts, mined, recipe, limit, previous, tables)
        finish(folder, manifest, started, cache)
    return load(out)


def finish(folder: Path, manifest: Manifest, started: float, cache: Path) -> None:
    """Write what tells of the tables: manifest, README, report, and the facts of the run."""
    (folder / "README.md").write_text(folder_readme(manifest), encoding="utf-8")
    (folder / "run.json").write_text(_run_facts(started), encoding="utf-8")
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    write_report(load(folder), folder, cache)


def package_versions() -> dict[str, str]:
    """Versions of the packages that a result may depend on."""
    return {package: version(package) for package in _PACKAGES}


def _write_tables(folder: Path, checked: Checked, prompts: Prompts, mined: Mined) -> dict[str, str]:
    """Write every table; content hash by table and split.

    Raises:
        LogError: prompts that belong together stand in different splits.
    """
    crossing = crossing_edges(prompts.is_test, prompts.together)
    if crossing != prompts.split.crossing:
        raise LogError(
            f"{crossing} pairs of prompts that belong together would stand in two splits: please report this"
        )
    position = checked.ids["position"].to_numpy()
    order = {split: position[rows] for split, rows in mined.order.items()}
    tables = write_rows(folder, checked.rows, order, checked.mode)
    tables |= write_groups(folder, mined.groups)
    tables |= write_neighbors(folder, prompts.ids, prompts.splits, prompts.neighbors, prompts.similarity)
    tables |= write_vectors(folder, prompts.ids, prompts.splits, prompts.vectors)
    write_rejects(folder, checked.rejects, checked.rows, checked.left_out)
    return tables


def _manifest(
    checked: Checked,
    prompts: Prompts,
    mined: Mined,
    recipe: Recipe,
    limit: int | None,
    previous: str | Path | None,
    tables: dict[str, str],
) -> Manifest:
    names = {
        "embedder": prompts.embedder.name,
        "tokenizer": Path(recipe.tokenizer).name,
    }  # a path would name the machine
    return Manifest(
        format_version=FORMAT_VERSION,
        rpo_data_version=version("rpo-data"),
        package_versions=package_versions(),
        mode=checked.mode,
        recipe=recipe.model_copy(update=names),
        limit=limit,
        sources=checked.source_counts,
        left_out=checked.left_out_counts,
        embedder=prompts.embedder,
        neighbors=prompts.search,
        temperature=mined.temperature,
        splits={
            split: SplitInfo(
                prompts=len(rows),
                groups=len(mined.groups[split]) // recipe.views,
                **{checked.what: len(mined.order[split])},
            )
            for split, rows in prompts.splits.items()
        },
        moved_to_test=prompts.split.moved,
        previous=file_hash(Path(previous) / "manifest.json") if previous is not None else None,
        quality=mined.quality,
        warnings=[*_warnings(prompts, recipe), *mined.warnings],
        tables=tables,
    )


def _warnings(prompts: Prompts, recipe: Recipe) -> list[str]:
    warnings = []
    moved, share = prompts.split.moved, float(prompts.is_test.mean())
    count = len(prompts.ids)
    if prompts.split.giants:
        largest = ", ".join(f"{size:,}" for size in prompts.split.giants[:3])
        warnings.append(
            f"{len(prompts.split.giants)} components of prompts that belong together hold more than 1 % of all {count:,} "
            f"(largest: {largest}); each stands in one split as a whole"
        )
    if prompts.split.crossing:
        warnings.append(
            f"{prompts.split.crossing:,} pairs of prompts that belong together stand in two splits, as in the previous build"
        )
    if moved and share > 2 * recipe.test_fraction:
        warnings.append(
            f"{share:.1%} of the prompts are test where {recipe.test_fraction:.1%} was asked: {moved:,} belong to "
            "test prompts (near-duplicates, turns of one dialogue); raise duplicate_score to keep more of them in train"
        )
    if recipe.test_fraction and not prompts.is_test.any():
        warnings.append(
            f"no prompt fell into the test split: {len(prompts.ids):,} prompts are few; raise test_fraction"
        )
    if prompts.search.recall < recipe.min_recall:
        warnings.append(
            f"the search found {prompts.search.recall:.1%} of the true neighbours, less than min_recall {recipe.min_recall:g}: "
            f"{prompts.search.index} finds no more; leave index at auto"
        )
    return warnings


def _run_facts(started: float) -> str:
    facts = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    return json.dumps(facts, indent=2) + "\n"
