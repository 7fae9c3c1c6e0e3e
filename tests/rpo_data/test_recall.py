"""Recall and its interval, by hand; rows tuned on are never measured, hubs and isolated rows are."""

import numpy as np
import pytest

from rpo_data.recall import draw_measured, draw_tuning, is_sure, row_recall, stratified


def test_a_tie_at_the_last_place_counts_as_right():
    exact = np.array([[0.9, 0.8, 0.8], [0.9, 0.8, 0.7]], dtype=np.float32)
    found = np.array([[0.9, 0.8, 0.8], [0.9, 0.6, -np.inf]], dtype=np.float32)
    np.testing.assert_allclose(row_recall(found, exact), [1, 1 / 3])


def test_rows_of_all_or_nothing_give_wilsons_interval():
    """8 of 10: variance 0.16 / 10, so the effective size is 10; Wilson's interval for 8 of 10 is 0.4902 to 0.9433."""
    recall, interval = stratified([np.array([1.0] * 8 + [0.0] * 2)], [1000])
    assert recall == pytest.approx(0.8)
    np.testing.assert_allclose(interval, [0.4902, 0.9433], atol=5e-5)


def test_no_miss_seen_is_no_proof():
    """All of 100 rows found: the lower end is n / (n + z²) = 100 / 103.8415."""
    recall, (low, high) = stratified([np.ones(60), np.ones(40)], [900, 100])
    assert recall == high == 1
    assert low == pytest.approx(100 / 103.8415, abs=1e-6)


def test_kinds_count_by_the_rows_they_stand_for():
    """0.5 for 1 row in 10 and 1 for 9 in 10 is 0.95, though half of the drawn rows are of the first kind."""
    recall, (low, high) = stratified([np.array([0.0, 1.0] * 50), np.ones(100)], [100, 900])
    assert recall == pytest.approx(0.95)
    assert low < 0.95 < high
    _, (wider, _) = stratified([np.array([0.0, 1.0] * 5), np.ones(10)], [100, 900])
    assert wider < low


def test_neighbors_missed_together_widen_the_interval():
    apart = stratified([np.array([0.9] * 50 + [0.8] * 50)], [1000])
    together = stratified([np.array([1.0] * 85 + [0.0] * 15)], [1000])
    assert apart[0] == pytest.approx(together[0])
    assert together[1][0] < apart[1][0] < apart[1][1] < together[1][1]


def test_sure_is_two_standard_errors_above():
    """Mean 0.9, deviation 0.3, 100 rows: one standard error is 0.03, so 0.84 is shown and 0.841 is not."""
    recall = np.array([1.0] * 90 + [0.0] * 10)
    assert is_sure(recall, 0.8399)
    assert not is_sure(recall, 0.8401)
    assert is_sure(np.ones(5), 1.0)


def test_hubs_and_isolated_rows_are_measured_and_tuned_rows_never():
    """Row 7 stands in every list, row 9 is far from all: each is the 1 % of its kind among 200 rows."""
    rows = np.arange(200)
    neighbors = np.stack([np.where(rows == 7, 8, 7), (rows + 1) % 200], axis=1)
    similarity = np.full((200, 2), 0.5, dtype=np.float32)
    similarity[9] = -0.5
    for seed in range(20):
        tuning = draw_tuning(rows, seed)
        strata = draw_measured(rows, tuning, neighbors, similarity, seed)
        drawn = np.concatenate(list(strata.rows.values()))
        assert len(tuning) == 100
        assert sorted([*drawn, *tuning]) == rows.tolist()
        assert sum(strata.stand_for.values()) == 100
        assert (7 in tuning) or strata.rows["hubs"].tolist() == [7]
        assert (9 in tuning) or strata.rows["isolated"].tolist() == [9]
    assert (draw_tuning(rows, 1) != draw_tuning(rows, 2)).any()
