"""The vector cache: each text is embedded once per model, rendering and machine kind, and never again.

One folder a model; in it Arrow files of up to one step each, written whole or not at all, so that a killed run goes on
behind its last finished step. The key of a vector is the xxh3-128 of its text.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from rpo_data.embed import Embedder
from rpo_data.errors import EmbedderError

Progress = Callable[[int, int], None]
_KEY = pa.binary(16)


def cache_key(embedder: Embedder, prompt_prefix: str) -> str:
    """Name of the folder that holds a model's vectors: everything their bits depend on, but the text."""
    info = embedder.info
    parts = [info.content_hash, str(info.max_tokens), info.device, info.dtype, prompt_prefix]
    parts += [version(package) for package in ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")]
    return f"{info.name.rsplit('/', 1)[-1]}-{xxhash.xxh3_64_hexdigest('|'.join(parts).encode())}"


def embed_texts(
    texts: Sequence[str],
    embedder: Embedder,
    folder: Path,
    *,
    batch_size: int = 1024,
    progress: Progress | None = None,
) -> tuple[np.ndarray, int]:
    """Vectors of the texts, from the cache where it has them, else embedded and added to it.

    Args:
        texts: any order, repeats allowed.
        embedder: loaded model.
        folder: this model's cache folder; made where it is not there.
        batch_size: texts embedded between two writes to the cache; changes no bit of the result.
        progress: called with (texts embedded, texts to embed).

    Returns:
        Unit vectors, shape (texts, dimension), float32; and how many texts had to be embedded.

    Raises:
        EmbedderError: the model gives NaN or infinite numbers for a text.
    """
    keys = [xxhash.xxh3_128_digest(text.encode("utf-8")) for text in texts]
    place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    vectors = np.empty((len(place), embedder.info.dimension), dtype=np.float32)
    missing = dict(zip(reversed(keys), reversed(texts), strict=True))
    for key, vector in _stored(folder):
        if key in missing:
            vectors[place[key]] = vector
            del missing[key]
    # texts of similar length share a step, so that few batches need filling up
    todo = sorted(missing, key=lambda key: (len(missing[key]), key))
    for start in range(0, len(todo), batch_size):
        step = todo[start : start + batch_size]
        fresh = embedder.embed([missing[key] for key in step])
        broken = np.flatnonzero(~np.isfinite(fresh).all(axis=1))
        if len(broken):
            name, dtype, text = embedder.info.name, embedder.info.dtype, missing[step[broken[0]]]
            raise EmbedderError(
                f"{name} gives NaN or infinite numbers in {dtype} for {text[:60]!r}: embed with --dtype float32, or take "
                "another embedder"
            )
        _store(folder, step, fresh)
        vectors[[place[key] for key in step]] = fresh
        if progress:
            progress(start + len(step), len(todo))
    return vectors[[place[key] for key in keys]], len(todo)


def _stored(folder: Path) -> Iterable[tuple[bytes, np.ndarray]]:
    for file in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(file)) as source:
            try:
                table = pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:  # torn by a full disk or a crash: its texts are embedded again
                continue
            flat = table["vector"].combine_chunks().values.to_numpy()
            yield from zip(table["key"].to_pylist(), flat.reshape(table.num_rows, -1), strict=True)


def _store(folder: Path, keys: list[bytes], vectors: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table({"key": pa.array(keys, type=_KEY), "vector": values})
    name = uuid.uuid4().hex  # two builds may write at the same time
    unfinished = folder / f"{name}.tmp"
    with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    os.replace(unfinished, folder / f"{name}.arrow")
