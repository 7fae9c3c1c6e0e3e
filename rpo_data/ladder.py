"""Which index a block gets by its size, and one search of it: tuned, in parts that survive a kill, measured."""

import os
import re
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import xxhash

from rpo_data.errors import RecipeError
from rpo_data.faiss_index import make_index, search_index
from rpo_data.ivf import Cells, make_cells, make_codes, search_cells, whole
from rpo_data.nearest import nearest
from rpo_data.recall import draw_measured, draw_tuning, is_sure, row_recall, stratified
from rpo_data.schemas.manifest import SearchInfo

Pair = tuple[np.ndarray, np.ndarray]
Progress = Callable[[int, int], None]

EXACT_ROWS = 50_000
"""Up to here a block is searched exactly. Cells are quicker from 10,000 rows on (with training, tuning and measuring, 384
numbers a row, on two cores), but up to here the exact answer costs less than a minute, and it is worth that."""
SMALL = 1024
"""Below this a block is searched exactly whatever index is named: too few rows to learn cells or codes from."""
MEMORY = 16 << 30
"""Bytes of vectors above which candidates are looked up in codes. A fixed number, not what the machine has: the same
data gets the same index everywhere."""
_PART = 65536
"""Rows of one part, the unit that is kept and never searched again."""
_COMPARISONS = 1 << 31
"""Rows times rows of one part of an exact search: less than a minute on two cores."""
_OWN = re.compile(r"IVF(\d+),(Flat|SQ\w+|PQ\w+)")


@dataclass(frozen=True)
class Task:
    """One block to search; see `neighbors.search_within`. Neighbours and similarity are filled in, k is their width."""

    vectors: np.ndarray
    rows: np.ndarray
    neighbors: np.ndarray
    similarity: np.ndarray
    index: str
    min_recall: float
    seed: int
    folder: Path | None
    progress: Progress | None

    @property
    def k(self) -> int:
        """Neighbours a row."""
        return self.neighbors.shape[1]


@dataclass(frozen=True)
class _Effort:
    """How far a search looks: cells a row (or efSearch), candidates to score again (0: all), and the most of both."""

    probes: int
    fetch: int
    most_probes: int
    most_fetch: int

    def more(self) -> "_Effort":
        probes = min(self.probes + -(-self.probes // 2), self.most_probes)
        return replace(self, probes=probes, fetch=min(2 * self.fetch, self.most_fetch))


_Search = Callable[[_Effort, np.ndarray], Pair]


def choose_index(rows: int, dimension: int, index: str = "auto", memory: int = MEMORY) -> str:
    """The FAISS factory string of what a block is searched with.

    The ladder: exact up to `EXACT_ROWS` rows; then inverted lists, 2 * sqrt(rows) cells, over the vectors as they are
    (no copy is made, and they may lie in a memory-mapped file); where the vectors take more than `memory`, candidates
    come from 8-bit codes, and where those take more, from product-quantised codes of 1 bit a number. What is found is
    always scored by the vectors. HNSW is never chosen: it is not deterministic.

    Args:
        rows: of the block.
        dimension: of the vectors.
        index: what the user asked for; anything but "auto" is taken as it is, with at most one cell for 32 rows.
        memory: bytes.
    """
    if rows < SMALL or (index == "auto" and rows <= EXACT_ROWS):
        return "Flat"
    if index == "auto":
        codes = next(number for number in range(max(dimension // 8, 1), 0, -1) if dimension % number == 0)
        storage = "Flat" if 4 * rows * dimension <= memory else "SQ8" if rows * dimension <= memory else f"PQ{codes}"
        return f"IVF{round(2 * rows**0.5)},{storage}"
    if own := _OWN.fullmatch(index):
        return f"IVF{min(int(own[1]), rows // 32)},{own[2]}"
    return index


def check_index(index: str, dimension: int) -> None:
    """Whether FAISS knows this factory string.

    Raises:
        RecipeError: it does not.
    """
    if index in ("auto", "Flat"):
        return
    try:
        faiss.index_factory(dimension, index, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise RecipeError(
            f"index {index!r} is no FAISS factory string for vectors of {dimension} numbers: "
            "use auto, Flat, or one such as IVF1024,Flat or IVF1024,SQ8"
        ) from error


def search_block(task: Task) -> SearchInfo:
    """Fill in the neighbours of one block, and say how they were found.

    An approximate search is tuned on rows of its own first, so it usually runs once; where the rows measured afterwards
    show less than `min_recall`, it looks further and runs again.

    Raises:
        RecipeError: FAISS cannot build the index named for these vectors.
    """
    rows, k = task.rows, task.k
    exact = SearchInfo(index="Flat", rows=len(rows), k=k)
    if k < 1:
        return exact
    folder = task.folder / _key(task) if task.folder else None
    everything = whole(task.vectors, rows)

    def exactly(queries: np.ndarray) -> Pair:
        return search_cells(task.vectors, everything, queries, k, everything.count)

    if task.index == "Flat":
        _fill(task, rows, min(_PART, max(_COMPARISONS // len(rows), 1)), exactly, folder, "exact")
        return exact
    tuning = draw_tuning(rows, task.seed)
    truth = _kept(folder, "tuning", partial(exactly, tuning))
    order, search, effort = _prepare(task, folder, tuning, truth[0])
    while not is_sure(row_recall(search(effort, tuning)[1], truth[1]), task.min_recall) and effort.more() != effort:
        effort = effort.more()
    while True:
        name = f"{effort.probes}-{effort.fetch}"
        _fill(task, order, _PART, partial(search, effort), folder, name)
        info = _measure(task, tuning, exactly, effort)
        if info.recall >= task.min_recall or effort.more() == effort:
            return info
        effort = effort.more()


def _prepare(
    task: Task, folder: Path | None, tuning: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, _Search, _Effort]:
    """The order in which rows are searched, how, and the effort to begin with."""
    vectors, rows, k = task.vectors, task.rows, task.k
    own = _OWN.fullmatch(task.index)
    if not own:
        index = make_index(vectors, rows, task.index, task.seed)

        def by_name(effort: _Effort, queries: np.ndarray) -> Pair:
            return search_index(vectors, index, rows, queries, k, effort.probes, effort.fetch)

        return rows, by_name, _Effort(min(2 * k, len(rows)), min(2 * k + 1, len(rows)), len(rows), len(rows))
    cells = Cells(*_kept(folder, "cells", lambda: _arrays(make_cells(vectors, rows, int(own[1]), task.seed))))
    codes = make_codes(vectors, cells, own[2], task.seed)
    probes = _first_probes(vectors, cells, tuning, truth, task.min_recall)
    fetch, most = (0, 0) if codes is None else (min(2 * k + 1, len(rows)), len(rows))

    def by_cells(effort: _Effort, queries: np.ndarray) -> Pair:
        return search_cells(vectors, cells, queries, k, effort.probes, codes=codes, fetch=effort.fetch)

    return cells.members, by_cells, _Effort(probes, fetch, cells.count, most)


def _arrays(cells: Cells) -> tuple[np.ndarray, ...]:
    return cells.centers, cells.members, cells.limits


def _first_probes(vectors: np.ndarray, cells: Cells, tuning: np.ndarray, truth: np.ndarray, min_recall: float) -> int:
    """Fewest cells that hold enough of the true neighbours, read off from how near each neighbour's cell is."""
    nearest_cells = nearest(vectors[tuning], cells.centers, cells.count)[0]
    rank = np.zeros_like(nearest_cells)  # a row that is not a number is near to no cell
    np.put_along_axis(rank, nearest_cells, np.arange(cells.count)[None, :], axis=1)
    rank = np.take_along_axis(rank, cells.cell_of(len(vectors))[truth].astype(np.int64), axis=1)
    return next(probes for probes in range(1, cells.count + 1) if is_sure((rank < probes).mean(axis=1), min_recall))


def _fill(
    task: Task, order: np.ndarray, step: int, search: Callable[[np.ndarray], Pair], folder: Path | None, name: str
) -> None:
    for start in range(0, len(order), step):
        queries = order[start : start + step]
        found = _kept(folder, f"{name}-{start}-{start + len(queries)}", partial(search, queries))
        task.neighbors[queries], task.similarity[queries] = found
        if task.progress:
            task.progress(start + len(queries), len(order))


def _measure(task: Task, tuning: np.ndarray, exactly: Callable[[np.ndarray], Pair], effort: _Effort) -> SearchInfo:
    strata = draw_measured(task.rows, tuning, task.neighbors, task.similarity, task.seed)
    drawn = np.concatenate(list(strata.rows.values()))
    recall = row_recall(task.similarity[drawn], exactly(drawn)[1])
    parts = np.split(recall, np.cumsum([len(rows) for rows in strata.rows.values()])[:-1])
    mean, interval = stratified(parts, list(strata.stand_for.values()))
    of_kind = dict(zip(strata.rows, parts, strict=True))
    own = _OWN.fullmatch(task.index)
    return SearchInfo(
        index=task.index,
        rows=len(task.rows),
        k=task.k,
        nlist=int(own[1]) if own else 0,
        nprobe=effort.probes,
        fetch=effort.fetch,
        exact=bool(own) and effort.probes == effort.most_probes and effort.fetch == effort.most_fetch,
        recall=mean,
        interval=interval,
        sample=len(drawn),
        recall_hubs=float(of_kind["hubs"].mean()),
        recall_isolated=float(of_kind["isolated"].mean()),
    )


def _key(task: Task) -> str:
    """Hash of everything that decides what a part holds, but for the effort, which stands in the part's name."""
    digest = xxhash.xxh3_128(f"{task.index}|{task.k}|{task.seed}|{task.vectors.shape}".encode())
    for start in range(0, len(task.rows), _PART):
        rows = task.rows[start : start + _PART]
        digest.update(rows.tobytes())
        digest.update(np.ascontiguousarray(task.vectors[rows]).view(np.uint8).data)
    return digest.hexdigest()


def _kept(folder: Path | None, name: str, make: Callable[[], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Arrays out of the folder where they are there, else made and written to it, whole or not at all."""
    if folder is None:
        return make()
    file = folder / f"{name}.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            return tuple(stored[key] for key in sorted(stored.files))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # not there, or torn by a full disk or a crash
        arrays = make()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.{uuid.uuid4().hex}.tmp"
    with unfinished.open("wb") as sink:
        np.savez(sink, *arrays)
    os.replace(unfinished, file)
    return arrays
