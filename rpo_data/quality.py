"""How good a grouping is, beside two yardsticks on the same rows: random groups, and no grouping at all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rpo_data.schemas.manifest import Contrasts, Distribution, Quality
from rpo_data.sinkhorn import scalable
from rpo_data.weights import Normalize, effective_contrasts

HUB = 2.0
"""A loss is a hub from this column sum on, in units of its group's mean."""

_PROMPTS = 2**16  # worked on at once


@dataclass(frozen=True)
class WeightedCells:
    """The cells of groups of one shape, as arrays (groups, wins, losses).

    similarity   cosine of the two prompts
    mask         True where the cell does not count
    weight       what the loss multiplies the cell's logit with, 0 where it is masked
    own          True where win and loss are one pair, or, outside paired mode, answer one prompt
    """

    similarity: np.ndarray
    mask: np.ndarray
    weight: np.ndarray
    own: np.ndarray


def nearest_similarity(
    prompt_of_row: np.ndarray, neighbors: np.ndarray, similarity: np.ndarray, others: int
) -> float | None:
    """Mean cosine of a row to its `others` nearest rows (rows of its own prompt first): the bound of any grouping.

    Args:
        prompt_of_row: prompt of each row, shape (rows,), int64.
        neighbors: nearest prompts of each prompt, shape (prompts, k), int64, -1 where there is none.
        similarity: their cosines.
        others: group_size - 1.
    """
    rows_of_prompt = np.bincount(prompt_of_row, minlength=len(neighbors))
    total, count = 0.0, 0
    for start in range(0, len(neighbors), _PROMPTS):
        part = slice(start, start + _PROMPTS)
        rows, near, cosine = rows_of_prompt[part], neighbors[part], similarity[part]
        own = np.clip(rows - 1, 0, others)
        there = np.where(near >= 0, rows_of_prompt[near], 0)
        before = np.cumsum(there, axis=1) - there
        taken = np.clip((others - own)[:, None] - before, 0, there)
        cosines = np.where(taken > 0, cosine, 0.0).astype(np.float64)  # -inf where there is no neighbour
        total += float((rows * (own + (taken * cosines).sum(axis=1))).sum())
        count += int((rows * (own + taken.sum(axis=1))).sum())
    return total / count if count else None


def measure(
    mined: Sequence[WeightedCells],
    random: Sequence[WeightedCells],
    *,
    masked: Mapping[str, int],
    random_masked: Mapping[str, int],
    nearest: float | None,
    normalize: Normalize = "row",
    calibration_groups: int | None = None,
) -> Quality:
    """The quality figures of the manifest; see `Quality` for each one's meaning.

    Args:
        mined: cells of the mined groups of all views, one item for each shape, with the weights that are written.
        random: the same of random groups of the same rows and sizes, with the paper's weights (row, 0.5).
        masked: masked cells of the mined groups by reason.
        random_masked: the same of the random ones.
        nearest: `nearest_similarity` of the same rows.
        normalize: as in `contrast_weights`, of the mined groups.
        calibration_groups: groups that temperature auto looked at, if it was auto.
    """
    of_mined, of_random = contrasts(mined, masked), contrasts(random, random_masked)
    fallbacks = sum(int(np.count_nonzero(~scalable(c.mask))) for c in mined) if normalize == "sinkhorn" else 0
    return Quality(
        mean_similarity=_mean_similarity(mined),
        random_similarity=_mean_similarity(random),
        nearest_similarity=None if nearest is None else round(nearest, 6),
        effective_contrasts=_mean(of_mined.effective_contrasts),
        random_contrasts=_mean(of_random.effective_contrasts),
        cells=of_mined.cells,
        masked_cells=of_mined.masked_cells,
        mined=of_mined,
        random=of_random,
        row_fallbacks=fallbacks,
        calibration_groups=calibration_groups,
    )


def contrasts(stacks: Sequence[WeightedCells], masked: Mapping[str, int]) -> Contrasts:
    """Distributions over the cells, wins and losses of a grouping; see `Contrasts` for each one's meaning."""
    columns = [column_sums(cells.weight) for cells in stacks]
    return Contrasts(
        groups=sum(len(cells.mask) for cells in stacks),
        cells=sum(cells.mask.size for cells in stacks),
        masked_cells=dict(sorted(masked.items())),
        own_similarity=distribution(cells.similarity[cells.own & ~cells.mask] for cells in stacks),
        cross_similarity=distribution(cells.similarity[~cells.own & ~cells.mask] for cells in stacks),
        weight=distribution(cells.weight[~cells.mask] for cells in stacks),
        effective_contrasts=distribution(_positive(effective_contrasts(cells.weight)) for cells in stacks),
        own_weight=distribution(_own_weight(cells) for cells in stacks),
        column_sums=distribution(columns),
        hubs=sum(int(np.count_nonzero(sums > HUB)) for sums in columns),
    )


def column_sums(weight: np.ndarray) -> np.ndarray:
    """Sum of each column's weights in units of its group's mean: 1 is even. Columns that are all masked are left out.

    Args:
        weight: shape (groups, wins, losses).

    Returns:
        float64, shape (columns,), group by group.

    >>> column_sums(np.array([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]]))  # sums 1.5 and 0.5, mean 1
    array([1.5, 0.5])
    """
    sums = weight.sum(axis=1, dtype=np.float64)
    open_columns = np.maximum(np.count_nonzero(sums, axis=1), 1)
    mean = sums.sum(axis=1) / open_columns
    return _positive(sums / np.where(mean > 0, mean, 1.0)[:, None])


def distribution(parts: Iterable[np.ndarray]) -> Distribution | None:
    """Count, mean and quantiles of all numbers in these arrays; None where there is none."""
    values = np.concatenate([np.empty(0), *parts])
    if not len(values):
        return None
    quantiles = np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    names = ("min", "p5", "p25", "p50", "p75", "p95", "max")
    found = {"mean": values.mean(), **dict(zip(names, quantiles, strict=True))}
    return Distribution(count=len(values), **{name: float(f"{value:.6g}") for name, value in found.items()})


def _own_weight(cells: WeightedCells) -> np.ndarray:
    """Share of each win's weight in its own cells, for wins that have one that counts."""
    weight = cells.weight.astype(np.float64)
    own = np.where(cells.own, weight, 0.0).sum(axis=2)
    return own[own > 0] / weight.sum(axis=2)[own > 0]


def _mean(of: Distribution | None) -> float | None:
    return None if of is None else of.mean


def _mean_similarity(stacks: Sequence[WeightedCells]) -> float | None:
    cross = sum(int(np.count_nonzero(~cells.own)) for cells in stacks)
    total = sum(float(cells.similarity[~cells.own].sum(dtype=np.float64)) for cells in stacks)
    return round(total / cross, 6) if cross else None


def _positive(values: np.ndarray) -> np.ndarray:
    return values[values > 0]
