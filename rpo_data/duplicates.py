"""From pairs of alike rows to decisions: which row stays, and which rows are merged into it.

Exact duplicates, near duplicates (`minhash.py`) and semantic ones (the neighbour graph) all come as `Edges`: two rows and
how alike they are. Rows joined by edges at or above a threshold are one cluster (single linkage), and the row of lowest
rank in it stays. Clusters of every threshold come out of one pass over the edges (Kruskal's maximum spanning forest), so
another threshold asks for no search.

Source: Gower and Ross 1969, "Minimum Spanning Trees and Single Linkage Cluster Analysis".
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numba
import numpy as np
import polars as pl

from rpo_data.errors import RecipeError
from rpo_data.utf8 import utf8_bytes

CHUNK = 16384
"""Texts that one thread works on at a time."""
STABLE = r"\x00-\x7f\u00c0-\u00ff\u2013\u2014\u2018\u2019\u201c\u201d\u3041-\u3096\u4e00-\u9fff"
"""Characters that NFKC leaves alone in any company of each other: texts of these alone are not asked, it is slow."""

_ODD_BLANKS = "[\u0085\u1680\u2028\u2029]"
"""Blanks that NFKC does not make ASCII ones."""


@dataclass(frozen=True)
class Edges:
    """Pairs of rows at least `threshold` alike: `first` < `second`, sorted, each pair once.

    Attributes:
        count: rows there are, with or without an edge.
        first: row of each edge, shape (edges,), int64.
        second: the other row, shape (edges,), int64.
        score: Jaccard or cosine, at most 1, shape (edges,), float64.
        threshold: the lowest score that was looked for.
    """

    count: int
    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    threshold: float

    def rethreshold(self, threshold: float) -> "Edges":
        """The edges at or above a higher threshold: what a search at that threshold would have found.

        Raises:
            RecipeError: the threshold is lower than the one that was searched.
        """
        _check_threshold(threshold, self.threshold)
        keep = self.score >= threshold
        return Edges(self.count, self.first[keep], self.second[keep], self.score[keep], threshold)


@dataclass(frozen=True)
class Duplicates:
    """What stays of a set of rows at one threshold.

    Attributes:
        stays: for each row the row that stays for it, itself where it stays, shape (rows,), int64.
        score: for each row the highest threshold at which it still falls to that row, 1 where it stays, float64.
        threshold: rows this much alike were merged.
        lowest: the lowest threshold the edges allow.
        parent: the row each row lost to when their clusters met, shape (rows,), int64.
        joined: the score at which that happened, -inf where it never did, shape (rows,), float64.
        order: the rows by rank, shape (rows,), int64.
    """

    stays: np.ndarray
    score: np.ndarray
    threshold: float
    lowest: float
    parent: np.ndarray
    joined: np.ndarray
    order: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Rows that stay, rising."""
        return np.flatnonzero(self.stays == np.arange(len(self.stays)))

    @property
    def dropped(self) -> np.ndarray:
        """Rows merged into another, rising; `stays[dropped]` and `score[dropped]` say into which and how alike."""
        return np.flatnonzero(self.stays != np.arange(len(self.stays)))

    @property
    def duplicate_ratio(self) -> float:
        """Share of the rows that were merged into another, 0 where there are no rows."""
        return len(self.dropped) / max(len(self.stays), 1)

    def rethreshold(self, threshold: float) -> "Duplicates":
        """The decisions at another threshold, from what is known already.

        Raises:
            RecipeError: the threshold is lower than the one the edges were searched with.
        """
        _check_threshold(threshold, self.lowest)
        stays, score = _resolve(self.order, self.parent, self.joined, threshold)
        return replace(self, stays=stays, score=score, threshold=threshold)


def decide(edges: Edges, rank: np.ndarray) -> Duplicates:
    """Which row stays in each cluster of rows joined by edges: the one of lowest rank.

    Args:
        edges: alike rows.
        rank: order of preference of each row, lowest first, shape (rows,), integers. A rank made from content makes the
            decision independent of the order of the rows; rows of one rank stand in their own order.

    Returns:
        The decisions at the threshold of the edges; `rethreshold` gives those at a higher one.

    Raises:
        ValueError: there is not one rank a row.
    """
    if len(rank) != edges.count:
        raise ValueError(f"{len(rank)} ranks for {edges.count} rows: give one rank a row")
    order = np.argsort(rank, kind="stable").astype(np.int64)
    place = np.empty(edges.count, dtype=np.int64)
    place[order] = np.arange(edges.count)
    one, other = place[edges.first], place[edges.second]
    strongest = np.lexsort((np.maximum(one, other), np.minimum(one, other), -edges.score))
    parent, joined = _join(place, edges.first[strongest], edges.second[strongest], edges.score[strongest])
    stays, score = _resolve(order, parent, joined, edges.threshold)
    return Duplicates(stays, score, edges.threshold, edges.threshold, parent, joined, order)


def exact_edges(rows: pl.DataFrame, columns: tuple[str, ...] = ("prompt", "chosen", "rejected")) -> Edges:
    """Rows whose texts are the same when `fold`ed and with runs of blanks as one, as edges of score 1 in each group.

    Args:
        rows: a frame with the columns; null counts as empty.
        columns: of strings, compared one by one.

    Returns:
        Edges from the first row of each group to each of its others.
    """
    hashes = {f"{column}{half}": np.empty(rows.height, np.uint64) for column in columns for half in (0, 1)}

    def hash_part(start: int) -> None:
        part = slice(start, start + CHUNK)
        for column in columns:
            _hash_texts(*utf8_bytes(fold(rows[column][part])), hashes[f"{column}0"][part], hashes[f"{column}1"][part])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(hash_part, range(0, rows.height, CHUNK)))
    found = pl.DataFrame(hashes).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    pairs = found.select("row", first=pl.col("row").min().over(list(hashes))).filter(pl.col("row") != pl.col("first"))
    pairs = pairs.sort("first", "row")
    return Edges(rows.height, pairs["first"].to_numpy(), pairs["row"].to_numpy(), np.ones(pairs.height), 1.0)


def fold(texts: pl.Series) -> pl.Series:
    """The texts as they are compared: Unicode's NFKC, small letters, every blank an ASCII one; null becomes empty.

    Source: Unicode Standard Annex 15, "Unicode Normalization Forms", section 1.2.
    """
    texts = texts.fill_null("")
    odd = texts.str.contains(f"[^{STABLE}]")
    if odd.any():
        mended = texts.filter(odd).str.normalize("NFKC").str.replace_all(_ODD_BLANKS, " ")
        texts = texts.scatter(odd.arg_true(), mended)
    return texts.str.to_lowercase()


def graph_edges(vectors: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], threshold: float) -> Edges:
    """Semantic duplicates: the pairs that `neighbors.near_duplicates` took from the neighbour graph, with their cosines.

    Args:
        vectors: unit length, shape (rows, dimension), float32.
        pairs: two rows of each pair, int64; a pair may come in both orders.
        threshold: the one the pairs were taken with.
    """
    first, second = np.minimum(*pairs), np.maximum(*pairs)
    keys = np.unique(first * len(vectors) + second)
    first, second = np.divmod(keys, max(len(vectors), 1))
    score = np.empty(len(keys), dtype=np.float64)
    for start in range(0, len(keys), CHUNK):
        part = slice(start, start + CHUNK)
        one, other = vectors[first[part]].astype(np.float64), vectors[second[part]].astype(np.float64)
        score[part] = np.einsum("ij,ij->i", one, other)
    # the graph holds float32: its last bit must not undo what it found
    return Edges(len(vectors), first, second, score.clip(threshold, 1.0), threshold)


def _check_threshold(threshold: float, lowest: float) -> None:
    if not lowest <= threshold <= 1:
        raise RecipeError(
            f"threshold {threshold} is not between {lowest}, the lowest that was searched, and 1: "
            "search again for a lower one"
        )


@numba.njit(cache=True, nogil=True)
def _hash_texts(text: np.ndarray, ends: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """Two hashes of 64 bits of each text, blanks in a row read as one and none at the ends (FNV-1a, and one like it)."""
    for number in range(len(ends) - 1):
        a, b = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15)
        blank, begun = False, False
        for place in range(ends[number], ends[number + 1]):
            byte = np.uint64(text[place])
            if byte == 32 or 9 <= byte <= 13:
                blank = begun
                continue
            if blank:
                a = (a ^ np.uint64(32)) * np.uint64(0x100000001B3)
                b = (b ^ np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
            a = (a ^ byte) * np.uint64(0x100000001B3)
            b = (b ^ byte) * np.uint64(0xD6E8FEB86659FD93)
            b ^= b >> np.uint64(32)
            blank, begun = False, True
        one[number], other[number] = a, b


@numba.njit(cache=True)
def _join(place: np.ndarray, first: np.ndarray, second: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join clusters edge by edge, strongest first: of two clusters' best rows the worse loses to the better."""
    root = np.arange(len(place))
    parent = np.arange(len(place))
    joined = np.full(len(place), -np.inf)
    for edge in range(len(score)):
        a, b = first[edge], second[edge]
        while root[a] != a:
            root[a] = root[root[a]]
            a = root[a]
        while root[b] != b:
            root[b] = root[root[b]]
            b = root[b]
        if a != b:
            if place[a] > place[b]:
                a, b = b, a
            root[b], parent[b], joined[b] = a, a, score[edge]
    return parent, joined


@numba.njit(cache=True)
def _resolve(
    order: np.ndarray, parent: np.ndarray, joined: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Follow each row to the one that stays; a parent stands before its children in `order`, so once is enough."""
    stays = np.arange(len(order))
    score = np.ones(len(order))
    for row in order:
        if joined[row] >= threshold:
            stays[row] = stays[parent[row]]
            score[row] = min(joined[row], score[parent[row]])
    return stays, score
