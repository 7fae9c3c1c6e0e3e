import doctest

import pytest
import torch

from rpo_data.trainer import collator, loss, tokenize


@pytest.mark.parametrize("module", [collator, loss, tokenize])
def test_docstring_examples_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_unequal_sides_and_fully_masked_groups_collate():
    item = collator.Completion
    three_against_one = collator.Group(
        {0: item([1, 2], 1, 0.0), 1: item([1, 3], 1, 0.0), 2: item([1, 4], 1, 0.0), 3: item([1, 5, 6], 1, 0.0)},
        wins=[0, 1, 2],
        losses=[3, 3, 3],
        weights=[0.5, 0.25, 1.0],
        own=[False, False, False],
    )
    masked = collator.Group({4: item([7, 8], 1, -1.0)}, [], [], [], [])
    batch = collator.GroupCollator(0)([masked, three_against_one, masked])
    assert batch["input_ids"].shape == (5, 3)
    assert batch["cell_win"].tolist() == [1, 2, 3]
    assert batch["cell_loss"].tolist() == [4, 4, 4]
    assert batch["group_cells"].tolist() == [0, 3, 0]
    only_masked = collator.GroupCollator(0)([masked])
    assert only_masked["cell_win"].dtype == torch.int64
    assert len(only_masked["input_ids"]) == 1
