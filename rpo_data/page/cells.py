"""The groups of a split as flat arrays, and what the page says of them: quality, hubs, weights against temperature."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rpo_data.cells import Cells, cell_starts
from rpo_data.dataset import ContrastDataset
from rpo_data.quality import column_sums
from rpo_data.weights import Normalize, by_shape, contrast_weights, effective_contrasts

GROUPS_OF_CURVES = 1000
"""Most groups that the curves over the temperature look at: an even sample."""
RANKS = 7
"""Nearest losses of a win that have a share of their own in the curves; the rest is one share."""

_GROUPS = 4096  # worked on at once


@dataclass(frozen=True)
class GroupCells:
    """The groups of all views of a split.

    Attributes:
        ids: of the groups.
        cells: their cells; a masked one has reason 1.
        weight: of each cell, shape (cells,), float32.
        wins: rows in the chosen role, group after group, int64.
        losses: rows in the rejected role.
    """

    ids: list[str]
    cells: Cells
    weight: np.ndarray
    wins: np.ndarray
    losses: np.ndarray

    def stacks(self, chosen: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of groups of one shape: their numbers, (groups,), and the places of their cells, (groups, wins, losses).

        Args:
            chosen: which groups are wanted, shape (groups,), bool; all where not given.
        """
        starts = cell_starts(self.cells.shapes)
        for alike in by_shape(self.cells.shapes):
            wanted = alike if chosen is None else alike[chosen[alike]]
            wins, losses = self.cells.shapes[alike[0]]
            for at in range(0, len(wanted), _GROUPS):
                numbers = wanted[at : at + _GROUPS]
                places = starts[numbers][:, None] + np.arange(wins * losses)
                yield numbers, places.reshape(len(numbers), wins, losses)


def read_groups(data: ContrastDataset, split: str = "train") -> GroupCells:
    """The groups of a split."""
    table = data.groups[split].data.table
    similarity, shapes = _flat(table["similarity"])
    weight, _ = _flat(table["weight"])
    wins, losses = (table[side].combine_chunks().flatten().to_numpy() for side in ("win_rows", "loss_rows"))
    prompt = None if data.paired else _numbers(data.rows[split].data.table["prompt_id"])
    masked = (weight == 0).astype(np.int8)
    cells = Cells(shapes, similarity, masked, np.zeros(len(weight), dtype=bool), ("masked",))
    groups = GroupCells(table["group_id"].to_pylist(), cells, weight, wins, losses)
    for numbers, places in groups.stacks():
        win, loss = _rows(groups, numbers, places.shape[1:])
        if prompt is not None:
            win, loss = prompt[win], prompt[loss]
        cells.own[places] = win[:, :, None] == loss[:, None, :]
    return groups


def group_figures(groups: GroupCells) -> pl.DataFrame:
    """One row for each group.

    Returns:
        `group`; `wins` and `losses`, how many; `similarity`, mean cosine of the cells that are not own cells, masked or not,
        null where there is none; `cross`, how many these are; `contrasts`, mean effective contrasts of its wins; `heaviest`,
        largest column sum in units of the mean; `hub`, that column; `masked`, cells.
    """
    count = len(groups.ids)
    found = {name: np.zeros(count) for name in ("similarity", "cross", "contrasts", "heaviest", "hub", "masked")}
    for numbers, places in groups.stacks():
        cosine, weight = groups.cells.similarity[places].astype(np.float64), groups.weight[places].astype(np.float64)
        cross = ~groups.cells.own[places]
        cells = cross.sum(axis=(1, 2))
        total = np.where(cross, cosine, 0.0).sum(axis=(1, 2))
        found["cross"][numbers] = cells
        found["similarity"][numbers] = np.where(cells > 0, total / np.maximum(cells, 1), np.nan)
        rows = effective_contrasts(weight)
        found["contrasts"][numbers] = rows.sum(axis=1) / np.maximum(np.count_nonzero(rows, axis=1), 1)
        sums = weight.sum(axis=1)
        mean = sums.sum(axis=1) / np.maximum(np.count_nonzero(sums, axis=1), 1)
        found["heaviest"][numbers] = sums.max(axis=1) / np.where(mean > 0, mean, 1.0)
        found["hub"][numbers] = sums.argmax(axis=1)
        found["masked"][numbers] = (weight == 0).sum(axis=(1, 2))
    wins, losses = groups.cells.shapes.T
    frame = pl.DataFrame({"group": groups.ids, "wins": wins, "losses": losses, **found})
    return frame.with_columns(pl.col("cross", "hub", "masked").cast(pl.Int64), pl.col("similarity").fill_nan(None))


def sums_of_columns(groups: GroupCells) -> np.ndarray:
    """Column sums of all groups in units of their group's mean (`quality.column_sums`)."""
    return np.concatenate([np.empty(0), *(column_sums(groups.weight[places]) for _, places in groups.stacks())])


class Curves(NamedTuple):
    """What each temperature makes of the weights.

    temperatures  rising, shape (steps,)
    contrasts     mean effective contrasts of a win, shape (steps,)
    shares        where the weight of a win lies on average, shape (steps, len(names)); each row sums to 1
    names         of these shares: own cells, the nearest loss besides, the next, ..., all further ones
    """

    temperatures: np.ndarray
    contrasts: np.ndarray
    shares: np.ndarray
    names: list[str]


def temperature_curves(groups: GroupCells, temperatures: np.ndarray, normalize: Normalize) -> Curves:
    """What these temperatures would make of the weights of an even sample of the groups."""
    chosen = np.zeros(len(groups.ids), dtype=bool)
    chosen[np.linspace(0, len(groups.ids) - 1, min(len(groups.ids), GROUPS_OF_CURVES)).round().astype(int)] = True
    columns = 1 + int(groups.cells.shapes[chosen, 1].max())
    contrasts, shares = np.zeros(len(temperatures)), np.zeros((len(temperatures), columns))
    wins = 0
    for _, places in groups.stacks(chosen):
        masked, own = groups.cells.reason[places] > 0, groups.cells.own[places]
        cosine = groups.cells.similarity[places]
        order = np.argsort(-np.where(own | masked, -np.inf, cosine), axis=2, kind="stable")
        for step, temperature in enumerate(temperatures):
            weight = contrast_weights(cosine, masked, float(temperature), normalize).astype(np.float64)
            rows = effective_contrasts(weight)
            contrasts[step] += rows.sum()
            weight /= np.where(rows > 0, weight.sum(axis=2), 1.0)[:, :, None]
            shares[step, 0] += np.where(own, weight, 0.0).sum()
            ranked = np.take_along_axis(np.where(own, 0.0, weight), order, axis=2)
            shares[step, 1 : 1 + ranked.shape[2]] += ranked.sum(axis=(0, 1))
        wins += int(np.count_nonzero(rows))
    filled = np.flatnonzero(shares.any(axis=0))[-1] + 1 if wins else 1
    names = ["own", "nearest", "2nd", "3rd", *(f"{rank}th" for rank in range(4, filled))][:filled]
    if filled > RANKS + 2:
        shares[:, RANKS + 1] = shares[:, RANKS + 1 :].sum(axis=1)
        filled, names = RANKS + 2, [*names[: RANKS + 1], "further"]
    return Curves(temperatures, contrasts / max(wins, 1), shares[:, :filled] / max(wins, 1), names)


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a column of matrices, flat, and the shapes of the matrices, (groups, 2)."""
    matrices = column.combine_chunks()
    wins, rows = pc.list_value_length(matrices).to_numpy(), matrices.flatten()
    widths = pc.list_value_length(rows).to_numpy()
    first = np.cumsum(wins) - wins
    return rows.flatten().to_numpy(), np.stack([wins, widths[first]], axis=1).astype(np.int64)


def _rows(groups: GroupCells, numbers: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of these groups, all of one shape: wins, (groups, M), and losses, (groups, N)."""
    starts = np.cumsum(groups.cells.shapes, axis=0) - groups.cells.shapes
    return (
        groups.wins[starts[numbers, 0][:, None] + np.arange(shape[0])],
        groups.losses[starts[numbers, 1][:, None] + np.arange(shape[1])],
    )


def _numbers(ids: pa.ChunkedArray) -> np.ndarray:
    series = pl.Series(ids)
    return series.rank("dense").to_numpy().astype(np.int64)
