"""Neighbour search: rpo_data.neighbors against exact FAISS, which is measured on a slice of the rows and extrapolated.

    python benchmarks/neighbors.py [--rows 1000000] [--k 32] [--index auto] [--min-recall 0.95]

The vectors are clustered: 50 rows a cluster on average (so 20,000 clusters in a million rows), sizes log-normal, 40
clusters a topic. A cosine inside a cluster is about 0.37 and between clusters of one topic about 0.19, so that most true
neighbours lie in the cluster, but small clusters find theirs in others. Each search runs in a process of its own. Exact FAISS
is timed before and after ours, with its own threads and with one FAISS thread in each of as many Python threads (quicker
where the machine is shared), and the quickest of the four counts. Recall is computed here, from FAISS's answers.
"""

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 384
ROWS_A_CLUSTER, CLUSTERS_A_TOPIC = 50, 40
SPREAD = 1.3
"""Length of the noise added to a unit cluster centre."""
SLICE = 2048
"""Rows that exact FAISS answers."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_vectors(path: Path, rows: int, seed: int = 0) -> None:
    """Write clustered unit vectors, shape (rows, 384), float32, and the cluster of each row beside them."""
    rng = np.random.default_rng(seed)
    clusters = max(rows // ROWS_A_CLUSTER, 1)
    topics = unit(rng.standard_normal((max(clusters // CLUSTERS_A_TOPIC, 1), DIMENSION), dtype=np.float32))
    centers = topics[rng.integers(len(topics), size=clusters)]
    centers = unit(centers + unit(rng.standard_normal((clusters, DIMENSION), dtype=np.float32)))
    share = rng.lognormal(0, 0.7, clusters)
    cluster = rng.choice(clusters, rows, p=share / share.sum())
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, DIMENSION))
    for start in range(0, rows, 65536):
        part = cluster[start : start + 65536]
        noise = unit(rng.standard_normal((len(part), DIMENSION), dtype=np.float32))
        vectors[start : start + 65536] = unit(centers[part] + SPREAD * noise)
    vectors.flush()
    np.save(path.with_suffix(".cluster.npy"), cluster)


def peak_memory() -> int:
    """VmHWM of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def ours(path: Path, sample: np.ndarray, k: int, index: str, min_recall: float) -> dict[str, Any]:
    """Search all rows; what was found for the sample is handed back."""
    from rpo_data.neighbors import search_within

    vectors = np.load(path)
    search_within(vectors[:2000].copy(), np.zeros(2000, dtype=np.int64), k)  # compiled before the clock starts
    began = time.perf_counter()
    found = search_within(
        vectors, np.zeros(len(vectors), dtype=np.int64), k, index=index, min_recall=min_recall, progress=report(began)
    )
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak": peak_memory(), "found": found.neighbors[sample], "info": found.searches[0]}


def report(began: float) -> Any:
    """A line for each finished part."""
    return lambda done, total: print(f"  {done:,} of {total:,} rows, {time.perf_counter() - began:.0f} s", flush=True)


def exact(path: Path, sample: np.ndarray, k: int) -> dict[str, Any]:
    """FAISS's exact answer for the sample, the row itself left out, and the quicker of two ways to get it."""
    import faiss

    vectors = np.load(path)
    queries = vectors[sample]
    search = partial(faiss.knn, xb=vectors, k=k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    began = time.perf_counter()
    _, found = search(queries)
    seconds = {"own threads": time.perf_counter() - began}
    threads = faiss.omp_get_max_threads()
    with ThreadPoolExecutor(threads, initializer=partial(faiss.omp_set_num_threads, 1)) as pool:
        began = time.perf_counter()
        list(pool.map(search, np.array_split(queries, threads)))
        seconds["Python threads"] = time.perf_counter() - began
    others = np.argsort(found == sample[:, None], axis=1, kind="stable")[:, :k]
    return {"seconds": seconds, "peak": peak_memory(), "found": np.take_along_axis(found, others, axis=1)}


def alone(work: Any, *arguments: Any) -> Any:
    """Run in a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def recall(path: Path, sample: np.ndarray, found: np.ndarray, truth: np.ndarray) -> float:
    """Share of found rows at least as similar as the k-th true one, in float64."""
    vectors = np.load(path, mmap_mode="r")
    hits = []
    for start in range(0, len(sample), 256):
        part = slice(start, start + 256)
        asking = np.asarray(vectors[sample[part]], dtype=np.float64)
        reached = np.einsum("qd,qkd->qk", asking, vectors[found[part]].astype(np.float64))
        last = np.einsum("qd,qkd->qk", asking, vectors[truth[part]].astype(np.float64)).min(axis=1)
        hits.append((reached >= last[:, None] - 1e-9) & (found[part] >= 0))
    return float(np.concatenate(hits).mean())


def machine() -> str:
    """Processor, cores, versions and the load of others."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    versions = ", ".join(f"{package} {version(package)}" for package in ("faiss-cpu", "numpy", "numba"))
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Make vectors, search them both ways, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--index", default="auto")
    parser.add_argument("--min-recall", type=float, default=0.95)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        alone(make_vectors, path, options.rows)
        size = options.rows * DIMENSION * 4
        rng = np.random.default_rng(1)
        sample = np.sort(rng.choice(options.rows, min(SLICE, options.rows), replace=False))
        before = alone(exact, path, sample, options.k)
        mine = alone(ours, path, sample, options.k, options.index, options.min_recall)
        after = alone(exact, path, sample, options.k)
        times = [run["seconds"][way] for run in (before, after) for way in run["seconds"]]
        whole = min(times) * options.rows / len(sample)
        share = recall(path, sample, mine["found"], before["found"])
        cluster = np.load(path.with_suffix(".cluster.npy"))
        inside = (cluster[before["found"]] == cluster[sample][:, None]).mean()
    print(f"{options.rows:,} x {DIMENSION} vectors, {size / 1e9:.2f} GB; k = {options.k}; ", end="")
    print(f"{inside:.1%} of the true neighbours lie in the row's own cluster")
    print(f"{'search':<22}{'seconds':>10}{'recall':>9}{'peak GB':>9}{'/ vectors':>11}{'speed':>8}")
    row = "{:<22}{:>10.0f}{:>9.4f}{:>9.2f}{:>11.2f}{:>7.1f}x"
    print(row.format("FAISS exact *", whole, 1.0, before["peak"] / 1e9, before["peak"] / size, 1.0))
    peak = mine["peak"]
    print(row.format(mine["info"].index, mine["seconds"], share, peak / 1e9, peak / size, whole / mine["seconds"]))
    print(f"* extrapolated from {len(sample):,} rows, the quickest of " + ", ".join(f"{t:.1f} s" for t in times))
    print(f"measured by the search itself: {mine['info']}")


if __name__ == "__main__":
    main()
