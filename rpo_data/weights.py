"""Weights of a group's cells: how much the loss makes of each win against each loss.

weight[i, j] = softmax over the unmasked j of -(1 - similarity[i, j]) / temperature       (arXiv 2402.10958, eq. for tau)

A masked cell has weight exactly 0, any other at least 1e-30. Sums are float64, the result is float32.
"""

import math
from collections.abc import Sequence

import numpy as np

FLOOR = 1e-30
PAPER_TEMPERATURE = 0.5
_SEARCHED = (1e-3, 1e3)


def contrast_weights(similarity: np.ndarray, mask: np.ndarray, temperature: float) -> np.ndarray:
    """Weight every cell by how close its two prompts are.

    Args:
        similarity: cosine of the prompts, shape (wins, losses), row = win.
        mask: True where the cell does not count, same shape.
        temperature: T > 0; the smaller, the more a row leans on its nearest prompts.

    Returns:
        float32, same shape; a row sums to 1, or is all 0 where all of it is masked.

    Raises:
        ValueError: temperature is not positive, or a similarity that counts is NaN.

    >>> contrast_weights(np.array([[1.0, 0.0]]), np.zeros((1, 2), bool), 1.0).round(4)
    array([[0.7311, 0.2689]], dtype=float32)
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
    if np.isnan(similarity[~mask]).any():
        row, column = np.argwhere(np.isnan(similarity) & ~mask)[0]
        raise ValueError(f"similarity[{row}, {column}] is NaN: is one of the two prompts empty?")
    logits = np.where(mask, -np.inf, (similarity.astype(np.float64) - 1.0) / temperature)
    highest = logits.max(axis=1, keepdims=True, initial=-np.inf)
    powers = np.exp(logits - np.where(np.isfinite(highest), highest, 0.0))  # else a row of far prompts gives 0/0
    total = powers.sum(axis=1, keepdims=True)
    weights = powers / np.where(total > 0, total, 1.0)
    return np.where(mask, 0.0, np.maximum(weights, FLOOR)).astype(np.float32)


def effective_contrasts(weights: np.ndarray) -> np.ndarray:
    """exp(entropy) of each row's weights: how many losses a win really meets; 0 for a row that is all masked.

    >>> effective_contrasts(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    array([2., 1.])
    """
    shares = weights.astype(np.float64)
    total = shares.sum(axis=1, keepdims=True)
    shares = shares / np.where(total > 0, total, 1.0)
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=1)
    return np.where(total[:, 0] > 0, np.exp(entropy), 0.0)


def mean_effective_contrasts(cells: Sequence[tuple[np.ndarray, np.ndarray]], temperature: float) -> float:
    """Mean of `effective_contrasts` over all wins of groups given as (similarity, mask); wins all masked do not count."""
    rows = np.concatenate([effective_contrasts(contrast_weights(s, m, temperature)) for s, m in cells])
    rows = rows[rows > 0]
    return float(rows.mean()) if len(rows) else 0.0


def calibrate_temperature(
    mined: Sequence[tuple[np.ndarray, np.ndarray]], random: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, str | None]:
    """The temperature at which mined groups have as many effective contrasts as random ones have at the paper's 0.5.

    Args:
        mined: (similarity, mask) of the mined groups.
        random: the same of random groups of the same data and sizes.

    Returns:
        The temperature, rounded to six significant digits, and a warning where the target cannot be reached.
    """
    if all(similarity.shape[1] < 2 for similarity, _ in mined):
        return PAPER_TEMPERATURE, None  # one loss a win: the weight is 1 at any temperature
    target = mean_effective_contrasts(random, PAPER_TEMPERATURE)
    low, high = _SEARCHED
    if target <= mean_effective_contrasts(mined, low):
        return low, f"temperature auto: {target:.3f} effective contrasts need less than {low}; {low} is used"
    if target >= mean_effective_contrasts(mined, high):
        return high, f"temperature auto: {target:.3f} effective contrasts need more than {high}; {high} is used"
    while math.log(high / low) > 1e-7:
        middle = math.sqrt(low * high)  # contrasts rise with the temperature
        low, high = (middle, high) if mean_effective_contrasts(mined, middle) < target else (low, middle)
    return float(f"{math.sqrt(low * high):.6g}"), None
