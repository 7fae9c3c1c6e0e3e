"""The last stages of a build: contrast groups of related prompts, and the weights of their cells."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rpo_data.conflicts import near_prompts
from rpo_data.contrasts import Cells, Judgements, fully_masked, group_cells, judgements
from rpo_data.errors import LogError
from rpo_data.groups import form_groups
from rpo_data.pipelines.checking import Checked, Say
from rpo_data.pipelines.prompts import Prompts, blocks
from rpo_data.pipelines.store import array_hash, stored_arrays
from rpo_data.quality import WeightedCells, measure, nearest_similarity
from rpo_data.schemas.manifest import Quality
from rpo_data.schemas.recipe import Recipe
from rpo_data.weights import PAPER_TEMPERATURE, Stack, by_shape, calibrate_temperature, contrast_weights


@dataclass(frozen=True)
class Mined:
    """Order of the rows of each split, rows of the groups table, and what the manifest says of them."""

    order: dict[str, np.ndarray]
    groups: dict[str, list[dict[str, Any]]]
    temperature: float
    quality: Quality
    warnings: list[str]


def mine(checked: Checked, prompts: Prompts, recipe: Recipe, *, cache: Path, say: Say) -> Mined:
    """Stages groups and weights, with the quality of the result on the train split."""
    row_is_test = prompts.is_test[prompts.of_row]
    block = blocks(checked.ids, row_is_test)
    known = judgements(checked.ids, checked.ties, near_prompts(prompts.ids, prompts.near))
    views, random_groups = _groups(prompts, block, recipe, cache)
    views, random_groups = [unmasked(view, block, known) for view in views], unmasked(random_groups, block, known)
    cells_of = partial(group_cells, vectors=prompts.vectors, prompt_of_row=prompts.of_row, known=known)

    train_views = [[group for group in view if not row_is_test[group[0]]] for view in views]
    train_random = [group for group in random_groups if not row_is_test[group[0]]]
    cells = [cells_of(group) for view in train_views for group in view]
    random_cells = [cells_of(group) for group in train_random]
    stacks, random_stacks = _stacks(cells), _stacks(random_cells)
    temperature, warning, calibration_groups = _temperature(recipe, stacks, random_stacks)

    in_train = np.where(prompts.is_test[:, None], -1, prompts.neighbors)
    nearest = nearest_similarity(prompts.of_row[~row_is_test], in_train, prompts.similarity, recipe.group_size - 1)
    quality = measure(
        _weighted(stacks, temperature),
        _weighted(random_stacks, PAPER_TEMPERATURE),
        masked=_masked(cells),
        random_masked=_masked(random_cells),
        nearest=nearest,
        calibration_groups=calibration_groups,
    )
    say(
        f"groups  mean in-group similarity {_figure(quality.mean_similarity)} "
        f"(random {_figure(quality.random_similarity)}, nearest {_figure(quality.nearest_similarity)})"
    )
    order, groups = _numbered(views, cells_of, row_is_test, temperature)
    return Mined(order, groups, temperature, quality, [warning] if warning else [])


def _groups(
    prompts: Prompts, block: np.ndarray, recipe: Recipe, cache: Path
) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """The groups of every view, and random groups of the same sizes to compare them with."""
    arrays = (prompts.vectors, prompts.of_row, prompts.neighbors, block)
    form = partial(form_groups, *arrays, group_size=recipe.group_size, seed=recipe.seed)

    def make() -> dict[str, np.ndarray]:
        views = form(views=recipe.views, strategy=recipe.strategy)
        return {
            "rows": np.array([np.concatenate(view) for view in views]),
            "sizes": np.array([[len(group) for group in view] for view in views]),
        }

    settings = [recipe.group_size, recipe.views, recipe.strategy, recipe.seed]
    found = stored_arrays(cache, "groups", {"arrays": array_hash(*arrays), "settings": settings}, make)
    views = [np.split(rows, np.cumsum(sizes)[:-1]) for rows, sizes in zip(found["rows"], found["sizes"], strict=True)]
    return views, form(views=1, strategy="random")[0]


def unmasked(groups: list[np.ndarray], block: np.ndarray, known: Judgements) -> list[np.ndarray]:
    """Give every group an unmasked cell: one that has none swaps a row with the first group of its block where that helps.

    Rows none of which could ever be contrasted are left out before groups are formed, so hardly ever does no swap help.

    Raises:
        LogError: no swap helps.
    """
    groups = [group.copy() for group in groups]
    for number, group in enumerate(groups):
        if not fully_masked(group, known):
            continue
        for other in (groups[place] for place in range(len(groups)) if place != number):
            if block[other[0]] == block[group[0]] and _swap(group, other, known):
                break
        else:
            raise LogError("a group holds only rows that contradict each other: use --conflicts drop or majority")
    return groups


def _swap(one: np.ndarray, other: np.ndarray, known: Judgements) -> bool:
    for i, j in np.ndindex(len(one), len(other)):
        one[i], other[j] = other[j], one[i]
        if not fully_masked(one, known) and not fully_masked(other, known):
            return True
        one[i], other[j] = other[j], one[i]
    return False


def _temperature(recipe: Recipe, mined: list[Stack], random: list[Stack]) -> tuple[float, str | None, int | None]:
    """The temperature, a warning, and how many groups it was calibrated on."""
    if recipe.temperature != "auto":
        return float(recipe.temperature), None, None
    return calibrate_temperature(mined, random)


def _stacks(cells: list[Cells]) -> list[Stack]:
    """Similarity and mask of the groups of each shape."""
    shapes = np.array([group.mask.shape for group in cells]).reshape(-1, 2)
    return [
        (np.array([cells[n].similarity for n in numbers]), np.array([cells[n].mask for n in numbers]))
        for numbers in by_shape(shapes)
    ]


def _weighted(stacks: list[Stack], temperature: float) -> list[WeightedCells]:
    """The same with weights; a pair's own cell is on the diagonal."""
    return [
        WeightedCells(
            s, m, contrast_weights(s, m, temperature), np.broadcast_to(np.eye(m.shape[1], dtype=bool), m.shape)
        )
        for s, m in stacks
    ]


def _masked(cells: list[Cells]) -> Counter[str]:
    """Masked cells by reason."""
    total: Counter[str] = Counter()
    for group in cells:
        total.update(group.masked)
    return total


def _numbered(
    views: list[list[np.ndarray]], cells_of: Callable[[np.ndarray], Cells], row_is_test: np.ndarray, temperature: float
) -> tuple[dict[str, np.ndarray], dict[str, list[dict[str, Any]]]]:
    """Order of the rows of each split (groups of view 0 contiguous) and the rows of the groups table."""
    local = np.empty(len(row_is_test), dtype=np.int64)
    order: dict[str, np.ndarray] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, flag in (("train", False), ("test", True)):
        if not (row_is_test == flag).any():
            continue
        order[split] = np.concatenate([group for group in views[0] if row_is_test[group[0]] == flag])
        local[order[split]] = np.arange(len(order[split]))
        rows[split] = []
        for view, groups in enumerate(views):
            inside = [group for group in groups if row_is_test[group[0]] == flag]
            for number, group in enumerate(inside):
                group = group[np.argsort(local[group])]
                cells = cells_of(group)
                rows[split].append(
                    {
                        "group_id": f"{split}-{view}-{number}",
                        "view": view,
                        "win_rows": local[group].tolist(),
                        "loss_rows": local[group].tolist(),
                        "similarity": cells.similarity.tolist(),
                        "weight": contrast_weights(cells.similarity, cells.mask, temperature).tolist(),
                    }
                )
    return order, rows


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
