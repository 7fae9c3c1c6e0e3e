"""Weights against numbers worked out by hand and an independent NumPy version."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rpo_data.weights import (
    FLOOR,
    calibrate_temperature,
    contrast_weights,
    effective_contrasts,
    mean_effective_contrasts,
)

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
    with pytest.raises(ValueError, match="greater than 0, got 0"):
        contrast_weights(np.ones((1, 2)), OPEN, 0)
    with pytest.raises(ValueError, match=r"similarity\[0, 1\] is NaN"):
        contrast_weights(np.array([[1.0, np.nan]]), OPEN, 1.0)
    assert contrast_weights(np.array([[1.0, np.nan]]), np.array([[False, True]]), 1.0).tolist() == [[1.0, 0.0]]


shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
cosines = st.floats(-1, 1, width=32)


@given(
    shapes.flatmap(lambda s: st.tuples(arrays(np.float32, s, elements=cosines), arrays(bool, s))), st.floats(0.05, 5)
)
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
    temperature, warning = calibrate_temperature([group(0.6)], [group(0.1)])
    assert temperature == pytest.approx(0.5 * (1 - 0.6) / (1 - 0.1), rel=1e-5)
    assert warning is None


def test_calibration_of_random_against_random_gives_the_papers_temperature():
    assert calibrate_temperature([group(0.1)], [group(0.1)]) == (0.5, None)


def test_calibration_hits_its_target_on_uneven_groups():
    rng = np.random.default_rng(0)
    mined = [(rng.uniform(0.2, 1, (n, n)).astype(np.float32), rng.random((n, n)) < 0.1) for n in (8, 8, 5)]
    random = [(rng.uniform(-0.1, 0.3, (n, n)).astype(np.float32), np.zeros((n, n), bool)) for n in (8, 8, 5)]
    for similarity, mask in mined + random:
        np.fill_diagonal(similarity, 1.0)
        np.fill_diagonal(mask, False)
    temperature, warning = calibrate_temperature(mined, random)
    assert warning is None
    target = mean_effective_contrasts(random, 0.5)
    assert mean_effective_contrasts(mined, temperature) == pytest.approx(target, abs=1e-4)


def test_targets_out_of_reach_are_clamped_with_a_warning():
    identical = group(1.0)  # 8 effective contrasts at any temperature
    temperature, warning = calibrate_temperature([identical], [group(0.1)])
    assert temperature == 0.001
    assert "need less than 0.001" in warning
    masked = (group(0.5)[0], ~np.eye(8, dtype=bool))  # one effective contrast at any temperature
    temperature, warning = calibrate_temperature([masked], [group(0.1)])
    assert temperature == 1000.0
    assert "need more than 1000" in warning


def test_groups_of_one_need_no_temperature():
    assert calibrate_temperature([group(1.0, size=1)], [group(1.0, size=1)]) == (0.5, None)
