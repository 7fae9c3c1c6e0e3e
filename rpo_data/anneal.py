"""Annealed swaps, compiled: two rows trade groups when that gains, or loses little while the process is hot.

With unit vectors v and group sums S, swapping a (in group A) with b (in group B) changes the summed cosine inside groups by
d . (S_B - S_A + d) with d = v_a - v_b: one pass over the dimension, whatever the group size. A row is proposed to move into
the group of one of its nearest neighbours, where a gain is likely. One thread and one generator: a seed gives one result.
"""

# ruff: noqa: NPY002 - compiled code has Numba's own generator, behind these names

import numba
import numpy as np

HOT, COLD = 0.3, 0.02
"""First and last annealing temperature, in units of summed cosine."""
REPEAT_COST = 1.0
"""What a pair of rows costs that already shared a group in an earlier view: as much as the best cosine earns."""


@numba.njit(cache=True, fastmath=True)
def anneal(
    members: np.ndarray,
    slot: np.ndarray,
    sums: np.ndarray,
    vectors: np.ndarray,
    prompt_of_row: np.ndarray,
    first_row: np.ndarray,
    neighbors: np.ndarray,
    partners: np.ndarray,
    steps: int,
    seed: int,
) -> None:
    """Swap rows between groups, in place.

    Args:
        members: rows of each group, shape (groups, group_size), int64, -1 where a group has fewer.
        slot: place of each row in `members` read flat, -1 for rows of other blocks, shape (rows,), int64.
        sums: sum of each group's vectors, shape (groups, dimension), float32.
        vectors: unit vectors of the prompts, shape (prompts, dimension), float32.
        prompt_of_row: prompt of each row, rising, shape (rows,), int64.
        first_row: first row of each prompt, and the number of rows, shape (prompts + 1,), int64.
        neighbors: nearest prompts of each prompt, shape (prompts, k), int64, -1 where there is none.
        partners: rows that shared a group with each row in an earlier view, shape (rows, any), int64, -1 where none.
        steps: swaps to propose.
        seed: of Numba's own generator.
    """
    np.random.seed(seed)
    size = members.shape[1]
    flat = members.reshape(-1)
    rows = np.flatnonzero(slot >= 0)
    degree = neighbors.shape[1]
    heat = HOT
    for step in range(steps):
        if step % 1024 == 0:
            heat = HOT * (COLD / HOT) ** (step / steps)
        a = rows[np.random.randint(len(rows))]
        prompt = prompt_of_row[a]
        pick = np.random.randint(degree + 1)
        near = prompt if pick == degree else neighbors[prompt, pick]
        if near < 0:
            continue
        near_row = first_row[near] + np.random.randint(first_row[near + 1] - first_row[near])
        if slot[near_row] < 0:
            continue  # a row of another language
        group_a, group_b = slot[a] // size, slot[near_row] // size
        b = members[group_b, np.random.randint(size)]
        if group_a == group_b or b < 0 or b == near_row:
            continue
        vector_a, vector_b, sum_a, sum_b = vectors[prompt], vectors[prompt_of_row[b]], sums[group_a], sums[group_b]
        gain = np.float32(0.0)
        for i in range(vectors.shape[1]):
            d = vector_a[i] - vector_b[i]
            gain += d * (sum_b[i] - sum_a[i] + d)
        if partners.shape[1] > 0:
            repeats = _repeats(partners, members, a, group_b, b) + _repeats(partners, members, b, group_a, a)
            repeats -= _repeats(partners, members, a, group_a, a) + _repeats(partners, members, b, group_b, b)
            gain -= np.float32(REPEAT_COST * repeats)
        if gain < 0.0 and np.random.random() >= np.exp(gain / heat):
            continue
        for i in range(vectors.shape[1]):
            d = vector_a[i] - vector_b[i]
            sum_a[i] -= d
            sum_b[i] += d
        slot[a], slot[b] = slot[b], slot[a]
        flat[slot[a]], flat[slot[b]] = a, b


@numba.njit(cache=True)
def _repeats(partners: np.ndarray, members: np.ndarray, row: int, group: int, absent: int) -> int:
    """How many of a group's members, one left out, shared a group with the row in an earlier view."""
    count = 0
    for k in range(members.shape[1]):
        member = members[group, k]
        if member >= 0 and member != absent and member != row:
            for j in range(partners.shape[1]):
                if partners[row, j] == member:
                    count += 1
                    break
    return count
