"""The last stages of a build: contrast groups of related prompts, and the weights of their cells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data.cells import Cells, cells_of, joined
from rpo_data.conflicts import near_prompts
from rpo_data.contrasts import Known, judgements
from rpo_data.errors import LogError
from rpo_data.groups import form_groups
from rpo_data.mending import Groups, roles, unmasked
from rpo_data.pipelines.checking import Say, check_sizes
from rpo_data.pipelines.prompts import Prompts, blocks
from rpo_data.pipelines.store import array_hash, stored_arrays
from rpo_data.quality import WeightedCells, measure, nearest_similarity
from rpo_data.response_masks import Labels, known_responses, no_counterpart
from rpo_data.schemas.manifest import Quality
from rpo_data.schemas.recipe import Mode, Recipe
from rpo_data.schemas.tables import GROUPS
from rpo_data.utility import Band, Material
from rpo_data.weights import (
    PAPER_TEMPERATURE,
    Stack,
    calibrate_temperature,
    contrast_weights,
    view_temperatures,
)

WARNED_OF = ("temperature", "normalize")
"""First words of the warnings that groups and weights lead to; other groups lead to others."""


@dataclass(frozen=True)
class Mined:
    """Order of the rows of each split, the groups table of each, and what the manifest says of them."""

    order: dict[str, np.ndarray]
    groups: dict[str, pa.Table]
    temperature: float | tuple[float, ...]
    quality: Quality
    warnings: list[str]


def mine(
    ids: pl.DataFrame, ties: pl.DataFrame, prompts: Prompts, recipe: Recipe, mode: Mode, *, cache: Path, say: Say
) -> Mined:
    """Stages groups and weights, with the quality of the result on the train split.

    Args:
        ids: identities of the pairs, or responses, in canonical order (`rows.identities`).
        ties: ids of responses judged equal.
        prompts: their prompts.
        recipe: the settings.
        mode: what the rows of groups are.
        cache: of finished stages.
        say: called with a line on what was found.

    Raises:
        LogError: a group holds only rows that cannot be contrasted with each other.
        RecipeError: this mode cannot have groups of this size.
    """
    check_sizes(recipe, mode)
    row_is_test = prompts.is_test[prompts.of_row]
    material = _material(ids, ties, prompts, recipe, mode)
    assert material.known is not None
    views, random_groups = _groups(material, recipe, cache)
    order, views = _ordered([unmasked(view, material) for view in views], row_is_test)
    sides = [roles(view, material) for view in views]
    make = partial(cells_of, vectors=prompts.vectors, prompt_of_row=prompts.of_row, known=material.known)
    cells = [make(*side) for side in sides]
    in_train = [_in_train(view, row_is_test) for view in views]

    of_random = make(*roles(random_groups, material)).of(_in_train(random_groups, row_is_test))
    of_mined = joined([part.of(here) for part, here in zip(cells, in_train, strict=True)])
    yardstick = _as_if_random(of_mined, of_random) if mode == "scored" else of_random
    temperature, warning, looked_at = _temperature(recipe, of_mined, yardstick)
    temperatures = view_temperatures(temperature, len(views))
    weights = [weigh(part, heat, recipe) for part, heat in zip(cells, temperatures, strict=True)]

    train_weights = [
        weight[np.repeat(here, part.shapes.prod(axis=1))]
        for weight, part, here in zip(weights, cells, in_train, strict=True)
    ]
    train_neighbors = np.where(prompts.is_test[:, None], -1, prompts.neighbors)
    others = recipe.group_size - 1
    quality = measure(
        _weighted(of_mined, np.concatenate(train_weights)),
        _weighted(of_random, weigh(of_random, PAPER_TEMPERATURE)),
        masked=of_mined.masked,
        random_masked=of_random.masked,
        nearest=nearest_similarity(prompts.of_row[~row_is_test], train_neighbors, prompts.similarity, others)
        if mode == "paired"
        else None,
        normalize=recipe.normalize,
        calibration_groups=looked_at,
    )
    _say_quality(quality, temperatures, say)
    tables = {
        split: _table(
            split, sides, cells, weights, [row_is_test[[g[0] for g in view]] == flag for view in views], order
        )
        for split, flag in (("train", False), ("test", True))
        if split in order
    }
    return Mined(order, tables, temperature, quality, _warnings(recipe, quality, warning))


def _material(ids: pl.DataFrame, ties: pl.DataFrame, prompts: Prompts, recipe: Recipe, mode: Mode) -> Material:
    """What groups are formed of.

    Raises:
        LogError: responses are there that no group of this recipe could contrast (a build leaves them out before).
    """
    block = blocks(ids, prompts.is_test[prompts.of_row], recipe.mix_languages)
    kind = np.zeros(len(block), dtype=np.int8)
    known: Known
    if mode == "paired":
        known = judgements(ids, ties, near_prompts(prompts.ids, prompts.near))
    else:
        known = known_responses(ids, recipe, mode)
        gone = int(no_counterpart(ids, block, prompts.vectors, recipe, mode).sum())
        if gone:
            raise LogError(f"with these settings {gone:,} of {len(ids):,} responses have no counterpart: build again")
    if isinstance(known, Labels):
        kind = np.where(known.liked, 1, 2).astype(np.int8)
    return Material(prompts.vectors, prompts.of_row, block, kind, prompts.neighbors, known)


def _groups(material: Material, recipe: Recipe, cache: Path) -> tuple[list[Groups], Groups]:
    """The groups of every view, and random groups of the same sizes to compare them with."""
    band = Band(recipe.min_score, recipe.max_score, recipe.range_min, recipe.range_max)
    form = partial(form_groups, material, group_size=recipe.group_size, seed=recipe.seed, max_group=recipe.max_group)

    def make() -> dict[str, np.ndarray]:
        views = form(views=recipe.views, strategy=recipe.strategy, band=band)
        return {
            "rows": np.array([np.concatenate(view) for view in views]),
            "sizes": np.array([[len(group) for group in view] for view in views]),
        }

    known = material.known
    arrays = [material.vectors, material.prompt, material.block, material.kind, material.neighbors]
    arrays += [value for value in vars(known).values() if isinstance(value, np.ndarray)]
    settings: list[Any] = [value for value in vars(known).values() if isinstance(value, float)]
    settings += [recipe.group_size, recipe.max_group, recipe.views, recipe.strategy, recipe.seed, *vars(band).values()]
    found = stored_arrays(cache, "groups", {"arrays": array_hash(*arrays), "settings": settings}, make)
    views = [np.split(rows, np.cumsum(sizes)[:-1]) for rows, sizes in zip(found["rows"], found["sizes"], strict=True)]
    return views, form(views=1, strategy="random")[0]


def _ordered(views: list[Groups], row_is_test: np.ndarray) -> tuple[dict[str, np.ndarray], list[Groups]]:
    """Order of the rows of each split (groups of view 0 contiguous), and the groups with their rows in that order."""
    order: dict[str, np.ndarray] = {}
    local = np.empty(len(row_is_test), dtype=np.int64)
    for split, flag in (("train", False), ("test", True)):
        inside = [group for group in views[0] if row_is_test[group[0]] == flag]
        if inside:
            order[split] = np.concatenate(inside)
            local[order[split]] = np.arange(len(order[split]))
    return order, [[group[np.argsort(local[group])] for group in view] for view in views]


def _in_train(groups: Groups, row_is_test: np.ndarray) -> np.ndarray:
    return ~row_is_test[[group[0] for group in groups]]


def _temperature(
    recipe: Recipe, mined: Cells, random: Cells
) -> tuple[float | tuple[float, ...], str | None, int | None]:
    """The temperature, a warning, and how many groups it was calibrated on."""
    if recipe.temperature != "auto":
        return recipe.temperature, None, None
    return calibrate_temperature(_stacks(mined), _stacks(random), recipe.normalize)


def _as_if_random(mined: Cells, random: Cells) -> Cells:
    """The mined cells with the cosines of random prompts in place of those between different prompts.

    Scores and ranks mask many cells, and random groups of them may hold hardly one that counts: what a win of the paper
    would meet is then seen only under the masks of the mined groups.
    """
    cosines, cross = random.similarity[~random.own], ~mined.own
    similarity = mined.similarity.copy()
    if len(cosines):
        similarity[cross] = np.resize(cosines, int(cross.sum()))
    return replace(mined, similarity=similarity)


def _stacks(cells: Cells) -> list[Stack]:
    return [(cells.similarity[places], cells.reason[places] > 0) for places in cells.stacks()]


def weigh(cells: Cells, temperature: float, recipe: Recipe | None = None) -> np.ndarray:
    """The weight of each cell, float32; without a recipe the paper's, whose rows sum to 1."""
    weight = np.zeros(len(cells.similarity), dtype=np.float32)
    modes = (recipe.normalize, recipe.scale) if recipe else ()
    for places in cells.stacks():
        weight[places] = contrast_weights(cells.similarity[places], cells.reason[places] > 0, temperature, *modes)
    return weight


def _weighted(cells: Cells, weight: np.ndarray) -> list[WeightedCells]:
    return [
        WeightedCells(cells.similarity[at], cells.reason[at] > 0, weight[at], cells.own[at]) for at in cells.stacks()
    ]


def _table(
    split: str,
    sides: Sequence[tuple[Groups, Groups]],
    cells: Sequence[Cells],
    weights: Sequence[np.ndarray],
    inside: Sequence[np.ndarray],
    order: dict[str, np.ndarray],
) -> pa.Table:
    """The groups table of one split, view after view."""
    local = np.empty(int(max(rows.max() for rows in order.values())) + 1, dtype=np.int64)
    local[order[split]] = np.arange(len(order[split]))
    parts = []
    for view, (roles_of, part, weight, here) in enumerate(zip(sides, cells, weights, inside, strict=True)):
        wins, losses = ([local[rows] for rows, wanted in zip(side, here, strict=True) if wanted] for side in roles_of)
        in_cells = np.repeat(here, part.shapes.prod(axis=1))
        columns = {
            "group_id": pa.array([f"{split}-{view}-{number}" for number in range(len(wins))]),
            "view": pa.array(np.full(len(wins), view, dtype=np.int32)),
            "win_rows": _lists(wins),
            "loss_rows": _lists(losses),
            "similarity": _matrices(part.shapes[here], part.similarity[in_cells]),
            "weight": _matrices(part.shapes[here], weight[in_cells]),
        }
        parts.append(pa.table(columns).cast(GROUPS.arrow_schema))
    return pa.concat_tables(parts)


def _lists(rows: Sequence[np.ndarray]) -> pa.ListArray:
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(rows)))


def _matrices(shapes: np.ndarray, cells: np.ndarray) -> pa.ListArray:
    """Flat cells as a list of rows for each group."""
    widths = np.repeat(shapes[:, 1], shapes[:, 0])
    inner = pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(widths)).astype(np.int32)), pa.array(cells))
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(shapes[:, 0])).astype(np.int32)), inner)


def _say_quality(quality: Quality, temperatures: Sequence[float], say: Say) -> None:
    """How related the groups are, and what their weights are like: of the train split, all views."""
    assert quality.mined is not None
    bound = f", nearest {_figure(quality.nearest_similarity)}" if quality.nearest_similarity is not None else ""
    say(
        f"groups  mean in-group similarity {_figure(quality.mean_similarity)} "
        f"(random {_figure(quality.random_similarity)}{bound}), "
        f"{sum(quality.masked_cells.values()):,} of {quality.cells:,} cells masked"
    )
    heaviest = quality.mined.column_sums
    auto = "" if quality.calibration_groups is None else " (auto)"
    heats = ", ".join(f"{heat:.4g}" for heat in dict.fromkeys(temperatures))
    say(
        f"weights temperature {heats}{auto}, effective contrasts {_figure(quality.effective_contrasts)} (random at 0.5: "
        f"{_figure(quality.random_contrasts)}), {quality.mined.hubs:,} of {heaviest.count if heaviest else 0:,} losses are hubs"
    )


def _warnings(recipe: Recipe, quality: Quality, of_temperature: str | None) -> list[str]:
    """What did not go as the recipe has it; each begins with a word of `WARNED_OF`."""
    found = [of_temperature] if of_temperature else []
    if isinstance(recipe.temperature, tuple) and len(recipe.temperature) > recipe.views:
        given = len(recipe.temperature)
        found.append(
            f"temperature lists more numbers ({given}) than there are views ({recipe.views}): the last go unused"
        )
    if quality.row_fallbacks:
        assert quality.mined is not None
        found.append(
            f"normalize sinkhorn: the masks of {quality.row_fallbacks:,} of {quality.mined.groups:,} groups allow no even "
            "columns; these have the weights of row"
        )
    return found


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
