"""report.html: one self-contained page on a dataset. Texts of the data are escaped by jinja2; the page runs no script."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_from_disk
from jinja2 import Environment, PackageLoader, StrictUndefined

from rpo_data.schemas.manifest import Manifest
from rpo_data.schemas.reasons import REASONS


def render_report(folder: Path, manifest: Manifest) -> str:
    """The page for the tables that stand in a folder; the same tables and manifest give the same bytes.

    Args:
        folder: holds `pairs` and `groups`.
        manifest: of these tables.
    """
    environment = Environment(
        loader=PackageLoader("rpo_data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["last_text"] = lambda messages: messages[-1]["content"] or "(tool call)"
    template = environment.get_template("report.html.j2")
    return template.render(
        manifest=manifest,
        read=sum(source.records_read for source in manifest.sources),
        kept=sum(source.rows_kept for source in manifest.sources),
        reasons=REASONS,
        examples=_examples(folder, manifest.recipe.views),
    )


def _examples(folder: Path, views: int) -> list[dict[str, Any]]:
    """The most, the middle and the least related group of view 0 of the train split, with texts."""
    groups = load_from_disk(str(folder / "groups"))["train"]
    groups = groups.select(range(len(groups) // views))  # views stand one behind the other
    pairs = load_from_disk(str(folder / "pairs"))["train"]
    means = np.array([_mean_other(similarity) for similarity in groups["similarity"]])
    order = np.lexsort((np.arange(len(means)), -means))
    chosen = dict.fromkeys((int(order[0]), int(order[len(order) // 2]), int(order[-1])))
    titles = ("Most related", "In the middle", "Least related")
    return [
        groups[number]
        | {"title": title, "mean": means[number], "pairs": [pairs[row] for row in groups[number]["win_rows"]]}
        for title, number in zip(titles, chosen, strict=False)
    ]


def _mean_other(similarity: list[list[float]]) -> float:
    """Mean off the diagonal; 0 for a group of one."""
    matrix = np.array(similarity, dtype=np.float64)
    cells = matrix.size - len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / cells) if cells else 0.0
