"""Weights against numbers worked out by hand, independent versions in plain NumPy, and the gradient of the real loss."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import rpo_data.weights
from rpo_data.sinkhorn import scalable
from rpo_data.trainer import rpo_loss
from rpo_data.weights import (
    FLOOR,
    by_shape,
    calibrate_temperature,
    contrast_weights,
    effective_contrasts,
    mean_effective_contrasts,
    view_temperatures,
)

E = np.e
OPEN = np.zeros((1, 2), dtype=bool)


def test_worked_example():
    """T = 0.5, cosines 1 and 0.5: exp(0) and exp(-1) = 0.36788, so 1 / 1.36788 and 0.36788 / 1.36788."""
    weights = contrast_weights(np.array([[1.0, 0.5]]), OPEN, 0.5)
    np.testing.assert_allclose(weights, [[1 / 1.3678794, 0.3678794 / 1.3678794]], atol=1e-7)
    assert weights.dtype == np.float32


def test_a_masked_cell_is_exactly_zero_and_the_others_share_the_row():
    mask = np.array([[False, True, False], [True, True, True]])
    weights = contrast_weights(np.array([[1.0, 0.9, 1.0], [1.0, 1.0, 1.0]]), mask, 0.5)
    assert weights.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_a_far_row_stays_finite_and_no_open_cell_is_zero():
    weights = contrast_weights(np.array([[1.0, -1.0], [-1.0, -1.0]]), np.zeros((2, 2), dtype=bool), 1e-3)
    np.testing.assert_allclose(weights, [[1.0, FLOOR], [0.5, 0.5]])


def test_refusals():
    with pytest.raises(ValueError, match="greater than 0 and finite, got 0"):
        contrast_weights(np.ones((1, 2)), OPEN, 0)
    with pytest.raises(ValueError, match="greater than 0 and finite, got nan"):
        contrast_weights(np.ones((2, 1, 2)), np.stack([OPEN, OPEN]), np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match=r"one for each of 2 groups, got \(3,\)"):
        contrast_weights(np.ones((2, 1, 2)), np.stack([OPEN, OPEN]), np.ones(3))
    with pytest.raises(ValueError, match=r"similarity\[0, 1\] is NaN"):
        contrast_weights(np.array([[1.0, np.nan]]), OPEN, 1.0)
    with pytest.raises(ValueError, match=r"similarity\[1, 0, 1\] is -inf"):
        contrast_weights(np.array([[[1.0, 0.0]], [[1.0, -np.inf]]]), np.stack([OPEN, OPEN]), 1.0)
    with pytest.raises(ValueError, match=r"got \(1, 3\) and \(1, 2\)"):
        contrast_weights(np.ones((1, 3)), OPEN, 1.0)
    with pytest.raises(ValueError, match="normalize must be one of row, sinkhorn, none, got 'column'"):
        contrast_weights(np.ones((1, 2)), OPEN, 1.0, "column")
    with pytest.raises(ValueError, match="scale must be one of row1, mean1, got 'max1'"):
        contrast_weights(np.ones((1, 2)), OPEN, 1.0, "row", "max1")
    with pytest.raises(ValueError, match="at least one"):
        view_temperatures([], 2)


def test_a_masked_similarity_may_be_missing():
    for missing in (np.nan, -np.inf):
        assert contrast_weights(np.array([[1.0, missing]]), np.array([[False, True]]), 1.0).tolist() == [[1.0, 0.0]]


NEAR_AND_FAR = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
NO_MASK = np.zeros((2, 3), dtype=bool)


def test_row_by_hand_two_against_three():
    """T = 1: k is 1 where near and 1/e where far, so a row sums to 1 + 2/e; mean1 multiplies by 3."""
    near, far = E / (E + 2), 1 / (E + 2)
    expected = np.array([[near, far, far], [far, far, near]])
    np.testing.assert_allclose(contrast_weights(NEAR_AND_FAR, NO_MASK, 1.0), expected, rtol=1e-6)
    np.testing.assert_allclose(contrast_weights(NEAR_AND_FAR, NO_MASK, 1.0, "row", "mean1"), 3 * expected, rtol=1e-6)


def test_sinkhorn_by_hand_two_against_three():
    """Columns sum to 2/3. Turning the matrix round changes nothing, so the middle column holds 1/3 twice, and the outer
    ones p and 2/3 - p. Scaling keeps the odds ratio, so (p / (2/3 - p))^2 = e^2: p = 2/3 e / (1 + e) = 0.48737.
    """
    p = 2 / 3 * E / (1 + E)
    expected = np.array([[p, 1 / 3, 2 / 3 - p], [2 / 3 - p, 1 / 3, p]])
    np.testing.assert_allclose(contrast_weights(NEAR_AND_FAR, NO_MASK, 1.0, "sinkhorn"), expected, rtol=1e-6)
    mean1 = contrast_weights(NEAR_AND_FAR, NO_MASK, 1.0, "sinkhorn", "mean1")
    np.testing.assert_allclose(mean1, 3 * expected, rtol=1e-6)


def test_sinkhorn_by_hand_two_against_two():
    """Loss 0 is near to both wins: row weights push it down with 1/2 + 0.88. Even, the matrix is [[p, 1 - p], [1 - p, p]].

    T = 0.5: k = [[1, e^-2], [1, 1]] has the odds ratio e^2 = (p / (1 - p))^2, so p = e / (1 + e) = 0.73106.
    """
    similarity, mask = np.array([[1.0, 0.0], [1.0, 1.0]]), np.zeros((2, 2), dtype=bool)
    np.testing.assert_allclose(contrast_weights(similarity, mask, 0.5)[:, 0].sum(), 1 / (1 + E**-2) + 0.5, rtol=1e-6)
    p = E / (1 + E)
    np.testing.assert_allclose(contrast_weights(similarity, mask, 0.5, "sinkhorn"), [[p, 1 - p], [1 - p, p]], rtol=1e-6)


def test_none_by_hand():
    """T = 1: 1 where near, 1/e where far; a group of 2 + 4/e over 6 cells has mean1 factor 6 / (2 + 4/e)."""
    expected = np.array([[1, 1 / E, 1 / E], [1 / E, 1 / E, 1]])
    np.testing.assert_allclose(contrast_weights(NEAR_AND_FAR, NO_MASK, 1.0, "none"), expected, rtol=1e-6)
    mean1 = contrast_weights(NEAR_AND_FAR, NO_MASK, 1.0, "none", "mean1")
    np.testing.assert_allclose(mean1, expected * 6 / (2 + 4 / E), rtol=1e-6)


def test_mean1_with_masks_by_hand():
    """Rows with 1 and 3 unmasked cells. Uniform similarity, so row weights are 1 and 1/3, and mean1 makes all of them 1.

    Sinkhorn is impossible: the one loss of win 0 would get 1 + x > 2/3. So it has row weights, scaled as row weights are.
    """
    mask = np.array([[False, True, True], [False, False, False]])
    row1 = [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]
    for normalize in ("row", "sinkhorn"):
        np.testing.assert_allclose(contrast_weights(np.zeros((2, 3)), mask, 1.0, normalize), row1, rtol=1e-6)
        np.testing.assert_allclose(contrast_weights(np.zeros((2, 3)), mask, 1.0, normalize, "mean1"), ~mask, rtol=1e-6)


def test_each_group_has_its_temperature():
    stack, masks = np.stack([NEAR_AND_FAR] * 2), np.stack([NO_MASK] * 2)
    weights = contrast_weights(stack, masks, np.array([0.25, 2.0]))
    for group, temperature in enumerate((0.25, 2.0)):
        np.testing.assert_array_equal(weights[group], contrast_weights(NEAR_AND_FAR, NO_MASK, temperature))


def test_temperatures_of_views():
    assert view_temperatures(0.5, 2) == [0.5, 0.5]
    assert view_temperatures([0.25, 0.5, 0.75], 2) == [0.25, 0.5]
    assert view_temperatures((0.25, 0.5), 5) == [0.25, 0.5, 0.25, 0.5, 0.25]


def test_groups_by_shape():
    assert [n.tolist() for n in by_shape(np.array([[3, 5], [8, 8], [3, 5], [3, 4]]))] == [[3], [0, 2], [1]]
    assert by_shape(np.zeros((0, 2), dtype=int)) == []


shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
cosines = st.floats(-1, 1, width=32)
groups = shapes.flatmap(lambda s: st.tuples(arrays(np.float32, s, elements=cosines), arrays(bool, s)))
batches = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda s: st.tuples(arrays(np.float32, s, elements=cosines), arrays(bool, s))
)
modes = st.sampled_from(["row", "sinkhorn", "none"])
scales = st.sampled_from(["row1", "mean1"])
temperatures = st.sampled_from([1e-3, 0.02, 0.25, 0.5, 1.0, 1e3])


@given(groups, st.floats(0.05, 5))
def test_equals_an_independent_version(cells, temperature):
    similarity, mask = cells
    weights = contrast_weights(similarity, mask, temperature)
    for i in range(similarity.shape[0]):
        powers = [
            0.0 if mask[i, j] else float(np.exp(-(1 - np.float64(similarity[i, j])) / temperature))
            for j in range(similarity.shape[1])
        ]
        expected = [power / sum(powers) if sum(powers) else 0.0 for power in powers]
        np.testing.assert_allclose(weights[i], expected, atol=1e-6)
    assert ((weights == 0) == mask).all()


@given(groups)
def test_sinkhorn_equals_alternating_scaling(cells):
    """Rows to 1, columns to M / N, and again, as in the literature; T = 1 keeps it quick."""
    similarity, mask = cells
    assume(scalable(mask[None])[0] and not mask.all())
    scaled = np.where(mask, 0.0, np.exp(similarity.astype(np.float64) - 1))
    rows, columns = (~mask).any(axis=1), (~mask).any(axis=0)
    scaled = scaled[rows][:, columns]
    for _ in range(3000):
        scaled *= rows.sum() / columns.sum() / scaled.sum(axis=0)
        scaled /= scaled.sum(axis=1, keepdims=True)
    found = contrast_weights(similarity, mask, 1.0, "sinkhorn")[rows][:, columns]
    np.testing.assert_allclose(found, scaled, atol=1e-4)


def even_weights_exist(mask):
    """By Hall's argument over all sets of wins: what they supply must fit into the losses they can reach, and fill these
    only where no other win needs them.
    """
    cells = ~mask[(~mask).any(axis=1)][:, (~mask).any(axis=0)]
    wins, losses = cells.shape
    for size in range(1, wins):
        for some in combinations(range(wins), size):
            reached = cells[list(some)].any(axis=0)
            others = np.delete(cells, some, axis=0)[:, reached].any()
            if losses * size > wins * reached.sum() or (losses * size == wins * reached.sum() and others):
                return False
    return True


@given(shapes.flatmap(lambda s: arrays(bool, s)))
def test_scalable_equals_halls_argument(mask):
    assert scalable(mask[None])[0] == even_weights_exist(mask)


def test_scalable_by_hand():
    """A triangle of cells has one even matrix, the identity: the cell beside it would be 0, but it is not masked."""
    triangle, identity, two_wins_one_loss = [[0, 1], [0, 0]], [[0, 1], [1, 0]], [[0, 1], [0, 1]]
    assert scalable(np.array([triangle, identity, two_wins_one_loss], dtype=bool)).tolist() == [False, True, True]
    assert scalable(np.ones((1, 2, 3), dtype=bool)).tolist() == [True]
    shared = np.array([[[0, 1, 1], [0, 1, 1], [0, 0, 0]]], dtype=bool)  # two of three wins have one loss, the same
    assert scalable(shared).tolist() == [False]


@given(batches, temperatures, modes, scales)
def test_masks_floor_and_sums(batch, temperature, normalize, scale):
    similarity, mask = batch
    weights = contrast_weights(similarity, mask, temperature, normalize, scale)
    assert ((weights == 0) == mask).all()
    assert (weights[~mask] >= FLOOR).all()
    open_rows, open_columns = (~mask).any(axis=2), (~mask).any(axis=1)
    if normalize == "none" and scale == "row1":
        assert (weights <= 1).all()
    elif scale == "mean1":
        np.testing.assert_allclose(weights.sum(axis=(1, 2)), (~mask).sum(axis=(1, 2)), rtol=1e-5)
    else:
        np.testing.assert_allclose(weights.sum(axis=2), open_rows, rtol=1e-5)
    if normalize == "sinkhorn":
        able = scalable(mask)
        total = weights.sum(axis=(1, 2)) / np.maximum(open_columns.sum(axis=1), 1)
        np.testing.assert_allclose(weights.sum(axis=1)[able], (open_columns * total[:, None])[able], rtol=1e-5)
        row = contrast_weights(similarity, mask, temperature, "row", scale)
        np.testing.assert_array_equal(weights[~able], row[~able])


@given(groups, temperatures, modes, scales, st.randoms(use_true_random=False))
def test_the_order_of_wins_and_losses_does_not_matter(cells, temperature, normalize, scale, random):
    similarity, mask = cells
    rows, columns = (random.sample(range(n), n) for n in mask.shape)
    weights = contrast_weights(similarity, mask, temperature, normalize, scale)
    moved = contrast_weights(similarity[rows][:, columns], mask[rows][:, columns], temperature, normalize, scale)
    np.testing.assert_allclose(moved, weights[rows][:, columns], rtol=1e-4, atol=1e-6)


@given(batches, temperatures, modes, scales)
def test_a_group_has_the_same_bits_in_any_company(batch, temperature, normalize, scale):
    similarity, mask = batch
    weights = contrast_weights(similarity, mask, temperature, normalize, scale)
    for group in range(len(mask)):
        alone = contrast_weights(similarity[group], mask[group], temperature, normalize, scale)
        np.testing.assert_array_equal(weights[group], alone)


def test_many_groups_are_worked_on_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    similarity, mask = rng.uniform(-1, 1, (50, 4, 3)), rng.random((50, 4, 3)) < 0.2
    whole = contrast_weights(similarity, mask, 0.5, "sinkhorn")
    monkeypatch.setattr(rpo_data.weights, "_BLOCK", 100)  # 8 groups
    np.testing.assert_array_equal(contrast_weights(similarity, mask, 0.5, "sinkhorn"), whole)


@given(groups, temperatures, modes, scales)
def test_padding_with_masked_cells_changes_nothing(cells, temperature, normalize, scale):
    similarity, mask = cells
    padded = np.pad(similarity, ((0, 2), (0, 3)), constant_values=np.nan)
    weights = contrast_weights(
        padded, np.pad(mask, ((0, 2), (0, 3)), constant_values=True), temperature, normalize, scale
    )
    expected = contrast_weights(similarity, mask, temperature, normalize, scale)
    np.testing.assert_allclose(weights[: len(mask), : mask.shape[1]], expected, rtol=1e-4, atol=1e-6)
    assert weights[len(mask) :].sum() == weights[:, mask.shape[1] :].sum() == 0


@given(groups, st.floats(-1, 1), st.floats(0.1, 2))
def test_a_constant_added_to_a_row_does_not_matter(cells, constant, temperature):
    similarity, mask = cells[0].astype(np.float64), cells[1]
    raised = similarity.copy()
    raised[0] += constant
    for normalize in ("row", "sinkhorn"):
        weights = contrast_weights(similarity, mask, temperature, normalize)
        np.testing.assert_allclose(contrast_weights(raised, mask, temperature, normalize), weights, atol=1e-6)


@given(arrays(np.float64, 4, elements=st.floats(-1, 1)), st.floats(0.02, 5))
def test_sinkhorn_is_row_where_row_is_even_already(ring, temperature):
    """Prompts on a ring, similarity by distance: every row holds the same numbers, and so does every column."""
    distance = np.abs(np.arange(7)[:, None] - np.arange(7)[None, :])
    similarity, mask = ring[np.minimum(distance, 7 - distance)], np.zeros((7, 7), dtype=bool)
    row = contrast_weights(similarity, mask, temperature)
    np.testing.assert_allclose(contrast_weights(similarity, mask, temperature, "sinkhorn"), row, rtol=1e-5, atol=1e-9)


@given(groups, st.sampled_from(["row", "sinkhorn"]))
def test_effective_contrasts_rise_with_the_temperature(cells, normalize):
    """Sinkhorn maximises a group's entropy at a price, so it is the mean entropy of its rows that rises."""
    similarity, mask = cells
    assume(not mask.all())
    means = []
    for temperature in (1e-3, 0.1, 0.25, 0.5, 1.0, 1e3):
        contrasts = effective_contrasts(contrast_weights(similarity, mask, temperature, normalize, "mean1"))
        means.append(np.log(contrasts[contrasts > 0]).mean())
    assert (np.diff(means) >= -1e-5).all()
    if normalize == "row":
        np.testing.assert_allclose(
            np.exp(means[-1]), np.exp(np.log((~mask).sum(axis=1)[~mask.all(axis=1)]).mean()), rtol=1e-3
        )


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("shape", [(8, 8), (3, 13), (13, 3), (1, 9), (9, 1), (40, 24)])
def test_sinkhorn_at_extreme_temperatures(shape, temperature):
    rng = np.random.default_rng(0)
    similarity = rng.uniform(-1, 1, (20, *shape))
    weights = contrast_weights(similarity, np.zeros(similarity.shape, dtype=bool), temperature, "sinkhorn")
    np.testing.assert_allclose(weights.sum(axis=2, dtype=np.float64), 1.0, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1, dtype=np.float64), shape[0] / shape[1], rtol=1e-6)
    if temperature > 1:
        np.testing.assert_allclose(weights, 1 / shape[1], rtol=0.01)


@pytest.mark.parametrize("temperature", [1e-3, 0.02, 0.5])
@pytest.mark.parametrize("shape", [(1, 7), (3, 5), (5, 3), (8, 8)])
def test_sinkhorn_of_many_groups_with_ties_and_masks(shape, temperature):
    """Cosines in steps of a half tie often, and a quarter of the cells is masked: the hardest for Newton's steps."""
    rng = np.random.default_rng(0)
    similarity, mask = np.round(2 * rng.uniform(-1, 1, (1500, *shape))) / 2, rng.random((1500, *shape)) < 0.25
    able, open_columns = scalable(mask), (~mask).any(axis=1)
    assert able.mean() > 0.8
    even = (~mask).any(axis=2).sum(axis=1) / np.maximum(open_columns.sum(axis=1), 1)
    sums = contrast_weights(similarity, mask, temperature, "sinkhorn").sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(sums[able], (open_columns * even[:, None])[able], rtol=1e-6)


@pytest.mark.parametrize("normalize", ["row", "sinkhorn", "none"])
@pytest.mark.parametrize("scale", ["row1", "mean1"])
def test_the_first_gradient_is_half_beta_a_cell_times_row_and_column_sums(normalize, scale):
    rng = np.random.default_rng(1)
    similarity, mask = rng.uniform(-0.5, 1, (5, 7)), rng.random((5, 7)) < 0.1
    weights = torch.tensor(contrast_weights(similarity, mask, 0.5, normalize, scale))
    wins, losses = torch.zeros(5, requires_grad=True), torch.zeros(7, requires_grad=True)
    rpo_loss(wins, losses, weights, 0.1).backward()
    factor = 0.1 / (2 * (~mask).sum())
    torch.testing.assert_close(wins.grad, -factor * weights.sum(dim=1))
    torch.testing.assert_close(losses.grad, factor * weights.sum(dim=0))
    assert -wins.grad.sum().item() > 0


def test_mean1_pulls_as_hard_as_dpo_and_row1_an_nth_of_it():
    """DPO of 8 pairs at beta 0.1 pulls each win up by 0.1 / (2 * 8) at the start."""
    for scale, share in (("row1", 1 / 8), ("mean1", 1)):
        for normalize in ("row", "sinkhorn"):
            weights = torch.tensor(contrast_weights(*group(0.6), 0.5, normalize, scale))
            wins = torch.zeros(8, requires_grad=True)
            rpo_loss(wins, torch.zeros(8), weights, 0.1).backward()
            torch.testing.assert_close(wins.grad, torch.full((8,), -share * 0.1 / 16), rtol=1e-5, atol=0)


def test_effective_contrasts_by_hand():
    """Shares 3/4 and 1/4: entropy 0.562335, exp of it 1.754765."""
    rows = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.75, 0.25, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(effective_contrasts(rows), [2.0, 1.0, 1.7547654, 0.0], atol=1e-6)


def group(off_diagonal, size=8):
    similarity = np.full((size, size), off_diagonal, dtype=np.float32)
    np.fill_diagonal(similarity, 1.0)
    return similarity, np.zeros((size, size), dtype=bool)


def test_diagonal_weight_of_eight_as_the_design_states_it():
    """exp(0) against seven of exp(-(1 - s) / 0.5): random prompts near cosine 0.08 give about 0.47, cosine 0.6 gives 0.24."""
    assert contrast_weights(*group(0.6), 0.5)[0, 0] == pytest.approx(1 / (1 + 7 * np.exp(-0.8)), abs=1e-6)
    assert contrast_weights(*group(0.6), 0.5)[0, 0] == pytest.approx(0.24, abs=0.005)


def test_calibration_in_closed_form():
    """A group at cosine s has the contrasts of one at cosine r and T = 0.5 when (1 - s) / T = (1 - r) / 0.5."""
    for normalize in ("row", "sinkhorn", "none"):
        temperature, warning, groups = calibrate_temperature([group(0.6)], [group(0.1)], normalize)
        assert temperature == pytest.approx(0.5 * (1 - 0.6) / (1 - 0.1), rel=1e-5)
        assert (warning, groups) == (None, 1)


def test_calibration_of_random_against_random_gives_the_papers_temperature():
    assert calibrate_temperature([group(0.1)], [group(0.1)]) == (0.5, None, 1)


@pytest.mark.parametrize("normalize", ["row", "sinkhorn", "none"])
@pytest.mark.parametrize("shape", [(8, 8), (3, 9), (9, 4)])
def test_calibration_hits_its_target_in_all_modes(shape, normalize):
    """Two shapes of groups, a twentieth of the cells masked; the target is the paper's whatever the mode."""
    rng = np.random.default_rng(0)

    def stacks(low, high, masked):
        sizes = ((30, *shape), (1, 5, 5))
        return [(rng.uniform(low, high, size).astype(np.float32), rng.random(size) < masked) for size in sizes]

    mined, random = stacks(0.2, 1, 0.05), stacks(-1, 1, 0.0)
    temperature, warning, groups = calibrate_temperature(mined, random, normalize)
    assert (warning, groups) == (None, 31)
    target = mean_effective_contrasts(random, 0.5)
    assert mean_effective_contrasts(mined, temperature, normalize) == pytest.approx(target, abs=1e-4)


def test_calibration_looks_at_a_sample_of_many_groups(monkeypatch):
    rng = np.random.default_rng(0)
    mined = [
        (rng.uniform(0.2, 1, (n, 4, size)), np.zeros((n, 4, size), dtype=bool)) for n, size in ((900, 4), (600, 5))
    ]
    random = [(rng.uniform(-1, 1, mask.shape), mask) for _, mask in mined]
    whole = calibrate_temperature(mined, random[::-1])
    monkeypatch.setattr(rpo_data.weights, "CALIBRATION_GROUPS", 500)
    sampled = calibrate_temperature(mined, random)
    assert (whole.groups, sampled.groups) == (1500, 500)
    assert sampled == calibrate_temperature(mined, random)
    assert sampled.temperature == pytest.approx(whole.temperature, rel=0.05)
    assert sampled.temperature != whole.temperature


def test_targets_out_of_reach_are_clamped_with_a_warning():
    identical = group(1.0)  # 8 effective contrasts at any temperature
    temperature, warning, _ = calibrate_temperature([identical], [group(0.1)])
    assert temperature == 0.001
    assert "need less than 0.001" in warning
    masked = (group(0.5)[0], ~np.eye(8, dtype=bool))  # one effective contrast at any temperature
    temperature, warning, _ = calibrate_temperature([masked], [group(0.1)])
    assert temperature == 1000.0
    assert "need more than 1000" in warning


def test_groups_of_one_need_no_temperature():
    assert calibrate_temperature([group(1.0, size=1)], [group(1.0, size=1)]) == (0.5, None, 1)
