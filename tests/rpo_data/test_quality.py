"""Quality figures against numbers worked out by hand and plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data.quality import WeightedCells, column_sums, contrasts, distribution, measure, nearest_similarity
from rpo_data.weights import contrast_weights


def test_nearest_rows_by_hand():
    """Prompt 0 has two rows: each has its twin (1.0), then prompt 1 (0.8). Prompt 1 has one row: twice prompt 0 (0.8, 0.8).

    Three rows, two others each: (1.0 + 0.8) + (1.0 + 0.8) + (0.8 + 0.8) = 5.2 over 6.
    """
    neighbors, similarity = np.array([[1], [0]]), np.array([[0.8], [0.8]], dtype=np.float32)
    assert nearest_similarity(np.array([0, 0, 1]), neighbors, similarity, 2) == pytest.approx(5.2 / 6)


def test_rows_without_neighbors_give_none():
    assert nearest_similarity(np.array([0]), np.array([[-1]]), np.array([[-np.inf]]), 3) is None


def nearest_row_by_row(prompt_of_row, neighbors, similarity, others):
    found = []
    for row, prompt in enumerate(prompt_of_row):
        cosines = [1.0 for other, p in enumerate(prompt_of_row) if p == prompt and other != row]
        for near, cosine in zip(neighbors[prompt], similarity[prompt], strict=True):
            if near >= 0:
                cosines += [float(cosine)] * int((prompt_of_row == near).sum())
        found += cosines[:others]
    return sum(found) / len(found) if found else None


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 12), st.integers(1, 6), st.integers(0, 99))
def test_nearest_equals_counting_row_by_row(prompts, k, rows, others, seed):
    rng = np.random.default_rng(seed)
    prompt_of_row = np.sort(rng.integers(0, prompts, rows))
    neighbors = rng.integers(-1, prompts, (prompts, k))
    similarity = np.where(neighbors < 0, -np.inf, np.sort(rng.uniform(-1, 1, (prompts, k)))[:, ::-1])
    expected = nearest_row_by_row(prompt_of_row, neighbors, similarity, others)
    assert nearest_similarity(prompt_of_row, neighbors, similarity, others) == pytest.approx(expected, abs=1e-9)


def test_distribution_by_hand():
    """Numbers 0 to 100 in two heaps: quantile p is p, mean 50."""
    found = distribution([np.arange(60.0), np.arange(60, 101)])
    quantiles = (found.min, found.p5, found.p25, found.p50, found.p75, found.p95, found.max)
    assert (found.count, found.mean, *quantiles) == (101, 50, 0, 5, 25, 50, 75, 95, 100)
    assert distribution([]) is distribution([np.empty(0)]) is None
    assert distribution([np.array([1 / 3])]).mean == 0.333333
    assert distribution([np.array([1e-30], dtype=np.float32)]).max == 1e-30


def test_column_sums_by_hand():
    """Sums 2.5, 0.5 and, masked, nothing: mean 1.5. In the other group 1 and 1. Ten times the weight changes nothing."""
    weight = np.array([[[1.0, 0, 0], [1.0, 0, 0], [0.5, 0.5, 0]], [[1, 0, 0], [0, 1, 0], [0, 0, 0]]])
    for factor in (1, 10):
        np.testing.assert_allclose(column_sums(factor * weight), [2.5 / 1.5, 0.5 / 1.5, 1, 1])
    assert column_sums(np.zeros((2, 3, 3))).tolist() == []


def paired(similarity, mask, weight):
    own = np.broadcast_to(np.eye(mask.shape[1], dtype=bool), mask.shape)
    return WeightedCells(np.array(similarity, dtype=np.float32), mask, np.array(weight, dtype=np.float32), own)


def test_contrasts_by_hand():
    """One group of two pairs with a cell masked, and one pair alone.

    Win 0: weight 0.75 on its own cell, 0.25 on the other: exp(entropy) 1.754765. Win 1 and the lone win meet one loss.
    Columns sum to 0.75 and 1.25 over a mean of 1, and to 1.
    """
    mask = np.array([[[False, False], [True, False]]])
    group = paired([[[1.0, 0.5], [0.25, 1.0]]], mask, [[[0.75, 0.25], [0.0, 1.0]]])
    alone = paired([[[1.0]]], np.zeros((1, 1, 1), dtype=bool), [[[1.0]]])
    found = contrasts([group, alone], {"same_response": 1})
    assert (found.groups, found.cells, found.masked_cells, found.hubs) == (2, 5, {"same_response": 1}, 0)
    assert (found.own_similarity.count, found.own_similarity.min) == (3, 1.0)
    assert (found.cross_similarity.count, found.cross_similarity.mean) == (1, 0.5)  # the masked 0.25 does not count
    assert (found.weight.count, found.weight.mean) == (4, 0.75)
    assert found.effective_contrasts.mean == pytest.approx((1.754765 + 1 + 1) / 3, abs=1e-5)
    assert (found.own_weight.count, found.own_weight.min, found.own_weight.max) == (3, 0.75, 1.0)
    assert (found.column_sums.min, found.column_sums.max, found.column_sums.mean) == (0.75, 1.25, 1.0)


def test_a_hub_is_found_and_sinkhorn_removes_it():
    """Loss 0 is near to all eight wins, which are far from each other: row weights lay nearly all upon it."""
    similarity = np.zeros((1, 8, 8), dtype=np.float32)
    similarity[:, :, 0] = 0.9
    np.einsum("gii->gi", similarity)[:] = 1.0
    mask = np.zeros(similarity.shape, dtype=bool)
    for normalize, hubs in (("row", 1), ("sinkhorn", 0), ("none", 1)):
        found = contrasts([paired(similarity, mask, contrast_weights(similarity, mask, 0.2, normalize))], {})
        assert found.hubs == hubs
        assert (found.column_sums.max > 2) == bool(hubs)
    assert found.column_sums.count == 8


def test_scale_changes_the_weights_alone():
    rng = np.random.default_rng(0)
    similarity, mask = rng.uniform(0, 1, (30, 4, 4)), np.zeros((30, 4, 4), dtype=bool)
    row1, mean1 = (
        contrasts([paired(similarity, mask, contrast_weights(similarity, mask, 0.5, "row", scale))], {}).model_dump()
        for scale in ("row1", "mean1")
    )
    assert (row1.pop("weight")["mean"], mean1.pop("weight")["mean"]) == (0.25, 1.0)
    for name in ("effective_contrasts", "own_weight", "column_sums"):
        assert row1[name] == pytest.approx(mean1[name], rel=1e-5)


def test_quality_beside_random():
    rng = np.random.default_rng(0)
    stacks = []
    for low, normalize in ((0.5, "sinkhorn"), (0.0, "row")):
        similarity = rng.uniform(low, low + 0.4, (20, 3, 3)).astype(np.float32)
        np.einsum("gii->gi", similarity)[:] = 1.0
        mask = np.zeros(similarity.shape, dtype=bool)
        mask[:2, 0, 1:] = True  # win 0 has one loss, which is also near to the others: no even columns
        stacks.append([paired(similarity, mask, contrast_weights(similarity, mask, 0.5, normalize))])
    reasons, others = {"same_response": 3, "judged_other": 1}, {"same_response": 4}
    quality = measure(
        *stacks, masked=reasons, random_masked=others, nearest=0.75, normalize="sinkhorn", calibration_groups=20
    )
    cross = ~np.eye(3, dtype=bool)
    assert quality.mean_similarity == pytest.approx(stacks[0][0].similarity[:, cross].mean(dtype=np.float64), abs=1e-6)
    assert quality.random_similarity == pytest.approx(
        stacks[1][0].similarity[:, cross].mean(dtype=np.float64), abs=1e-6
    )
    assert (quality.nearest_similarity, quality.cells, quality.masked_cells) == (0.75, 180, reasons)
    assert quality.random.masked_cells == others
    assert quality.mined.weight.count == quality.random.weight.count == 176
    assert quality.effective_contrasts == quality.mined.effective_contrasts.mean > 1
    assert quality.random_contrasts == quality.random.effective_contrasts.mean > 1
    assert (quality.row_fallbacks, quality.calibration_groups) == (2, 20)


def test_unpaired_groups_may_have_no_own_cell():
    similarity, mask = np.array([[[0.5, 0.25, 0.0]]], dtype=np.float32), np.zeros((1, 1, 3), dtype=bool)
    weight = contrast_weights(similarity, mask, 0.5)
    found = contrasts([WeightedCells(similarity, mask, weight, np.zeros(mask.shape, dtype=bool))], {})
    assert found.own_similarity is found.own_weight is None
    assert found.cross_similarity.count == found.column_sums.count == 3


def test_nothing_gives_none():
    quality = measure([], [], masked={}, random_masked={}, nearest=None)
    assert quality.mean_similarity is quality.effective_contrasts is quality.mined.weight is None
    assert quality.cells == quality.mined.groups == 0
