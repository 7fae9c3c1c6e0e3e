"""Cut many vectors into chunks of related ones, all of one size: a tree of two-means splits, each at the median.

Source: Steinbach, Karypis and Kumar 2000, "A Comparison of Document Clustering Techniques" (bisecting k-means), with
halves of equal size. Each split takes one pass over its vectors; no thread or batch reaches the result.
"""

from concurrent.futures import Executor

import numpy as np

_SAMPLE = 256
_ITERATIONS = 5
_ROWS = 2**15


def related_chunks(
    vectors: np.ndarray, vector_of_row: np.ndarray, size: int, seed: int, pool: Executor
) -> list[np.ndarray]:
    """Cut rows into chunks.

    Args:
        vectors: shape (vectors, dimension), float32; may be memory-mapped.
        vector_of_row: which of them each row has, shape (rows,), int64.
        size: rows of a chunk; the last one may have fewer.
        seed: of the samples that splits are made of.
        pool: works on several splits at a time.

    Returns:
        Row numbers of each chunk, rising; neighbouring chunks are related too.
    """
    chunks, level = [np.arange(len(vector_of_row))], 0
    while max(map(len, chunks)) > size:
        jobs = [(vectors, vector_of_row, rows, size, (seed, level, number)) for number, rows in enumerate(chunks)]
        chunks = [half for halves in pool.map(lambda job: _halves(*job), jobs) for half in halves]
        level += 1
    return chunks


def _halves(
    vectors: np.ndarray, vector_of_row: np.ndarray, rows: np.ndarray, size: int, seed: tuple[int, ...]
) -> list[np.ndarray]:
    """Two halves at the median along the line between two means; the first one holds whole chunks."""
    if len(rows) <= size:
        return [rows]
    sample = np.random.default_rng(seed).choice(len(rows), min(len(rows), _SAMPLE), replace=False)
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
