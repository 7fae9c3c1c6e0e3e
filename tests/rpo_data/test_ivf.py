"""Inverted lists: what is found is exactly the nearest of the probed cells, with the same bits however it is computed."""

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rpo_data import ivf, nearest
from rpo_data.embed import unit_vectors
from rpo_data.ivf import Cells, make_cells, make_codes, search_cells, whole


def on_circle(*degrees):
    return unit_vectors(np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1))


def clustered(rows, dimension=16, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(max(rows // 25, 1), dimension))
    return unit_vectors(centers[rng.integers(len(centers), size=rows)] + 0.7 * rng.normal(size=(rows, dimension)))


def order_by_cosine(query, vectors):
    """Numbers of the vectors, nearest first, ties by number: plain NumPy."""
    cosine = (vectors.astype(np.float64) @ query.astype(np.float64)).clip(-1, 1).astype(np.float32)
    return np.lexsort((np.arange(len(vectors)), -cosine))


def oracle(vectors, cells, queries, k, probes):
    answer = []
    for query in queries:
        number = probes
        while True:
            probed = order_by_cosine(vectors[query], cells.centers)[:number]
            rows = np.sort(np.concatenate([cells.of(cell) for cell in probed]))
            rows = rows[rows != query]
            if len(rows) >= k:
                break
            number = min(4 * number, cells.count)
        answer.append(rows[order_by_cosine(vectors[query], vectors[rows])[:k]])
    return np.array(answer).reshape(len(queries), k)


def test_worked_example():
    """Cells around 0 and 90 degrees; the row at 50 lies in the second, and its nearest row, at 40, in the first."""
    vectors = on_circle(0, 40, 50, 80, 90)
    cells = Cells(on_circle(0, 90), np.arange(5), np.array([0, 2, 5]))
    neighbors, similarity = search_cells(vectors, cells, np.array([2, 1]), 1, 1)
    assert neighbors.tolist() == [[3], [0]]
    np.testing.assert_allclose(similarity[:, 0], np.cos(np.radians([30, 40])), atol=1e-6)
    neighbors, _ = search_cells(vectors, cells, np.array([2, 1]), 1, 2)
    assert neighbors.tolist() == [[1], [2]]


def test_more_cells_are_probed_where_these_hold_too_few_rows():
    vectors = on_circle(0, 60, 70, 80)
    cells = Cells(on_circle(0, 70), np.arange(4), np.array([0, 1, 4]))
    neighbors, _ = search_cells(vectors, cells, np.array([0, 3]), 2, 1)
    assert neighbors.tolist() == [[1, 2], [2, 1]]


def test_cells_that_tie_are_probed_by_number():
    """A row of equal numbers has the same cosine with a centre however its numbers are shuffled; float32 sums do not."""
    rng = np.random.default_rng(0)
    centre = unit_vectors(1 + rng.normal(size=(1, 384)))[0]
    centers = np.stack([rng.permutation(centre) for _ in range(40)])
    vectors = np.concatenate([unit_vectors(np.ones((30, 384))), centers])
    cells = Cells(centers, np.arange(30, 70), np.arange(41))
    neighbors, _ = search_cells(vectors, cells, np.arange(30), 5, 5)
    assert (np.sort(neighbors, axis=1) == np.arange(30, 35)).all()


@given(
    arrays(np.int8, st.tuples(st.integers(3, 60), st.just(3)), elements=st.integers(-1, 1)),
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_equals_a_plain_search_of_the_probed_cells(small, k, count, probes):
    """Few distinct directions: rows tie with rows, and cells with cells."""
    vectors = unit_vectors(small + np.array([1.5, 0.0, 0.0]))
    rows = np.arange(len(vectors))
    cells = make_cells(vectors, rows, min(count, len(rows)), 0)
    k, probes = min(k, len(rows) - 1), min(probes, cells.count)
    neighbors, _ = search_cells(vectors, cells, rows, k, probes)
    np.testing.assert_array_equal(neighbors, oracle(vectors, cells, rows, k, probes))


@given(
    arrays(np.int8, st.tuples(st.integers(2, 60), st.just(3)), elements=st.integers(-1, 1)),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_each_row_is_in_its_nearest_cell(small, count, seed):
    vectors = unit_vectors(small + np.array([1.5, 0.0, 0.0]))
    rows = np.flatnonzero(np.arange(len(vectors)) % 3 != 1)
    cells = make_cells(vectors, rows, min(count, len(rows)), seed)
    assert sorted(cells.members.tolist()) == rows.tolist()
    np.testing.assert_allclose(np.linalg.norm(cells.centers, axis=1), 1, atol=1e-6)
    cell = cells.cell_of(len(vectors))
    assert (cell[np.arange(len(vectors)) % 3 == 1] == -1).all()
    for row in rows:
        assert cell[row] == order_by_cosine(vectors[row], cells.centers)[0]


def test_centers_are_unit_means_of_their_rows():
    """Two pairs of rows, 10 degrees apart: the means lie between them, at 5 and 95 degrees, whatever the start."""
    vectors = on_circle(0, 10, 90, 100)
    for seed in range(6):
        centers = make_cells(vectors, np.arange(4), 2, seed).centers
        degrees = np.degrees(np.arctan2(centers[:, 1], centers[:, 0]))
        np.testing.assert_allclose(sorted(degrees), [5, 95], atol=1e-4)


@pytest.mark.parametrize("storage", ["SQ8", "PQ4"])
def test_what_codes_find_is_scored_by_the_vectors(storage):
    """With every row fetched the codes decide nothing; with few, similarity is still that of the vectors."""
    vectors = clustered(1500)
    cells = make_cells(vectors, np.arange(1500), 20, 0)
    codes = make_codes(vectors, cells, storage, 0)
    queries = np.arange(0, 1500, 7)
    exact = search_cells(vectors, cells, queries, 5, 20)
    found = search_cells(vectors, cells, queries, 5, 20, codes=codes, fetch=1500)
    np.testing.assert_array_equal(found[0], exact[0])
    neighbors, similarity = search_cells(vectors, cells, queries, 5, 20, codes=codes, fetch=12)
    cosine = np.einsum("qd,qkd->qk", vectors[queries].astype(np.float64), vectors[neighbors].astype(np.float64))
    np.testing.assert_allclose(similarity, cosine, atol=1e-7)
    hits = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(neighbors.tolist(), exact[0].tolist(), strict=True)])
    assert 0.5 < hits <= 1
    assert storage == "SQ8" or hits < 1


@pytest.mark.parametrize("storage", ["Flat", "SQ8", "PQ4"])
def test_threads_and_batches_change_no_bit(storage, monkeypatch):
    vectors = clustered(3000, 64)
    vectors[100:140] = vectors[99]  # ties, more than are fetched at first
    threads = faiss.omp_get_max_threads()
    results = []
    for number, batch, probes, block in (
        (1, 16384, 1 << 22, 4096),
        (2, 16384, 1 << 22, 4096),
        (2, 97, 1 << 22, 33),
        (1, 500, 70, 4096),
    ):
        faiss.omp_set_num_threads(number)
        monkeypatch.setattr(ivf, "_BATCH", batch)
        monkeypatch.setattr(ivf, "_PROBES", probes)
        monkeypatch.setattr(nearest, "_BLOCK", block)
        cells = make_cells(vectors, np.arange(3000), 40, 0)
        codes = make_codes(vectors, cells, storage, 0)
        found = search_cells(vectors, cells, np.arange(3000), 8, 5, codes=codes, fetch=20)
        results.append([array.tobytes() for array in (cells.centers, cells.members, cells.limits, *found)])
    faiss.omp_set_num_threads(threads)
    assert all(result == results[0] for result in results[1:])


def test_a_memory_mapped_file_gives_the_same_bits(tmp_path):
    vectors = clustered(2000)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    results = []
    for given_vectors in (vectors, mapped):
        cells = make_cells(given_vectors, np.arange(2000), 30, 0)
        results.append(search_cells(given_vectors, cells, np.arange(2000), 6, 4))
    assert results[0][0].tobytes() == results[1][0].tobytes()
    assert results[0][1].tobytes() == results[1][1].tobytes()


def test_the_whole_is_the_exact_search(monkeypatch):
    monkeypatch.setattr(ivf, "_READ", 70)
    vectors = clustered(300)
    rows = np.arange(0, 300, 2)
    everything = whole(vectors, rows)
    assert everything.count == 3
    neighbors, _ = search_cells(vectors, everything, rows, 6, 3)
    for row, found in zip(rows, neighbors, strict=True):
        others = rows[rows != row]
        assert found.tolist() == others[order_by_cosine(vectors[row], vectors[others])[:6]].tolist()
