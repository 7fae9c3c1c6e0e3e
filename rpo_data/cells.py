"""The cells of many groups at once, kept flat: group after group, each row by row (row = win)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rpo_data.contrasts import Known
from rpo_data.weights import by_shape

_GROUPS = 2048  # worked on at once


@dataclass(frozen=True)
class Cells:
    """Cells of some groups.

    Attributes:
        shapes: wins and losses of each group, shape (groups, 2), int64.
        similarity: cosine of the two prompts, exactly 1 where they are the same, shape (cells,), float32.
        reason: 0 where the cell counts, else 1 + its place in `reasons`, shape (cells,), int8.
        own: True where win and loss are one pair, or, where there are no pairs, answer one prompt, shape (cells,).
        reasons: why cells are masked.
    """

    shapes: np.ndarray
    similarity: np.ndarray
    reason: np.ndarray
    own: np.ndarray
    reasons: tuple[str, ...]

    @property
    def masked(self) -> dict[str, int]:
        """Masked cells by reason."""
        counts = np.bincount(self.reason, minlength=len(self.reasons) + 1)[1:]
        return dict(zip(self.reasons, counts.tolist(), strict=True))

    def stacks(self) -> Iterator[np.ndarray]:
        """For each shape the places of its groups' cells, shape (groups, wins, losses), int64."""
        starts = cell_starts(self.shapes)
        for numbers in by_shape(self.shapes):
            wins, losses = self.shapes[numbers[0]]
            places = starts[numbers][:, None] + np.arange(wins * losses)
            yield places.reshape(len(numbers), wins, losses)

    def of(self, groups: np.ndarray) -> "Cells":
        """The cells of some of the groups, given as a mask, shape (groups,)."""
        cells = np.repeat(groups, self.shapes.prod(axis=1))
        return Cells(self.shapes[groups], self.similarity[cells], self.reason[cells], self.own[cells], self.reasons)


def cell_starts(shapes: np.ndarray) -> np.ndarray:
    """Where the cells of each group begin, and the number of all, shape (groups + 1,), int64."""
    return np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype(np.int64)


def joined(parts: Sequence[Cells]) -> Cells:
    """Cells of several views as those of one."""
    shapes, similarity, reason, own = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("shapes", "similarity", "reason", "own")
    )
    return Cells(shapes, similarity, reason, own, parts[0].reasons)


def cells_of(
    wins: Sequence[np.ndarray],
    losses: Sequence[np.ndarray],
    vectors: np.ndarray,
    prompt_of_row: np.ndarray,
    known: Known,
) -> Cells:
    """Similarity and masks of groups.

    Args:
        wins: rows of each group in the chosen role.
        losses: rows of each group in the rejected role.
        vectors: unit vectors of the prompts, shape (prompts, dimension), float32.
        prompt_of_row: prompt of each row, shape (rows,), int64.
        known: what the logs say against cells.
    """
    shapes = np.array([(len(w), len(x)) for w, x in zip(wins, losses, strict=True)], dtype=np.int64).reshape(-1, 2)
    starts = cell_starts(shapes)
    similarity = np.empty(starts[-1], dtype=np.float32)
    reason = np.zeros(starts[-1], dtype=np.int8)
    own = np.zeros(starts[-1], dtype=bool)
    for alike in by_shape(shapes):
        for at in range(0, len(alike), _GROUPS):
            numbers = alike[at : at + _GROUPS]
            rows, columns = (np.array([side[n] for n in numbers], dtype=np.int64) for side in (wins, losses))
            places = (starts[numbers][:, None] + np.arange(rows.shape[1] * columns.shape[1])).ravel()
            similarity[places] = _cosines(vectors, prompt_of_row[rows], prompt_of_row[columns]).ravel()
            own[places] = known.own(rows, columns).ravel()
            some = known.maskable[rows].any(axis=1) & known.maskable[columns].any(axis=1)
            found = np.zeros((len(numbers), rows.shape[1], columns.shape[1]), dtype=np.int8)
            for place, mask in enumerate(known.masks(rows[some], columns[some]).values(), start=1):
                found[some] += np.int8(place) * mask  # a cell is masked for one reason
            reason[places] = found.ravel()
    return Cells(shapes, similarity, reason, own, known.reasons)


def fully_masked_groups(wins: Sequence[np.ndarray], losses: Sequence[np.ndarray], known: Known) -> np.ndarray:
    """Numbers of the groups none of whose cells counts, rising; one without wins or losses is among them."""
    shapes = np.array([(len(w), len(x)) for w, x in zip(wins, losses, strict=True)], dtype=np.int64).reshape(-1, 2)
    masked = shapes.prod(axis=1) == 0
    for alike in by_shape(shapes):
        for at in range(0, len(alike) if shapes[alike[0]].all() else 0, _GROUPS):
            numbers = alike[at : at + _GROUPS]
            rows, columns = (np.array([side[n] for n in numbers], dtype=np.int64) for side in (wins, losses))
            some = known.maskable[rows].all(axis=1) & known.maskable[columns].all(axis=1)
            found = np.logical_or.reduce(list(known.masks(rows[some], columns[some]).values()))
            masked[numbers[some]] = found.all(axis=(1, 2))
    return np.flatnonzero(masked)


def _cosines(vectors: np.ndarray, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Cosine of prompts, shape (groups, wins, losses), float32, summed in float64: the same bits for any batch."""
    one, other = vectors[wins].astype(np.float64), vectors[losses].astype(np.float64)
    exact = np.clip(np.einsum("gwd,gld->gwl", one, other), -1.0, 1.0)
    return np.where(wins[:, :, None] == losses[:, None, :], 1.0, exact).astype(np.float32)
