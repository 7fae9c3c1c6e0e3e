"""Cut many rows into chunks of related ones, all of one size: a tree of two-means splits, or growth along a graph.

Source of the tree: Steinbach, Karypis and Kumar 2000, "A Comparison of Document Clustering Techniques" (bisecting
k-means), with halves of equal size. Each split takes one pass over its vectors; no thread or batch reaches the result.
Source of the growth: Karypis and Kumar 1998, "A Fast and High Quality Multilevel Scheme for Partitioning Irregular
Graphs", section 4.2 (graph growing), here for many parts at a time.
"""

from concurrent.futures import Executor

import numba
import numpy as np

_SAMPLE = 256
_ITERATIONS = 5
_ROWS = 2**15


def related_chunks(
    vectors: np.ndarray, vector_of_row: np.ndarray, size: int, seed: int, pool: Executor, tree: int = 0
) -> list[np.ndarray]:
    """Cut rows into chunks.

    Args:
        vectors: shape (vectors, dimension), float32; may be memory-mapped.
        vector_of_row: which of them each row has, shape (rows,), int64.
        size: rows of a chunk; the last one may have fewer.
        seed: of the samples that splits are made of.
        pool: works on several splits at a time.
        tree: another number gives another tree, equally good: 0 splits by all rows where they are few, others by half.

    Returns:
        Row numbers of each chunk, rising; neighbouring chunks are related too.
    """
    chunks, level = [np.arange(len(vector_of_row))], 0
    while max(map(len, chunks)) > size:
        jobs = [(rows, (seed + tree, level, number)) for number, rows in enumerate(chunks)]
        halves = pool.map(lambda job: _halves(vectors, vector_of_row, job[0], job[1], size, 2 if tree else 1), jobs)
        chunks = [half for pair in halves for half in pair]
        level += 1
    return chunks


def _halves(
    vectors: np.ndarray, vector_of_row: np.ndarray, rows: np.ndarray, seed: tuple[int, ...], size: int, part: int
) -> list[np.ndarray]:
    """Two halves at the median along the line between two means, of one in `part` rows; the first one holds whole chunks."""
    if len(rows) <= size:
        return [rows]
    sample = np.random.default_rng(seed).choice(len(rows), min(-(-len(rows) // part), _SAMPLE), replace=False)
    line = _between_means(vectors[vector_of_row[np.sort(rows[sample])]].astype(np.float64)).astype(np.float32)
    along = np.concatenate([vectors[vector_of_row[rows[at : at + _ROWS]]] @ line for at in range(0, len(rows), _ROWS)])
    order = np.argsort(-along, kind="stable")
    first = -(-len(rows) // size) // 2 * size
    return [np.sort(rows[order[:first]]), np.sort(rows[order[first:]])]


def _between_means(sample: np.ndarray) -> np.ndarray:
    one, other = sample[0], sample[np.argmin(sample @ sample[0])]
    for _ in range(_ITERATIONS):
        near_one = sample @ (one - other) > 0
        if near_one.all() or not near_one.any():
            break
        one, other = sample[near_one].mean(axis=0), sample[~near_one].mean(axis=0)
    return one - other


@numba.njit(cache=True, nogil=True)
def grown_order(
    starts: np.ndarray, members: np.ndarray, prompt: np.ndarray, neighbors: np.ndarray, size: int
) -> np.ndarray:
    """Put groups in an order in which each `size` of them are related: chunks that grow along the neighbours' edges.

    A chunk starts at the first group that has no chunk yet, takes the groups of its rows' nearest neighbours, then those
    of their rows, until it is full; where no edge leads on, the next group that has no chunk joins.

    Args:
        starts: every group once, shape (groups,), int64.
        members: rows of each group, shape (groups, width), int64, -1 where a group has fewer.
        prompt: of each row, rising, shape (rows,), int64.
        neighbors: nearest prompts of each prompt, shape (prompts, k), int64, -1 where there is none.
        size: groups of a chunk.

    Returns:
        Every group once, shape (groups,), int64.
    """
    groups, width = members.shape
    group_of_row = np.full(len(prompt), -1, dtype=np.int32)
    for group in range(groups):
        for row in members[group]:
            if row >= 0:
                group_of_row[row] = group
    first = np.searchsorted(prompt, np.arange(len(neighbors) + 1)).astype(np.int32)
    found, taken = np.empty(groups, dtype=np.int64), np.zeros(groups, dtype=np.bool_)
    filled = 0
    for start in starts:
        if taken[start]:
            continue
        taken[start], found[filled] = True, start
        at, filled = filled, filled + 1
        end = min(-(-filled // size) * size, groups)
        while at < filled < end:
            for rank in range(neighbors.shape[1]):
                for place in range(width):
                    row = members[found[at], place]
                    near = neighbors[prompt[row], rank] if row >= 0 else -1
                    if near < 0:
                        continue
                    for other in range(first[near], first[near + 1]):
                        group = group_of_row[other]
                        if group >= 0 and not taken[group] and filled < end:
                            taken[group], found[filled] = True, group
                            filled += 1
            at += 1
    return found
