"""Exact nearest prompts by cosine, the same bits for every thread count and batch size.

FAISS finds candidates by float32 inner product; its scores differ in the last bits with threads and batches, so more
than k are fetched, scored again in float64, and cut to k in the order (similarity falling, row rising).
"""

import faiss
import numpy as np

_SPARE = 8
_BLOCK = 4096
_MARGIN = 1e-5
"""Float32 inner products of unit vectors are off by far less than this."""


def exact_neighbors(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other rows of each row.

    Args:
        vectors: unit length, shape (rows, dimension), float32.
        k: neighbours a row, cut to rows - 1.

    Returns:
        neighbors, shape (rows, k), int64, nearest first, ties by row number; and their cosines, float32.
    """
    rows = len(vectors)
    wanted = np.arange(rows)
    k = min(k, rows - 1)
    neighbors = np.empty((len(wanted), max(k, 0)), dtype=np.int64)
    similarity = np.empty((len(wanted), max(k, 0)), dtype=np.float32)
    if k > 0:
        for start in range(0, len(wanted), _BLOCK):
            part = slice(start, start + _BLOCK)
            neighbors[part], similarity[part] = _search(vectors, wanted[part], k)
    return neighbors, similarity


def _search(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    neighbors = np.empty((len(queries), k), dtype=np.int64)
    similarity = np.empty((len(queries), k), dtype=np.float32)
    todo = np.arange(len(queries))
    fetch = min(k + 1 + _SPARE, len(vectors))
    while len(todo):
        scores, found = faiss.knn(vectors[queries[todo]], vectors, fetch, metric=faiss.METRIC_INNER_PRODUCT)
        # where the last one fetched scores like the k-th, equal ones may have been left behind: fetch more
        open_end = (scores[:, k] - scores[:, -1] < _MARGIN) & (fetch < len(vectors))
        done = todo[~open_end]
        neighbors[done], similarity[done] = _rescore(vectors, queries[done], found[~open_end], k)
        todo = todo[open_end]
        fetch = min(fetch * 4, len(vectors))
    return neighbors, similarity


def _rescore(vectors: np.ndarray, queries: np.ndarray, found: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    exact = np.empty(found.shape, dtype=np.float32)
    for row, query in enumerate(queries):
        exact[row] = cosines(vectors, query, found[row])
    exact[found == queries[:, None]] = -np.inf  # a row is not its own neighbour
    order = np.lexsort((found, -exact), axis=1)[:, :k]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(exact, order, axis=1)


def near_duplicates(
    vectors: np.ndarray, neighbors: np.ndarray, similarity: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows at least this similar, from the neighbour lists and, where a list is full of them, beyond it.

    A list that ends above the threshold hides further near-duplicates, and more rows could push one out of it that was
    there before; for those rows all of them are searched.

    Returns:
        The two rows of each pair, int64; a pair may come in both orders.
    """
    near = (neighbors >= 0) & (similarity >= threshold)
    starts, ends = [np.nonzero(near)[0]], [neighbors[near]]
    full = np.flatnonzero(near.all(axis=1)) if neighbors.shape[1] else np.arange(0)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    for begin in range(0, len(full), _BLOCK):
        rows = full[begin : begin + _BLOCK]
        limits, _, found = index.range_search(vectors[rows], threshold - _MARGIN)
        for place, row in enumerate(rows):
            others = np.sort(found[limits[place] : limits[place + 1]])
            others = others[(cosines(vectors, row, others) >= threshold) & (others != row)]
            starts.append(np.full(len(others), row))
            ends.append(others)
    return np.concatenate(starts), np.concatenate(ends)


def cosines(vectors: np.ndarray, row: int, others: np.ndarray) -> np.ndarray:
    """Cosine of one row with others, summed in float64 and rounded to float32, never above 1."""
    exact = np.einsum("ij,j->i", vectors[others].astype(np.float64), vectors[row].astype(np.float64))
    return np.clip(exact, -1.0, 1.0).astype(np.float32)


def neighbors_within(vectors: np.ndarray, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows inside each block (a split, say): no neighbour crosses blocks.

    Args:
        vectors: unit length, shape (rows, dimension), float32.
        block: block number of each row, shape (rows,), int64.
        k: neighbours a row; a small block has fewer, the rest is -1 with similarity -inf.

    Returns:
        neighbors, shape (rows, k), int64, numbered as in `vectors`; similarity, float32.
    """
    neighbors = np.full((len(vectors), k), -1, dtype=np.int64)
    similarity = np.full((len(vectors), k), -np.inf, dtype=np.float32)
    for number in np.unique(block):
        rows = np.flatnonzero(block == number)
        found, scores = exact_neighbors(np.ascontiguousarray(vectors[rows]), k)
        neighbors[rows[:, None], np.arange(found.shape[1])] = rows[found]
        similarity[rows[:, None], np.arange(found.shape[1])] = scores
    return neighbors, similarity
