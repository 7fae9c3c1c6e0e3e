"""The stages of a build: each takes data and gives data; what is costly is kept in the stage store.

`pipelines/build.py` calls them in order.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data.contrasts import Cells, group_cells, judgements
from rpo_data.embed import load_embedder, render_prompt, unit_vectors
from rpo_data.errors import LogError
from rpo_data.groups import form_groups
from rpo_data.neighbors import near_duplicates, neighbors_within
from rpo_data.pairs import RecordCounts, collect_rows, open_rejects, open_rows, take_rows
from rpo_data.pipelines.store import array_hash, stored_arrays, stored_stage
from rpo_data.quality import measure, nearest_similarity
from rpo_data.read import content_hash
from rpo_data.rows import LeftOut, drop_conflicts, hold_out, identities, merge_duplicates
from rpo_data.schemas.manifest import EmbedderInfo, Quality, SourceCounts
from rpo_data.schemas.recipe import Recipe
from rpo_data.sources import Source, find_sources
from rpo_data.vectors import cache_key, embed_texts
from rpo_data.weights import calibrate_temperature, contrast_weights

Say = Callable[[str], None]
Track = Callable[[str, int, int], None]
"""Called with the name of a stage, what is done and what there is to do (0: not known)."""


@dataclass(frozen=True)
class Checked:
    """What reading and checking left: rows on disk, their identities, and what was left out."""

    sources: list[SourceCounts]
    rows: pa.Table
    rejects: pa.Table
    left_out: list[LeftOut]
    ids: pl.DataFrame
    content: list[str]

    @property
    def left_out_counts(self) -> dict[str, int]:
        """Code -> how many records or rows are left out under it."""
        counts = Counter(self.rejects["code"].to_pylist())
        counts.update({reason.code: len(reason.position) for reason in self.left_out if reason.position})
        return dict(sorted(counts.items()))


@dataclass(frozen=True)
class Prompts:
    """The distinct prompts, in order of their ids, with unit vectors and the neighbours inside their split."""

    ids: list[str]
    of_row: np.ndarray
    vectors: np.ndarray
    embedder: EmbedderInfo
    neighbors: np.ndarray
    similarity: np.ndarray
    is_test: np.ndarray
    moved_to_test: int

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """Split -> its prompts; a split without prompts is left out."""
        found = {name: np.flatnonzero(self.is_test == flag) for name, flag in (("train", False), ("test", True))}
        return {name: prompts for name, prompts in found.items() if len(prompts)}


@dataclass(frozen=True)
class Mined:
    """Order of the rows of each split, rows of the groups table, and what the manifest says of them."""

    order: dict[str, np.ndarray]
    groups: dict[str, list[dict[str, Any]]]
    temperature: float
    quality: Quality
    warnings: list[str]


def read_and_check(
    logs: str | Path | Sequence[str | Path],
    recipe: Recipe,
    *,
    limit: int | None,
    cache: Path,
    say: Say = lambda line: None,
    track: Track = lambda stage, done, total: None,
) -> Checked:
    """Stages read, check and dedupe: everything that is decided before a prompt is embedded.

    Raises:
        LogError: the logs cannot be found or opened, or hold no usable pair.
    """
    ignored: list[str] = []
    sources = find_sources([logs] if isinstance(logs, (str, Path)) else logs, ignored)
    content = [content_hash(source) for source in sources]
    folder = _read(sources, content, recipe, limit, cache, track)
    records = [RecordCounts(**count) for count in json.loads((folder / "counts.json").read_text())]
    rows, rejects = open_rows(folder), open_rejects(folder)
    ids, merged = merge_duplicates(identities(rows))
    ids, conflicts = drop_conflicts(ids)
    left_out = [merged, conflicts]
    checked = Checked(_counts(records, content, rows, left_out), rows, rejects, left_out, ids, content)
    read = sum(count.read for count in records)
    say(f"read    {read:,} records of {len(sources)} source{'s' * (len(sources) != 1)}, {len(ids):,} pairs kept")
    if ignored:
        names = ", ".join(sorted(ignored)[:3]) + ", …" * (len(ignored) > 3)
        say(f"        {len(ignored):,} files ignored for their ending: {names}")
    for code, number in checked.left_out_counts.items():
        say(f"        {number:,} left out: {code}")
    if ids.is_empty():
        first = f" (the first: {rejects['message'][0]})" if len(rejects) else ""
        raise LogError(f"no usable pair in {read:,} records of {', '.join(s.name for s in sources)}{first}")
    return checked


def embed_and_split(
    checked: Checked, recipe: Recipe, *, cache: Path, batch_size: int, say: Say, track: Track
) -> Prompts:
    """Stages embed, neighbours and split.

    Raises:
        EmbedderError, MissingExtra: the model cannot be loaded.
        LogError: no prompt is left to train on.
    """
    ids, of_row, first_row = _distinct_prompts(checked.ids)
    vectors, embedder = _embed(checked, first_row, recipe, cache, batch_size, say, track)
    neighbors, similarity, is_test, moved = _neighbors_and_split(ids, vectors, recipe, cache)
    prompts = Prompts(ids, of_row, vectors, embedder, neighbors, similarity, is_test, moved)
    say(f"split   {', '.join(f'{name} {len(rows):,} prompts' for name, rows in prompts.splits.items())}")
    return prompts


def mine(checked: Checked, prompts: Prompts, recipe: Recipe, *, cache: Path, say: Say) -> Mined:
    """Stages groups and weights, with the quality of the result on the train split."""
    row_is_test = prompts.is_test[prompts.of_row]
    views, random_groups = _groups(prompts, _blocks(checked.ids, row_is_test), recipe, cache)
    known = judgements(checked.ids)
    cells_of = partial(group_cells, vectors=prompts.vectors, prompt_of_row=prompts.of_row, known=known)

    train_views = [[group for group in view if not row_is_test[group[0]]] for view in views]
    train_random = [group for group in random_groups if not row_is_test[group[0]]]
    cells = [cells_of(group) for view in train_views for group in view]
    random_cells = [cells_of(group) for group in train_random]
    temperature, warning = _temperature(recipe, cells, random_cells)

    in_train = np.where(prompts.is_test[:, None], -1, prompts.neighbors)
    nearest = nearest_similarity(prompts.of_row[~row_is_test], in_train, prompts.similarity, recipe.group_size - 1)
    quality = measure(
        prompts.vectors, prompts.of_row, train_views, train_random, cells, random_cells, nearest, temperature
    )
    say(
        f"groups  mean in-group similarity {_figure(quality.mean_similarity)} "
        f"(random {_figure(quality.random_similarity)}, nearest {_figure(quality.nearest_similarity)})"
    )
    order, groups = _numbered(views, cells_of, row_is_test, temperature)
    return Mined(order, groups, temperature, quality, [warning] if warning else [])


def _read(
    sources: list[Source], content: list[str], recipe: Recipe, limit: int | None, cache: Path, track: Track
) -> Path:
    vector_column = recipe.embedder.removeprefix("column:") if recipe.embedder.startswith("column:") else None
    settings: dict[str, Any] = {"shape": recipe.format, "limit": limit, "vector_column": vector_column}

    def make(folder: Path) -> None:
        counts = collect_rows(sources, folder, **settings, progress=partial(track, "read"))
        (folder / "counts.json").write_text(json.dumps([asdict(count) for count in counts]))

    inputs = {"sources": [[s.name, s.kind, c] for s, c in zip(sources, content, strict=True)], **settings}
    return stored_stage(cache, "read", inputs, make)


def _counts(
    records: list[RecordCounts], content: list[str], rows: pa.Table, left_out: list[LeftOut]
) -> list[SourceCounts]:
    names = rows.select(["source"])
    gone = {}
    for reason in left_out:
        gone[reason.code] = Counter(take_rows(names, np.array(reason.position, dtype=np.int64))["source"].to_pylist())
    counts = []
    for count, digest in zip(records, content, strict=True):
        merged, rejected = gone["duplicate"][count.name], gone["conflict"][count.name]
        counts.append(
            SourceCounts(
                name=count.name,
                content_hash=digest,
                records_read=count.read,
                records_used=count.used,
                records_rejected=count.rejected,
                rows_made=count.used,
                rows_kept=count.used - merged - rejected,
                rows_rejected=rejected,
                rows_merged=merged,
            )
        )
    return counts


def _distinct_prompts(ids: pl.DataFrame) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Prompt ids, rising; the prompt of each row; and the position of each prompt's first row in the table."""
    prompts = ids.group_by("prompt_id", maintain_order=True).agg(pl.len(), pl.col("position").first())
    prompt_of_row = np.repeat(np.arange(len(prompts)), prompts["len"].to_numpy())
    return prompts["prompt_id"].to_list(), prompt_of_row, prompts["position"].to_numpy()


def _embed(
    checked: Checked, first_row: np.ndarray, recipe: Recipe, cache: Path, batch_size: int, say: Say, track: Track
) -> tuple[np.ndarray, EmbedderInfo]:
    if recipe.embedder.startswith("column:"):
        given = take_rows(checked.rows.select(["vector"]), first_row)["vector"].to_pylist()
        vectors = unit_vectors(np.array(given, dtype=np.float64))
        info = EmbedderInfo(
            name=recipe.embedder,
            content_hash=array_hash(vectors),
            dimension=vectors.shape[1],
            max_tokens=None,
            device="none",
            dtype="float32",
        )
        return vectors, info
    embedder = load_embedder(
        recipe.embedder, device=recipe.device, dtype=recipe.dtype, prompt_prefix=recipe.prompt_prefix
    )
    texts: list[str] = []
    for start in range(0, len(first_row), 1000):
        rows = take_rows(checked.rows.select(["prompt"]), first_row[start : start + 1000])
        texts += [render_prompt(prompt, recipe.embed_text) for prompt in rows["prompt"].to_pylist()]
    folder = cache / "vectors" / cache_key(embedder, recipe.prompt_prefix)
    vectors, fresh = embed_texts(texts, embedder, folder, batch_size=batch_size, progress=partial(track, "embed"))
    say(f"embed   {len(texts):,} prompts with {embedder.info.name}, {fresh:,} of them new")
    return vectors, embedder.info


def _neighbors_and_split(
    prompt_ids: list[str], vectors: np.ndarray, recipe: Recipe, cache: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Neighbours over the whole corpus find near-duplicates across splits; those that are kept stay inside a split."""

    def search(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        def make() -> dict[str, np.ndarray]:
            neighbors, similarity = neighbors_within(vectors, block, recipe.neighbors)
            return {"neighbors": neighbors, "similarity": similarity}

        inputs = {"vectors": array_hash(vectors, block), "k": recipe.neighbors}
        found = stored_arrays(cache, "neighbors", inputs, make)
        return found["neighbors"], found["similarity"]

    neighbors, similarity = search(np.zeros(len(vectors), dtype=np.int64))
    duplicates = near_duplicates(vectors, neighbors, similarity, recipe.duplicate_score)
    is_test, moved = hold_out(prompt_ids, recipe.test_fraction, duplicates)
    if is_test.all():
        raise LogError(
            f"all {len(prompt_ids):,} prompts would be test prompts, none is left to train on: "
            "lower --test-fraction or raise --duplicate-score"
        )
    if is_test.any():
        neighbors, similarity = search(is_test.astype(np.int64))
    return neighbors, similarity, is_test, moved


def _blocks(ids: pl.DataFrame, row_is_test: np.ndarray) -> np.ndarray:
    """Rows that may share a group: same split, same language."""
    language = ids["language"].fill_null("").rank("dense").to_numpy().astype(np.int64)
    return row_is_test.astype(np.int64) * (int(language.max()) + 1) + language


def _groups(
    prompts: Prompts, block: np.ndarray, recipe: Recipe, cache: Path
) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """The groups of every view, and random groups of the same sizes to compare them with."""
    arrays = (prompts.vectors, prompts.of_row, prompts.neighbors, block)
    form = partial(form_groups, *arrays, group_size=recipe.group_size, seed=recipe.seed)

    def make() -> dict[str, np.ndarray]:
        views = form(views=recipe.views, strategy=recipe.strategy)
        return {
            "rows": np.array([np.concatenate(view) for view in views]),
            "sizes": np.array([[len(group) for group in view] for view in views]),
        }

    settings = [recipe.group_size, recipe.views, recipe.strategy, recipe.seed]
    found = stored_arrays(cache, "groups", {"arrays": array_hash(*arrays), "settings": settings}, make)
    views = [np.split(rows, np.cumsum(sizes)[:-1]) for rows, sizes in zip(found["rows"], found["sizes"], strict=True)]
    return views, form(views=1, strategy="random")[0]


def _temperature(recipe: Recipe, mined: list[Cells], random: list[Cells]) -> tuple[float, str | None]:
    if recipe.temperature != "auto":
        return float(recipe.temperature), None
    return calibrate_temperature(*([(c.similarity, c.mask) for c in cells] for cells in (mined, random)))


def _numbered(
    views: list[list[np.ndarray]], cells_of: Callable[[np.ndarray], Cells], row_is_test: np.ndarray, temperature: float
) -> tuple[dict[str, np.ndarray], dict[str, list[dict[str, Any]]]]:
    """Order of the rows of each split (groups of view 0 contiguous) and the rows of the groups table."""
    local = np.empty(len(row_is_test), dtype=np.int64)
    order: dict[str, np.ndarray] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, flag in (("train", False), ("test", True)):
        if not (row_is_test == flag).any():
            continue
        order[split] = np.concatenate([group for group in views[0] if row_is_test[group[0]] == flag])
        local[order[split]] = np.arange(len(order[split]))
        rows[split] = []
        for view, groups in enumerate(views):
            inside = [group for group in groups if row_is_test[group[0]] == flag]
            for number, group in enumerate(inside):
                group = group[np.argsort(local[group])]
                cells = cells_of(group)
                rows[split].append(
                    {
                        "group_id": f"{split}-{view}-{number}",
                        "view": view,
                        "win_rows": local[group].tolist(),
                        "loss_rows": local[group].tolist(),
                        "similarity": cells.similarity.tolist(),
                        "weight": contrast_weights(cells.similarity, cells.mask, temperature).tolist(),
                    }
                )
    return order, rows


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
