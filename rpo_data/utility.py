"""What two rows earn by sharing a group: the objective that mining maximises.

A cell (win i, loss j) earns the cosine of its two prompts where that lies inside the band [min_score, max_score] and, if
ranks are limited, among the neighbours of those ranks; 1 where both rows have the same prompt; nothing where it is masked;
and one less for every earlier view in which the two rows shared a group already.
"""

from dataclasses import dataclass

import numba
import numpy as np

from rpo_data.contrasts import Known

ONE = 2**13
"""Utilities are whole numbers: this is a cosine of 1; a row may repeat three earlier views before int16 ends."""
_BLOCK = 256


@dataclass(frozen=True)
class Band:
    """Which cells between different prompts earn something.

    Attributes:
        min_score: lowest cosine that earns.
        max_score: highest; above it prompts are called near-duplicates.
        range_min: a row's nearest neighbours skipped.
        range_max: only as many nearest neighbours earn; None: all rows, neighbours or not.
    """

    min_score: float = 0.0
    max_score: float = 1.0
    range_min: int = 0
    range_max: int | None = None


@dataclass(frozen=True)
class Material:
    """What groups are formed of.

    Attributes:
        vectors: unit vectors of the prompts, shape (prompts, dimension), float32; may be memory-mapped.
        prompt: prompt of each row, rising, shape (rows,), int64.
        block: rows of different blocks (split, language) never share a group, shape (rows,), int64.
        kind: 0 for rows that stand on both sides of a group, 1 for wins, 2 for losses, shape (rows,), int8.
        neighbors: nearest prompts of each prompt, shape (prompts, k), int64, -1 where there is none.
        known: what the logs say against cells; None: nothing.
    """

    vectors: np.ndarray
    prompt: np.ndarray
    block: np.ndarray
    kind: np.ndarray
    neighbors: np.ndarray
    known: Known | None = None


def utility(rows: np.ndarray, material: Material, band: Band, partners: np.ndarray) -> np.ndarray:
    """What each two of some rows earn, in units of 1 / ONE.

    Args:
        rows: row numbers, rising.
        material: what they are rows of.
        band: which cells earn.
        partners: rows that shared a group with each row in an earlier view, shape (all rows, any), -1 where none.

    Returns:
        Symmetric, zeros on the diagonal, shape (rows, rows), int16.
    """
    prompt = material.prompt[rows]
    members = np.asarray(material.vectors[prompt], dtype=np.float32)
    earned = members @ members.T
    if band.range_min or band.range_max is not None:
        _limit_ranks(earned, prompt, material.neighbors, band.range_min, band.range_max)
    found = _whole(earned, np.float32(band.min_score - 1e-6), np.float32(band.max_score + 1e-6))
    _same_prompt(found, prompt)
    if material.known is not None:
        _mask(found, rows, material)
    if partners.shape[1]:
        _repeat(found, rows, partners[rows])
    if material.kind.any():
        kind = material.kind[rows]
        found[(kind[:, None] == kind[None, :]) & (kind[:, None] > 0)] = 0
    np.fill_diagonal(found, 0)
    return found


@numba.njit(cache=True, nogil=True)
def _whole(earned: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    """Cosines in units of 1 / ONE, 0 outside the band and where there is none (NaN), int16."""
    found = np.empty(earned.shape, dtype=np.int16)
    most = np.float32(ONE)
    for row in range(len(earned)):
        for other in range(earned.shape[1]):
            value = earned[row, other]
            inside = value if low <= value <= high else np.float32(0.0)
            found[row, other] = np.int16(np.rint(min(max(inside * most, -most), most)))
    return found


@numba.njit(cache=True, nogil=True)
def _same_prompt(earned: np.ndarray, prompt: np.ndarray) -> None:
    """Rows of one prompt stand side by side; they earn 1 with each other, in place."""
    start = 0
    for end in range(1, len(prompt) + 1):
        if end == len(prompt) or prompt[end] != prompt[start]:
            earned[start:end, start:end] = ONE
            start = end


@numba.njit(cache=True, nogil=True)
def _limit_ranks(earned: np.ndarray, prompt: np.ndarray, neighbors: np.ndarray, low: int, high: int | None) -> None:
    """Leave what earns only to neighbours of rank low to high - 1, counted from 0 in either row's list, in place.

    Where `high` is None it is left to all but the first `low` neighbours.
    """
    allowed = np.full(earned.shape, high is None)
    for value, first, last in ((True, low, high if high is not None else low), (False, 0, low)):
        for row in range(len(prompt)):
            for rank in range(first, min(last, neighbors.shape[1])):
                near = neighbors[prompt[row], rank]
                for other in range(np.searchsorted(prompt, near), np.searchsorted(prompt, near + 1)):
                    allowed[row, other] = allowed[other, row] = value
    for row in range(len(prompt)):
        for other in range(len(prompt)):
            if not allowed[row, other]:
                earned[row, other] = 0.0


def _mask(found: np.ndarray, rows: np.ndarray, material: Material) -> None:
    """Halve what two rows earn for each of their two cells that is masked, in place."""
    known = material.known
    assert known is not None
    places = np.flatnonzero(known.maskable[rows])
    for start in range(0, len(places), _BLOCK):
        part = places[start : start + _BLOCK]
        one = np.logical_or.reduce(list(known.masks(rows[part], rows[places]).values()))
        other = np.logical_or.reduce(list(known.masks(rows[places], rows[part]).values())).T
        found[np.ix_(part, places)] = found[np.ix_(part, places)] * (2 - one - other.astype(np.int16)) // 2


@numba.njit(cache=True, nogil=True)
def _repeat(found: np.ndarray, rows: np.ndarray, partners: np.ndarray) -> None:
    for row in range(len(rows)):
        for number in range(partners.shape[1]):
            place = np.searchsorted(rows, partners[row, number])
            if place < len(rows) and rows[place] == partners[row, number]:
                found[row, place] = max(found[row, place] - ONE, -4 * ONE + 1)
