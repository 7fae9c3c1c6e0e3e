"""Nearest by cosine with the same bits for every thread count and batch size.

FAISS scores candidates in float32, and its scores differ in the last bits with threads and batches. So more candidates
than asked for are fetched, scored again in float64, and cut in the order (cosine falling, number rising); where the last
one fetched scores like the last one wanted, more are fetched.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import faiss
import numba
import numpy as np

Candidates = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(places of queries, number to fetch) -> float32 scores, best first, and the numbers found, -1 where there is none."""
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(places of queries, numbers found) -> their cosines by `dots`, -inf for -1."""

_SPARE = 8
_BLOCK = 4096
_MARGIN = 1e-5
"""Float32 inner products of unit vectors are off by far less than this."""


def nearest(queries: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vectors of each query.

    Args:
        queries: unit length, shape (queries, dimension), float32.
        vectors: unit length, shape (rows, dimension), float32.
        count: vectors a query, at most rows.

    Returns:
        Row numbers, shape (queries, count), int64, nearest first, ties by number; and their cosines, float32.
    """
    found = np.empty((len(queries), count), dtype=np.int64)
    cosine = np.empty((len(queries), count), dtype=np.float32)

    def fill(start: int) -> None:
        asking = np.ascontiguousarray(queries[start : start + _BLOCK])

        def candidates(places: np.ndarray, fetch: int) -> tuple[np.ndarray, np.ndarray]:
            return faiss.knn(asking[places], vectors, fetch, metric=faiss.METRIC_INNER_PRODUCT)

        def score(places: np.ndarray, numbers: np.ndarray) -> np.ndarray:
            return dots(asking[places], vectors, numbers)

        part = slice(start, start + len(asking))
        found[part], cosine[part] = settled(len(asking), count, len(vectors), candidates, score)

    in_threads(fill, range(0, len(queries) if count else 0, _BLOCK))
    return found, cosine


def in_threads(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Do the work for each item, in as many threads as FAISS would use, each of which computes alone.

    OpenMP's own threads spin between the many short products of a search, which costs several times the work itself
    where the machine is shared. Inside such a thread there is nothing more to divide, and work is done in its turn.
    """
    threads = faiss.omp_get_max_threads()
    if threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads, initializer=partial(faiss.omp_set_num_threads, 1)) as pool:
        for _ in pool.map(work, items):
            pass


def settled(
    queries: int, count: int, limit: int, candidates: Candidates, score: Score
) -> tuple[np.ndarray, np.ndarray]:
    """The best of what `candidates` can find, whatever its scores do in their last bits.

    Args:
        queries: how many there are.
        count: wanted for each, at most `limit`.
        limit: candidates there are at all.
        candidates: finds them, by scores that may waver.
        score: scores them exactly.

    Returns:
        Numbers, shape (queries, count), int64, best first, -1 where there are fewer; exact scores, float32.
    """
    best = np.empty((queries, count), dtype=np.int64)
    exact = np.empty((queries, count), dtype=np.float32)
    todo = np.arange(queries)
    fetch = min(count + _SPARE, limit)
    while len(todo):
        scores, found = candidates(todo, fetch)
        more = (scores[:, count - 1] - scores[:, -1] < _MARGIN) & (found[:, -1] >= 0) & (fetch < limit)
        done, kept = todo[~more], found[~more]
        cosine = score(done, kept)
        order = np.lexsort((kept, -cosine), axis=1)[:, :count]
        best[done] = np.take_along_axis(kept, order, axis=1)
        exact[done] = np.take_along_axis(cosine, order, axis=1)
        todo = todo[more]
        fetch = min(fetch * 4, limit)
    return best, exact


def dots(queries: np.ndarray, vectors: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Cosines of queries with the vectors found for them, summed in float64 and rounded to float32, never above 1.

    Args:
        queries: unit length, shape (queries, dimension), float32.
        vectors: unit length, shape (rows, dimension), float32; may be memory-mapped.
        found: row numbers, shape (queries, any), int64, -1 where there is none.

    Returns:
        Shape of `found`, float32; -inf where nothing was found.
    """
    cosine = np.empty(found.shape, dtype=np.float32)
    _dots(np.asarray(queries), np.asarray(vectors), found, cosine)
    return cosine


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dots(queries: np.ndarray, vectors: np.ndarray, found: np.ndarray, cosine: np.ndarray) -> None:
    for query in range(found.shape[0]):
        for place in range(found.shape[1]):
            row = found[query, place]
            if row < 0:
                cosine[query, place] = -np.inf
                continue
            total = 0.0
            for axis in range(vectors.shape[1]):
                total += np.float64(queries[query, axis]) * np.float64(vectors[row, axis])
            cosine[query, place] = np.float32(min(1.0, max(-1.0, total)))
