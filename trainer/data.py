"""The groups of one view of a split as a torch dataset: one row = one contrast group."""

from importlib.util import find_spec
from typing import cast

import numpy as np
import torch

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import MissingExtra, TrainingError
from rpo_data.labels import response_labels
from rpo_data.trainer.collator import Completion, Group
from rpo_data.trainer.config import RPOConfig
from rpo_data.trainer.loss import OF_PAIRS
from rpo_data.trainer.tokenize import TokenizedPairs
from rpo_data.weights import Normalize, contrast_weights, effective_contrasts, view_temperatures


class GroupDataset(torch.utils.data.Dataset[Group]):
    """Rows are the groups of the view in use, view 0 at first; every view has the same number of rows.

    Besides the cells that the dataset masks (weight 0), a cell is masked whose win and loss are the same tokens, or one
    of whose responses has no token: neither can teach anything.

    Args:
        data: the dataset.
        split: train or test.
        pairs: its rows in tokens.
        args: under `loss_type` lipo cells have labels. With `temperature` or `normalize` weights are computed anew from the
            stored similarities; the other of the two is then as in the build, and so is the scale.

    Attributes:
        ref_logps: reference log-probs of the sequences, float32 (S,).
        usable: whether a response has a token, bool (S,).

    Raises:
        TrainingError: the tables do not fit each other or the loss.
        MissingExtra: sinkhorn without numba.
    """

    def __init__(self, data: ContrastDataset, split: str, pairs: TokenizedPairs, args: RPOConfig) -> None:
        rows, recipe = data.rows[split], data.manifest.recipe
        self.split, self.pairs, self.views, self.group_size = split, pairs, data.views, recipe.group_size
        self.ref_logps = np.full(len(pairs.sequences), np.nan, dtype=np.float32)
        self._data = data
        self.usable = pairs.sequences.lengths > pairs.sequences.prompt_lengths
        self._prompts = np.unique(rows["prompt_id"][:], return_inverse=True)[1]
        self._own = np.arange(len(rows)) if data.paired else self._prompts  # equal in an own cell
        self._row_weights = np.asarray(rows["weight"][:], dtype=np.float32)
        if not (self._row_weights > 0).all():
            raise TrainingError(f"split '{split}' has a row whose weight is not above 0: build the dataset again")
        self._labels = response_labels(data, split) if args.loss_type == "lipo" else None
        self._anew = args.temperature is not None or args.normalize is not None
        self._modes = (cast(Normalize, args.normalize or recipe.normalize), recipe.scale)
        self._temperatures = view_temperatures(args.temperature or data.manifest.temperature, data.views)
        if self._anew and self._modes[0] == "sinkhorn" and find_spec("numba") is None:
            raise MissingExtra("normalize 'sinkhorn' needs numba: pip install 'rpo-data[build]'")
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
        counted = (weights != 0) & (wins[:, None] != losses) & self.usable[wins][:, None] & self.usable[losses]
        win, loss = np.nonzero(counted)
        win_row, loss_row = win_rows[win], loss_rows[loss]
        sequences, ends = self.pairs.sequences, self.pairs.sequences.prompt_lengths
        return Group(
            completions={
                number: Completion(sequences[number], int(ends[number]), float(self.ref_logps[number]))
                for number in dict.fromkeys(np.concatenate([wins, losses]).tolist())
            },
            wins=wins[win].tolist(),
            losses=losses[loss].tolist(),
            weights=weights[win, loss].tolist(),
            own=(self._own[win_row] == self._own[loss_row]).tolist(),
            cross=(self._prompts[win_row] != self._prompts[loss_row]).tolist(),
            importance=np.sqrt(self._row_weights[win_row] * self._row_weights[loss_row]).tolist(),
            contrasts=effective_contrasts(np.where(counted, weights, 0.0))[counted.any(axis=1)].tolist(),
            labels=() if self._labels is None else self._labels[[0, 1], np.stack([win_row, loss_row], axis=1)].tolist(),
        )

    def largest(self, count: int) -> list[Group]:
        """The groups with the most tokens, of all views, with their reference log-probs of now."""
        lengths, chosen, rejected = self.pairs.sequences.lengths, self.pairs.chosen, self.pairs.rejected
        now, found = self.view, []
        for view in range(self.views):
            self.set_view(view)
            table = self._groups.with_format("arrow")[:]
            rows = zip(table["win_rows"].to_pylist(), table["loss_rows"].to_pylist(), strict=True)
            tokens = [lengths[chosen[wins]].sum() + lengths[rejected[losses]].sum() for wins, losses in rows]
            order = np.argsort(-np.array(tokens), kind="stable")[:count].tolist()
            found += [(-tokens[row], view, row, self[row]) for row in order]
        self.set_view(now)
        return [group for *_, group in sorted(found, key=lambda item: item[:3])[:count]]

    def _weights(self, group: dict[str, list]) -> np.ndarray:
        """Weights of a group's cells, float32 (wins, losses): as stored, or anew, with the same cells masked."""
        shape = len(group["win_rows"]), len(group["loss_rows"])
        stored = np.asarray(group["weight"], dtype=np.float32).reshape(shape)
        if not self._anew:
            return stored
        similarity = np.asarray(group["similarity"], dtype=np.float32).reshape(shape)
        return contrast_weights(similarity, stored == 0, self._temperatures[self.view], *self._modes)


def check_loss(data: ContrastDataset, loss_type: str) -> None:
    """Refuse a loss that needs what the dataset does not have, and what is no dataset of ours.

    Raises:
        TrainingError: a loss of pairs for responses, `lipo` without scores, or another type.
    """
    if not isinstance(data, ContrastDataset):
        raise TrainingError(f"cannot train on a {type(data).__name__}: give what rpo_data.load gives")
    if not data.paired and loss_type in OF_PAIRS:
        raise TrainingError(f"loss_type '{loss_type}' needs pairs, the dataset has responses: use rpo or uniform")
    if loss_type == "lipo":
        response_labels(data, data.splits[0])
