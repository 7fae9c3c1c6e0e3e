"""Everything the page tells of a dataset, as plain rows and numbers, sampled or counted so that it stays small."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rpo_data.dataset import ContrastDataset
from rpo_data.page import plots
from rpo_data.page.cells import Curves, GroupCells, group_figures, read_groups, sums_of_columns, temperature_curves
from rpo_data.page.map import PromptMap, map_points, random_cosines, topic_rows
from rpo_data.page.rows import (
    CONTRADICTIONS,
    contradictions,
    flag_counts,
    left_out_places,
    one_line,
    side_lengths,
    value_counts,
)
from rpo_data.quality import HUB, distribution
from rpo_data.schemas.manifest import Distribution, Manifest
from rpo_data.schemas.rules import MERGED, RULES
from rpo_data.weights import view_temperatures

_LISTED = 10  # weakest groups, heaviest columns
_STEPS = 41  # temperatures of the slider
_COSINES = np.arange(-50, 51) / 50
_SUMS = np.arange(0, 81) / 20
_LENGTHS = 10 ** (np.arange(0, 61) / 10)


class Facts(NamedTuple):
    """`told` is what the page says in words and tables, `drawn` what its script needs (JSON values)."""

    told: dict[str, Any]
    drawn: dict[str, Any]


def collect_facts(data: ContrastDataset) -> Facts:
    """Everything the page tells; equal datasets give equal facts."""
    manifest, groups = data.manifest, read_groups(data)
    figures = group_figures(groups)
    used = view_temperatures(manifest.temperature, manifest.recipe.views)
    curves, step = _curves(manifest, groups, used)
    mapped = map_points(data, groups, figures)
    lengths = _lengths(data, groups)
    rejects = data.path / "rejects.parquet" if data.path is not None else None
    losses = _losses(manifest, left_out_places(rejects))
    told: dict[str, Any] = {
        "manifest": manifest,
        "rows": "pairs" if data.paired else "responses",
        "steps": _funnel(manifest),
        "losses": losses,
        "flags": flag_counts(data),
        "against": [loss for loss in losses if loss["code"] in CONTRADICTIONS],
        "contradictions": contradictions(rejects),
        "similarity": _similarity(manifest),
        "curves": curves,
        "step": step,
        "weak": _weak(manifest, figures),
        "means": {"mined groups": distribution([figures["similarity"].drop_nulls().to_numpy()])},
        "lowest": _with_texts(data, groups, _weakest(figures), None),
        "hubs": _with_texts(data, groups, _heaviest(figures), "hub"),
        "lengths": {name: distribution([found]) for name, found in lengths.items()},
        "longer": float((lengths["chosen"] > lengths["rejected"]).mean()) if data.paired else None,
        "counts": {name: value_counts(data, name) for name in ("language", "source", "annotator")},
        "map": mapped and {"topics": topic_rows(mapped.points), "points": len(mapped.points), "shown": mapped.shown},
        "examples": _examples(data, figures),
    }
    drawn = {
        "funnel": plots.bars(told["steps"], "step", "number", "What is left after each step", "mined"),
        "losses": plots.bars(told["losses"], "code", "number", "Left out or merged, by reason", "random"),
        "cells": plots.ranges(told["similarity"], "Cosine of own, mined and random cells", "cosine of the two prompts"),
        "contrasts": plots.contrasts_curve(curves, used, manifest.quality.random_contrasts, step),
        "shares": plots.shares_plot(curves, step),
        "lengths": plots.histogram(lengths, _LENGTHS, "characters (log scale)", "responses", log=True),
        **_plots_of_groups(data, groups, figures),
    }
    return Facts(told, _drawn(drawn, curves, mapped))


def _drawn(drawn: dict[str, plots.Spec], curves: Curves, mapped: PromptMap | None) -> dict[str, Any]:
    """What the script of the page needs: every plot of something, the points of the map, and what the slider says."""
    drawn = {name: plot for name, plot in drawn.items() if plot["data"]["values"]}
    if mapped:
        drawn = drawn | {"map": plots.prompt_map(mapped.points, "topic")}
        drawn["map-cosine"] = plots.prompt_map(mapped.points, "cosine")
    return {
        "plots": drawn,
        "points": mapped.points.to_dicts() if mapped else [],
        "temperatures": [float(f"{heat:.4g}") for heat in curves.temperatures],
        "contrasts": [round(count, 2) for count in curves.contrasts.tolist()],
        "own": [round(share, 3) for share in curves.shares[:, 0].tolist()],
    }


def _funnel(manifest: Manifest) -> list[dict[str, Any]]:
    """What is left after each step, and what the step took away."""
    total = {name: sum(getattr(s, name) for s in manifest.sources) for name in (
        "records_read", "records_rejected", "records_used", "rows_made", "rows_merged", "rows_rejected", "rows_kept",
    )}  # fmt: skip
    what = "pairs" if manifest.paired else "responses"
    steps = [
        ("records read", total["records_read"], "lines or entries of the logs"),
        ("records used", total["records_used"], f"{total['records_rejected']:,} records rejected"),
        (f"{what} made", total["rows_made"], f"a record can give several {what}, or none of its own"),
        (
            "without duplicates",
            total["rows_made"] - total["rows_merged"],
            f"{total['rows_merged']:,} merged into an equal one",
        ),
        (f"{what} kept", total["rows_kept"], f"{total['rows_rejected']:,} left out"),
    ]
    for name, info in sorted(manifest.splits.items(), reverse=True):
        steps.append((f"in {name} groups", info.rows, f"{info.groups:,} groups a view, {info.prompts:,} prompts"))
    return [{"step": step, "number": number, "note": note} for step, number, note in steps]


def _losses(manifest: Manifest, places: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every reason for which something was left out or merged, the most common first, and where in the logs it stands."""
    nowhere = {"files": 0, "places": [], "first": ""}
    return [
        {"code": code, "number": number, "rule": RULES[code], "merged": code in MERGED, **places.get(code, nowhere)}
        for code, number in sorted(manifest.left_out.items(), key=lambda item: (-item[1], item[0]))
    ]


def _similarity(manifest: Manifest) -> dict[str, Distribution]:
    """Distributions of the cosines of own, mined and random cells, by name."""
    mined, random = manifest.quality.mined, manifest.quality.random
    found = {
        "own cells": mined.own_similarity if mined else None,
        "mined cells": mined.cross_similarity if mined else None,
        "random cells": random.cross_similarity if random else None,
    }
    return {name: told for name, told in found.items() if told is not None}


def _weak(manifest: Manifest, figures: pl.DataFrame) -> dict[str, Any] | None:
    """Groups whose mean cosine is nearer to that of random groups than to that of these groups, and those below random."""
    random, mined = manifest.quality.random_similarity, manifest.quality.mean_similarity
    if random is None or mined is None:
        return None
    limit = (random + mined) / 2
    mean = figures["similarity"].drop_nulls()
    return {
        "limit": limit,
        "number": int((mean < limit).sum()),
        "below": int((mean <= random).sum()),
        "groups": len(mean),
    }


def _weakest(figures: pl.DataFrame) -> pl.DataFrame:
    return figures.drop_nulls("similarity").sort("similarity", "group").head(_LISTED)


def _heaviest(figures: pl.DataFrame) -> pl.DataFrame:
    return figures.filter(pl.col("heaviest") > HUB).sort(["heaviest", "group"], descending=[True, False]).head(_LISTED)


def _with_texts(
    data: ContrastDataset, groups: GroupCells, figures: pl.DataFrame, of: str | None
) -> list[dict[str, Any]]:
    """Rows of `group_figures`, each with the prompt of a loss of its group: that of this column, or the first."""
    starts = np.cumsum(groups.cells.shapes[:, 1]) - groups.cells.shapes[:, 1]
    number = {name: place for place, name in enumerate(groups.ids)} if len(figures) else {}
    told = []
    for row in figures.to_dicts():
        loss = groups.losses[starts[number[row["group"]]] + (row[of] if of else 0)]
        told.append(row | {"text": one_line(data.rows["train"][int(loss)]["prompt"], 160)})
    return told


def _examples(data: ContrastDataset, figures: pl.DataFrame) -> list[dict[str, Any]]:
    """The best, the middle and the worst group of the train split by mean cosine, with texts."""
    ranked = figures.sort("similarity", descending=True, nulls_last=True, maintain_order=True)
    ranked = ranked.head(max(1, ranked["similarity"].count()))  # a group of one prompt has no mean
    places = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    shown: dict[int, dict[str, Any]] = {}
    for title, place in places.items():
        row = ranked.row(place, named=True)
        shown.setdefault(place, data.group(row["group"]) | {"title": title, "similarity_mean": row["similarity"]})
    return list(shown.values())


def _curves(manifest: Manifest, groups: GroupCells, used: list[float]) -> tuple[Curves, int]:
    """The curves over the slider's temperatures, and the step that is in use (in view 0)."""
    grid = np.geomspace(min(0.02, min(used) / 4), max(2.0, max(used) * 4), _STEPS)
    step = int(np.abs(np.log(grid / used[0])).argmin())
    grid[step] = used[0]
    return temperature_curves(groups, grid, manifest.recipe.normalize), step


def _lengths(data: ContrastDataset, groups: GroupCells) -> dict[str, np.ndarray]:
    """Characters of the train responses by side, each in view 0."""
    once = groups.cells.shapes[: len(groups.ids) // data.views].sum(axis=0)
    names = ("chosen", "rejected") if data.paired else ("wins", "losses")
    return dict(zip(names, side_lengths(data, groups.wins[: once[0]], groups.losses[: once[1]]), strict=True))


def _plots_of_groups(data: ContrastDataset, groups: GroupCells, figures: pl.DataFrame) -> dict[str, plots.Spec]:
    """Plots of cosines, of groups' means and of column sums."""
    quality, random = data.manifest.quality, random_cosines(data)
    cosines = {} if random is None else {"random pairs": random}
    cosines["mined cells"] = groups.cells.similarity[~groups.cells.own & (groups.cells.reason == 0)]
    marks = {"random": quality.random_similarity, "mean": quality.mean_similarity, "bound": quality.nearest_similarity}
    means, sums = (
        {"mined groups": figures["similarity"].drop_nulls().to_numpy()},
        {"mined losses": sums_of_columns(groups)},
    )
    return {
        "cosines": plots.histogram(cosines, _COSINES, "cosine of the two prompts", "cells"),
        "groups": plots.histogram(means, _COSINES, "mean cosine of the group", "groups", marks),
        "columns": plots.histogram(sums, _SUMS, "sum of a loss's weights (1 is even)", "losses", {"hub": HUB}),
    }
