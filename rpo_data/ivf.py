"""Inverted lists: rows fall into cells by k-means, and a row is compared only with the rows of the cells nearest to it.

Made to give the same bits for every thread count, batch size and resume point, which FAISS's own IVF does not: the
k-means, the cell of a row and the cells a row probes are cut in float64 (`rpo_data.nearest`), and so is what is found in
them. "The neighbours of a row" is thus a definition free of rounding: the exact nearest among the rows of its cells.

The search goes list by list over many queries at once (as in faiss.contrib.big_batch_search), so that a list is read
once a batch and compared in one matrix product. Lists hold row numbers; vectors stay where they are, in memory or in a
memory-mapped file.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from rpo_data.nearest import dots, in_threads, nearest, settled

_ROUNDS = 10
_SAMPLE = 32
"""Rows a cell that k-means learns from."""
_LEARN = 10240
"""Rows a quantiser learns from: 40 for each of the 256 words of a product quantiser, which learns in one thread."""
_READ = 65536
_BATCH, _PROBES = 16384, 1 << 22
"""Queries and probes of one batch: bound what a search holds beside vectors and result."""
_DECODE = 1 << 24
"""Numbers decoded at once when coded candidates are scored."""


@dataclass(frozen=True)
class Codes:
    """Compressed vectors (scalar or product quantisation): what candidates are looked up in where memory is short."""

    codec: Any
    table: np.ndarray


@dataclass(frozen=True)
class Cells:
    """An inverted file.

    centers  unit length, shape (cells, dimension), float32
    members  row numbers, by cell and within it rising, int64
    limits   where the members of each cell start, and their number, shape (cells + 1,), int64
    """

    centers: np.ndarray
    members: np.ndarray
    limits: np.ndarray

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.centers)

    def of(self, cell: int) -> np.ndarray:
        """Row numbers of one cell."""
        return self.members[self.limits[cell] : self.limits[cell + 1]]

    def cell_of(self, rows: int) -> np.ndarray:
        """The cell of each row, shape (rows,), int32, -1 for rows that are in none."""
        cell = np.full(rows, -1, dtype=np.int32)
        cell[self.members] = np.repeat(np.arange(self.count, dtype=np.int32), np.diff(self.limits))
        return cell


def make_cells(vectors: np.ndarray, rows: np.ndarray, count: int, seed: int) -> Cells:
    """Cells by spherical k-means on a seeded sample of rows.

    Args:
        vectors: unit length, shape (any, dimension), float32.
        rows: the rows to divide, rising, int64.
        count: cells, at most the number of rows.
        seed: of the sample.
    """
    rng = np.random.default_rng(seed)
    sample = rng.choice(rows, min(len(rows), _SAMPLE * count), replace=False)
    learnt = np.ascontiguousarray(vectors[np.sort(sample)])
    centers = np.ascontiguousarray(vectors[np.sort(sample[:count])])
    for _ in range(_ROUNDS):
        centers = _means(learnt, _nearest_cell(learnt, centers), centers)
    cell = np.empty(len(rows), dtype=np.int32)
    for start in range(0, len(rows), _READ):
        part = rows[start : start + _READ]
        cell[start : start + _READ] = _nearest_cell(vectors[part], centers)
    order = np.argsort(cell, kind="stable")
    limits = np.searchsorted(cell[order], np.arange(count + 1)).astype(np.int64)
    return Cells(centers, rows[order], limits)


def _nearest_cell(vectors: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return np.maximum(nearest(vectors, centers, 1)[0][:, 0], 0)  # a row that is not a number is near to none


def _means(vectors: np.ndarray, cell: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Unit means of each cell's vectors, summed in float64 in row order; an empty cell keeps its centre."""
    order = np.argsort(cell, kind="stable")
    filled, starts = np.unique(cell[order], return_index=True)
    means = np.empty((len(filled), vectors.shape[1]))
    for axis in range(0, vectors.shape[1], 32):  # a few columns at a time, or float64 would double the memory
        columns = vectors[:, axis : axis + 32].astype(np.float64)[order]
        means[:, axis : axis + 32] = np.add.reduceat(columns, starts, axis=0)
    length = np.sqrt(np.einsum("ij,ij->i", means, means))[:, None]
    centers = centers.copy()
    centers[filled] = np.where(length > 0, means / np.where(length > 0, length, 1), centers[filled])
    return centers


def whole(vectors: np.ndarray, rows: np.ndarray) -> Cells:
    """One cell for every 65,536 rows: probing all of them is the exact search, without a second copy of the vectors."""
    limits = np.append(np.arange(0, len(rows), _READ), len(rows)).astype(np.int64)
    return Cells(np.ascontiguousarray(vectors[rows[limits[:-1]]]), rows, limits)


def make_codes(vectors: np.ndarray, cells: Cells, storage: str, seed: int) -> Codes | None:
    """Compressed vectors of the rows in the cells.

    Args:
        vectors: unit length, shape (any, dimension), float32.
        cells: the rows to encode.
        storage: "SQ8", "SQ4", "PQ48", … in FAISS's words; "Flat" needs none.
        seed: of the sample that the quantiser learns from.

    Raises:
        RuntimeError: FAISS does not know the storage, or it does not fit the dimension.
    """
    if storage == "Flat":
        return None
    codec: Any = faiss.index_factory(vectors.shape[1], storage)
    rows = np.sort(cells.members)
    sample = np.random.default_rng(seed).choice(rows, min(len(rows), _LEARN), replace=False)
    if storage.startswith("PQ"):
        codec.pq.cp.niter = _ROUNDS
        codec.do_polysemous_training = False  # takes longer than all the rest, for a search that is not used here
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # its k-means works in float32, whose sums may differ with threads
    try:
        codec.train(np.ascontiguousarray(vectors[np.sort(sample)]))
        table = np.zeros((len(vectors), codec.sa_code_size()), dtype=np.uint8)
        for start in range(0, len(rows), _READ):
            part = rows[start : start + _READ]
            table[part] = codec.sa_encode(np.ascontiguousarray(vectors[part]))
    finally:
        faiss.omp_set_num_threads(threads)
    return Codes(codec, table)


def search_cells(
    vectors: np.ndarray,
    cells: Cells,
    queries: np.ndarray,
    k: int,
    probes: int,
    *,
    codes: Codes | None = None,
    fetch: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other rows of each query among the rows of the cells nearest to it.

    Where these cells hold too few rows, more cells are probed for that query.

    Args:
        vectors: unit length, shape (any, dimension), float32; may be memory-mapped.
        cells: where the rows are.
        queries: row numbers, int64.
        k: neighbours a query, less than the number of rows in the cells.
        probes: cells a query, at most all.
        codes: look candidates up in these, then score them by the vectors.
        fetch: candidates a query taken from the codes; k + 1 at least.

    Returns:
        neighbors, shape (queries, k), int64, nearest first, ties by row number; cosines, float32.
    """
    neighbors = np.empty((len(queries), k), dtype=np.int64)
    similarity = np.empty((len(queries), k), dtype=np.float32)
    batch = max(min(_BATCH, _PROBES // probes, -(-len(queries) // faiss.omp_get_max_threads())), 1)

    def fill(start: int) -> None:
        part = slice(start, start + batch)
        neighbors[part], similarity[part] = _search_batch(vectors, cells, queries[part], k, probes, codes, fetch)

    in_threads(fill, range(0, len(queries), batch))
    short = np.flatnonzero(neighbors[:, -1] < 0)
    if len(short) and probes < cells.count:
        probes = min(4 * probes, cells.count)
        neighbors[short], similarity[short] = search_cells(
            vectors, cells, queries[short], k, probes, codes=codes, fetch=fetch
        )
    return neighbors, similarity


def _search_batch(
    vectors: np.ndarray, cells: Cells, queries: np.ndarray, k: int, probes: int, codes: Codes | None, fetch: int
) -> tuple[np.ndarray, np.ndarray]:
    asking = np.ascontiguousarray(vectors[queries])
    probed = nearest(asking, cells.centers, probes)[0]
    limit = len(cells.members)
    wanted = min(k + 1 if codes is None else max(k + 1, fetch), limit)  # one more: a row finds itself

    def candidates(places: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        return _scan(vectors, cells, asking[places], probed[places], codes, number)

    def score(places: np.ndarray, found: np.ndarray) -> np.ndarray:
        return dots(asking[places], vectors, found) if codes is None else _code_dots(asking[places], codes, found)

    found, cosine = settled(len(queries), wanted, limit, candidates, score)
    if codes is not None:
        cosine = dots(asking, vectors, found)
        order = np.lexsort((found, -cosine), axis=1)[:, : k + 1]
        found, cosine = np.take_along_axis(found, order, axis=1), np.take_along_axis(cosine, order, axis=1)
    others = np.argsort(found == queries[:, None], axis=1, kind="stable")[:, :k]  # a row is not its own neighbour
    return np.take_along_axis(found, others, axis=1), np.take_along_axis(cosine, others, axis=1)


def _scan(
    vectors: np.ndarray, cells: Cells, asking: np.ndarray, probed: np.ndarray, codes: Codes | None, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Best rows of the probed cells by float32 scores: every list against all the queries that probe it."""
    heap = faiss.ResultHeap(len(asking), number, keep_max=True)
    order = np.argsort(probed, axis=None, kind="stable")
    limits = np.searchsorted(probed.ravel()[order], np.arange(cells.count + 1))
    who = order // probed.shape[1]
    for cell in np.flatnonzero((np.diff(limits) > 0) & (np.diff(cells.limits) > 0)).tolist():
        members, places = cells.of(cell), who[limits[cell] : limits[cell + 1]]
        stored = vectors[members] if codes is None else codes.codec.sa_decode(codes.table[members])
        scores, found = faiss.knn(asking[places], stored, min(number, len(members)), metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result_subset(places, scores, members[found])
    heap.finalize()
    return heap.D, heap.I


def _code_dots(asking: np.ndarray, codes: Codes, found: np.ndarray) -> np.ndarray:
    """Exact inner products with what the codes stand for."""
    cosine = np.empty(found.shape, dtype=np.float32)
    step = max(_DECODE // (found.shape[1] * asking.shape[1]), 1)
    for start in range(0, len(found), step):
        part = found[start : start + step]
        decoded = codes.codec.sa_decode(codes.table[part.ravel()])
        place = np.where(part < 0, -1, np.arange(part.size).reshape(part.shape))
        cosine[start : start + step] = dots(asking[start : start + step], decoded, place)
    return cosine
