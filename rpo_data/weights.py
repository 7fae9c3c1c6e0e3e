"""Weights of a group's cells: how much the loss makes of each win against each loss.

weight[i, j] = softmax over the unmasked j of -(1 - similarity[i, j]) / temperature       (arXiv 2402.10958, eq. for tau)

A masked cell has weight exactly 0, any other at least 1e-30. Sums are float64, the result is float32.

What a weight does. With r = log pi - log pi_ref, C unmasked cells and D = r_win[i] - r_loss[j], the loss is the mean over
these cells of -logsigmoid(beta * w[i, j] * D), so a cell pulls its win up and its loss down by

    beta * w[i, j] / C * sigmoid(-beta * w[i, j] * D)        at the start, where policy = reference:  beta * w[i, j] / (2 C)

The weight is thus a cell's own beta: it sets how hard the cell pulls, and how soon it has had enough. Over a group, win i is
pulled up by beta / (2 C) times the sum of its row and loss j is pushed down by beta / (2 C) times the sum of its column.
The modes below are choices of these sums; docs/mining.md says when to use which.

Every function takes groups of one shape at once, as arrays (groups, wins, losses). Masked rows and columns change no other
weight, so groups may be padded with masked cells; `by_shape` collects groups that are not.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Normalize = Literal["row", "sinkhorn", "none"]
Scale = Literal["row1", "mean1"]
Stack = tuple[np.ndarray, np.ndarray]
"""Similarity and mask of groups of one shape, each (groups, wins, losses)."""

FLOOR = 1e-30
PAPER_TEMPERATURE = 0.5
CALIBRATION_GROUPS = 20_000
"""Most groups that `calibrate_temperature` looks at: 8 wins each put the mean within about 0.003 of that of all groups."""

_SEARCHED = (1e-3, 1e3)
_BLOCK = 2**18  # cells worked on at once, so that they stay in the processor's cache


def contrast_weights(
    similarity: np.ndarray,
    mask: np.ndarray,
    temperature: float | np.ndarray,
    normalize: Normalize = "row",
    scale: Scale = "row1",
) -> np.ndarray:
    """Weight every cell by how close its two prompts are.

    With k[i, j] = exp(-(1 - similarity[i, j]) / temperature) in unmasked cells and 0 in masked ones, C unmasked cells in
    a group, and M rows and N columns that hold one of them, `normalize` is

    row         k[i, j] / (sum of row i): each row sums to 1. The paper's. Every win is pulled up alike; a loss that is
                near to all wins of its group (a hub) is pushed down more than the others.
    sinkhorn    u[i] k[i, j] v[j] with u and v such that each row sums to 1 and each column to M / N: every loss is pushed
                down alike, too. For hubs, and for M wins against N losses where some loss would hardly count. A group
                whose mask allows no such weights (`sinkhorn.scalable`) has the weights of `row`. With one win all
                weights are 1 / N: similarity cannot matter there.
    none        k[i, j]: 1 where the prompts are the same, less elsewhere; no sum is fixed. A win without near losses is
                pulled up less than one with many. For trusting near contrasts absolutely, not by their rank in a group;
                below a temperature of about 0.02 far cells lie on the floor.

    and `scale` is

    row1        as above. With `row` and `sinkhorn` a row's pull is 1 / N of what its pair has in DPO at the same beta.
    mean1       times a factor that makes the mean weight of unmasked cells 1, so that beta means what it means in DPO
                whatever the group size. For `row` the factor is the number of unmasked cells in the row; for `sinkhorn`
                it is C / M, one for the group, which keeps columns even (without masks both are N); for `none` it is
                C / (sum of all k of the group), one for the group, which keeps its rows' and columns' proportions.

    Args:
        similarity: cosine of the prompts, shape (groups, wins, losses), row = win; or of one group, (wins, losses).
        mask: True where the cell does not count, same shape.
        temperature: T > 0, or one for each group; the smaller, the more a row leans on its nearest prompts.
        normalize: row, sinkhorn or none.
        scale: row1 or mean1.

    Returns:
        float32, same shape; a row that is all masked is all 0.

    Raises:
        ValueError: shapes differ, a temperature is not positive, a similarity that counts is not finite, unknown mode.

    >>> contrast_weights(np.array([[1.0, 0.0]]), np.zeros((1, 2), bool), 1.0).round(4)
    array([[0.7311, 0.2689]], dtype=float32)
    >>> contrast_weights(np.array([[1.0, 0.0], [1.0, 1.0]]), np.zeros((2, 2), bool), 0.5, "sinkhorn").round(4)
    array([[0.7311, 0.2689],
           [0.2689, 0.7311]], dtype=float32)
    """
    _check(similarity, mask, normalize, scale)
    cells, masked = (similarity, mask) if similarity.ndim == 3 else (similarity[None], mask[None])
    temperatures = _temperatures(temperature, len(cells))
    weights = np.empty(cells.shape, dtype=np.float32)
    for part in _blocks(cells):
        block, hidden = (
            np.ascontiguousarray(cells[part]),
            np.ascontiguousarray(masked[part]),
        )  # one layout: one order of sums
        found = _weights(block, hidden, temperatures[part], normalize, scale)
        weights[part] = np.where(hidden, 0.0, np.maximum(found, FLOOR))
    return weights.reshape(similarity.shape)


def _weights(
    similarity: np.ndarray, mask: np.ndarray, temperatures: np.ndarray, normalize: str, scale: str
) -> np.ndarray:
    """float64 weights of a block of groups, (groups, wins, losses), without the floor."""
    logits = np.where(mask, -np.inf, (similarity.astype(np.float64) - 1.0) / temperatures[:, None, None])
    cells_of_row = np.count_nonzero(~mask, axis=2)
    cells = cells_of_row.sum(axis=1)
    if normalize == "none":
        return np.exp(logits) if scale == "row1" else cells[:, None, None] * _softmax(logits, axis=(1, 2))
    factor = cells_of_row.astype(np.float64)
    if normalize == "sinkhorn":
        from rpo_data.sinkhorn import column_offsets, scalable  # numba: a training node need not have it

        able = scalable(mask)
        logits += column_offsets(logits, able)[:, None, :]
        mean_cells = cells / np.maximum(np.count_nonzero(cells_of_row, axis=1), 1)
        factor = np.where(able[:, None], mean_cells[:, None], factor)
    weights = _softmax(logits, axis=2)
    return weights if scale == "row1" else weights * factor[:, :, None]


def _softmax(logits: np.ndarray, axis: int | tuple[int, int]) -> np.ndarray:
    highest = logits.max(axis=axis, keepdims=True, initial=-np.inf)
    powers = np.exp(logits - np.where(np.isfinite(highest), highest, 0.0))  # else a row of far prompts gives 0/0
    total = powers.sum(axis=axis, keepdims=True)
    return powers / np.where(total > 0, total, 1.0)


def effective_contrasts(weights: np.ndarray) -> np.ndarray:
    """exp(entropy) of each row's weights: how many losses a win really meets; 0 for a row that is all masked.

    Args:
        weights: shape (..., wins, losses); a row need not sum to 1.

    Returns:
        float64, shape (..., wins).

    >>> effective_contrasts(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    array([2., 1.])
    """
    shares = weights.astype(np.float64)
    total = shares.sum(axis=-1, keepdims=True)
    shares /= np.where(total > 0, total, 1.0)
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1)
    return np.where(total[..., 0] > 0, np.exp(entropy), 0.0)


def mean_effective_contrasts(stacks: Sequence[Stack], temperature: float, normalize: Normalize = "row") -> float:
    """Mean of `effective_contrasts` over all wins of these groups; wins all masked do not count.

    For `none` it is that of `row`: the shares of a row in its sum are the same, down to where they would underflow.
    """
    normalize = "row" if normalize == "none" else normalize
    total, wins = 0.0, 0
    for similarity, mask in stacks:
        rows = effective_contrasts(contrast_weights(similarity, mask, temperature, normalize))
        total += float(rows.sum())
        wins += int(np.count_nonzero(rows))
    return total / wins if wins else 0.0


class Calibration(NamedTuple):
    """The temperature found, a warning where the target is out of reach, and how many mined groups were looked at."""

    temperature: float
    warning: str | None
    groups: int


def calibrate_temperature(mined: Sequence[Stack], random: Sequence[Stack], normalize: Normalize = "row") -> Calibration:
    """The temperature at which mined groups have as many effective contrasts as random ones have at the paper's 0.5.

    The target is always the paper's (row weights, temperature 0.5, random groups): so many losses does a win of the paper
    meet. The mined groups are counted with the weights that they will have. A row's shares in its sum are all that counts:
    `none` has the answer of `row`, and `scale` plays no part.

    Of more than 20,000 groups an even sample is looked at, drawn with a fixed seed and the same for equal data.

    Args:
        mined: similarity and mask of the mined groups, one stack for each shape: M and N may differ.
        random: the same of random groups of the same data and sizes.
        normalize: as in `contrast_weights`.

    Returns:
        The temperature has six significant digits. It is 0.5 where the mined groups meet the target there, and 0.001 or
        1000, with a warning, where no temperature between meets it.
    """
    from scipy.optimize import brentq  # a training node need not have it

    mined, random = _sample(mined), _sample(random)
    groups = sum(len(similarity) for similarity, _ in mined)
    target = mean_effective_contrasts(random, PAPER_TEMPERATURE)

    def excess(log_temperature: float) -> float:
        return mean_effective_contrasts(mined, math.exp(log_temperature), normalize) - target

    if abs(excess(math.log(PAPER_TEMPERATURE))) < 1e-9:  # as it is where each win meets one loss
        return Calibration(PAPER_TEMPERATURE, None, groups)
    low, high = _SEARCHED
    warning = "temperature auto: {:.3f} effective contrasts need {} than {:g}, which is used"
    if excess(math.log(low)) >= 0:
        return Calibration(low, warning.format(target, "less", low), groups)
    if excess(math.log(high)) <= 0:
        return Calibration(high, warning.format(target, "more", high), groups)
    found = math.exp(brentq(excess, math.log(low), math.log(high), xtol=1e-8))  # contrasts rise with the temperature
    return Calibration(float(f"{found:.6g}"), None, groups)


def view_temperatures(temperature: float | Sequence[float], views: int) -> list[float]:
    """The temperature of each view: one number holds for all, of a list view v has number v, and from the top again.

    >>> view_temperatures([0.25, 0.5], 3)
    [0.25, 0.5, 0.25]
    """
    given = [temperature] if isinstance(temperature, (int, float)) else list(temperature)
    if not given:
        raise ValueError("a list of temperatures must name at least one")
    return [float(given[view % len(given)]) for view in range(views)]


def by_shape(shapes: np.ndarray) -> list[np.ndarray]:
    """Numbers of the groups of each shape, rising, for stacking groups of different shapes.

    Args:
        shapes: wins and losses of each group, shape (groups, 2), int.

    >>> by_shape(np.array([[8, 8], [3, 5], [8, 8]]))
    [array([1]), array([0, 2])]
    """
    kinds, kind = np.unique(shapes, axis=0, return_inverse=True)
    return [np.flatnonzero(kind.ravel() == number) for number in range(len(kinds))]


def _sample(stacks: Sequence[Stack]) -> list[Stack]:
    """All groups, or an even sample of them."""
    batches = [(s, m) if s.ndim == 3 else (s[None], m[None]) for s, m in stacks]
    ends = np.cumsum([len(similarity) for similarity, _ in batches])
    if not len(ends) or ends[-1] <= CALIBRATION_GROUPS:
        return batches
    chosen = np.sort(np.random.default_rng(0).choice(ends[-1], CALIBRATION_GROUPS, replace=False))
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - [len(similarity) for similarity, _ in batches]
    return [(s[part - start], m[part - start]) for (s, m), part, start in zip(batches, parts, starts, strict=True)]


def _blocks(cells: np.ndarray) -> list[slice]:
    length = max(1, _BLOCK // max(1, math.prod(cells.shape[1:])))
    return [slice(start, start + length) for start in range(0, len(cells), length)]


def _temperatures(temperature: float | np.ndarray, groups: int) -> np.ndarray:
    given = np.asarray(temperature, dtype=np.float64)
    wrong = given[~((given > 0) & (given < np.inf))]
    if wrong.size:
        raise ValueError(f"temperature must be greater than 0 and finite, got {wrong.flat[0]:g}")
    if given.ndim and given.shape != (groups,):
        raise ValueError(f"temperature must be one number, or one for each of {groups} groups, got {given.shape}")
    return np.broadcast_to(given, groups)


def _check(similarity: np.ndarray, mask: np.ndarray, normalize: str, scale: str) -> None:
    for name, value, known in (("normalize", normalize, get_args(Normalize)), ("scale", scale, get_args(Scale))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got '{value}'")
    if similarity.shape != mask.shape or similarity.ndim not in (2, 3):
        raise ValueError(
            f"similarity and mask must both be (groups, wins, losses), got {similarity.shape} and {mask.shape}"
        )
    wrong = ~(np.isfinite(similarity) | mask)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        found = "NaN" if np.isnan(similarity[place]) else f"{similarity[place]:g}"
        raise ValueError(f"similarity{list(place)} is {found}: is one of the two prompts empty?")
