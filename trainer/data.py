"""The groups of one view of a split as a torch dataset: one row = one contrast group."""

from importlib.util import find_spec
from typing import cast

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset, concatenate_datasets

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import MissingExtra, TrainingError
from rpo_data.trainer.collator import Completion, Group
from rpo_data.trainer.loss import OF_PAIRS
from rpo_data.trainer.tokenize import TokenizedPairs, joint_keys
from rpo_data.weights import Normalize, contrast_weights, effective_contrasts, view_temperatures


class GroupDataset(torch.utils.data.Dataset[Group]):
    """Rows are the groups of the view in use, view 0 at first; every view has the same number of rows.

    Besides the cells that the dataset masks (weight 0), a cell is masked whose win and loss are the same tokens, or one
    of whose responses has no token: neither can teach anything.

    Args:
        data: the dataset.
        split: train or test.
        pairs: its rows in tokens.
        loss_type: under `joint` the log-probs are of prompt and response (`keys`), under `lipo` cells have labels.
        temperature: of weights computed anew from the stored similarities; as stored where None.
        normalize: row, sinkhorn or none, likewise. With one of the two the other is as in the build, and so is the scale.

    Attributes:
        keys: what the reference store knows the sequences by, under `joint` without their borders, (S,).
        ref_logps: reference log-probs of the sequences, float32 (S,).

    Raises:
        TrainingError: the tables do not fit each other or the loss.
        MissingExtra: sinkhorn without numba.
    """

    def __init__(
        self,
        data: ContrastDataset,
        split: str,
        pairs: TokenizedPairs,
        *,
        loss_type: str = "rpo",
        temperature: float | None = None,
        normalize: str | None = None,
    ) -> None:
        if len(data.rows[split]) != len(pairs.chosen):
            raise TrainingError(
                f"split '{split}' has {len(data.rows[split])} rows, but {len(pairs.chosen)} were tokenised"
            )
        self.pairs = pairs
        self.keys = joint_keys(pairs.sequences) if loss_type == "joint" else pairs.sequences.keys
        self.views = data.views
        self.group_size = data.manifest.recipe.group_size
        self.ref_logps = np.full(len(pairs.sequences), np.nan, dtype=np.float32)
        self.split = split
        self._data = data
        self._prompts = np.unique(data.rows[split]["prompt_id"][:], return_inverse=True)[1]
        self._own = np.arange(len(pairs.chosen)) if data.paired else self._prompts  # equal in an own cell
        self._row_weights = np.asarray(data.rows[split]["weight"][:], dtype=np.float32)
        if not (self._row_weights > 0).all():
            raise TrainingError(f"split '{split}' has a row whose weight is not above 0: build the dataset again")
        self._labels = response_labels(data, split) if loss_type == "lipo" else None
        self._anew = temperature is not None or normalize is not None
        recipe = data.manifest.recipe
        self._modes = (cast(Normalize, normalize or recipe.normalize), recipe.scale)
        self._temperatures = view_temperatures(temperature or data.manifest.temperature, data.views)
        if self._anew and self._modes[0] == "sinkhorn" and find_spec("numba") is None:
            raise MissingExtra("normalize 'sinkhorn' needs numba: pip install 'rpo-data[build]'")
        self._usable = pairs.sequences.lengths > pairs.sequences.prompt_lengths
        self.set_view(0)

    def set_view(self, view: int) -> None:
        """Hand out the groups of this view from now on.

        Raises:
            DatasetError: the dataset has no such view.
        """
        self.view = view
        self._groups = self._data.view(self.split, view).with_format(None)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, row: int) -> Group:
        group = self._groups[row]
        win_rows, loss_rows = np.asarray(group["win_rows"]), np.asarray(group["loss_rows"])
        weights = self._weights(group)
        wins, losses = self.pairs.chosen[win_rows], self.pairs.rejected[loss_rows]
        counted = (weights != 0) & (wins[:, None] != losses) & self._usable[wins][:, None] & self._usable[losses]
        win, loss = np.nonzero(counted)
        win_row, loss_row = win_rows[win], loss_rows[loss]
        numbers = dict.fromkeys(np.concatenate([wins, losses]).tolist())
        return Group(
            completions={number: self._completion(number) for number in numbers},
            wins=wins[win].tolist(),
            losses=losses[loss].tolist(),
            weights=weights[win, loss].tolist(),
            own=(self._own[win_row] == self._own[loss_row]).tolist(),
            cross=(self._prompts[win_row] != self._prompts[loss_row]).tolist(),
            importance=np.sqrt(self._row_weights[win_row] * self._row_weights[loss_row]).tolist(),
            contrasts=effective_contrasts(np.where(counted, weights, 0.0))[counted.any(axis=1)].tolist(),
            labels=() if self._labels is None else self._labels[[0, 1], np.stack([win_row, loss_row], axis=1)].tolist(),
        )

    def largest(self, count: int) -> list[int]:
        """Rows of the groups with the most tokens, of the view in use."""
        table = self._groups.with_format("arrow")[:]
        lengths, tokens = self.pairs.sequences.lengths, np.zeros(len(self))
        for name, numbers in (("win_rows", self.pairs.chosen), ("loss_rows", self.pairs.rejected)):
            rows = table[name].combine_chunks()
            starts = np.cumsum([0, *pc.list_value_length(rows).to_numpy()[:-1]])
            tokens += np.add.reduceat(lengths[numbers[rows.flatten().to_numpy()]], starts)
        return np.argsort(-tokens, kind="stable")[:count].tolist()

    def _weights(self, group: dict[str, list]) -> np.ndarray:
        """Weights of a group's cells, float32 (wins, losses): as stored, or anew, with the same cells masked."""
        shape = len(group["win_rows"]), len(group["loss_rows"])
        stored = np.asarray(group["weight"], dtype=np.float32).reshape(shape)
        if not self._anew:
            return stored
        similarity = np.asarray(group["similarity"], dtype=np.float32).reshape(shape)
        return contrast_weights(similarity, stored == 0, self._temperatures[self.view], *self._modes)

    def _completion(self, number: int) -> Completion:
        sequences = self.pairs.sequences
        return Completion(sequences[number], int(sequences.prompt_lengths[number]), float(self.ref_logps[number]))


def check_loss(data: ContrastDataset, loss_type: str) -> None:
    """Refuse a loss that needs what the dataset does not have.

    Raises:
        TrainingError: a loss of pairs for responses, or `lipo` without scores.
    """
    if not data.paired and loss_type in OF_PAIRS:
        raise TrainingError(
            f"loss_type '{loss_type}' needs pairs, and the dataset was built in {data.manifest.mode} mode: use rpo or "
            "uniform"
        )
    if loss_type == "lipo":
        response_labels(data, data.splits[0])


def response_labels(data: ContrastDataset, split: str) -> np.ndarray:
    """How good each response is, in [0, 1]: what `lipo` takes gains from.

    A liked response has 1 and a disliked one 0. A score is put between the lowest (0) and the highest (1) of its source,
    over all splits, and so is a rank where there is no score.

    Returns:
        float64, shape (2, rows): of each row as a win and as a loss, which differ for pairs only.

    Raises:
        TrainingError: a response has no score.
    """
    rows = concatenate_datasets([data.rows[name] for name in data.splits])
    scale = np.unique(rows["source"][:], return_inverse=True)[1]
    if data.paired:
        values = np.stack([_numbers(rows, "score_chosen"), _numbers(rows, "score_rejected")])
    elif data.manifest.mode == "unpaired":
        values, scale = np.stack([_numbers(rows, "label")] * 2), np.zeros_like(scale)
    else:
        score = _numbers(rows, "score")
        values = np.stack([np.where(np.isnan(score), -_numbers(rows, "rank"), score)] * 2)
        scale = 2 * scale + np.isnan(score)
    missing = int(np.isnan(values).any(axis=0).sum())
    if missing:
        raise TrainingError(
            f"loss_type 'lipo' needs the score of every response, and {missing:,} of {len(rows):,} rows have none: use logs "
            "with scores, or another loss"
        )
    start = sum(len(data.rows[name]) for name in data.splits[: data.splits.index(split)])
    return _between_extremes(values, scale)[:, start : start + len(data.rows[split])]


def _numbers(rows: Dataset, name: str) -> np.ndarray:
    """A column as float64; null is NaN."""
    return np.array(rows[name][:], dtype=np.float64)


def _between_extremes(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Values (2, rows) mapped to [0, 1] by the extremes of their scale, a number (rows,); 0 where all are equal."""
    lowest, highest = np.full(scale.max() + 1, np.inf), np.full(scale.max() + 1, -np.inf)
    for side in values:
        np.minimum.at(lowest, scale, side)
        np.maximum.at(highest, scale, side)
    spread = (highest - lowest)[scale]
    return (values - lowest[scale]) / np.where(spread > 0, spread, 1.0)
