"""Even columns: one number added to each loss's logits, so that no loss is pushed down more than another.

With offsets v the weights are w[i, j] = softmax over the unmasked j of (logits[i, j] + v[j]). Rows sum to 1 by that; v is
chosen so that every column sums to c = M / N, where M rows and N columns hold an unmasked cell. These are the weights
that Sinkhorn's alternating scaling tends to. They are found here by Newton's steps on the columns' excess g:

    g[j] = sum over i of w[i, j] - c        (diag(c + g) - w'w + damping) step = -g

first on flattened logits, then on logits twice as steep, and so on: at low temperatures alternating scaling needs
thousands of rounds, and Newton's steps from far away fail.

A mask can make it impossible: a win whose only losses are shared with too many other wins. `scalable` tells, exactly.
"""

import numba
import numpy as np

TOLERANCE = 1e-9
"""Largest excess of a column, relative to its sum, when the steps end."""
_STEPS = 100
_FLAT = 4.0
_LOOSE = 1e-2


def scalable(mask: np.ndarray) -> np.ndarray:
    """Whether weights with even rows and columns exist that are above 0 in every unmasked cell.

    They do if and only if some matrix is positive in just these cells and has these sums (Rothblum and Schneider, 1989,
    Scalings of matrices which have prespecified row sums and column sums). That is a question about flows: rows supply N,
    columns take M, along unmasked cells, and every cell must be able to carry something.

    Args:
        mask: True where a cell does not count, shape (groups, wins, losses).

    Returns:
        bool, shape (groups,). A group with no unmasked cell is scalable.

    >>> scalable(np.array([[[True, False], [False, False]], [[False, True], [True, False]]]))
    array([False,  True])
    """
    able = np.ones(len(mask), dtype=bool)
    some = np.flatnonzero(mask.any(axis=(1, 2)))
    able[some] = _scalable(np.ascontiguousarray(~mask[some]))
    return able


def column_offsets(logits: np.ndarray, able: np.ndarray) -> np.ndarray:
    """The offsets v of each group's columns.

    Args:
        logits: float64, shape (groups, wins, losses), -inf where a cell is masked.
        able: which groups are `scalable`, shape (groups,); the others get offsets of 0.

    Returns:
        float64, shape (groups, losses); of mean 0 over the columns with an unmasked cell, 0 for the others.
    """
    offsets = np.zeros((logits.shape[0], logits.shape[2]))
    _find_offsets(logits, able, offsets)
    return offsets


@numba.njit(cache=True, nogil=True)
def _find_offsets(logits: np.ndarray, able: np.ndarray, offsets: np.ndarray) -> None:
    for group in range(len(logits)):
        if able[group] and logits.shape[1] > 0 and logits.shape[2] > 1:
            _balance(logits[group], offsets[group])


@numba.njit(cache=True, nogil=True)
def _balance(logits: np.ndarray, offset: np.ndarray) -> None:
    """Find one group's offsets, in place."""
    unmasked = logits > -np.inf
    rows, spread = 0, 0.0
    columns = np.zeros(len(offset), dtype=np.bool_)
    for i in range(len(logits)):
        low, high = np.inf, -np.inf
        for j in range(len(offset)):
            if unmasked[i, j]:
                low, high = min(low, logits[i, j]), max(high, logits[i, j])
                columns[j] = True
        rows += high >= low
        spread = max(spread, high - low)
    even = rows / max(columns.sum(), 1)
    halvings = 0
    while spread > _FLAT:
        spread, halvings = spread / 2, halvings + 1
    for level in range(halvings, -1, -1):
        _newton(logits, unmasked, columns, 0.5**level, even, TOLERANCE if level == 0 else _LOOSE, offset)
        if level > 0:
            offset *= 2.0


@numba.njit(cache=True, nogil=True)
def _newton(
    logits: np.ndarray,
    unmasked: np.ndarray,
    columns: np.ndarray,
    steepness: float,
    even: float,
    tolerance: float,
    offset: np.ndarray,
) -> None:
    """Newton's steps with Levenberg's damping until every column sums to `even`; `offset` is changed in place."""
    weights, tried = np.zeros(logits.shape), np.zeros(logits.shape)
    excess, excess_tried = np.zeros(len(offset)), np.zeros(len(offset))
    cost = _excess(logits, unmasked, columns, steepness, offset, even, weights, excess)
    worst, damping = np.abs(excess).max(), 1e-6
    for _ in range(_STEPS):
        if worst <= tolerance * even:
            break
        step = _solve(_curvature(weights, columns, damping), -excess)
        moved = offset + step
        cost_tried = _excess(logits, unmasked, columns, steepness, moved, even, tried, excess_tried)
        worst_tried = np.abs(excess_tried).max()
        rounding = 1e-12 * (1.0 + abs(cost))  # near the end the cost no longer tells two points apart
        if cost_tried < cost - rounding or (cost_tried <= cost + rounding and worst_tried < worst):
            offset[:] = np.where(columns, moved - moved[columns].mean(), 0.0)
            weights, tried, excess, excess_tried = tried, weights, excess_tried, excess
            cost, worst, damping = cost_tried, worst_tried, max(damping / 10, 1e-12)
        else:
            damping *= 10


@numba.njit(cache=True, nogil=True)
def _excess(
    logits: np.ndarray,
    unmasked: np.ndarray,
    columns: np.ndarray,
    steepness: float,
    offset: np.ndarray,
    even: float,
    weights: np.ndarray,
    excess: np.ndarray,
) -> float:
    """Fill in the weights at these offsets and each column's excess; the value returned has that as its gradient."""
    excess[:] = np.where(columns, -even, 0.0)
    cost = -even * offset[columns].sum()
    for i in range(len(logits)):
        highest, total = -np.inf, 0.0
        for j in range(len(offset)):
            if unmasked[i, j]:
                highest = max(highest, steepness * logits[i, j] + offset[j])
        for j in range(len(offset)):
            weights[i, j] = np.exp(steepness * logits[i, j] + offset[j] - highest) if unmasked[i, j] else 0.0
            total += weights[i, j]
        for j in range(len(offset)):
            if unmasked[i, j]:
                weights[i, j] /= total
                excess[j] += weights[i, j]
        if total > 0.0:
            cost += highest + np.log(total)
    return cost


@numba.njit(cache=True, nogil=True)
def _curvature(weights: np.ndarray, columns: np.ndarray, damping: float) -> np.ndarray:
    """How the column sums change with the offsets, damped so that it can be inverted."""
    size = weights.shape[1]
    matrix = np.zeros((size, size))
    for i in range(len(weights)):
        for j in range(size):
            matrix[j, j] += weights[i, j] * (1.0 + damping)
            for k in range(j + 1):
                matrix[j, k] -= weights[i, j] * weights[i, k]
    for j in range(size):
        if not columns[j]:
            matrix[j, j] = 1.0
    return matrix


@numba.njit(cache=True, nogil=True)
def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve matrix x = right by Cholesky, lower triangle in place: BLAS would give other bits with other threads."""
    size = len(right)
    for j in range(size):
        for k in range(j):
            for i in range(j, size):
                matrix[i, j] -= matrix[i, k] * matrix[j, k]
        pivot = np.sqrt(max(matrix[j, j], 1e-300))
        matrix[j, j] = pivot
        for i in range(j + 1, size):
            matrix[i, j] /= pivot
    solution = right.copy()
    for j in range(size):
        for k in range(j):
            solution[j] -= matrix[j, k] * solution[k]
        solution[j] /= matrix[j, j]
    for j in range(size - 1, -1, -1):
        for i in range(j + 1, size):
            solution[j] -= matrix[i, j] * solution[i]
        solution[j] /= matrix[j, j]
    return solution


@numba.njit(cache=True, nogil=True)
def _scalable(unmasked: np.ndarray) -> np.ndarray:
    able = np.zeros(len(unmasked), dtype=np.bool_)
    for group in range(len(unmasked)):
        able[group] = _group_scalable(unmasked[group])
    return able


@numba.njit(cache=True, nogil=True)
def _group_scalable(unmasked: np.ndarray) -> bool:
    wins, losses = unmasked.shape
    rows, columns = np.zeros(wins, dtype=np.int64), np.zeros(losses, dtype=np.int64)
    for i in range(wins):
        for j in range(losses):
            if unmasked[i, j]:
                rows[i], columns[j] = 1, 1
    supply, demand = rows * columns.sum(), columns * rows.sum()
    flow = np.zeros((wins, losses), dtype=np.int64)
    for i in range(wins):
        while supply[i] > 0:
            if not _send(unmasked, flow, supply, demand, i):
                return False
    # a cell can carry something if it does, or if flow can go round through it: from its column back to its row
    for j in range(losses):
        back = _reached(unmasked, flow, np.zeros(wins, dtype=np.bool_), j)
        for i in range(wins):
            if unmasked[i, j] and not back[i]:
                return False
    return True


@numba.njit(cache=True, nogil=True)
def _reached(unmasked: np.ndarray, flow: np.ndarray, seen: np.ndarray, column: int) -> np.ndarray:
    """Rows that flow into a column could be taken back to, over any number of rows and columns."""
    wins, losses = unmasked.shape
    queue, waiting = np.empty(losses, dtype=np.int64), 1
    queued = np.zeros(losses, dtype=np.bool_)
    queue[0], queued[column] = column, True
    while waiting > 0:
        waiting -= 1
        at = queue[waiting]
        for i in range(wins):
            if flow[i, at] > 0 and not seen[i]:
                seen[i] = True
                for j in range(losses):
                    if unmasked[i, j] and not queued[j]:
                        queued[j] = True
                        queue[waiting] = j
                        waiting += 1
    return seen


@numba.njit(cache=True, nogil=True)
def _send(unmasked: np.ndarray, flow: np.ndarray, supply: np.ndarray, demand: np.ndarray, start: int) -> bool:
    """Send what a row supplies along a shortest path to a column that takes more; False where there is none."""
    wins, losses = unmasked.shape
    row_before, column_before = np.full(losses, -1), np.full(wins, -1)  # on the path: a column's row, a row's column
    queue, first, last = np.empty(wins, dtype=np.int64), 0, 1
    queue[0] = start
    while first < last:
        i = queue[first]
        first += 1
        for j in range(losses):
            if not unmasked[i, j] or row_before[j] >= 0:
                continue
            row_before[j] = i
            if demand[j] > 0:
                _push(flow, supply, demand, row_before, column_before, start, j)
                return True
            for k in range(wins):
                if flow[k, j] > 0 and k != start and column_before[k] < 0:
                    column_before[k] = j
                    queue[last] = k
                    last += 1
    return False


@numba.njit(cache=True, nogil=True)
def _push(
    flow: np.ndarray,
    supply: np.ndarray,
    demand: np.ndarray,
    row_before: np.ndarray,
    column_before: np.ndarray,
    start: int,
    end: int,
) -> None:
    """Change the flow along the path by as much as it allows."""
    amount, i = min(supply[start], demand[end]), row_before[end]
    while i != start:
        amount = min(amount, flow[i, column_before[i]])
        i = row_before[column_before[i]]
    supply[start] -= amount
    demand[end] -= amount
    j = end
    while True:
        i = row_before[j]
        flow[i, j] += amount
        if i == start:
            return
        j = column_before[i]
        flow[i, j] -= amount
