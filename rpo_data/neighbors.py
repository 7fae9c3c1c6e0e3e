"""Nearest prompts by cosine: exact where that is affordable, else by inverted lists whose recall is measured.

The same bits for every thread count, batch size and resume point, except for an index a user names that FAISS itself
does not build the same way twice (HNSW, OPQ, …).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rpo_data.ivf import search_cells, whole
from rpo_data.ladder import MEMORY, Progress, Task, check_index, choose_index, search_block
from rpo_data.nearest import dots
from rpo_data.schemas.manifest import SearchInfo

_BLOCK, _CHUNK = 1024, 16384
_MARGIN = 1e-5
"""Float32 inner products of unit vectors are off by far less than this."""


class Found(NamedTuple):
    """Neighbours, shape (rows, k), int64; their cosines, float32; and how each block was searched, by block number."""

    neighbors: np.ndarray
    similarity: np.ndarray
    searches: dict[int, SearchInfo]


def exact_neighbors(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other rows of each row.

    Args:
        vectors: unit length, shape (rows, dimension), float32.
        k: neighbours a row, cut to rows - 1.

    Returns:
        neighbors, shape (rows, k), int64, nearest first, ties by row number; and their cosines, float32.
    """
    rows = np.arange(len(vectors))
    k = max(min(k, len(rows) - 1), 0)
    if k == 0:
        return np.empty((len(rows), 0), dtype=np.int64), np.empty((len(rows), 0), dtype=np.float32)
    everything = whole(vectors, rows)
    return search_cells(vectors, everything, rows, k, everything.count)


def search_within(
    vectors: np.ndarray,
    block: np.ndarray,
    k: int,
    *,
    index: str = "auto",
    min_recall: float = 0.95,
    seed: int = 0,
    memory: int = MEMORY,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Found:
    """The k nearest rows inside each block (a split, say): no neighbour crosses blocks.

    Args:
        vectors: unit length, shape (rows, dimension), float32; may be memory-mapped.
        block: block number of each row, shape (rows,), int64.
        k: neighbours a row; a small block has fewer, the rest is -1 with similarity -inf.
        index: "auto" (see `choose_index`), "Flat" (exact), "IVFn,Flat", "IVFn,SQ8", "IVFn,PQm" (deterministic), or any
            other FAISS factory string, whose determinism is then the user's (HNSW, OPQ and others have none) and which
            FAISS holds in memory. Blocks of a few hundred rows are searched exactly whatever is named.
        min_recall: nprobe and the number of candidates rise until this share of the true neighbours is found.
        seed: of the samples for training, tuning and measuring.
        memory: bytes of vectors a search may go through again and again; see `choose_index`.
        folder: finished parts are kept here, under names made of the vectors' content, and a search that was killed
            goes on from them; the caller removes it.
        progress: called for each block with (rows searched, rows to search) after each part.

    Returns:
        Neighbours numbered as in `vectors`, nearest first, ties by row number; cosines; and for each block its search.

    Raises:
        RecipeError: FAISS cannot build the index named.
    """
    check_index(index, vectors.shape[1])
    neighbors = np.full((len(vectors), k), -1, dtype=np.int64)
    similarity = np.full((len(vectors), k), -np.inf, dtype=np.float32)
    searches = {}
    for number in np.unique(block):
        rows = np.flatnonzero(block == number)
        width = min(k, len(rows) - 1)
        name = choose_index(len(rows), vectors.shape[1], index, memory)
        found = neighbors[:, :width], similarity[:, :width]
        task = Task(vectors, rows, *found, name, min_recall, seed, folder, progress)
        searches[int(number)] = search_block(task)
    return Found(neighbors, similarity, searches)


def neighbors_within(vectors: np.ndarray, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and cosines of `search_within` with its defaults."""
    return search_within(vectors, block, k)[:2]


def near_duplicates(
    vectors: np.ndarray, neighbors: np.ndarray, similarity: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows at least this similar, from the neighbour lists and, where a list is full of them, beyond it.

    A list that ends above the threshold hides further near-duplicates, and more rows could push one out of it that was
    there before; for those rows all of them are searched, exactly. So where the lists are exact, no pair is missing.
    Where they were searched with recall r, a pair whose two rows have lists that are not full is missing only when
    neither list has the other row. That is rarer than 1 - r, as the nearest rows are the last to be missed (they share a
    cell): of 4,000 planted pairs at cosine 0.96 to 0.98 none was missing at r = 0.96, and 33 at r = 0.87.

    Args:
        vectors: unit length, shape (rows, dimension), float32; may be memory-mapped.
        neighbors: of each row, shape (rows, k), int64, -1 where there is none.
        similarity: cosines of them, float32.
        threshold: smallest cosine of a pair.

    Returns:
        The two rows of each pair, int64; a pair may come in both orders.
    """
    near = (neighbors >= 0) & (similarity >= threshold)
    starts, ends = [np.nonzero(near)[0]], [neighbors[near]]
    full = np.flatnonzero(near.all(axis=1)) if neighbors.shape[1] else np.arange(0)
    for begin in range(0, len(full), _BLOCK):
        rows = full[begin : begin + _BLOCK]
        for chunk in range(0, len(vectors), _CHUNK):
            scores = vectors[rows] @ vectors[chunk : chunk + _CHUNK].T
            place, other = np.nonzero(scores >= threshold - _MARGIN)
            other += chunk
            exact = dots(vectors[rows[place]], vectors, other[:, None])[:, 0]
            kept = (exact >= threshold) & (other != rows[place])
            starts.append(rows[place[kept]])
            ends.append(other[kept])
    return np.concatenate(starts), np.concatenate(ends)
