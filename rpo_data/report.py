"""report.html: one self-contained page on a dataset, from its tables and manifest alone, so that equal data gives equal bytes.

Nothing of the data can run: jinja2 escapes every text, what the plots draw is JSON with < > & escaped, and a content security
policy admits the two scripts of the page by their hashes, and no request. Everything is sampled or counted, so the page stays
small however large the dataset is.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rpo_data.dataset import ContrastDataset, judgement
from rpo_data.page import plots
from rpo_data.page.cells import GroupCells, group_figures, read_groups, sums_of_columns, temperature_curves
from rpo_data.page.map import map_points, random_cosines, topic_rows
from rpo_data.page.rows import excerpt, flag_counts, left_out_places, side_lengths, value_counts
from rpo_data.quality import HUB, distribution
from rpo_data.schemas.manifest import Manifest
from rpo_data.schemas.rules import MERGED, RULES
from rpo_data.weights import view_temperatures

CONTRADICTIONS = ("conflict", "cycle", "near_conflict", "outvoted", "no_majority", "not_unanimous")
"""Codes of rows that speak against each other."""

_LISTED = 10  # weakest groups, heaviest columns
_ROWS = 12  # rows of a side of a group to read
_TEXT = 1200  # characters of a text to read
_STEPS = 41  # temperatures of the slider
_COSINES = np.arange(-50, 51) / 50
_SUMS = np.arange(0, 41) / 10
_LENGTHS = 10 ** (np.arange(0, 61) / 10)


def render_report(data: ContrastDataset, script: str) -> str:
    """The page for a dataset.

    Args:
        data: the dataset; of one without `vectors/` the map and the cosines of random pairs are not drawn.
        script: Vega, Vega-Lite and Vega-Embed, as one ES module (`pipelines.report.plot_script`).
    """
    environment = _environment()
    groups = read_groups(data)
    figures = group_figures(groups, data.paired)
    curves = _curves(data.manifest, groups)
    mapped = map_points(data, groups, figures)
    points, shown = mapped if mapped else (None, None)
    own_script, _, _ = environment.loader.get_source(environment, "report.js")  # type: ignore[union-attr]
    once = groups.cells.shapes[: len(groups.ids) // data.views].sum(axis=0)  # rows of view 0: each row, once
    wins, losses = side_lengths(data, groups.wins[: once[0]], groups.losses[: once[1]])
    sides = ("chosen", "rejected") if data.paired else ("wins", "losses")
    context = {
        "manifest": data.manifest,
        "rows": "pairs" if data.paired else "responses",
        "steps": _funnel(data.manifest),
        "losses": _losses(data),
        "flags": flag_counts(data),
        "similarity": _similarity(data.manifest),
        "weak": _weak(data.manifest, figures),
        "lowest": _with_texts(data, groups, figures.sort("similarity", "group").head(_LISTED), None),
        "hubs": _with_texts(data, groups, _heaviest(figures), "hub"),
        "lengths": {name: distribution([found]) for name, found in zip(sides, (wins, losses), strict=True)},
        "longer": float((wins > losses).mean()) if data.paired else None,
        "counts": {name: value_counts(data, name) for name in ("language", "source", "annotator")},
        "topics": topic_rows(points) if points is not None else [],
        "shown": shown,
        "examples": _examples(data, figures),
        "curves": curves,
        "share_names": plots.share_names(curves["shares"].shape[1]),
        "contradictions": CONTRADICTIONS,
    }
    page = {
        "plots": _plots(data, context, groups, figures, (wins, losses), points),
        "points": points.to_dicts() if points is not None else [],
        "temperatures": [float(f"{heat:.4g}") for heat in curves["temperatures"].tolist()],
        "contrasts": [round(count, 2) for count in curves["contrasts"].tolist()],
        "own": [round(share, 3) for share in curves["shares"][:, 0].tolist()],
    }
    return environment.get_template("report.html.j2").render(
        **context,
        page=page,
        script=Markup(script),
        own_script=Markup(own_script),
        hashes=[_script_hash(text) for text in (script, own_script)],
        text_limit=_TEXT,
        row_limit=_ROWS,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rpo_data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    environment.filters["excerpt"] = excerpt
    environment.filters["judgement"] = judgement
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["figure"] = lambda value, digits=3: "none" if value is None else f"{value:.{digits}f}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    return environment


def _script_hash(text: str) -> str:
    """As a content security policy names a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


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


def _losses(data: ContrastDataset) -> list[dict[str, Any]]:
    """Every reason for which something was left out or merged, the most common first, and where in the logs it stands."""
    places = left_out_places(data.path / "rejects.parquet") if data.path is not None else {}
    return [
        {
            "code": code,
            "number": number,
            "rule": RULES[code],
            "merged": code in MERGED,
            **places.get(code, {"files": 0, "places": []}),
        }
        for code, number in sorted(data.manifest.left_out.items(), key=lambda item: (-item[1], item[0]))
    ]


def _similarity(manifest: Manifest) -> dict[str, Any]:
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
    mean = figures["similarity"]
    return {
        "limit": limit,
        "number": int((mean < limit).sum()),
        "below": int((mean <= random).sum()),
        "groups": len(mean),
    }


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
        told.append(row | {"text": excerpt(data.rows["train"][int(loss)]["prompt"], 160)})
    return told


def _examples(data: ContrastDataset, figures: pl.DataFrame) -> list[dict[str, Any]]:
    """The best, the middle and the worst group of the train split by mean cosine, with texts."""
    ranked = figures.sort("similarity", descending=True, maintain_order=True)
    places = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    shown: dict[int, dict[str, Any]] = {}
    for title, place in places.items():
        row = ranked.row(place, named=True)
        shown.setdefault(place, data.group(row["group"]) | {"title": title, "similarity_mean": row["similarity"]})
    return list(shown.values())


def _curves(manifest: Manifest, groups: GroupCells) -> dict[str, Any]:
    """Temperatures of the slider, among them the one in use, and what each makes of the weights."""
    used = view_temperatures(manifest.temperature, manifest.recipe.views)
    grid = np.geomspace(min(0.02, min(used) / 4), max(2.0, max(used) * 4), _STEPS)
    grid[np.abs(np.log(grid / used[0])).argmin()] = used[0]
    contrasts, shares = temperature_curves(groups, grid, manifest.recipe.normalize)
    return {
        "temperatures": grid,
        "contrasts": contrasts,
        "shares": shares,
        "used": used,
        "step": int((grid == used[0]).argmax()),
    }


def _plots(
    data: ContrastDataset,
    told: Mapping[str, Any],
    groups: GroupCells,
    figures: pl.DataFrame,
    lengths: tuple[np.ndarray, np.ndarray],
    points: pl.DataFrame | None,
) -> dict[str, plots.Spec]:
    """Every plot of the page by the id of its place."""
    quality, curves = data.manifest.quality, told["curves"]
    random = random_cosines(data)
    counted = ~groups.cells.own & (groups.cells.reason == 0)
    cosines = {} if random is None else {"random pairs": random}
    cosines["mined cells"] = groups.cells.similarity[counted]
    marks = {"random": quality.random_similarity, "mean": quality.mean_similarity, "bound": quality.nearest_similarity}
    means, sums = {"mined groups": figures["similarity"].to_numpy()}, {"mined losses": sums_of_columns(groups)}
    sides = dict(zip(told["lengths"], lengths, strict=True))
    drawn = {
        "funnel": plots.bars(told["steps"], "step", "number", "What is left after each step", "mined"),
        "cells": plots.ranges(told["similarity"], "Cosine of own, mined and random cells", "cosine of the two prompts"),
        "cosines": plots.histogram(cosines, _COSINES, "cosine of the two prompts", "cells"),
        "contrasts": plots.contrasts_curve(
            curves["temperatures"], curves["contrasts"], curves["used"], quality.random_contrasts, curves["step"]
        ),
        "shares": plots.shares_plot(curves["shares"], curves["step"]),
        "groups": plots.histogram(means, _COSINES, "mean cosine of the group", "groups", marks),
        "columns": plots.histogram(sums, _SUMS, "sum of a loss's weights (1 is even)", "losses", {"hub": HUB}),
        "lengths": plots.histogram(sides, _LENGTHS, "characters (log scale)", "responses", log=True),
    }
    if told["losses"]:
        drawn["losses"] = plots.bars(told["losses"], "code", "number", "Left out or merged, by reason", "random")
    if points is not None:
        drawn["map"] = plots.prompt_map(points, "topic")
        drawn["map-cosine"] = plots.prompt_map(points, "cosine")
    return drawn
