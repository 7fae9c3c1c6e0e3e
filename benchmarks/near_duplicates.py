"""Near-duplicate texts: MinHash of rpo_data.minhash against datasketch (MinHash LSH) and semhash (embeddings).

    python benchmarks/near_duplicates.py [--rows 20000] [--only ours datasketch semhash] [--shingles]

The texts are made of sentences of real dialogues. Some are planted: edited copies (2 to 10 % of the words replaced, left
out or swapped with the next), which are to be found, and texts that share a template and nothing else, which are not.
Each tool runs in a process of its own and reports its direct pairs; recall counts planted copies paired with their
original, precision the pairs that were planted. semhash is no dependency: pip install semhash (its default model is
on a hub; it is given the static vectors of wordllama instead).
"""

import argparse
import gzip
import json
import multiprocessing
import platform
import random
import re
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

LOGS = Path(__file__).parent.parent / "examples" / "hh-helpful-1000.jsonl.gz"
TEMPLATE = (
    "You are a helpful assistant of {} in {}. Please answer the question below politely, in plain English, and do not give "
    "medical or legal advice. If you do not know the answer, say so, and suggest where the customer could look instead of "
    "guessing. The customer's name is {}. Question: "
)
PLANTED = 40
"""One text in so many gets an edited copy, and as many texts again share the template."""

Pairs = list[tuple[int, int]]


def sentences(path: Path) -> list[str]:
    """Sentences of HH dialogues, without those of one or two words."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["chosen"] for line in file]
    found = {part for text in texts for part in re.split(r"(?<=[.!?])\s+|\n\n(?:Human|Assistant): ", text)}
    return sorted(part for part in found if len(part.split()) > 2)


def edit(text: str, share: float, words: list[str], rng: random.Random) -> str:
    """Replace, leave out or swap this share of the words."""
    parts = text.split(" ")
    for place in rng.sample(range(len(parts) - 1), max(1, round(share * len(parts)))):
        kind = rng.randrange(3)
        if kind == 0:
            parts[place] = rng.choice(words)
        elif kind == 1:
            parts[place] = ""
        else:
            parts[place], parts[place + 1] = parts[place + 1], parts[place]
    return " ".join(part for part in parts if part)


def make_texts(rows: int, seed: int) -> tuple[pl.Series, Pairs]:
    """Texts in random order, and the positions of each planted copy and its original."""
    rng = random.Random(seed)
    pool = sentences(LOGS)
    words = sorted({word for sentence in pool for word in sentence.split(" ")})
    special = rows // PLANTED
    texts = [" ".join(rng.choices(pool, k=rng.randint(8, 14))) for _ in range(rows - 2 * special)]
    texts += [edit(texts[i], rng.uniform(0.02, 0.10), words, rng) for i in range(special)]
    texts += [TEMPLATE.format(*rng.choices(words, k=3)) + " ".join(rng.choices(pool, k=3)) for _ in range(special)]
    order = list(range(len(texts)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    planted = [(place[i], place[rows - 2 * special + i]) for i in range(special)]
    return pl.Series([texts[i] for i in order], dtype=pl.String), planted


def write_texts(rows: int, seed: int, file: str) -> tuple[float, Pairs]:
    """Write the texts; give their mean size in bytes and the planted pairs."""
    texts, planted = make_texts(rows, seed)
    texts.to_frame("text").write_parquet(file, row_group_size=50_000)
    size = texts.str.len_bytes().mean()
    assert isinstance(size, float)
    return size, planted


def apart(function: Callable, *arguments: Any) -> Any:
    """Call in a fresh process: peak memory is its own (a child begins with its parent's peak, so ours stays small)."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_ours(texts: pl.Series, thresholds: list[float]) -> tuple[list[float], list[Pairs]]:
    """One search at the lowest threshold; the others are taken from its edges."""
    from rpo_data.minhash import near_texts

    near_texts(["compiled before the clock starts"] * 2)
    seconds, found, edges = [], [], None
    for threshold in sorted(thresholds):
        start = time.perf_counter()
        edges = edges.rethreshold(threshold) if edges else near_texts(texts, threshold)
        seconds.append(time.perf_counter() - start)
        found.append(list(zip(edges.first.tolist(), edges.second.tolist(), strict=True)))
    return seconds, found


def run_datasketch(texts: pl.Series, thresholds: list[float]) -> tuple[list[float], list[Pairs]]:
    """128 permutations, shingles of two words as ours, candidates verified by the estimated Jaccard."""
    from datasketch import MinHash, MinHashLSH

    seconds, found = [], []
    for threshold in sorted(thresholds):
        start = time.perf_counter()
        index, sketches, pairs = MinHashLSH(threshold=threshold, num_perm=128), [], []
        for number, text in enumerate(texts):
            words = text.lower().split()
            sketch = MinHash(num_perm=128)
            sketch.update_batch({" ".join(words[i : i + 2]).encode() for i in range(len(words) - 1)})
            pairs += [(other, number) for other in index.query(sketch) if sketch.jaccard(sketches[other]) >= threshold]
            index.insert(number, sketch)
            sketches.append(sketch)
        seconds.append(time.perf_counter() - start)
        found.append(pairs)
    return seconds, found


def run_semhash(texts: pl.Series, thresholds: list[float]) -> tuple[list[float], list[Pairs]]:
    """Its usual kind of encoder (model2vec's static model), with wordllama's vectors."""
    import wordllama
    from model2vec import StaticModel
    from safetensors.numpy import load_file
    from semhash import SemHash
    from tokenizers import Tokenizer

    folder = Path(wordllama.__file__).parent
    weights = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    model = StaticModel(vectors=weights.astype(np.float32), tokenizer=tokenizer)
    records, place = texts.to_list(), {text: number for number, text in enumerate(texts)}
    seconds, found, searched, result = [], [], False, None
    for threshold in sorted(thresholds):
        start = time.perf_counter()
        if searched:
            result.rethreshold(threshold)
        else:
            result = SemHash.from_records(records, model=model).self_deduplicate(threshold=threshold)
            searched = True
        seconds.append(time.perf_counter() - start)
        pairs = {
            (min(place[item.record], place[other]), max(place[item.record], place[other]))
            for item in result.filtered
            for other, _ in item.duplicates
        }
        found.append(sorted(pairs))
    return seconds, found


RUNS: dict[str, tuple[Callable, list[float]]] = {
    "ours": (run_ours, [0.6, 0.7]),
    "datasketch": (run_datasketch, [0.7]),
    "semhash": (run_semhash, [0.9, 0.95]),
}


def measure(name: str, file: str, planted: Pairs) -> list[tuple[str, float, float, float, float, float, int]]:
    """Tool, threshold, seconds, peak MiB of the process, precision, recall, pairs: one line a threshold."""
    texts = pl.read_parquet(file)["text"]
    run, thresholds = RUNS[name]
    seconds, found = run(texts, thresholds)
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    true = {(min(pair), max(pair)) for pair in planted}
    lines = []
    for threshold, wall, pairs in zip(thresholds, seconds, found, strict=True):
        right = len(true.intersection(pairs))
        lines.append((name, threshold, wall, peak, right / max(len(pairs), 1), right / len(true), len(pairs)))
    return lines


def print_shingles(seed: int) -> None:
    """By kind of shingle: recall of edited copies at a Jaccard of 0.7, and the mean Jaccard of texts of one template."""
    rng = random.Random(seed)
    pool = sentences(LOGS)
    words = sorted({word for sentence in pool for word in sentence.split(" ")})
    texts = [" ".join(rng.choices(pool, k=rng.randint(8, 14))) for _ in range(1000)]
    templates = [TEMPLATE.format(*rng.choices(words, k=3)) + " ".join(rng.choices(pool, k=3)) for _ in range(1000)]
    shares = (0.02, 0.05, 0.08, 0.10)
    copies = {share: [edit(text, share, words, rng) for text in texts] for share in shares}
    print("\nJaccard of at least 0.7      " + "".join(f"{share:>7.0%}" for share in shares) + "   template  set size")
    for name, size, by_word in [(f"{n} words", n, True) for n in (1, 2, 3, 4, 5)] + [("5 characters", 5, False)]:

        def shingles(text: str, size: int = size, by_word: bool = by_word) -> set[str]:
            parts = text.lower().split() if by_word else list(" ".join(text.lower().split()))
            return {" ".join(parts[i : i + size]) for i in range(max(len(parts) - size + 1, 1))}

        def jaccards(some: list[str], others: list[str], shingles: Callable[[str], set[str]] = shingles) -> np.ndarray:
            sets = [(shingles(a), shingles(b)) for a, b in zip(some, others, strict=True)]
            return np.array([len(a & b) / len(a | b) for a, b in sets])

        recall = "".join(f"{(jaccards(texts, copies[share]) >= 0.7).mean():7.2f}" for share in shares)
        template = jaccards(templates, templates[1:] + templates[:1]).mean()
        print(f"{name:29}{recall}{template:11.2f}{np.mean([len(shingles(text)) for text in texts]):10.0f}")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--shingles", action="store_true", help="also compare kinds of shingles")
    args = parser.parse_args()
    print(
        f"{platform.platform()}, {multiprocessing.cpu_count()} cores, Python {platform.python_version()}; {args.rows} texts"
    )
    folder = tempfile.TemporaryDirectory()
    file = str(Path(folder.name) / "texts.parquet")
    size, planted = apart(write_texts, args.rows, args.seed, file)
    print(f"{size:.0f} bytes a text, {len(planted)} planted copies")
    lines = []
    for name in args.only:
        package = "rpo-data" if name == "ours" else name
        try:
            print(f"{package} {version(package)}")
        except PackageNotFoundError:
            print(f"{package} is not installed: pip install {package}")
            continue
        lines += apart(measure, name, file, planted)
    folder.cleanup()
    base = next((line[2] for line in lines if line[0] == "ours"), None)
    print(
        f"{'tool':12}{'threshold':>10}{'seconds':>10}{'x ours':>8}{'peak MiB':>10}{'precision':>11}{'recall':>8}{'pairs':>9}"
    )
    for tool, threshold, wall, peak, precision, recall, pairs in lines:
        ratio = f"{wall / base:8.1f}" if base else " " * 8
        print(f"{tool:12}{threshold:10.2f}{wall:10.2f}{ratio}{peak:10.0f}{precision:11.3f}{recall:8.3f}{pairs:9}")
    if args.shingles:
        print_shingles(args.seed)


if __name__ == "__main__":
    main()
