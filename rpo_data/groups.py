"""Form contrast groups: every row in exactly one group of each view, related prompts together.

Objective: the summed utility (utility.py) of all cells of all groups. Large corpora are cut into chunks of related rows;
inside each, rows trade places between groups (anneal.py); then the groups are cut into other chunks, which grow along the
edges of the neighbour lists, round after round, while the annealing temperature falls. Chunks are worked on side by side,
and each has a seed of its own.
"""

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from rpo_data.anneal import anneal, best_moves
from rpo_data.chunks import grown_order, related_chunks
from rpo_data.utility import ONE, Band, Material, utility

STRATEGIES = ("nearest", "random", "cluster", "curriculum")
HOT, COLD = 0.3, 0.02
"""First and last annealing temperature, in units of summed cosine."""
MOVES = 16
PROPOSALS = 2 * 10**9
"""Swaps proposed in all, at most 4,000 and at least 300 a row."""
CHUNK = 1024
"""Rows of a chunk; six times as many are one chunk, and above 250 times as many rows a chunk is half as large."""
ROUNDS = 12
RANKS = 8
"""Nearest neighbours along which a chunk grows."""


def form_groups(
    material: Material,
    *,
    group_size: int,
    views: int,
    strategy: str,
    seed: int,
    band: Band = Band(),  # noqa: B008 - frozen
    max_group: int = 64,
) -> list[list[np.ndarray]]:
    """Assign rows to groups, once for each view.

    Args:
        material: what the groups are formed of.
        group_size: rows of a group; the last group of each block may be smaller (see `group_shapes` for wins and losses).
        views: number of assignments.
        strategy: `nearest` maximises the objective; `random` is the paper's; `cluster` takes the leaves of a tree of
            two-means splits; `curriculum` goes from far to near: view v of k counts only cosines up to
            low + (high - low) * (v + 1) / k, with low the mean cosine of random rows and high `max_score`.
        seed: of all random choices.
        band: which cells between different prompts earn.
        max_group: rows of a group at most, where wins and losses are lopsided.

    Returns:
        For each view its groups, in order of their first row; a group is an array of row numbers, rising.
    """
    result: list[list[np.ndarray]] = []
    partners = np.empty((len(material.prompt), 0), dtype=np.int32)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        for view in range(views):
            groups: list[np.ndarray] = []
            limits = _curriculum(material, band, view, views, seed) if strategy == "curriculum" else band
            for number in np.unique(material.block):
                rows = np.flatnonzero(material.block == number)
                key = (seed, view, int(number))
                members = _members(rows, material, strategy, group_size, max_group, key, pool)
                if strategy in ("nearest", "curriculum") and len(members) > 1:
                    _improve(members, material, limits, partners, key, pool)
                groups += [np.sort(group[group >= 0]) for group in members]
            groups.sort(key=lambda group: int(group[0]))
            if view < views - 1:
                partners = np.hstack([partners, _partners(groups, len(partners))])
            result.append(groups)
    return result


def group_shapes(wins: int, losses: int, group_size: int, max_group: int) -> tuple[np.ndarray, int, int]:
    """How many wins and losses each group has, where a row is one or the other.

    Wins and losses are spread evenly over rows / `group_size` groups; where one of them is too rare for one in each
    group, there are only as many groups, which widen up to `max_group`, and what still has no place is left over.

    Returns:
        Wins and losses of each group, shape (groups, 2); wins and losses that are left over.

    >>> group_shapes(6, 2, 4, 8)[0].tolist()
    [[3, 1], [3, 1]]
    """
    rare = min(wins, losses)
    if not rare:
        return np.empty((0, 2), dtype=np.int64), wins, losses
    groups = min(-(-(wins + losses) // group_size), rare)
    most = groups * (max_group - 1)
    kept = [min(count, most if count > rare else count) for count in (wins, losses)]
    first, last = (
        np.arange(groups),
        np.arange(groups)[::-1],
    )  # a group that has a win more has no loss more, if it can be
    shapes = np.stack([n // groups + (at < n % groups) for n, at in zip(kept, (first, last), strict=True)], axis=1)
    return shapes, wins - kept[0], losses - kept[1]


def _members(
    rows: np.ndarray,
    material: Material,
    strategy: str,
    group_size: int,
    max_group: int,
    key: tuple[int, ...],
    pool: Executor,
) -> np.ndarray:
    """The first assignment, shape (groups, width), -1 where a group has fewer: random, or related rows together."""
    rng = np.random.default_rng(key)
    if strategy == "random" or (_chunk_size(len(rows)) == len(rows) and strategy != "cluster"):
        order = rng.permutation(rows)
    else:
        size = group_size if strategy == "cluster" else max(_chunk_size(len(rows)) // group_size, 1) * group_size
        tree = key[1] if strategy == "cluster" else 0  # swaps tell the other strategies' views apart
        chunks = related_chunks(material.vectors, material.prompt[rows], size, key[0], pool, tree)
        order = np.concatenate([rows[rng.permutation(chunk)] for chunk in chunks])
    if not material.kind.any():
        count = -(-len(rows) // group_size)
        members = np.full(count * group_size, -1, dtype=np.int64)
        members[: len(rows)] = order
        return members.reshape(count, group_size)
    sides = [order[material.kind[order] == side] for side in (1, 2)]
    shapes, *_ = group_shapes(len(sides[0]), len(sides[1]), group_size, max_group)
    members = np.full((len(shapes), int(shapes.sum(axis=1).max(initial=0))), -1, dtype=np.int64)
    for side, column in ((0, np.zeros(len(shapes), dtype=np.int64)), (1, shapes[:, 0])):
        group = np.repeat(np.arange(len(shapes)), shapes[:, side])
        within = np.arange(len(group)) - np.repeat(np.cumsum(shapes[:, side]) - shapes[:, side], shapes[:, side])
        members[group, column[group] + within] = sides[side][: len(group)]
    return members


def _improve(
    members: np.ndarray, material: Material, band: Band, partners: np.ndarray, key: tuple[int, ...], pool: Executor
) -> None:
    """Anneal the groups in place, chunk by chunk, in rounds."""
    count = int((members >= 0).sum())
    rounds = 1 if _chunk_size(count) == count else ROUNDS
    steps = int(np.clip(PROPOSALS / count, 300, 4000)) / rounds
    size = max(_chunk_size(count) * len(members) // count, 2)
    for turn in range(rounds):
        if rounds == 1:
            chunks = [np.arange(len(members))]
        elif turn == 0:
            chunks = [np.arange(at, min(at + size, len(members))) for at in range(0, len(members), size)]
        else:
            chunks = _other_chunks(members, material, size, (*key, turn), pool)
        heat = [HOT * (COLD / HOT) ** (at / rounds) for at in (turn, turn + 1)]
        jobs = [(groups, np.random.SeedSequence([*key, turn, number])) for number, groups in enumerate(chunks)]

        def work(job: tuple[np.ndarray, np.random.SeedSequence], heat: list[float] = heat) -> None:
            groups, sequence = job
            inside = members[groups]
            rows = np.sort(inside[inside >= 0])
            local = np.where(inside >= 0, np.searchsorted(rows, inside), -1)
            earned = utility(rows, material, band, partners)
            moves = best_moves(earned, MOVES)
            chance = int(sequence.generate_state(1, np.uint32)[0])
            anneal(
                local, material.kind[rows], earned, moves, int(steps * len(rows)), heat[0] * ONE, heat[1] * ONE, chance
            )
            members[groups] = np.where(local >= 0, rows[local], -1)

        list(pool.map(work, jobs))


def _chunk_size(count: int) -> int:
    """Rows of a chunk; all of them where they are few."""
    if count <= 6 * CHUNK:
        return count
    return CHUNK if count <= 250 * CHUNK else CHUNK // 2


def _other_chunks(
    members: np.ndarray, material: Material, size: int, key: tuple[int, ...], pool: Executor
) -> list[np.ndarray]:
    """Chunks of related groups, other ones for another key: along the neighbours, or by direction where there are none."""
    neighbors = np.asarray(material.neighbors)
    if not neighbors.shape[1]:
        return related_chunks(_centres(members, material), np.arange(len(members)), size, key[0] + key[-1], pool)
    starts = np.random.default_rng(key).permutation(len(members))
    order = grown_order(starts, members, material.prompt, neighbors[:, :RANKS], size)
    return [order[at : at + size] for at in range(0, len(order), size)]


def _centres(members: np.ndarray, material: Material) -> np.ndarray:
    """Direction of each group: the sum of its vectors, to unit length, float32."""
    sums = np.zeros((len(members), material.vectors.shape[1]), dtype=np.float32)
    for column in members.T:
        present = np.flatnonzero(column >= 0)
        for at in range(0, len(present), 2**15):
            part = present[at : at + 2**15]
            sums[part] += material.vectors[material.prompt[column[part]]]
    length = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    return sums / np.where(length > 0, length, 1.0)[:, None]


def _curriculum(material: Material, band: Band, view: int, views: int, seed: int) -> Band:
    """The band of one view of a curriculum."""
    rng = np.random.default_rng([seed, 0x6375])
    some = material.prompt[np.sort(rng.choice(len(material.prompt), min(len(material.prompt), 512), replace=False))]
    mean = np.asarray(material.vectors[some], dtype=np.float64).mean(axis=0)
    low = float(np.clip(mean @ mean, band.min_score, band.max_score))
    return replace(band, max_score=low + (band.max_score - low) * (view + 1) / views)


def _partners(groups: list[np.ndarray], rows: int) -> np.ndarray:
    """Rows that share a group with each row, itself among them, shape (rows, width), int32, -1 where fewer."""
    width = max(map(len, groups), default=0)
    found = np.full((rows, width), -1, dtype=np.int32)
    for size in np.unique([len(group) for group in groups]):
        stack = np.array([group for group in groups if len(group) == size])
        found[stack.ravel(), :size] = np.repeat(stack, size, axis=0)
    return found
