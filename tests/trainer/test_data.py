import numpy as np
import pytest
from transformers import AutoTokenizer

from rpo_data.errors import DatasetError
from rpo_data.trainer.data import GroupDataset
from rpo_data.trainer.tokenize import tokenize_pairs


@pytest.fixture
def groups_of(tiny_models):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])

    def build(data, max_length=None):
        return GroupDataset(data, "train", tokenize_pairs(data.pairs["train"], tokenizer, max_length))

    return build


def test_views_hold_the_same_pairs_in_other_groups(echo, groups_of):
    dataset = groups_of(echo)
    first = [set(group.completions) for group in dataset]
    dataset.set_view(1)
    second = [set(group.completions) for group in dataset]
    assert len(first) == len(second) == 4
    assert first != second
    assert set.union(*first) == set.union(*second) == set(range(len(dataset.pairs.sequences)))
    with pytest.raises(DatasetError, match="no view 2"):
        dataset.set_view(2)


def test_cells_carry_their_weights_and_masked_ones_are_left_out(make, groups_of):
    rows = make.echo_pairs(2, seed=3)
    weight = [[0.75, 0.25], [0.0, 1.0]]
    data = make.dataset({"train": rows}, {"train": [make.group_row("train", 0, 0, [0, 1], [0, 1], weight)]})
    dataset = groups_of(data)
    group = dataset[0]
    chosen, rejected = dataset.pairs.chosen, dataset.pairs.rejected
    cells = list(zip(group.wins, group.losses, group.weights, group.own, strict=True))
    assert cells == [
        (chosen[0], rejected[0], 0.75, True),
        (chosen[0], rejected[1], 0.25, False),
        (chosen[1], rejected[1], 1.0, True),
    ]


def test_wins_and_losses_may_differ_in_number(make, groups_of):
    rows = make.echo_pairs(4, seed=3)
    weight = np.full((3, 2), 0.5)
    data = make.dataset({"train": rows}, {"train": [make.group_row("train", 0, 0, [0, 1, 2], [1, 3], weight)]})
    group = groups_of(data)[0]
    assert len(group.wins) == 6
    assert group.own == [False, False, True, False, False, False]
    assert len(group.completions) == 5


def test_cells_of_equal_tokens_are_masked(make, groups_of):
    rows = [
        make.pair_row(0, "apple?", "yes " * 40, "yes " * 40 + "no"),  # equal once cut
        make.pair_row(1, "bread?", "yes", "no"),
        make.pair_row(2, "bread?", "no", "never"),  # this win is the loss of the row before
    ]
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2]]])})
    dataset = groups_of(data, max_length=40)
    group = dataset[0]
    cells = set(zip(group.wins, group.losses, strict=True))
    chosen, rejected = dataset.pairs.chosen, dataset.pairs.rejected
    assert len(cells) == 7
    assert (chosen[0], rejected[0]) not in cells
    assert (chosen[2], rejected[1]) not in cells
    assert sum(group.own) == 2
