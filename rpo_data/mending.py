"""Groups that hold no cell that counts are mended: by swaps, and where these do not help by seating all rows anew."""

from itertools import chain

import numpy as np

from rpo_data.cells import fully_masked_groups
from rpo_data.errors import LogError
from rpo_data.response_masks import Labels, Scores, partners
from rpo_data.utility import Material
from rpo_data.weights import by_shape

Groups = list[np.ndarray]


def roles(groups: Groups, material: Material) -> tuple[Groups, Groups]:
    """Rows of each group in the chosen and in the rejected role: all, by label, or as their scores have it.

    A scored row is a win where it beats some row of its group, a loss where some row beats it; one that does neither
    stands among the wins, and its cells are masked.
    """
    known = material.known
    if isinstance(known, Labels):
        return [group[known.liked[group]] for group in groups], [group[~known.liked[group]] for group in groups]
    if not isinstance(known, Scores):
        return groups, groups
    wins, losses = list(groups), list(groups)
    for numbers in by_shape(np.array([(len(group), 0) for group in groups])):
        for at in range(0, len(numbers), 2048):
            part = numbers[at : at + 2048]
            rows = np.array([groups[number] for number in part])
            counts = ~np.logical_or.reduce(list(known.masks(rows, rows).values()))
            beats, beaten = counts.any(axis=2), counts.any(axis=1)
            for number, row, win, loss in zip(part, rows, beats | ~beaten, beaten, strict=True):
                wins[number], losses[number] = row[win], row[loss]
    return wins, losses


def unmasked(groups: Groups, material: Material) -> Groups:
    """Give every group a cell that counts: one that has none swaps a row with a group of its block where that helps.

    Groups that hold another row of one of its prompts are tried first. Rows none of which could ever be contrasted are
    left out before groups are formed, so hardly ever does no swap help; then all groups of the block are seated anew.

    Raises:
        LogError: nothing helps.
    """
    assert material.known is not None
    groups, block, prompt = _together(groups, material), material.block, material.prompt
    owner = np.empty(len(prompt), dtype=np.int64)
    for number, group in enumerate(groups):
        owner[group] = number
    for number in fully_masked_groups(*roles(groups, material), material.known).tolist():
        group = groups[number]
        if _cells_that_count(group, material).any():  # a swap with an earlier one helped it too
            continue
        near = np.concatenate([np.arange(*np.searchsorted(prompt, [p, p + 1])) for p in np.unique(prompt[group])])
        for place in chain(dict.fromkeys(owner[near].tolist()), range(len(groups))):
            other = groups[place]
            if place == number or block[other[0]] != block[group[0]]:
                continue
            if _swap(group, other, material):
                owner[group], owner[other] = number, place
                break
        else:
            _seat([other for other in groups if block[other[0]] == block[group[0]]], material)
            for place, other in enumerate(groups):
                owner[other] = place
    return [np.sort(group) for group in groups]


def _seat(groups: Groups, material: Material) -> None:
    """Give each group of a block two rows that make a cell that counts, and the other rows in the order they have, in place.

    Raises:
        LogError: there are fewer such pairs of rows than groups.
    """
    known, kind = material.known, material.kind
    rows = np.concatenate(groups)
    partner = np.full(len(kind), -1, dtype=np.int64)
    if isinstance(known, (Labels, Scores)):
        partner = partners(known, material.block)
    first = rows[(partner[rows] > rows)][: len(groups)]
    if len(first) < len(groups):
        raise LogError(
            "a group holds only rows that cannot be contrasted with each other: raise group_size, or leave out what "
            "contradicts itself with --conflicts drop"
        )
    seated = np.concatenate([first, partner[first]])
    rest = {side: iter(rows[~np.isin(rows, seated) & (kind[rows] == side)].tolist()) for side in np.unique(kind[rows])}
    for group, one in zip(groups, first, strict=True):
        pair = [one, partner[one]]
        wanted = kind[group].tolist()
        for side in kind[pair].tolist():
            wanted.remove(side)
        group[:] = np.array([*pair, *(next(rest[side]) for side in wanted)])


def _together(groups: Groups, material: Material) -> Groups:
    """Copies of the groups; a scored row that is alone in its group joins the group of its block that is nearest to it."""
    groups = [group.copy() for group in groups]
    if not isinstance(material.known, Scores):
        return groups
    first = material.block[[group[0] for group in groups]]
    for number in [number for number, group in enumerate(groups) if len(group) == 1]:
        group, mates = groups[number], [n for n in np.flatnonzero(first == first[number]).tolist() if n != number]
        if mates:
            means = [_mean_cosine(group, groups[n], material) for n in mates]
            place = mates[int(np.argmax(means))]
            groups[place] = np.sort(np.append(groups[place], group))
            groups[number] = group[:0]
    return sorted((group for group in groups if len(group)), key=lambda group: int(group[0]))


def _mean_cosine(one: np.ndarray, other: np.ndarray, material: Material) -> float:
    left, right = (material.vectors[material.prompt[rows]].astype(np.float64) for rows in (one, other))
    return float((left @ right.T).mean())


def _cells_that_count(rows: np.ndarray, material: Material) -> np.ndarray:
    """Whether two rows would have a cell that counts, either way, shape (rows, rows); a pair may have one with itself."""
    assert material.known is not None
    masked = np.logical_or.reduce(list(material.known.masks(rows, rows).values()))
    kind = material.kind[rows]
    return ~(masked & masked.T) & ((kind[:, None] != kind) | (kind == 0))


def _swap(one: np.ndarray, other: np.ndarray, material: Material) -> bool:
    """Swap two rows of one kind, in place, so that `one`, which has none, gets a cell that counts, and `other` keeps one.

    The first such two rows are taken, where there are any; where `other` has no such cell either it need not get one.
    """
    counts, width = _cells_that_count(np.concatenate([one, other]), material), len(one)
    across, inside, alone = counts[:width, width:], counts[width:, width:], counts.diagonal()
    comes = (across.sum(axis=0) - across > 0) | alone[width:]  # what comes meets a row that stays, or itself
    rest = inside.sum() - inside.sum(axis=0) - inside.sum(axis=1) + alone[width:] > 0  # the rows that stay there
    keeps = rest | (across.sum(axis=1)[:, None] - across > 0) | (not inside.any())
    places = np.argwhere(comes & keeps & (material.kind[one][:, None] == material.kind[other]))
    if len(places):
        i, j = places[0]
        one[i], other[j] = other[j], one[i]
    return len(places) > 0
