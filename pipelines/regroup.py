"""`regroup`: other groups and weights of a dataset that is there, from its stored vectors and neighbours."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from datasets import load_from_disk

from rpo_data.check import row_ids
from rpo_data.dataset import ContrastDataset, load
from rpo_data.errors import DatasetError, RecipeError
from rpo_data.neighbors import near_duplicates
from rpo_data.pipelines.build import finish, package_versions
from rpo_data.pipelines.checking import Say
from rpo_data.pipelines.mining import WARNED_OF, Mined, mine
from rpo_data.pipelines.prompts import Prompts
from rpo_data.pipelines.recipes import change_recipe
from rpo_data.pipelines.store import cache_folder
from rpo_data.rows import JUDGEMENT
from rpo_data.schemas.manifest import Manifest
from rpo_data.schemas.recipe import Recipe
from rpo_data.schemas.tables import FORMAT_VERSION, PAIRS, RESPONSES
from rpo_data.splits import Split
from rpo_data.write import check_replaceable, replacing, write_groups, write_rows

KEYS = (
    "group_size", "views", "strategy", "seed", "min_score", "max_score", "range_min", "range_max", "mix_languages",
    "temperature", "normalize", "scale",
)  # fmt: skip
"""Recipe keys that need no reading, embedding or search."""
_PLACE = ["prompt_id", "pair_id", "annotator", "source", "source_row"]


def regroup(
    dataset: str | Path,
    out: str | Path,
    changes: Mapping[str, Any],
    *,
    cache_dir: str | Path | None = None,
    say: Say = lambda line: None,
) -> ContrastDataset:
    """Make a dataset with other groups or weights; rows, splits, neighbours and vectors stay what they are.

    Args:
        dataset: folder that `build` or `regroup` wrote.
        out: folder to write, as for `build`; may be the same.
        changes: recipe keys and values, of `KEYS`.
        cache_dir: of finished stages.
        say: called with a line on what a stage found.

    Raises:
        RecipeError: a key is none of `KEYS`, or a value is wrong.
        DatasetError: the dataset cannot be opened or holds no vectors; `out` cannot be written.
    """
    started, folder, out, cache = time.time(), Path(dataset), Path(out).resolve(), cache_folder(cache_dir)
    for key in changes:
        if key not in KEYS:
            raise RecipeError(f"regroup cannot change '{key}': build again; it can change {', '.join(KEYS)}")
    check_replaceable(out)
    data = load(folder)
    recipe = change_recipe(data.manifest.recipe, changes)
    mode = data.manifest.mode
    table, ids = _pairs(data) if data.paired else _responses(data)
    prompts = _prompts(data, folder, ids)
    mined = mine(ids, _ties(folder), prompts, recipe, mode, cache=cache, say=say)
    position = ids["position"].to_numpy()
    with replacing(out) as target:
        hashes = write_rows(target, table, {split: position[rows] for split, rows in mined.order.items()}, mode)
        hashes |= write_groups(target, mined.groups)
        for name in ("neighbors", "vectors"):
            shutil.copytree(folder / name, target / name)
            hashes |= {key: value for key, value in data.manifest.tables.items() if key.startswith(f"{name}/")}
        shutil.copy(folder / "rejects.parquet", target / "rejects.parquet")
        finish(target, _manifest(data.manifest, mined, recipe, hashes), started, cache)
    return load(out)


def _manifest(before: Manifest, mined: Mined, recipe: Recipe, tables: dict[str, str]) -> Manifest:
    groups = {split: mined.groups[split].num_rows // recipe.views for split in before.splits}
    splits = {split: info.model_copy(update={"groups": groups[split]}) for split, info in before.splits.items()}
    kept = [warning for warning in before.warnings if not warning.startswith(WARNED_OF)]
    return before.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "package_versions": package_versions(),
            "recipe": recipe,
            "temperature": mined.temperature,
            "splits": splits,
            "quality": mined.quality,
            "warnings": [*kept, *mined.warnings],
            "tables": tables,
        }
    )


def _pairs(data: ContrastDataset) -> tuple[pa.Table, pl.DataFrame]:
    """All pairs, and their identities in canonical order; `position` is the place of each in the table."""
    names = PAIRS.arrow_schema.names
    tables, frames, start = [], [], 0
    for split in data.splits:
        pairs = data.pairs[split]
        if "strength" not in pairs.column_names:  # format version 1
            pairs = pairs.add_column("strength", [None] * len(pairs), feature=PAIRS["strength"])
        tables.append(pairs.data.table.select(names).cast(PAIRS.arrow_schema))
        narrow = pairs.select_columns(
            ["pair_id", "prompt_id", "annotator", "language", "source", "source_row", "score_chosen", "score_rejected"]
        )
        frame = pl.from_arrow(narrow.data.table)
        assert isinstance(frame, pl.DataFrame)
        known = [
            row_ids(*(_messages(row[side]) for side in ("prompt", "chosen", "rejected")))
            for row in pairs.select_columns(["prompt", "chosen", "rejected"])
        ]
        frames.append(
            frame.with_columns(
                chosen_id=pl.Series([row["chosen_id"] for row in known], dtype=pl.String),
                rejected_id=pl.Series([row["rejected_id"] for row in known], dtype=pl.String),
                position=pl.int_range(start, start + len(frame), dtype=pl.Int64),
            )
        )
        start += len(frame)
    unscored = pl.col("score_chosen").is_null()
    order = [*_PLACE[:3], unscored, *_PLACE[3:]]  # as `rows.identities` has it
    return pa.concat_tables(tables), pl.concat(frames).sort(order, nulls_last=False)


def _responses(data: ContrastDataset) -> tuple[pa.Table, pl.DataFrame]:
    """The same of responses; the table has the names of the table of checked rows."""
    names = RESPONSES.arrow_schema.names
    theirs = [{"response_id": "pair_id", "completion": "chosen"}.get(name, name) for name in names]
    parts = [data.responses[split].data.table.select(names).cast(RESPONSES.arrow_schema) for split in data.splits]
    table = pa.concat_tables(parts).rename_columns(theirs)
    frame = pl.from_arrow(table.drop_columns(["prompt", "chosen", "flags"]))
    assert isinstance(frame, pl.DataFrame)
    known = [
        row_ids(_messages(row["prompt"]), _messages(row["completion"]), None)["chosen_id"]
        for split in data.splits
        for row in data.responses[split].select_columns(["prompt", "completion"])
    ]
    frame = frame.with_columns(
        chosen_id=pl.Series(known, dtype=pl.String), position=pl.int_range(len(frame), dtype=pl.Int64)
    )
    return table, frame.sort("prompt_id", "pair_id", "annotator", "source", "source_row", *JUDGEMENT, nulls_last=False)


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with the keys that they had in the logs."""
    found = [{key: value for key, value in message.items() if value is not None} for message in messages]
    for message in found:
        if isinstance(message.get("tool_calls"), str):  # as the rejects keep them
            message["tool_calls"] = json.loads(message["tool_calls"])
    return found


def _ties(folder: Path) -> pl.DataFrame:
    """Ids of the responses that the logs judge equal; they stand in the rejects."""
    told = pl.read_parquet(folder / "rejects.parquet").filter(pl.col("code") == "tie")["raw"]
    ties = []
    for raw in told:
        row = json.loads(raw)
        if "rejected" not in row:  # one of several responses that are judged equal
            continue
        sides = [_messages(row[side]) for side in ("prompt", "chosen", "rejected")]
        ties.append(row_ids(*sides))
    schema = {name: pl.String for name in ("prompt_id", "chosen_id", "rejected_id")}
    return pl.DataFrame(ties, schema=schema) if ties else pl.DataFrame(schema=schema)


def _prompts(data: ContrastDataset, folder: Path, ids: pl.DataFrame) -> Prompts:
    """The prompts of all splits in order of their ids, with the vectors and neighbours that are stored."""
    if not (folder / "vectors").is_dir():
        raise DatasetError(f"{folder} holds no vectors/, which regroup needs: build the dataset again")
    vectors = load_from_disk(str(folder / "vectors"))
    names, tests, neighbors, similarity, embedded = [], [], [], [], []
    start, k = 0, data.manifest.neighbors.k
    for split in data.splits:
        table = data.neighbors[split].data.table
        near = np.full((table.num_rows, k), -1, dtype=np.int64)
        cosine = np.full((table.num_rows, k), -np.inf, dtype=np.float32)
        lists = table["neighbors"].combine_chunks()
        there = np.arange(k) < np.diff(lists.offsets.to_numpy())[:, None]
        near[there] = lists.flatten().to_numpy() + start
        cosine[there] = table["similarity"].combine_chunks().flatten().to_numpy()
        embedded.append(
            vectors[split].data.table["vector"].combine_chunks().flatten().to_numpy().reshape(len(near), -1)
        )
        names.append(table["prompt_id"].to_numpy())
        tests.append(np.full(len(near), split == "test"))
        neighbors.append(near)
        similarity.append(cosine)
        start += len(near)
    order = np.argsort(np.concatenate(names), kind="stable")
    place = np.append(np.empty(start, dtype=np.int64), -1)  # -1 stays -1
    place[order] = np.arange(start)
    unit = np.ascontiguousarray(np.concatenate(embedded)[order])
    near, cosine = place[np.concatenate(neighbors)[order]], np.concatenate(similarity)[order]
    edges = near_duplicates(unit, near, cosine, data.manifest.recipe.duplicate_score)
    is_test = np.concatenate(tests)[order]
    parted = Split(is_test, np.zeros(start, dtype=bool), moved=0, giants=[], crossing=0)
    return Prompts(
        ids=np.concatenate(names)[order].tolist(),
        of_row=ids["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1,
        vectors=unit,
        embedder=data.manifest.embedder,
        near=edges,
        together=edges,
        split=parted,
        neighbors=near,
        similarity=cosine,
        search=data.manifest.neighbors,
    )
