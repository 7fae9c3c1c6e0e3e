from types import SimpleNamespace

import pytest
from datasets import Dataset

from rpo_data.errors import TrainingError
from rpo_data.labels import response_labels


def tables(mode: str, train: dict, test: dict) -> SimpleNamespace:
    """As much of a ContrastDataset as labels need."""
    rows = {"train": Dataset.from_dict(train), "test": Dataset.from_dict(test)}
    return SimpleNamespace(rows=rows, splits=list(rows), manifest=SimpleNamespace(mode=mode), paired=mode == "paired")


def test_pairs_have_scores_between_the_extremes_of_their_source():
    train = {"source": ["a", "b", "b"], "score_chosen": [4, 100, 60], "score_rejected": [3, 20, 20]}
    test = {"source": ["a"], "score_chosen": [5], "score_rejected": [1]}  # the extremes of the first source
    data = tables("paired", train, test)
    assert response_labels(data, "train").tolist() == [[0.75, 1.0, 0.5], [0.5, 0.0, 0.0]]
    assert response_labels(data, "test").tolist() == [[1.0], [0.0]]


def test_where_all_scores_are_equal_all_labels_are_zero():
    rows = {"source": ["a", "a"], "score_chosen": [3.0, 3.0], "score_rejected": [3.0, 3.0]}
    assert response_labels(tables("paired", rows, rows), "train").tolist() == [[0, 0], [0, 0]]


def test_thumbs_are_labels_as_they_are():
    train = {"source": ["a", "a", "b"], "label": [True, False, True]}  # a source of likes alone
    data = tables("unpaired", train, {"source": ["b"], "label": [True]})
    assert response_labels(data, "train").tolist() == [[1, 0, 1], [1, 0, 1]]
    assert response_labels(data, "test").tolist() == [[1], [1]]


def test_scores_and_ranks_of_a_source_are_two_scales():
    train = {"source": ["a"] * 5, "score": [2.0, 4.0, None, None, None], "rank": [None, None, 1, 2, 5]}
    data = tables("scored", train, {"source": ["a"], "score": [3.0], "rank": [9]})
    assert response_labels(data, "train").tolist() == [[0, 1, 1, 0.75, 0]] * 2
    assert response_labels(data, "test").tolist() == [[0.5]] * 2


@pytest.mark.parametrize(("mode", "column"), [("paired", "score_rejected"), ("unpaired", "label"), ("scored", "rank")])
def test_a_row_without_any_is_refused(mode, column):
    names = {"paired": ["score_chosen", "score_rejected"], "unpaired": ["label"], "scored": ["score", "rank"]}[mode]
    rows = {"source": ["a", "a"]} | {name: [None, None] if name == "score" else [1, 2] for name in names}
    rows[column] = [1, None]
    with pytest.raises(TrainingError, match="'lipo' needs the score of every response, and 2 of 4 rows have none: use"):
        response_labels(tables(mode, rows, rows), "train")
