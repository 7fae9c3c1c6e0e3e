"""Neighbours equal a NumPy brute force, with the same bits for any threads, batches and ties."""

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rpo_data import ivf, nearest
from rpo_data.embed import unit_vectors
from rpo_data.neighbors import exact_neighbors, near_duplicates, neighbors_within


def random_vectors(rows, dimension=24, seed=0):
    return unit_vectors(np.random.default_rng(seed).normal(size=(rows, dimension)))


def brute_force(vectors, k):
    cosines = (vectors.astype(np.float64) @ vectors.astype(np.float64).T).clip(-1, 1).astype(np.float32)
    np.fill_diagonal(cosines, -np.inf)
    order = np.lexsort((np.broadcast_to(np.arange(len(vectors)), cosines.shape), -cosines), axis=1)[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


def test_worked_example():
    """Angles 0, 10, 30 and 100 degrees: cosines of the differences."""
    angles = np.radians([0, 10, 30, 100])
    vectors = unit_vectors(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    neighbors, similarity = exact_neighbors(vectors, 2)
    assert neighbors.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    np.testing.assert_allclose(similarity[0], np.cos(np.radians([10, 30])), atol=1e-6)


def test_equals_brute_force():
    vectors = random_vectors(700)
    neighbors, similarity = exact_neighbors(vectors, 10)
    expected, cosines = brute_force(vectors, 10)
    np.testing.assert_array_equal(neighbors, expected)
    np.testing.assert_allclose(similarity, cosines, atol=1e-7)


@given(arrays(np.int8, st.tuples(st.integers(2, 40), st.just(3)), elements=st.integers(-1, 1)), st.integers(1, 12))
def test_equals_brute_force_where_many_are_equal(small, k):
    """Few distinct directions: most cosines tie, and the lower row number must win every time."""
    vectors = unit_vectors(small + np.array([2.0, 0.0, 0.0]))
    neighbors, _ = exact_neighbors(vectors, k)
    np.testing.assert_array_equal(neighbors, brute_force(vectors, min(k, len(vectors) - 1))[0])


def test_more_equal_vectors_than_are_fetched_at_first():
    vectors = np.repeat(random_vectors(3), 60, axis=0)
    neighbors, similarity = exact_neighbors(vectors, 5)
    assert neighbors[0].tolist() == [1, 2, 3, 4, 5]
    assert neighbors[59].tolist() == [0, 1, 2, 3, 4]
    assert (similarity == 1).all() or (similarity > 0.9999999).all()


def test_threads_and_batches_change_no_bit(monkeypatch):
    vectors = random_vectors(1500, 384)
    threads = faiss.omp_get_max_threads()
    results = []
    for number, block in ((1, 4096), (2, 4096), (2, 7), (1, 100)):
        faiss.omp_set_num_threads(number)
        monkeypatch.setattr(nearest, "_BLOCK", block)
        monkeypatch.setattr(ivf, "_BATCH", block)
        results.append(exact_neighbors(vectors, 8))
    faiss.omp_set_num_threads(threads)
    for neighbors, similarity in results[1:]:
        assert neighbors.tobytes() == results[0][0].tobytes()
        assert similarity.tobytes() == results[0][1].tobytes()


def test_no_neighbor_crosses_blocks_and_small_blocks_are_padded():
    vectors = random_vectors(50)
    block = np.array([0] * 47 + [1] * 2 + [2])
    neighbors, similarity = neighbors_within(vectors, block, 4)
    for row, found in enumerate(neighbors):
        assert {block[other] for other in found if other >= 0} <= {block[row]}
        assert row not in found
    assert neighbors[47].tolist() == [48, -1, -1, -1]
    assert neighbors[49].tolist() == [-1] * 4
    assert similarity[49].tolist() == [-np.inf] * 4
    inside, _ = exact_neighbors(vectors[:47], 4)
    np.testing.assert_array_equal(neighbors[:47], inside)


def test_near_duplicates_are_found_beyond_full_lists():
    """Two rows at cosine 0.966 whose lists of 3 are full of nearer ones, on the far side of each other."""
    degrees = [0, -1, -2, -3, -4, 15, 16, 17, 18, 19, 90]
    vectors = unit_vectors(np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1))
    neighbors, similarity = exact_neighbors(vectors, 3)
    assert 5 not in neighbors[0]
    starts, ends = near_duplicates(vectors, neighbors, similarity, 0.95)
    cosine = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(cosine, 0)
    found = {frozenset(edge) for edge in zip(starts.tolist(), ends.tolist(), strict=True)}
    assert found == {frozenset(edge) for edge in np.argwhere(cosine >= 0.95).tolist()}


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tiny_inputs(rows):
    neighbors, similarity = exact_neighbors(random_vectors(rows), 5)
    assert neighbors.shape == similarity.shape == (rows, max(min(5, rows - 1), 0))
