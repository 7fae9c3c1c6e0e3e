"""Any index FAISS can build from a factory string, for users who name one; what it finds is scored again exactly.

Nothing here makes it deterministic: HNSW built in several threads, OPQ and others differ from run to run.
"""

from typing import Any

import faiss
import numpy as np

from rpo_data.errors import RecipeError
from rpo_data.nearest import dots

_READ = 65536
_SAMPLE = 262144
_EFFORTS = ("nprobe", "efSearch", "quantizer_efSearch")
"""FAISS's names of what makes a search look further."""


def make_index(vectors: np.ndarray, rows: np.ndarray, name: str, seed: int) -> Any:
    """The named index over these rows, trained on a seeded sample of them.

    Args:
        vectors: unit length, shape (any, dimension), float32; may be memory-mapped.
        rows: the rows to add, rising, int64.
        name: FAISS factory string.
        seed: of the sample.

    Raises:
        RecipeError: FAISS cannot build it for these vectors.
    """
    sample = np.random.default_rng(seed).choice(rows, min(len(rows), _SAMPLE), replace=False)
    try:
        index = faiss.index_factory(vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RecipeError(
            f"index {name!r} cannot be built for {len(rows):,} vectors of {vectors.shape[1]} numbers ({reason}): "
            "use auto, or a FAISS factory string such as IVF1024,Flat"
        ) from error
    for start in range(0, len(rows), _READ):
        index.add(np.ascontiguousarray(vectors[rows[start : start + _READ]]))
    return index


def search_index(
    vectors: np.ndarray, index: Any, rows: np.ndarray, queries: np.ndarray, k: int, effort: int, fetch: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other rows of each query among the candidates that the index gives.

    Args:
        vectors: unit length, shape (any, dimension), float32.
        index: over the rows.
        rows: what was added, rising, int64.
        queries: row numbers, int64.
        k: neighbours a query.
        effort: nprobe or efSearch, where the index has them.
        fetch: candidates a query.

    Returns:
        neighbors, shape (queries, k), int64, nearest first, -1 where nothing was found; cosines, float32.
    """
    for parameter in _EFFORTS:
        try:
            faiss.ParameterSpace().set_index_parameter(index, parameter, effort)
        except RuntimeError:  # this index has no such thing
            continue
    neighbors = np.empty((len(queries), k), dtype=np.int64)
    similarity = np.empty((len(queries), k), dtype=np.float32)
    for start in range(0, len(queries), _READ):
        part = queries[start : start + _READ]
        asking = np.ascontiguousarray(vectors[part])
        place = index.search(asking, min(max(fetch, k + 1), len(rows)))[1]
        found = np.where(place < 0, -1, rows[place])
        found[found == part[:, None]] = -1  # a row is not its own neighbour
        cosine = dots(asking, vectors, found)
        order = np.lexsort((found, -cosine), axis=1)[:, :k]
        neighbors[start : start + _READ] = np.take_along_axis(found, order, axis=1)
        similarity[start : start + _READ] = np.take_along_axis(cosine, order, axis=1)
    return neighbors, similarity
