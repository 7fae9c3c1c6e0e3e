"""Annealed swaps, compiled: two rows trade groups when that gains, or loses little while the process is hot.

Source: Kirkpatrick, Gelatt and Vecchi 1983, "Optimization by Simulated Annealing". A row is proposed to move into the group
of a row it would gain much from, in exchange for a third one there. Utilities are whole numbers, so that gains are exact.
"""

import numba
import numpy as np

from rpo_data.utf8 import mix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(cache=True, nogil=True)
def anneal(
    members: np.ndarray,
    kind: np.ndarray,
    utility: np.ndarray,
    moves: np.ndarray,
    steps: int,
    hot: float,
    cold: float,
    seed: int,
) -> None:
    """Swap rows between groups, in place; a row only trades places with one of its kind.

    Args:
        members: rows of each group, shape (groups, width), int64, -1 where a group has fewer.
        kind: of each row, shape (rows,), int8.
        utility: what two rows earn by sharing a group, symmetric with zeros on the diagonal, shape (rows, rows), int16.
        moves: rows that each row would gain most from, shape (rows, any), int64, -1 where there are fewer.
        steps: swaps to propose.
        hot: first annealing temperature, in units of utility.
        cold: last one.
        seed: of the random numbers.
    """
    width, rows, choices = members.shape[1], len(utility), moves.shape[1]
    flat = members.reshape(-1)
    slot = np.full(rows, -1, dtype=np.int64)
    for place in range(len(flat)):
        if flat[place] >= 0:
            slot[flat[place]] = place
    state, heat, still = mix(np.uint64(seed) + _GOLDEN), hot, steps - steps // 20
    for step in range(steps):
        if step >= still:
            heat = 0.0
        elif step % 4096 == 0:
            heat = hot * (cold / hot) ** (step / steps)
        state += _GOLDEN
        bits = mix(state)
        a = np.int64(((bits >> np.uint64(32)) * np.uint64(rows)) >> np.uint64(32))
        near = moves[a, np.int64(((bits & np.uint64(0xFFFF)) * np.uint64(choices)) >> np.uint64(16))]
        if near < 0 or (bits >> np.uint64(28)) & np.uint64(15) == np.uint64(0):
            state += _GOLDEN  # now and then any row: else some groupings are never reached
            near = np.int64(((mix(state) >> np.uint64(32)) * np.uint64(rows)) >> np.uint64(32))
        group_a, group_b = slot[a] // width, slot[near] // width
        draw = (bits >> np.uint64(16)) & np.uint64(0xFFF)
        place_b = group_b * width + np.int64((draw * np.uint64(width)) >> np.uint64(12))
        b = flat[place_b]
        if group_a == group_b or b < 0 or kind[a] != kind[b]:
            continue
        gain = _gain(members, utility, group_a, group_b, a, b)
        if gain < 0:
            state += _GOLDEN
            if heat == 0.0 or np.float64(mix(state) >> np.uint64(11)) * 2.0**-53 >= np.exp(gain / heat):
                continue
        flat[slot[a]], flat[place_b] = b, a
        slot[a], slot[b] = place_b, slot[a]


@numba.njit(cache=True, nogil=True, inline="always")
def _gain(members: np.ndarray, utility: np.ndarray, group_a: int, group_b: int, a: int, b: int) -> np.int64:
    """What is earned more when a of one group and b of the other trade places."""
    gain = np.int64(0)
    for t in range(members.shape[1]):
        one, other = members[group_a, t], members[group_b, t]
        if other >= 0 and other != b:
            gain += np.int64(utility[a, other]) - np.int64(utility[b, other])
        if one >= 0 and one != a:
            gain += np.int64(utility[b, one]) - np.int64(utility[a, one])
    return gain


@numba.njit(cache=True, nogil=True)
def best_moves(utility: np.ndarray, count: int) -> np.ndarray:
    """For each row the rows it earns most with, those that earn nothing left out, shape (rows, count), -1 where fewer."""
    rows = len(utility)
    found = np.full((rows, count), -1, dtype=np.int64)
    worth = np.empty(count, dtype=np.int16)
    for row in range(rows):
        filled, lowest = 0, 0
        for other in range(rows):
            value = utility[row, other]
            if value <= 0 or (filled == count and value <= worth[lowest]):
                continue
            place = lowest
            if filled < count:
                place = filled
                filled += 1
            found[row, place], worth[place] = other, value
            lowest = int(np.argmin(worth[:filled]))
    return found
