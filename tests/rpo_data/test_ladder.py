"""A block gets its index by size; a search is tuned, measured and resumed, and its bytes depend on none of this."""

import os
import subprocess
import sys

import faiss
import numpy as np
import pytest

from rpo_data import ivf, ladder
from rpo_data.embed import unit_vectors
from rpo_data.errors import RecipeError
from rpo_data.ladder import choose_index
from rpo_data.neighbors import exact_neighbors, search_within

ROWS = 4000


def clustered(rows=ROWS, dimension=16, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(rows // 25, dimension))
    return unit_vectors(centers[rng.integers(len(centers), size=rows)] + 0.7 * rng.normal(size=(rows, dimension)))


@pytest.fixture(scope="module")
def vectors():
    return clustered()


@pytest.fixture(scope="module")
def exact(vectors):
    return exact_neighbors(vectors, 8)


def search(vectors, index="IVF80,Flat", k=8, **options):
    return search_within(vectors, np.zeros(len(vectors), dtype=np.int64), k, index=index, **options)


def as_bytes(found):
    return found.neighbors.tobytes(), found.similarity.tobytes(), found.searches


def true_recall(found, exact):
    return (found.similarity >= exact[1][:, -1:]).mean()


@pytest.mark.parametrize(
    ("rows", "index", "memory", "chosen"),
    [
        (50_000, "auto", 1 << 40, "Flat"),
        (1_000_000, "auto", 4 * 384_000_000, "IVF2000,Flat"),
        (1_000_000, "auto", 4 * 384_000_000 - 1, "IVF2000,SQ8"),
        (1_000_000, "auto", 384_000_000 - 1, "IVF2000,PQ48"),
        (1_000_000, "Flat", 0, "Flat"),
        (3200, "IVF1024,SQ8", 0, "IVF100,SQ8"),
        (1023, "IVF1024,SQ8", 0, "Flat"),
        (3200, "HNSW32", 0, "HNSW32"),
    ],
)
def test_ladder(rows, index, memory, chosen):
    assert choose_index(rows, 384, index, memory) == chosen


def test_auto_is_exact_for_few_rows_and_measured_for_many(vectors, exact, monkeypatch):
    found = search(vectors, "auto")
    np.testing.assert_array_equal(found.neighbors, exact[0])
    assert found.searches[0].exact
    assert found.searches[0].sample == 0
    monkeypatch.setattr(ladder, "EXACT_ROWS", 2000)
    info = search(vectors, "auto").searches[0]
    assert info.index == "IVF126,Flat"
    assert info.nlist == 126
    assert info.sample > 1000
    assert not info.exact


@pytest.mark.parametrize("index", ["IVF80,Flat", "IVF80,SQ8", "IVF80,PQ4", "HNSW16", "IVF40_HNSW8,Flat"])
def test_recall_is_reached_and_measured(vectors, exact, index):
    found = search(vectors, index)
    info = found.searches[0]
    truth = true_recall(found, exact)
    assert truth >= 0.94
    assert info.recall >= 0.95
    assert info.interval[0] <= info.recall <= info.interval[1]
    assert abs(info.recall - truth) < 0.02
    assert info.index == index
    assert info.k == 8
    assert not info.exact
    for row in range(0, ROWS, 97):
        assert row not in found.neighbors[row]
    cosine = np.einsum("qd,qkd->qk", vectors.astype(np.float64), vectors[found.neighbors].astype(np.float64))
    np.testing.assert_allclose(found.similarity, cosine, atol=1e-7)


def test_hard_rows_are_reported_apart(vectors):
    info = search(vectors, min_recall=0.9).searches[0]
    assert info.nprobe < info.nlist
    assert info.recall_isolated < info.recall < info.recall_hubs


def test_the_interval_holds_the_true_recall(vectors, exact):
    """Nine of ten seeds at least, of a 95 % interval."""
    inside = 0
    for seed in range(10):
        found = search(vectors, min_recall=0.9, seed=seed)
        low, high = found.searches[0].interval
        inside += low <= true_recall(found, exact) <= high
    assert inside >= 9


def test_a_higher_demand_looks_further_and_all_of_it_is_exact(vectors, exact):
    less, more, most = (search(vectors, min_recall=share) for share in (0.8, 0.97, 1.0))
    assert less.searches[0].nprobe < more.searches[0].nprobe < most.searches[0].nprobe
    assert true_recall(less, exact) < true_recall(more, exact) <= true_recall(most, exact)
    all_cells = search(vectors, "IVF2,Flat", min_recall=1.0)
    assert all_cells.searches[0].exact
    np.testing.assert_array_equal(all_cells.neighbors, exact[0])


def test_a_search_below_the_demand_runs_again_and_looks_further(vectors, exact, monkeypatch):
    monkeypatch.setattr(ladder, "_first_probes", lambda *_: 1)
    monkeypatch.setattr(ladder, "is_sure", lambda *_: True)
    found = search(vectors)
    assert found.searches[0].nprobe > 1
    assert found.searches[0].recall >= 0.95
    assert true_recall(found, exact) >= 0.93


@pytest.mark.parametrize("index", ["Flat", "IVF80,Flat", "IVF80,SQ8"])
def test_threads_batches_and_parts_change_no_byte(vectors, index, monkeypatch):
    threads = faiss.omp_get_max_threads()
    results = []
    for number, batch, part in ((1, 16384, 65536), (2, 16384, 65536), (2, 77, 65536), (2, 16384, 900)):
        faiss.omp_set_num_threads(number)
        monkeypatch.setattr(ivf, "_BATCH", batch)
        monkeypatch.setattr(ladder, "_PART", part)
        results.append(as_bytes(search(vectors, index)))
    faiss.omp_set_num_threads(threads)
    assert all(result == results[0] for result in results[1:])


KILLED = """
import os, signal, sys
from pathlib import Path
import faiss, numpy as np
from rpo_data import ladder
from rpo_data.neighbors import search_within
faiss.omp_set_num_threads(1)
ladder._PART = 700
vectors = np.load(sys.argv[1])
def kill(done, total):
    if done >= 1400:
        os.kill(os.getpid(), signal.SIGKILL)
search_within(vectors, np.zeros(len(vectors), dtype=np.int64), 8, index=sys.argv[3], folder=Path(sys.argv[2]), progress=kill)
"""


@pytest.mark.parametrize("index", ["Flat", "IVF80,Flat"])
def test_a_killed_search_goes_on_and_gives_the_same_bytes(vectors, index, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "_PART", 700)
    np.save(tmp_path / "vectors.npy", vectors)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "vectors.npy"), str(tmp_path / "parts"), index]
    assert subprocess.run(command, check=False, env=os.environ, timeout=120).returncode == -9
    searched = []
    real = ladder.search_cells
    monkeypatch.setattr(ladder, "search_cells", lambda *a, **k: searched.extend(a[2].tolist()) or real(*a, **k))
    resumed = search(vectors, index, folder=tmp_path / "parts")
    assert ROWS - 1400 <= len(searched) < ROWS + 2000  # the rest, and the rows that are measured
    monkeypatch.undo()
    assert as_bytes(resumed) == as_bytes(search(vectors, index))


def test_parts_are_taken_from_the_folder_and_torn_ones_are_not(vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "_PART", 1000)
    whole = as_bytes(search(vectors, folder=tmp_path))
    parts = sorted(tmp_path.rglob("*-*-*-*.npz"))
    assert len(parts) == 4
    parts[0].write_bytes(parts[0].read_bytes()[:1000])
    parts[1].write_bytes(b"")
    assert as_bytes(search(vectors, folder=tmp_path)) == whole
    with np.load(parts[2]) as stored:
        neighbors, similarity = stored["arr_0"], stored["arr_1"]
    np.savez(parts[2], neighbors[::-1], similarity)
    assert as_bytes(search(vectors, folder=tmp_path))[0] != whole[0]


def test_parts_of_other_vectors_are_not_taken(vectors, tmp_path):
    search(vectors, folder=tmp_path)
    other = vectors[::-1].copy()
    assert as_bytes(search(other, folder=tmp_path)) == as_bytes(search(other))


def test_blocks_keep_to_themselves(vectors):
    block = np.where(np.arange(ROWS) % 5 == 0, 7, 2)
    found = search_within(vectors, block, 8, index="IVF80,Flat")
    assert (block[found.neighbors] == block[:, None]).all()
    assert found.searches[2].rows == 3200
    assert found.searches[2].nlist == 80
    assert found.searches[7].exact
    assert found.searches[7].rows == 800
    rows = np.flatnonzero(block == 2)
    alone = search(np.ascontiguousarray(vectors[rows]))
    np.testing.assert_array_equal(rows[alone.neighbors], found.neighbors[rows])
    assert alone.searches[0] == found.searches[2]


@pytest.mark.parametrize("index", ["Flat", "IVF80,Flat", "IVF80,SQ8"])
def test_rows_without_a_direction_are_in_nobodys_way(vectors, exact, index):
    """A row that is not a number has no neighbours and is none; a zero row is as far from all."""
    broken = np.concatenate([vectors, np.full((3, 16), np.nan, dtype=np.float32), np.zeros((3, 16), dtype=np.float32)])
    found = search(broken, index, min_recall=0.97)
    assert (found.neighbors[ROWS : ROWS + 3] == -1).all()
    assert (found.similarity[ROWS : ROWS + 3] == -np.inf).all()
    assert not np.isin(found.neighbors, np.arange(ROWS, ROWS + 3)).any()
    assert (found.similarity[ROWS + 3 :] == 0).all()
    assert (found.similarity[:ROWS] >= exact[1][:, -1:]).mean() > 0.96


def test_progress_counts_the_rows(vectors, monkeypatch):
    monkeypatch.setattr(ladder, "_PART", 1500)
    seen = []
    search(vectors, "Flat", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1500, 4000), (3000, 4000), (4000, 4000)]


@pytest.mark.parametrize("index", ["IVF80", "nonsense", "IVF80,PQ7"])
def test_an_index_faiss_cannot_build_is_refused(vectors, index):
    with pytest.raises(RecipeError, match=f"index '{index}' is no FAISS factory string for vectors of 16 numbers"):
        search(vectors, index)


def test_what_is_returned_is_plain_data(vectors):
    info = search(vectors).searches[0]
    assert info.model_dump()["index"] == "IVF80,Flat"
    assert {type(value) for value in info.model_dump().values()} == {str, int, bool, float, tuple}
