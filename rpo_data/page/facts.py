"""Everything the page tells of a dataset, as plain rows and numbers, sampled or counted so that it stays small."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rpo_data.dataset import ContrastDataset
from rpo_data.page import plots
from rpo_data.page.cells import Curves, GroupCells, group_figures, read_groups, sums_of_columns, temperature_curves
from rpo_data.page.map import PromptMap, map_points, random_cosines
from rpo_data.page.rows import (
    CONTRADICTIONS,
    contradictions,
    flag_counts,
    left_out_places,
    one_line,
    opening,
    side_lengths,
    value_counts,
)
from rpo_data.page.verdict import verdict, way_to_best
from rpo_data.quality import HUB, distribution
from rpo_data.schemas.manifest import Distribution, Manifest
from rpo_data.schemas.rules import MERGED, RULES
from rpo_data.weights import view_temperatures

_LISTED = 10  # weakest groups, heaviest columns: with their texts
_NAMED = 200  # weak groups, by name
_TEXT = 160  # characters of a prompt
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
    figures = _figures(data, groups)
    used = view_temperatures(manifest.temperature, manifest.recipe.views)
    curves, step = _curves(manifest, groups, used)
    mapped = map_points(data, groups, figures)
    lengths = _lengths(data, groups)
    rejects = data.path / "rejects.parquet" if data.path is not None else None
    losses, weak, similarity = (
        _losses(manifest, left_out_places(rejects)),
        _weak(manifest, figures),
        _similarity(manifest),
    )
    longer = float((lengths["chosen"] > lengths["rejected"]).mean()) if data.paired else None
    cosines = _cosines(data, groups)
    domain = _domain(cosines, similarity)
    told: dict[str, Any] = {
        "manifest": manifest,
        "rows": "pairs" if data.paired else "responses",
        "verdict": verdict(manifest, weak["number"] / max(1, weak["groups"]) if weak else None, longer),
        "steps": _funnel(manifest),
        "parts": _parts(manifest),
        "losses": losses,
        "flags": flag_counts(data),
        "against": [loss for loss in losses if loss["code"] in CONTRADICTIONS],
        "contradictions": contradictions(rejects),
        "similarity": similarity,
        "way": way_to_best(manifest),
        "used": ", ".join(f"{heat:.3g}" for heat in dict.fromkeys(used)),
        "calibrated": _calibrated(manifest),
        "curves": curves,
        "step": step,
        "weak": weak,
        "views": _views(figures, weak),
        "small": figures.filter("small").sort("similarity", "group", nulls_last=True).head(_LISTED).to_dicts(),
        "means": {"mined groups": distribution([figures["similarity"].drop_nulls().to_numpy()])},
        "lowest": _with_texts(data, groups, _weakest(figures), None),
        "hubs": _with_texts(data, groups, _heaviest(figures), "hub"),
        "lengths": {name: distribution([found]) for name, found in lengths.items()},
        "longer": longer,
        "counts": {name: value_counts(data, name) for name in ("language", "source", "annotator")},
        "map": mapped and {"topics": mapped.topics, "points": len(mapped.points), "shown": mapped.shown},
        "examples": _examples(data, figures),
    }
    drawn = {
        "funnel": plots.bars(told["steps"], "step", "number", "What is left after each step", "mined"),
        "losses": plots.bars(told["losses"], "code", "number", "Left out or merged, by reason", "random"),
        "cells": plots.ranges(similarity, "Cosine of own, mined and random cells", "cosine of the two prompts", domain),
        "cosines": plots.histogram(cosines, _COSINES, "cosine of the two prompts", "cells", domain=domain),
        "contrasts": plots.contrasts_curve(curves, used, manifest.quality.random_contrasts, step),
        "shares": plots.shares_plot(curves, step),
        "lengths": plots.histogram(lengths, _LENGTHS, "characters (log scale)", "responses", log=True),
        **_plots_of_groups(manifest, groups, figures, weak),
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
        "temperatures": [float(f"{heat:.3g}") for heat in curves.temperatures],
        "contrasts": [round(count, 2) for count in curves.contrasts.tolist()],
        "own": [round(share, 3) for share in curves.shares[:, 0].tolist()],
    }


def _funnel(manifest: Manifest) -> list[dict[str, Any]]:
    """What is left after each step, and what the step took away; the splits are no step, see `_parts`."""
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
    return [{"step": step, "number": number, "note": note} for step, number, note in steps]


def _parts(manifest: Manifest) -> list[dict[str, Any]]:
    """The splits, into which the rows that are kept are parted."""
    return [
        {"split": name, "rows": info.rows, "groups": info.groups, "prompts": info.prompts}
        for name, info in sorted(manifest.splits.items(), reverse=True)
    ]


def _losses(manifest: Manifest, places: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every reason for which something was left out or merged, the most common first, and where in the logs it stands."""
    nowhere = {"places": [], "first": ""}
    found = []
    for code, number in sorted(manifest.left_out.items(), key=lambda item: (-item[1], item[0])):
        loss = {
            "code": code,
            "number": number,
            "rule": RULES[code],
            "merged": code in MERGED,
            **places.get(code, nowhere),
        }
        place, reason = "".join(loss["places"][:1]), RULES[code].reason
        loss["advised"] = loss["first"].removeprefix(f"{place}: ").removeprefix(f"{reason}: ")  # each is told once
        found.append(loss)
    return found


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
    known = figures.drop_nulls("similarity")
    weak = known.filter(pl.col("similarity") < limit).sort("similarity", "group")
    return {
        "limit": limit,
        "number": len(weak),
        "below": int((known["similarity"] <= random).sum()),
        "groups": len(known),
        "contrasts": float(np.average(weak["contrasts"], weights=weak["wins"])) if len(weak) else None,
        "named": weak.head(_NAMED).select("group", "similarity").to_dicts(),
    }


def _figures(data: ContrastDataset, groups: GroupCells) -> pl.DataFrame:
    """`group_figures` with the `view` of each group, and whether it is `small`: a remainder of fewer pairs than group_size."""
    small = pl.col("wins") < data.manifest.recipe.group_size if data.paired else pl.lit(False)
    view = pl.Series("view", data.groups["train"].data.table["view"].to_numpy())
    return group_figures(groups).with_columns(view, small=small)


def _views(figures: pl.DataFrame, weak: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A row for each view: `groups`, the mean `cosine` of its cells that are not own cells, `weak` and `small` groups."""
    limit = weak["limit"] if weak else -np.inf
    total = (pl.col("similarity") * pl.col("cross")).sum()
    cosine = pl.when(pl.col("cross").sum() > 0).then(total / pl.col("cross").sum())
    below = (pl.col("similarity") < limit).sum()
    told = figures.group_by("view").agg(cosine=cosine, groups=pl.len(), weak=below, small=pl.col("small").sum())
    return told.sort("view").to_dicts()


def _calibrated(manifest: Manifest) -> str:
    """How the temperature was found: `set` by the recipe, or `auto`; `met` where auto reached what it sought."""
    sought, reached = manifest.quality.random_contrasts, manifest.quality.effective_contrasts
    if manifest.recipe.temperature != "auto":
        return "set"
    same = manifest.mode != "scored" and sought is not None and reached is not None and abs(sought - reached) < 0.005
    return "met" if same else "auto"


def _weakest(figures: pl.DataFrame) -> pl.DataFrame:
    return figures.drop_nulls("similarity").sort("similarity", "group").head(_LISTED)


def _heaviest(figures: pl.DataFrame) -> pl.DataFrame:
    return figures.filter(pl.col("heaviest") > HUB).sort(["heaviest", "group"], descending=[True, False]).head(_LISTED)


def _with_texts(
    data: ContrastDataset, groups: GroupCells, figures: pl.DataFrame, of: str | None
) -> list[dict[str, Any]]:
    """Rows of `group_figures`, each with the prompt of a loss of its group, that of this column or the first.

    `opening` is its first turn where there are several, `text` its last one.
    """
    starts = np.cumsum(groups.cells.shapes[:, 1]) - groups.cells.shapes[:, 1]
    number = {name: place for place, name in enumerate(groups.ids)} if len(figures) else {}
    told = []
    for row in figures.to_dicts():
        loss = groups.losses[starts[number[row["group"]]] + (row[of] if of else 0)]
        prompt = data.rows["train"][int(loss)]["prompt"]
        told.append(row | {"text": one_line(prompt, _TEXT), "opening": opening(prompt, _TEXT)})
    return told


def _examples(data: ContrastDataset, figures: pl.DataFrame) -> list[dict[str, Any]]:
    """The best, the middle and the worst group of the train split by mean cosine, with texts; the worst remainder apart."""
    ranked = figures.sort("similarity", descending=True, nulls_last=True, maintain_order=True)
    ranked = ranked.head(max(1, ranked["similarity"].count()))  # a group of one prompt has no mean
    full, small = ranked.filter(~pl.col("small")), ranked.filter("small")
    named = {"Best": 0, "Median": len(full) // 2, "Worst": len(full) - 1} if len(full) else {}
    rows = [(title, full.row(place, named=True)) for title, place in named.items()]
    if len(small):
        rows.append(("Remainder", small.row(-1, named=True)))
    shown: dict[str, dict[str, Any]] = {}
    for title, row in rows:
        told = {"title": title, "similarity_mean": row["similarity"]}
        if row["group"] not in shown:
            shown[row["group"]] = data.group(row["group"]) | told
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


def _cosines(data: ContrastDataset, groups: GroupCells) -> dict[str, np.ndarray]:
    """Cosines of cells between different prompts, by name; random ones where there are vectors."""
    random = random_cosines(data)
    cosines = {} if random is None else {"random cells": random}
    return cosines | {"mined cells": groups.cells.similarity[~groups.cells.own & (groups.cells.reason == 0)]}


def _domain(cosines: dict[str, np.ndarray], similarity: dict[str, Distribution]) -> list[float]:
    """Ends of the axis on which cosines stand: a tenth at or below the lowest one, and 1."""
    lows = [float(found.min()) for found in cosines.values() if len(found)] + [told.p5 for told in similarity.values()]
    return [max(-1.0, float(np.floor(10 * min(lows, default=0.0)) / 10)), 1.0]


def _plots_of_groups(
    manifest: Manifest, groups: GroupCells, figures: pl.DataFrame, weak: dict[str, Any] | None
) -> dict[str, plots.Spec]:
    """Plots of groups' means and of column sums."""
    quality = manifest.quality
    marks = {"random": quality.random_similarity, "mean": quality.mean_similarity}
    marks |= {"weak below": weak["limit"] if weak else None, "best possible mean": quality.nearest_similarity}
    means = {"mined groups": figures["similarity"].drop_nulls().to_numpy()}
    sums = {"mined losses": sums_of_columns(groups)}
    return {
        "groups": plots.histogram(means, _COSINES, "mean cosine of the group", "groups", marks),
        "columns": plots.histogram(sums, _SUMS, "sum of a loss's weights (1 is even)", "losses", {"hub above": HUB}),
    }
