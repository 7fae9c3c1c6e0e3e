"""Groups of eight by `form_groups`, KaHIP, METIS and k-means-constrained: mean in-group cosine and seconds.

Sets: the first turns of HH harmless (2,312), the dialogues of both parts of HH (4,664), the prompts of banking77 and CLINC
(36 k), all with MiniLM, and clustered vectors, as in benchmarks/neighbors.py: 50 rows a cluster on average, sizes
log-normal, 40 clusters a topic, a cosine of about 0.37 inside a cluster and 0.19 inside a topic.

Every method runs in a process of its own, one after the other, and writes the group of each row to a file. Partitioners get the
graph of the 32 nearest neighbours in either direction, weights in whole numbers; making it and repairing is not in their
time. Groups of more than eight give up the rows that are least like the rest, which then go one by one to the group with
room that they are most like: no method needs more. Cosines are then computed anew from these files, pair by pair in float64.

    python benchmarks/mining.py --cache .cache/mining
    python benchmarks/mining.py --cache .cache/mining --sets harmless synthetic --synthetic-rows 20000 --limit-minutes 5
    python benchmarks/mining.py --cache .cache/mining --scaling 10000 100000 1000000 --plot docs/mining-scaling.png
"""

import argparse
import csv
import ctypes
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SIZE = 8
K = 32
DIMENSION = 384
ROWS_A_CLUSTER, CLUSTERS_A_TOPIC, NOISE = 50, 40, 1.3
DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = ("harmless", "hh", "intents", "synthetic")


def texts_of(name: str, data: Path) -> list[str]:
    """The texts of a set that are embedded; a prompt of `intents` stands in it once."""
    from rpo_data.embed import render_prompt
    from rpo_data.shapes import split_dialogue

    if name == "intents":
        folder, texts = data / "paraphrase_prompts", []
        for part in ("test", "train"):
            with gzip.open(folder / f"banking77_{part}.csv.gz", "rt", encoding="utf-8") as file:
                texts += [row["text"] for row in csv.DictReader(file)]
        with gzip.open(folder / "clinc_data_full.json.gz", "rt", encoding="utf-8") as file:
            texts += [text for part in json.load(file).values() for text, _ in part]
        return list(dict.fromkeys(texts))
    files = ["harmless-base.test"] if name == "harmless" else ["harmless-base.test", "helpful.test"]
    prompts = []
    for part in files:
        with gzip.open(data / "hh_rlhf" / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            prompts += [split_dialogue(json.loads(line)["chosen"])[0] for line in file]
    return [prompt[0]["content"] if name == "harmless" else render_prompt(prompt, "dialogue") for prompt in prompts]


def write_synthetic(folder: Path, rows: int) -> None:
    """Clustered unit vectors, shape (rows, 384), float32, and the K nearest of each row inside its topic.

    Rows of two topics have cosines around 0, so that next to no nearer neighbour is missed.
    """
    rng = np.random.default_rng(0)
    clusters = max(rows // ROWS_A_CLUSTER, 1)
    topics = unit(rng.standard_normal((max(clusters // CLUSTERS_A_TOPIC, 1), DIMENSION), dtype=np.float32))
    topic_of_cluster = rng.integers(len(topics), size=clusters)
    centres = topics[topic_of_cluster]
    centres = unit(centres + unit(rng.standard_normal((clusters, DIMENSION), dtype=np.float32)))
    share = rng.lognormal(0, 0.7, clusters)
    cluster = rng.choice(clusters, rows, p=share / share.sum())
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, DIMENSION))
    for at in range(0, rows, 65536):
        part = cluster[at : at + 65536]
        noise = unit(rng.standard_normal((len(part), DIMENSION), dtype=np.float32))
        vectors[at : at + 65536] = unit(centres[part] + NOISE * noise)
    vectors.flush()
    neighbors = np.lib.format.open_memmap(folder / "neighbors.npy", "w+", np.int64, (rows, K))
    similarity = np.empty((rows, K), dtype=np.float32)
    order = np.argsort(topic_of_cluster[cluster], kind="stable")
    sizes = np.bincount(topic_of_cluster[cluster], minlength=len(topics))
    for inside in np.split(order, np.cumsum(sizes)[:-1]):
        if len(inside):
            found, similarity[inside] = nearest(vectors[inside], K)
            neighbors[inside] = inside[found]
    neighbors.flush()
    np.save(folder / "similarity.npy", similarity)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows cut to unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def prepare(name: str, cache: Path, data: Path, rows: int) -> Path:
    """Folder with vectors.npy, neighbors.npy and similarity.npy of a set, made where they are not there."""
    folder = cache / (f"synthetic-{rows}" if name == "synthetic" else name)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ("similarity.npy" if name == "synthetic" else "vectors.npy")).exists():
        if name == "synthetic":
            write_synthetic(folder, rows)
        else:
            from rpo_data.embed import load_embedder
            from rpo_data.vectors import cache_key, embed_texts

            embedder = load_embedder("all-MiniLM-L6-v2", device="cpu")
            texts = texts_of(name, data)
            np.save(folder / "vectors.npy", embed_texts(texts, embedder, cache / cache_key(embedder, ""))[0])
    if not (folder / "similarity.npy").exists():
        vectors = np.load(folder / "vectors.npy")
        neighbors, similarity = nearest(vectors, K)
        np.save(folder / "neighbors.npy", neighbors)
        np.save(folder / "similarity.npy", similarity)
    return folder


def nearest(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other rows of each row and their cosines, by brute force."""
    import faiss

    similarity, neighbors = faiss.knn(vectors, vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    itself = neighbors == np.arange(len(vectors))[:, None]
    itself[~itself.any(axis=1), -1] = True  # more than k equal rows
    return neighbors[~itself].reshape(-1, k), similarity[~itself].reshape(-1, k)


def graph(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symmetric graph of the nearest neighbours: starts of the lists, ends of the edges, weights >= 1; all int32."""
    from scipy.sparse import csr_array

    neighbors, similarity = np.load(folder / "neighbors.npy"), np.load(folder / "similarity.npy")
    rows = len(neighbors)
    starts = np.arange(0, neighbors.size + 1, neighbors.shape[1])
    one_way = csr_array((np.maximum(similarity, 1e-3).ravel(), neighbors.ravel(), starts), shape=(rows, rows))
    both = one_way.maximum(one_way.T).tocsr()
    scale = min(1000.0, 2.0**30 / both.data.sum())  # sums of weights must fit into 31 bits
    weights = np.maximum(np.rint(both.data * scale), 1)
    return both.indptr.astype(np.int32), both.indices.astype(np.int32), weights.astype(np.int32)


def kahip(folder: Path, mode: int, clock: Callable[[], None]) -> np.ndarray:
    """KaHIP's kaffpa_balance, perfectly balanced; the Python wrapper leaves this function of the library out."""
    import kahip

    starts, ends, weights = graph(folder)
    rows = len(starts) - 1
    parts = -(-rows // SIZE)
    found, cut = np.zeros(rows, dtype=np.int32), ctypes.c_int()
    call = ctypes.CDLL(kahip.kahip.__file__).kaffpa_balance
    whole = [array.ctypes.data_as(ctypes.c_void_p) for array in (starts, weights, ends)]
    counts = [ctypes.byref(ctypes.c_int(number)) for number in (rows, parts)]
    imbalance = ctypes.byref(ctypes.c_double(0.0))
    exact, silent, seed = ctypes.c_bool(True), ctypes.c_bool(True), ctypes.c_int(0)
    clock()
    call(counts[0], None, *whole, counts[1], imbalance, exact, silent, seed, ctypes.c_int(mode),
         ctypes.byref(cut), found.ctypes.data_as(ctypes.c_void_p))  # fmt: skip
    return found


def metis(folder: Path, recursive: bool, clock: Callable[[], None]) -> np.ndarray:
    """METIS with the least imbalance its manual allows, more cuts and more refinement than by default."""
    import pymetis

    starts, ends, weights = graph(folder)
    options = pymetis.Options(ufactor=1, ncuts=4, niter=50, seed=0)
    parts = -(-(len(starts) - 1) // SIZE)
    clock()
    found = pymetis.part_graph(parts, xadj=starts, adjncy=ends, eweights=weights, recursive=recursive, options=options)
    return np.array(found.vertex_part)


def k_means_constrained(folder: Path, clock: Callable[[], None]) -> np.ndarray:
    """k-means with bounds on the size of a cluster, by minimum cost flow; its defaults, on the vectors."""
    from k_means_constrained import KMeansConstrained

    vectors = np.load(folder / "vectors.npy").astype(np.float64)
    parts = -(-len(vectors) // SIZE)
    model = KMeansConstrained(parts, size_min=len(vectors) // parts, size_max=SIZE, random_state=0)
    clock()
    return model.fit_predict(vectors)


def ours(folder: Path, strategy: str, clock: Callable[[], None]) -> np.ndarray:
    """Groups by `form_groups`, compiled before the clock starts."""
    from rpo_data.groups import form_groups
    from rpo_data.utility import Material

    def groups_of(vectors: np.ndarray, neighbors: np.ndarray) -> list[np.ndarray]:
        rows = np.arange(len(vectors))
        material = Material(vectors, rows, rows * 0, np.zeros(len(rows), dtype=np.int8), neighbors)
        return form_groups(material, group_size=SIZE, views=1, strategy=strategy, seed=0)[0]

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    file = folder / "neighbors.npy"
    neighbors = np.load(file, mmap_mode="r") if file.exists() else np.empty((len(vectors), 0), dtype=np.int64)
    rng = np.random.default_rng(0)
    few = unit(rng.standard_normal((7000, 4), dtype=np.float32))
    near = np.tile(np.arange(K), (len(few), 1))
    near.setflags(write=False)  # as a mapped file: another type to the compiler
    groups_of(few, near)
    clock()
    groups = groups_of(vectors, neighbors)
    group = np.empty(len(vectors), dtype=np.int64)
    group[np.concatenate(groups)] = np.repeat(np.arange(len(groups)), [len(rows) for rows in groups])
    return group


METHODS: dict[str, tuple[str | None, str, Callable[[Path, Callable[[], None]], np.ndarray]]] = {
    "ours, nearest": (None, "default", lambda folder, clock: ours(folder, "nearest", clock)),
    "ours, cluster": (None, "default", lambda folder, clock: ours(folder, "cluster", clock)),
    "random": (None, "strategy random", lambda folder, clock: ours(folder, "random", clock)),
    "METIS, recursive": (
        "pymetis",
        "recursive, ufactor 1, ncuts 4, niter 50",
        lambda folder, clock: metis(folder, True, clock),
    ),
    "METIS, k-way": (
        "pymetis",
        "k-way, ufactor 1, ncuts 4, niter 50",
        lambda folder, clock: metis(folder, False, clock),
    ),
    "KaHIP, eco": (
        "kahip",
        "kaffpa_balance, ECO, imbalance 0, perfectly balanced",
        lambda folder, clock: kahip(folder, 1, clock),
    ),
    "KaHIP, ecosocial": (
        "kahip",
        "kaffpa_balance, ECOSOCIAL, imbalance 0, perfectly balanced",
        lambda folder, clock: kahip(folder, 4, clock),
    ),
    "k-means-constrained": ("k-means-constrained", "n_init 10, max_iter 300, sizes 7 or 8", k_means_constrained),
}


def run_here(method: str, folder: Path) -> None:
    """Run one method and write the group of each row; the last line of the output is seconds, CPU seconds and MiB."""
    began: list[float] = []
    most = [0]

    def clock() -> None:
        began[:] = [time.perf_counter(), time.process_time()]
        threading.Thread(target=watch, daemon=True).start()

    def watch() -> None:
        while True:
            most[0] = max(most[0], memory("RssAnon"))
            time.sleep(0.02)

    group = METHODS[method][2](folder, clock)
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    np.save(folder / f"{method}.npy", group)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "own": most[0] / 1024, "peak": memory("VmHWM") / 1024}))


def memory(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def run(method: str, folder: Path, minutes: float, gibibytes: float) -> dict[str, float] | str:
    """Run one method in a process of its own; why it gave nothing, if it did not."""
    package = METHODS[method][0]
    if package and not installed(package):
        return "not installed"
    most = int(gibibytes * 2**30)
    command = [sys.executable, __file__, "--cache", str(folder), "--run", method]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=minutes * 60,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)))  # fmt: skip
    except subprocess.TimeoutExpired:
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        return f"did not finish in {minutes:g} minutes ({used:,.0f} CPU seconds)"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return f"did not finish in {gibibytes:g} GiB" if "alloc" in last or "Memory" in last else f"failed: {last[:80]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def installed(package: str) -> bool:
    """Whether a package is there."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def repair(group: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, int]:
    """Groups of at most eight, as many as needed; and how many rows had to move."""
    parts = -(-len(group) // SIZE)
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    members.sort(key=len, reverse=True)
    spare = [rows for rows in members[parts:]]
    members = members[:parts]
    for number, rows in enumerate(members):
        while len(rows) > SIZE:
            inside = vectors[rows] @ vectors[rows].T
            worst = int(inside.sum(axis=1).argmin())
            spare.append(rows[worst : worst + 1])
            rows = np.delete(rows, worst)
        members[number] = rows
    group = np.full(len(group), -1)
    sums, counts = np.zeros((parts, vectors.shape[1]), dtype=np.float32), np.zeros(parts, dtype=np.int64)
    for number, rows in enumerate(members):
        group[rows], sums[number], counts[number] = number, vectors[rows].sum(axis=0), len(rows)
    left = np.concatenate(spare) if spare else np.arange(0)
    open_ = np.flatnonzero(counts < SIZE)
    open_sums = sums[open_]
    for row in left:
        place = int(np.argmax(open_sums @ vectors[row]))
        group[row] = open_[place]
        open_sums[place] += vectors[row]
        counts[open_[place]] += 1
        if counts[open_[place]] == SIZE:
            open_sums[place] = -np.inf  # full: inner products with it are -inf or NaN
            open_, open_sums = np.delete(open_, place), np.delete(open_sums, place, axis=0)
    return group, len(left)


def mean_cosine(group: np.ndarray, vectors: np.ndarray) -> float:
    """Mean cosine over all pairs of rows that share a group, each computed in float64 from the vectors."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    total, pairs = 0.0, 0
    for step in range(1, SIZE):
        for at in range(0, len(order) - step, 2**14):
            one, other = order[at : at + 2**14], order[at + step : at + step + 2**14]
            one = one[: len(other)]
            same = ordered[at : at + len(one)] == ordered[at + step : at + step + len(one)]
            left, right = (vectors[rows[same]].astype(np.float64) for rows in (one, other))
            lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
            total += float(((left * right).sum(axis=1) / lengths).sum())
            pairs += int(same.sum())
    assert np.bincount(group).max() <= SIZE
    assert len(np.unique(group)) == -(-len(group) // SIZE)
    return total / pairs


def compare(options: argparse.Namespace) -> None:
    """Print one table: every method on every set."""
    print("| set | method | settings | mean cosine | seconds | CPU seconds | own memory, MiB | rows moved |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.sets:
        folder = prepare(name, options.cache, options.data, options.synthetic_rows)
        vectors = np.load(folder / "vectors.npy")
        title = f"{name}, {len(vectors):,} rows"
        bound = np.load(folder / "similarity.npy")[:, : SIZE - 1].mean(dtype=np.float64)
        print(f"| {title} | bound | mean of the {SIZE - 1} nearest | {bound:.4f} | | | | |", flush=True)
        for method in options.methods:
            settings = METHODS[method][1]
            found = run(method, folder, options.limit_minutes, options.limit_gib)
            if isinstance(found, str):
                print(f"| {title} | {method} | {settings} | {found} | | | | |", flush=True)
                continue
            group, moved = repair(np.load(folder / f"{method}.npy"), vectors)
            print(f"| {title} | {method} | {settings} | {mean_cosine(group, vectors):.4f} | {found['seconds']:.1f} "
                  f"| {found['cpu']:.1f} | {found['own']:,.0f} | {moved:,} |", flush=True)  # fmt: skip


def scale(options: argparse.Namespace) -> None:
    """Print one table, and draw it: ours alone on ever more rows."""
    print("| rows | mean cosine | seconds | CPU seconds | own memory, MiB | peak with the mapped vectors, MiB |")
    print("|---|---|---|---|---|---|", flush=True)
    points = []
    for rows in options.scaling:
        folder = prepare("synthetic", options.cache, options.data, rows)
        found = run("ours, nearest", folder, options.limit_minutes, options.limit_gib)
        if isinstance(found, str):
            print(f"| {rows:,} | {found} | | | | |", flush=True)
            continue
        group = np.load(folder / "ours, nearest.npy")
        cosine = mean_cosine(group, np.load(folder / "vectors.npy", mmap_mode="r"))
        print(f"| {rows:,} | {cosine:.4f} | {found['seconds']:.1f} | {found['cpu']:.1f} | {found['own']:,.0f} "
              f"| {found['peak']:,.0f} |", flush=True)  # fmt: skip
        points.append((rows, found["seconds"], found["cpu"], found["own"]))
    if not find_spec("matplotlib"):
        print("no plot: matplotlib is not installed")
    elif points and options.plot:
        draw(np.array(points), options.plot)


def draw(points: np.ndarray, path: Path) -> None:
    """Seconds and memory over rows, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    axes[0].loglog(points[:, 0], points[:, 1], "o-", label="seconds")
    axes[0].loglog(points[:, 0], points[:, 2], "s--", label="CPU seconds")
    axes[0].set(xlabel="rows (384-d)", ylabel="seconds", title="Time to form groups of 8")
    axes[0].legend()
    axes[1].loglog(points[:, 0], points[:, 3], "o-", label="own memory")
    axes[1].loglog(points[:, 0], points[:, 0] * K * 12 / 2**20, ":", label=f"neighbour lists, k = {K}")
    axes[1].set(xlabel="rows (384-d)", ylabel="MiB", title="Memory beside the mapped vectors")
    axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/mining"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--synthetic-rows", type=int, default=200_000)
    parser.add_argument("--limit-minutes", type=float, default=20)
    parser.add_argument("--limit-gib", type=float, default=12)
    parser.add_argument("--scaling", nargs="*", type=int, metavar="ROWS")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return run_here(options.run, options.cache)
    packages = [f"{name} {version(name)}" for name in ("numpy", "numba", "faiss-cpu", "kahip", "pymetis",
                "k-means-constrained") if installed(name)]  # fmt: skip
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
          f"Python {platform.python_version()}, {', '.join(packages)}\n")  # fmt: skip
    if options.scaling is None:
        compare(options)
    else:
        options.scaling = options.scaling or [10_000, 100_000, 1_000_000]
        scale(options)


if __name__ == "__main__":
    main()
