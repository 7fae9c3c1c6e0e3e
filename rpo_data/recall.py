"""How much of the exact answer a search finds, on rows that speak for all of them and on those that are hard to find.

Recall of a row: how many of the k found are at least as similar as its exact k-th neighbour, divided by k; a tie at the
k-th place is as good as the neighbour itself.
"""

from dataclasses import dataclass

import numpy as np

TUNING = 1000
"""Rows on which a search is tuned; none of them is measured afterwards."""
MEASURED = 1000
SPECIAL = 250
"""Measured rows: hubs and isolated rows this many each, and others."""
_SHARE = 0.01
_Z = 1.959964
"""Two-sided 95 %."""
_READ = 65536


@dataclass(frozen=True)
class Strata:
    """Measured rows by kind ("hubs", "isolated", "others"), and how many rows each kind stands for."""

    rows: dict[str, np.ndarray]
    stand_for: dict[str, int]


def draw_tuning(rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows to tune on, rising: at most half of them, so that others are left to measure."""
    rng = np.random.default_rng([seed, 1])
    return np.sort(rng.choice(rows, min(TUNING, len(rows) // 2), replace=False))


def draw_measured(
    rows: np.ndarray, tuning: np.ndarray, neighbors: np.ndarray, similarity: np.ndarray, seed: int
) -> Strata:
    """Rows to measure: hubs, isolated rows and others, none of which was tuned on.

    Args:
        rows: all rows that were searched.
        tuning: rows that were tuned on.
        neighbors: what was found for them, numbered as `rows` are, shape (any, k), int64, -1 where there is none.
        similarity: cosines of it, float32.
        seed: of the draw.
    """
    degree = np.zeros(len(neighbors) + 1, dtype=np.int64)
    for start in range(0, len(rows), _READ):
        degree += np.bincount(neighbors[rows[start : start + _READ]].ravel() + 1, minlength=len(degree))
    left = np.setdiff1d(rows, tuning, assume_unique=True)
    few = max(round(_SHARE * len(left)), 1)
    by_degree = left[np.argsort(-degree[left + 1], kind="stable")]
    hubs, left = by_degree[:few], np.sort(by_degree[few:])
    by_distance = left[np.argsort(similarity[left, -1], kind="stable")]
    isolated, others = by_distance[:few], np.sort(by_distance[few:])
    rng = np.random.default_rng([seed, 2])
    kinds = {"hubs": (hubs, SPECIAL), "isolated": (isolated, SPECIAL), "others": (others, MEASURED)}
    kinds = {kind: drawn for kind, drawn in kinds.items() if len(drawn[0])}
    return Strata(
        {kind: np.sort(rng.choice(of, min(size, len(of)), replace=False)) for kind, (of, size) in kinds.items()},
        {kind: len(of) for kind, (of, _) in kinds.items()},
    )


def row_recall(similarity: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Recall of each row, float64.

    Args:
        similarity: cosines found, shape (rows, k), float32, -inf where nothing was found.
        exact: cosines of the exact neighbours, nearest first, same shape, by the same arithmetic.
    """
    return (similarity >= exact[:, -1:]).mean(axis=1)


def is_sure(recall: np.ndarray, min_recall: float) -> bool:
    """Whether these rows show the recall to be reached: two standard errors below their mean still reach it."""
    return bool(recall.mean() - 2 * recall.std() / np.sqrt(len(recall)) >= min_recall)


def stratified(recall: list[np.ndarray], stand_for: list[int]) -> tuple[float, tuple[float, float]]:
    """Recall of all rows from that of drawn rows of each kind, and its 95 % interval.

    The interval is Wilson's with the effective sample size p (1 - p) / variance (Korn and Graubard, 1998, for surveys):
    neighbours of one row are found or missed together, so they do not count one by one. Where all rows are alike their
    variance is 0, and each row counts as one observation.

    Args:
        recall: of each drawn row, one array for each kind.
        stand_for: rows of each kind.
    """
    weight = np.array(stand_for) / sum(stand_for)
    mean = float(sum(part * of.mean() for part, of in zip(weight, recall, strict=True)))
    variance = sum(part**2 * of.var() / len(of) for part, of in zip(weight, recall, strict=True))
    size = mean * (1 - mean) / variance if variance > 0 else float(sum(map(len, recall)))
    middle = (mean + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * np.sqrt(mean * (1 - mean) / size + _Z**2 / (4 * size**2))
    return mean, (max(float(middle - half), 0.0), min(float(middle + half), 1.0))
