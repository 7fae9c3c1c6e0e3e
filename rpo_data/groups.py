"""Form contrast groups: every row in exactly one group of each view, related prompts together.

Objective: the summed cosine of all pairs of rows that share a group (`nearest`). It is maximised by annealed swaps: two
rows trade places when that gains, or loses little while the process is hot. With unit vectors v and group sums S the gain
of swapping a (in group A) with b (in group B) is d . (S_B - S_A + d), d = v_a - v_b: one pass over the dimension, whatever
the group size. A swap partner is drawn from the group of one of the row's nearest neighbours, where a gain is likely.
"""

import numba
import numpy as np

STEPS_PER_ROW = 2000
"""Proposed swaps a row; quality rises slowly beyond (benchmarks/grouping.py)."""
HOT, COLD = 0.3, 0.02
"""Annealing temperatures, in units of summed cosine."""
REPEAT_COST = 1.0
"""What a pair of rows costs that already shared a group in an earlier view: as much as the best cosine earns."""


def form_groups(
    vectors: np.ndarray,
    prompt_of_row: np.ndarray,
    neighbors: np.ndarray,
    block: np.ndarray,
    *,
    group_size: int,
    views: int,
    strategy: str,
    seed: int,
) -> list[list[np.ndarray]]:
    """Assign rows to groups, once for each view.

    Args:
        vectors: unit vectors of the prompts, shape (prompts, dimension), float32.
        prompt_of_row: prompt of each row, shape (rows,), int64, rising.
        neighbors: nearest prompts of each prompt, shape (prompts, k), int64, -1 where there is none.
        block: rows of different blocks (split, language) never share a group, shape (rows,), int64.
        group_size: rows of a group; the last group of each block may be smaller.
        views: number of assignments.
        strategy: nearest or random.
        seed: of all random choices.

    Returns:
        For each view its groups, in order of their first row; a group is an array of row numbers, rising.
    """
    result = []
    partners = np.full((len(prompt_of_row), max(views - 1, 0) * (group_size - 1)), -1, dtype=np.int64)
    for view in range(views):
        groups: list[np.ndarray] = []
        for number in np.unique(block):
            rows = np.flatnonzero(block == number)
            rng = np.random.default_rng([seed, view, int(number)])
            members = _random_members(rows, group_size, rng)
            if strategy == "nearest" and len(members) > 1:
                _improve(members, vectors, prompt_of_row, neighbors, partners, seed=int(rng.integers(2**31)))
            groups += [np.sort(group[group >= 0]) for group in members]
        groups.sort(key=lambda group: int(group[0]))
        if view < views - 1:
            _note_partners(partners, groups, view * (group_size - 1))
        result.append(groups)
    return result


def _random_members(rows: np.ndarray, group_size: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffled rows cut into groups, shape (groups, group_size); the last one is filled up with -1."""
    count = -(-len(rows) // group_size)
    members = np.full(count * group_size, -1, dtype=np.int64)
    members[: len(rows)] = rng.permutation(rows)
    return members.reshape(count, group_size)


def _improve(
    members: np.ndarray,
    vectors: np.ndarray,
    prompt_of_row: np.ndarray,
    neighbors: np.ndarray,
    partners: np.ndarray,
    *,
    seed: int,
) -> None:
    """Anneal the groups in place."""
    first_row = np.searchsorted(prompt_of_row, np.arange(len(vectors) + 1))
    slot = np.full(len(prompt_of_row), -1, dtype=np.int64)
    filled = members >= 0
    slot[members[filled]] = np.flatnonzero(filled)
    sums = np.zeros((len(members), vectors.shape[1]), dtype=np.float32)
    for column in range(members.shape[1]):
        present = filled[:, column]
        sums[present] += vectors[prompt_of_row[members[present, column]]]
    steps = int(filled.sum()) * STEPS_PER_ROW
    _anneal(members, slot, sums, vectors, prompt_of_row, first_row, neighbors, partners, steps, seed, HOT, COLD)


@numba.njit(cache=True, fastmath=True)
def _anneal(  # noqa: ANN202 - compiled; see _improve
    members,
    slot,
    sums,
    vectors,
    prompt_of_row,
    first_row,
    neighbors,
    partners,
    steps,
    seed,
    hot,
    cold,  # noqa: ANN001
):
    np.random.seed(seed)  # noqa: NPY002 - Numba's own generator, the one compiled code has
    size = members.shape[1]
    flat = members.reshape(-1)
    rows = np.flatnonzero(slot >= 0)
    degree = neighbors.shape[1]
    heat = hot
    for step in range(steps):
        if step % 1024 == 0:
            heat = hot * (cold / hot) ** (step / steps)
        a = rows[np.random.randint(len(rows))]  # noqa: NPY002
        prompt = prompt_of_row[a]
        pick = np.random.randint(degree + 1)  # noqa: NPY002
        near = prompt if pick == degree else neighbors[prompt, pick]
        if near < 0:
            continue
        near_row = first_row[near] + np.random.randint(first_row[near + 1] - first_row[near])  # noqa: NPY002
        if slot[near_row] < 0:
            continue  # a row of another language
        group_a, group_b = slot[a] // size, slot[near_row] // size
        b = members[group_b, np.random.randint(size)]  # noqa: NPY002
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
        if gain < 0.0 and np.random.random() >= np.exp(gain / heat):  # noqa: NPY002
            continue
        for i in range(vectors.shape[1]):
            d = vector_a[i] - vector_b[i]
            sum_a[i] -= d
            sum_b[i] += d
        slot[a], slot[b] = slot[b], slot[a]
        flat[slot[a]], flat[slot[b]] = a, b


@numba.njit(cache=True)
def _repeats(partners, members, row, group, absent):  # noqa: ANN001, ANN202
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


def _note_partners(partners: np.ndarray, groups: list[np.ndarray], column: int) -> None:
    for group in groups:
        for position, row in enumerate(group):
            others = np.delete(group, position)
            partners[row, column : column + len(others)] = others


def mean_similarity(vectors: np.ndarray, prompt_of_row: np.ndarray, groups: list[np.ndarray]) -> float | None:
    """Mean cosine of two different rows that share a group; None where no group has two rows."""
    total, cells = 0.0, 0
    for group in groups:
        members = vectors[prompt_of_row[group]].astype(np.float64)
        total += float(np.square(members.sum(axis=0)).sum() - np.square(members).sum())
        cells += len(group) * (len(group) - 1)
    return total / cells if cells else None
