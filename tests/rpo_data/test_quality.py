import numpy as np
import pytest

from rpo_data.quality import nearest_similarity


def test_nearest_rows_by_hand():
    """Prompt 0 has two rows: each has its twin (1.0), then prompt 1 (0.8). Prompt 1 has one row: twice prompt 0 (0.8, 0.8).

    Three rows, two others each: (1.0 + 0.8) + (1.0 + 0.8) + (0.8 + 0.8) = 5.2 over 6.
    """
    neighbors, similarity = np.array([[1], [0]]), np.array([[0.8], [0.8]], dtype=np.float32)
    assert nearest_similarity(np.array([0, 0, 1]), neighbors, similarity, 2) == pytest.approx(5.2 / 6)


def test_rows_without_neighbors_give_none():
    assert nearest_similarity(np.array([0]), np.array([[-1]]), np.array([[-np.inf]]), 3) is None
