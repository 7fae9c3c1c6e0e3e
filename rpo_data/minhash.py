"""Near-duplicate texts by MinHash: all pairs whose shingles overlap, with their exact Jaccard similarity.

A text becomes the set of its shingles (two words in a row, hashed to 32 bits), and Jaccard compares sets. For a random
order of all shingles, two sets begin with the same one as often as their Jaccard says: 128 such orders, in 32 bands of 4,
make candidates of all texts that agree in a band. A candidate pair is then judged by its true Jaccard, so there are no
false positives. The bands do not depend on the threshold: a higher one only leaves pairs out, and asks for no search.

A pair of Jaccard J is missed with probability (1 - J^4)^32: 13 % at 0.5, 1.2 % at 0.6, 0.02 % at 0.7.

Texts of equal sets are linked to the first of them and stand as one text. A band in which more than `_FEW` texts agree
links each to the first in the order of content, so that the work is linear in the texts however many copies there are;
over 32 bands such texts come out as one cluster all the same, but not every pair of them is an edge.

Source: Broder 1997, "On the resemblance and containment of documents"; Indyk and Motwani 1998, "Approximate nearest
neighbors" (bands); Dietzfelbinger 1996, "Universal hashing and k-wise independent random variables via integer arithmetic
without primes" (the orders).
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np
import polars as pl

from rpo_data.duplicates import CHUNK, Edges, fold
from rpo_data.errors import RecipeError
from rpo_data.utf8 import mix, utf8_bytes

LOWEST = 0.5
"""Below it the bands miss too many pairs."""
WORDS = 2
"""Words in a shingle. Of copies with 8 % of their words edited 79 % keep a Jaccard of 0.7, with three words 1 %; five
characters keep all of them, but make sets five times as large (benchmarks/near_duplicates.py --shingles)."""
BANDS, ROWS = 32, 4

_FEW = 8
"""Up to so many texts of a band are compared each with each."""
_PAIRS = 65536


class _Sketches(NamedTuple):
    """Of each text: its set (from begins[i] to begins[i + 1] in shingles, rising), its band keys, a hash of the set."""

    shingles: np.ndarray
    begins: np.ndarray
    bands: np.ndarray
    identity: np.ndarray


def near_texts(texts: pl.Series | Sequence[str], threshold: float = 0.7) -> Edges:
    """Pairs of texts whose sets of shingles have at least this Jaccard similarity.

    Texts are compared as `fold` leaves them, words apart at blanks; in scripts written without blanks each character is
    a word. A text of fewer words than a shingle is one shingle; a text without words is like no other.

    Args:
        texts: strings (a polars column, an Arrow array or a list); null counts as empty.
        threshold: between `LOWEST` and 1.

    Returns:
        Edges with their Jaccard similarity; the same for any number of threads. In another order of the texts it is the
        same pairs, but that a set of equal shingles is linked through the first text that has it.

    Raises:
        RecipeError: the threshold is out of range.
    """
    if not LOWEST <= threshold <= 1:
        raise RecipeError(f"threshold {threshold} is not between {LOWEST} and 1: choose one that is")
    series = texts if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
    sketches = _sketch(series)
    twins, single = _equal_sets(sketches)
    pairs = _candidates(sketches, single)
    first = np.concatenate([twins[0], single[(pairs >> np.uint64(32)).astype(np.int64)]])
    second = np.concatenate([twins[1], single[(pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)]])
    del pairs
    score = _jaccard(sketches, first, second)
    keep = score >= threshold
    first, second = np.minimum(first, second)[keep], np.maximum(first, second)[keep]
    order = np.lexsort((second, first))
    return Edges(len(series), first[order], second[order], score[keep][order], threshold)


def jaccard_pairs(texts: pl.Series | Sequence[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity of pairs of texts as `near_texts` sees them, float64; 0 where both have no words."""
    series = texts if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
    return _jaccard(_sketch(series), first, second)


def _sketch(texts: pl.Series) -> _Sketches:
    starts = range(0, len(texts), CHUNK)
    sizes = np.zeros(len(texts) + 1, dtype=np.int64)
    bands = np.empty((BANDS, len(texts)), dtype=np.uint32)
    identity = np.empty(len(texts), dtype=np.uint64)
    multiply, add = _orders()

    def work(start: int) -> np.ndarray:
        part = slice(start, start + CHUNK)
        text, ends = utf8_bytes(fold(texts[part]))
        room = np.empty(ends[-1] - ends[0], dtype=np.uint32)
        longest = np.diff(ends).max(initial=0)
        size = sizes[1:][part]
        _sketch_texts(text, ends, longest, multiply, add, room, size, bands[:, part], identity[part])
        return room[: size.sum()].copy()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(work, starts))
    begins = np.cumsum(sizes)
    shingles = np.empty(begins[-1], dtype=np.uint32)
    for number, start in enumerate(starts):
        shingles[begins[start] : begins[min(start + CHUNK, len(texts))]] = parts[number]
        parts[number] = shingles[:0]  # let go of each part at once, or all shingles would be held twice
    return _Sketches(shingles, begins, bands, identity)


def _orders() -> tuple[np.ndarray, np.ndarray]:
    """Factors and summands of the random orders, from SplitMix64 (Steele, Lea and Flood 2014): no library's generator."""
    state = np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state[::2].copy(), state[1::2].copy()


def _equal_sets(sketches: _Sketches) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Edges from the first text of each set to the others that have it; and these first texts in the order of content."""
    some = np.flatnonzero(np.diff(sketches.begins))
    order = some[np.argsort(sketches.identity[some], kind="stable")]
    identity = sketches.identity[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = identity[1:] != identity[:-1]
    single = order[new]
    group = np.cumsum(new) - 1
    return (single[group[~new]], order[~new]), single


def _candidates(sketches: _Sketches, single: np.ndarray) -> np.ndarray:
    """Pairs that agree in a band, as two numbers in `single` of 32 bits each, the lower one first; each pair once."""
    numbers = np.arange(len(single), dtype=np.uint64)
    pairs = np.empty(0, dtype=np.uint64)
    for band in sketches.bands:
        ordered = np.sort(band[single].astype(np.uint64) << np.uint64(32) | numbers)
        found = np.empty(_bucket_pairs(ordered, pairs[:0]), dtype=np.uint64)
        _bucket_pairs(ordered, found)
        if len(found):
            pairs = np.sort(np.concatenate([pairs, found]))
            pairs = pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])]
    return pairs


def _jaccard(sketches: _Sketches, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    score = np.empty(len(first), dtype=np.float64)

    def work(start: int) -> None:
        part = slice(start, start + _PAIRS)
        _jaccard_pairs(sketches.shingles, sketches.begins, first[part], second[part], score[part])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, range(0, len(first), _PAIRS)))
    return score


@numba.njit(cache=True, nogil=True)
def _words(text: np.ndarray, begin: int, end: int, words: np.ndarray) -> int:
    """Hash the words of a text; in Thai to Khmer and in Han and Kana, which leave no blanks, each character is one."""
    count, inside = 0, False
    value = np.uint64(0xCBF29CE484222325)
    place = begin
    while place < end:
        byte = np.uint64(text[place])
        width = 1 if byte < 0xE0 else (3 if byte < 0xF0 else 4)
        alone = False
        if width > 1:
            code = byte << np.uint64(8) | np.uint64(text[place + 1])
            alone = bool(
                0xE0B8 <= code <= 0xE0BB  # Thai, Lao
                or 0xE180 <= code <= 0xE181  # Myanmar
                or 0xE19E <= code <= 0xE19F  # Khmer
                or 0xE2BA <= code <= 0xEA00  # radicals, Kana, Han
                or 0xEFA4 <= code <= 0xEFAB  # compatible Han
                or 0xF0A0 <= code <= 0xF0BF  # Han beyond 16 bits
            )
        blank = byte == 32 or 9 <= byte <= 13
        if inside and (blank or alone):
            words[count] = mix(value)
            count += 1
            inside = False
        if not blank:
            if not inside:
                value = np.uint64(0xCBF29CE484222325)
            for step in range(width):
                value = (value ^ np.uint64(text[place + step])) * np.uint64(0x100000001B3)
            inside = True
            if alone:
                words[count] = mix(value)
                count += 1
                inside = False
        place += width
    if inside:
        words[count] = mix(value)
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _shingle(words: np.ndarray, size: int, room: np.ndarray) -> int:
    """Write the set of shingles of these words, rising, without repeats; give its size."""
    count = min(len(words), max(len(words) - size + 1, 1))
    for start in range(count):
        value = np.uint64(0)
        for word in words[start : start + size]:
            value = mix(value * np.uint64(31) + word)
        room[start] = np.uint32(value >> np.uint64(32))
    room[:count].sort()
    different = 0
    for place in range(count):
        if place == 0 or room[place] != room[place - 1]:
            room[different] = room[place]
            different += 1
    return different


@numba.njit(cache=True, nogil=True)
def _first_of_orders(shingles: np.ndarray, multiply: np.ndarray, add: np.ndarray, least: np.ndarray) -> None:
    """The set's first shingle in each random order, as its place there."""
    least[:] = np.uint32(0xFFFFFFFF)
    for shingle in shingles:
        for k in range(len(least)):
            least[k] = min(least[k], np.uint32((multiply[k] * np.uint64(shingle) + add[k]) >> np.uint64(32)))


@numba.njit(cache=True, nogil=True)
def _sketch_texts(
    text: np.ndarray,
    ends: np.ndarray,
    longest: int,
    multiply: np.ndarray,
    add: np.ndarray,
    room: np.ndarray,
    sizes: np.ndarray,
    bands: np.ndarray,
    identity: np.ndarray,
) -> None:
    """Fill the sets (one after the other in `room`), their sizes, band keys and identities."""
    words = np.empty(longest, dtype=np.uint64)
    least = np.empty(len(multiply), dtype=np.uint32)
    used = 0
    for number in range(len(ends) - 1):
        count = _words(text, ends[number], ends[number + 1], words)
        size = _shingle(words[:count], WORDS, room[used:])
        shingles = room[used : used + size]
        used += size
        sizes[number] = size
        _first_of_orders(shingles, multiply, add, least)
        same = np.uint64(size)
        for shingle in shingles:
            same = mix(same ^ np.uint64(shingle)) + np.uint64(0x9E3779B97F4A7C15)
        identity[number] = same
        for band in range(len(bands)):
            key = np.uint64(band)
            for row in range(ROWS):
                key = mix(key ^ np.uint64(least[band * ROWS + row])) + np.uint64(0x9E3779B97F4A7C15)
            bands[band, number] = np.uint32(key >> np.uint64(32))


@numba.njit(cache=True)
def _bucket_pairs(ordered: np.ndarray, pairs: np.ndarray) -> int:
    """Count the pairs to compare among texts of one key (the high 32 bits), and write them where there is room."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    count, start = 0, 0
    while start < len(ordered):
        stop = start + 1
        while stop < len(ordered) and ordered[stop] >> half == ordered[start] >> half:
            stop += 1
        centres = stop if stop - start <= _FEW else start + 1
        for one in range(start, centres):
            for other in range(one + 1, stop):
                if len(pairs):
                    pairs[count] = (ordered[one] & low) << half | (ordered[other] & low)
                count += 1
        start = stop
    return count


@numba.njit(cache=True, nogil=True)
def _jaccard_pairs(
    shingles: np.ndarray, begins: np.ndarray, first: np.ndarray, second: np.ndarray, score: np.ndarray
) -> None:
    """Shared members of two rising sets, of all their members."""
    for pair in range(len(first)):
        a, a_end = begins[first[pair]], begins[first[pair] + 1]
        b, b_end = begins[second[pair]], begins[second[pair] + 1]
        total = (a_end - a) + (b_end - b)
        shared = 0
        while a < a_end and b < b_end:
            one, other = shingles[a], shingles[b]
            shared += one == other
            a += one <= other
            b += other <= one
        score[pair] = shared / max(total - shared, 1)
