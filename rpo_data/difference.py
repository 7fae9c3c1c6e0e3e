"""What changed between two datasets: settings, sources, counts, reasons, quality, and which rows moved where."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from rpo_data.dataset import ContrastDataset
from rpo_data.schemas.manifest import Manifest

SHOWN = 5
"""Rows named of each kind of move, at most."""

Change = tuple[Any, Any]
"""A figure in the one and in the other dataset; None where it has none."""


class MovedRows(BaseModel):
    """Where rows went, by their ids; a row that several annotators judge counts once.

    both          rows in both datasets
    only          rows in the one alone and in the other alone
    moves         rows that are in two different splits, by `from to`
    examples      ids of some rows of each kind of move, and of rows that are in one dataset alone
    groups        groups (view 0) in the one and in the other, and groups with the very same rows
    company       pairs of rows of `both` that share a group (view 0) in the one, in the other, and in both
    """

    model_config = ConfigDict(frozen=True)

    both: int
    only: tuple[int, int]
    moves: dict[str, int]
    examples: dict[str, list[str]]
    groups: tuple[int, int, int]
    company: tuple[int, int, int]


class Difference(BaseModel):
    """Every part holds only what differs; `rows` is None where one dataset holds pairs and the other responses."""

    model_config = ConfigDict(frozen=True)

    same_tables: bool
    settings: dict[str, Change]
    versions: dict[str, Change]
    sources: dict[str, str]
    counts: dict[str, Change]
    reasons: dict[str, Change]
    quality: dict[str, Change]
    rows: MovedRows | None


def compare_datasets(one: ContrastDataset, other: ContrastDataset) -> Difference:
    """What changed from the one dataset to the other."""
    before, after = one.manifest, other.manifest
    return Difference(
        same_tables=before.tables == after.tables,
        settings=_changes(_settings(before), _settings(after)),
        versions=_changes(before.package_versions, after.package_versions),
        sources=_sources(before, after),
        counts=_changes(_counts(before), _counts(after)),
        reasons=_changes(before.left_out, after.left_out, missing=0),
        quality=_changes(_quality(before), _quality(after)),
        rows=moved_rows(_places(one), _places(other)) if one.paired == other.paired else None,
    )


def moved_rows(one: pl.DataFrame, other: pl.DataFrame) -> MovedRows:
    """Compare where rows stand.

    Args:
        one: a row for each id, with `id`, `split` and `group`.
        other: the same of the other dataset.
    """
    both = one.join(other, on="id", suffix="_other")
    gone, new = one.join(other, on="id", how="anti"), other.join(one, on="id", how="anti")
    moved = both.filter(pl.col("split") != pl.col("split_other")).with_columns(
        move=pl.concat_str("split", pl.lit(" to "), "split_other")
    )
    kinds = {"only in the one": gone, "only in the other": new}
    kinds |= {move: moved.filter(move=move) for move in moved["move"].unique().sort()}
    same = _sets(one).join(_sets(other), on="rows")
    return MovedRows(
        both=len(both),
        only=(len(gone), len(new)),
        moves={move: len(rows) for move, rows in kinds.items() if " to " in move},
        examples={kind: rows["id"].sort().head(SHOWN).to_list() for kind, rows in kinds.items() if len(rows)},
        groups=(one["group"].n_unique(), other["group"].n_unique(), len(same)),
        company=(_pairs(both, "group"), _pairs(both, "group_other"), _pairs(both, "group", "group_other")),
    )


def _places(data: ContrastDataset) -> pl.DataFrame:
    """Where each row stands: `id`, `split` and `group` of view 0."""
    key = "pair_id" if data.paired else "response_id"
    frames = []
    for split in data.splits:
        groups = data.view(split, 0).with_format("arrow")[:].select(["group_id", "win_rows", "loss_rows"])
        sides = pl.DataFrame(pl.from_arrow(groups)).select("group_id", row=pl.concat_list("win_rows", "loss_rows"))
        of_row = sides.explode("row").unique("row").sort("row")
        ids = pl.Series(data.rows[split].data.table[key])
        frames.append(pl.DataFrame({"id": ids, "group": of_row["group_id"]}).with_columns(split=pl.lit(split)))
    return pl.concat(frames).unique("id", keep="first", maintain_order=True)


def _sets(places: pl.DataFrame) -> pl.DataFrame:
    """The rows of each group, sorted and joined."""
    return places.group_by("group").agg(rows=pl.col("id").sort().str.join(","))


def _pairs(rows: pl.DataFrame, *groups: str) -> int:
    """Pairs of rows that share all these groups."""
    count = pl.col("len").cast(pl.Int64)
    return int(rows.group_by(groups).len().select((count * (count - 1) // 2).sum()).item())


def _changes(one: Mapping[str, Any], other: Mapping[str, Any], missing: Any = None) -> dict[str, Change]:
    names = list(dict.fromkeys([*one, *other]))
    both = {name: (one.get(name, missing), other.get(name, missing)) for name in names}
    return {name: change for name, change in both.items() if change[0] != change[1]}


def _settings(manifest: Manifest) -> dict[str, Any]:
    more = {"mode": manifest.mode, "temperature in use": manifest.temperatures, "limit": manifest.limit}
    embedder = {f"embedder {name}": value for name, value in manifest.embedder.model_dump().items() if name != "name"}
    return manifest.recipe.model_dump(mode="json") | more | embedder | {"rpo-data": manifest.rpo_data_version}


def _sources(before: Manifest, after: Manifest) -> dict[str, str]:
    """What became of each log file: new, gone, or changed."""
    one, other = ({source.name: source.content_hash for source in manifest.sources} for manifest in (before, after))
    told = {}
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            told[name] = "new" if name not in one else "gone" if name not in other else "changed"
    return told


def _counts(manifest: Manifest) -> dict[str, int]:
    totals = (
        "records_read", "records_used", "records_rejected", "rows_made", "rows_merged", "rows_rejected", "rows_kept",
    )  # fmt: skip
    counts = {name: sum(getattr(source, name) for source in manifest.sources) for name in totals}
    for split, info in sorted(manifest.splits.items(), reverse=True):
        counts |= {f"{split} prompts": info.prompts, f"{split} {manifest.what}": info.rows}
        counts[f"{split} groups a view"] = info.groups
    return counts


def _quality(manifest: Manifest) -> dict[str, Any]:
    quality = manifest.quality
    names = (
        "mean_similarity", "random_similarity", "nearest_similarity", "effective_contrasts", "random_contrasts", "cells",
        "row_fallbacks",
    )  # fmt: skip
    figures = {name: getattr(quality, name) for name in names}
    figures |= {f"masked cells, {reason}": number for reason, number in quality.masked_cells.items()}
    if quality.mined:
        figures["hubs"] = quality.mined.hubs
    return figures
