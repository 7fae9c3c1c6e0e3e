from typing import get_args

import torch

from rpo_data.trainer import collator
from rpo_data.trainer.packing import Layout


def test_unequal_sides_and_fully_masked_groups_collate():
    item = collator.Completion
    three_against_one = collator.Group(
        {0: item([1, 2], 1, 0.0), 1: item([1, 3], 1, 0.0), 2: item([1, 4], 1, 0.0), 3: item([1, 5, 6], 1, 0.0)},
        wins=[0, 1, 2],
        losses=[3, 3, 3],
        weights=[0.5, 0.25, 1.0],
        own=[False, False, False],
        cross=[True, True, False],
        importance=[1.0, 0.5, 2.0],
        contrasts=[1.0, 1.0, 1.0],
        labels=[(1, 0), (0.5, 0), (1, 0.25)],
    )
    masked = collator.Group({4: item([7, 8], 1, -1.0)}, [], [], [], [], [], [], [])
    batch = collator.GroupCollator(0)([masked, three_against_one, masked])
    assert [piece["input_ids"].shape for piece in batch["pieces"]] == [(5, 3)]
    assert batch["cell_win"].tolist() == [1, 2, 3]
    assert batch["cell_loss"].tolist() == [4, 4, 4]
    assert batch["group_cells"].tolist() == [0, 3, 0]
    assert batch["cell_cross"].tolist() == [True, True, False]
    assert batch["cell_importance"].tolist() == [1.0, 0.5, 2.0]
    assert batch["cell_labels"].tolist() == [[1.0, 0.0], [0.5, 0.0], [1.0, 0.25]]
    assert batch["group_contrasts"].tolist() == [[0.0, 0.0], [3.0, 3.0], [0.0, 0.0]]
    only_masked = collator.GroupCollator(0)([masked])
    assert only_masked["cell_win"].dtype == torch.int64
    assert len(only_masked["ref_logps"]) == 1
    assert [only_masked[name].dtype for name in ("cell_importance", "cell_labels", "group_contrasts")] == [
        torch.float32
    ] * 3


def test_pieces_hold_similar_lengths_and_equal_prompts():
    lengths = [9, 3, 8, 2]
    sequences = [[6] * length for length in lengths]
    padded = collator.GroupCollator(0, "padded", micro_batch_size=2).cut(sequences, [1] * 4)
    assert [piece["rows"].tolist() for piece in padded] == [[3, 1], [2, 0]]
    assert [piece["input_ids"].shape for piece in padded] == [(2, 3), (2, 9)]
    prompts = [[5, 6], [4, 6], [5, 6], [4, 6]]  # wins, then losses
    shared = collator.GroupCollator(0, "trees", micro_batch_size=2).cut([[*prompt, 7] for prompt in prompts], [2] * 4)
    assert [piece["rows"].tolist() for piece in shared] == [[1, 3], [0, 2]]
    assert [piece["input_ids"].tolist() for piece in shared] == [[[4, 6, 7, 7]], [[5, 6, 7, 7]]]


def test_prompt_tokens_count_where_asked_for():
    both = {0: collator.Completion([5, 6, 7], 2, 0.0)}
    group = collator.Group(both, [], [], [], [], [], [], [])
    for layout in get_args(Layout):
        batch, joint = (collator.GroupCollator(0, layout, count_prompts=count)([group]) for count in (False, True))
        assert batch["pieces"][0]["target"].tolist() == [7]
        assert sorted(joint["pieces"][0]["target"].tolist()) == [6, 7]  # the first has no context and counts nowhere
        assert batch["response_tokens"].tolist() == joint["response_tokens"].tolist() == [1]
