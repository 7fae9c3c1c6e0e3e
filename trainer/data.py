"""The groups of one view of a split as a torch dataset: one row = one contrast group."""

import numpy as np
import torch

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.trainer.collator import Completion, Group
from rpo_data.trainer.tokenize import TokenizedPairs


class GroupDataset(torch.utils.data.Dataset[Group]):
    """Rows are the groups of the view in use, view 0 at first; every view has the same number of rows.

    Besides the cells that the dataset masks (weight 0), a cell is masked whose win and loss are the same tokens, or one
    of whose responses has no token: neither can teach anything.
    """

    def __init__(self, data: ContrastDataset, split: str, pairs: TokenizedPairs) -> None:
        if len(data.rows[split]) != len(pairs.chosen):
            raise TrainingError(
                f"split '{split}' has {len(data.rows[split])} rows, but {len(pairs.chosen)} were tokenised"
            )
        self.pairs = pairs
        self.views = data.views
        self.group_size = data.manifest.recipe.group_size
        self.ref_logps = np.full(len(pairs.sequences), np.nan, dtype=np.float32)
        self.split = split
        self._data = data
        ids = np.arange(len(pairs.chosen)) if data.paired else np.asarray(data.rows[split]["prompt_id"][:])
        self._own = np.unique(ids, return_inverse=True)[1]  # equal where win and loss make an own cell
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
        weights = np.asarray(group["weight"], dtype=np.float32).reshape(len(win_rows), len(loss_rows))
        wins, losses = self.pairs.chosen[win_rows], self.pairs.rejected[loss_rows]
        counted = (weights != 0) & (wins[:, None] != losses) & self._usable[wins][:, None] & self._usable[losses]
        win, loss = np.nonzero(counted)
        numbers = dict.fromkeys(np.concatenate([wins, losses]).tolist())
        return Group(
            completions={number: self._completion(number) for number in numbers},
            wins=wins[win].tolist(),
            losses=losses[loss].tolist(),
            weights=weights[win, loss].tolist(),
            own=(self._own[win_rows[win]] == self._own[loss_rows[loss]]).tolist(),
        )

    def _completion(self, number: int) -> Completion:
        sequences = self.pairs.sequences
        return Completion(sequences[number], int(sequences.prompt_lengths[number]), float(self.ref_logps[number]))
