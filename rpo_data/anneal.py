"""Annealed swaps, compiled: two rows trade groups when that gains, or loses little while the process is hot.

Source: Kirkpatrick, Gelatt and Vecchi 1983, "Optimization by Simulated Annealing". A row is proposed to move into the group
of a row it would gain much from, in exchange for a third one there. Utilities are whole numbers, so that gains are exact.
"""

import numba
import numpy as np

from rpo_data.utf8 import mix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NEVER = -20.0
"""A loss of as many times the temperature is never taken: its chance would be 2e-9."""


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
    group, place, own = _places(members, utility)
    state, heat, still = mix(np.uint64(seed) + _GOLDEN), hot, steps - steps // 20
    for step in range(steps):
        if step >= still:
            heat = 0.0
        elif step % 4096 == 0:
            heat = hot * (cold / hot) ** (step / steps)
        state += _GOLDEN
        bits = mix(state)
        a = np.int64(((bits >> np.uint64(32)) * np.uint64(rows)) >> np.uint64(32))
        near = np.int64(moves[a, np.int64(((bits & np.uint64(0xFFFF)) * np.uint64(choices)) >> np.uint64(16))])
        if near < 0 or (bits >> np.uint64(28)) & np.uint64(15) == np.uint64(0):
            state += _GOLDEN  # now and then any row: else some groupings are never reached
            near = np.int64(((mix(state) >> np.uint64(32)) * np.uint64(rows)) >> np.uint64(32))
        group_a, group_b = group[a], group[near]
        draw = (bits >> np.uint64(16)) & np.uint64(0xFFF)
        place_b = np.int64((draw * np.uint64(width)) >> np.uint64(12))
        b = members[group_b, place_b]
        if group_a == group_b or b < 0 or kind[a] != kind[b]:
            continue
        gain = _earned(utility, a, members[group_b]) + _earned(utility, b, members[group_a])
        gain -= own[a] + own[b] + 2 * np.int64(utility[a, b])
        if gain < 0:
            if gain <= _NEVER * heat:
                continue
            state += _GOLDEN
            if np.float64(mix(state) >> np.uint64(11)) * 2.0**-53 >= np.exp(gain / heat):
                continue
        members[group_a, place[a]], members[group_b, place_b] = b, a
        group[a], group[b], place[a], place[b] = group_b, group_a, place_b, place[a]
        _trade(own, utility, members[group_a], a, b)
        _trade(own, utility, members[group_b], b, a)


@numba.njit(cache=True, nogil=True)
def _places(members: np.ndarray, utility: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row its group, its place there, and what it earns there."""
    group, place = np.full(len(utility), -1, dtype=np.int32), np.full(len(utility), -1, dtype=np.int32)
    own = np.zeros(len(utility), dtype=np.int64)
    for number in range(len(members)):
        for t in range(members.shape[1]):
            row = members[number, t]
            if row >= 0:
                group[row], place[row] = number, t
                own[row] = _earned(utility, row, members[number])
    return group, place, own


@numba.njit(cache=True, nogil=True)
def _trade(own: np.ndarray, utility: np.ndarray, members: np.ndarray, gone: int, come: int) -> None:
    """Bring up to date what the members of a group earn after one came for another."""
    for row in members:
        if row >= 0:
            own[row] += np.int64(utility[row, come]) - np.int64(utility[row, gone])
    own[come] = _earned(utility, come, members)


@numba.njit(cache=True, nogil=True, inline="always")
def _earned(utility: np.ndarray, row: int, members: np.ndarray) -> np.int64:
    """What a row earns, or would earn, with the members of a group."""
    total = np.int64(0)
    for other in members:
        if other >= 0:
            total += np.int64(utility[row, other])
    return total


@numba.njit(cache=True, nogil=True)
def best_moves(utility: np.ndarray, count: int) -> np.ndarray:
    """For each row the rows it earns most with, those that earn nothing left out, shape (rows, count), -1 where fewer."""
    rows = len(utility)
    found = np.full((rows, count), -1, dtype=np.int64)
    worth = np.zeros(count + 1, dtype=np.int16)  # falling; one place more, for what drops out
    best = np.full(count + 1, -1, dtype=np.int64)
    for row in range(rows):
        worth[:], best[:] = 0, -1
        for other in range(rows):
            value = utility[row, other]
            if value <= worth[count - 1]:
                continue
            place = count
            while place > 0 and worth[place - 1] < value:
                worth[place], best[place] = worth[place - 1], best[place - 1]
                place -= 1
            worth[place], best[place] = value, other
        found[row] = best[:count]
    return found
