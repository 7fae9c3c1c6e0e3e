"""The middle stages of a build: embed the prompts, find neighbours, judge what only they show, and split."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rpo_data.conflicts import near_prompts, resolve_near
from rpo_data.contrasts import fully_masked, judgements
from rpo_data.duplicates import decide, graph_edges
from rpo_data.embed import load_embedder, render_prompt, unit_vectors
from rpo_data.errors import LogError
from rpo_data.ladder import check_index
from rpo_data.neighbors import near_duplicates, search_within
from rpo_data.pipelines.checking import Checked, Say, Track, judged
from rpo_data.pipelines.console import counted
from rpo_data.pipelines.store import array_hash, stage_key, stored_stage
from rpo_data.response_masks import no_counterpart
from rpo_data.row_table import take_rows
from rpo_data.rows import LeftOut, left_out
from rpo_data.schemas.manifest import EmbedderInfo, NeighborsInfo, SearchInfo
from rpo_data.schemas.recipe import Recipe
from rpo_data.splits import Edges, Split, hold_out, previous_split, turn_edges
from rpo_data.vectors import cache_key, embed_texts


@dataclass(frozen=True)
class Prompts:
    """The distinct prompts, in order of their ids, with unit vectors and the neighbours inside their split.

    `near` holds near-duplicates, `together` all pairs of prompts that must stand in one split.
    """

    ids: list[str]
    of_row: np.ndarray
    vectors: np.ndarray
    embedder: EmbedderInfo
    near: Edges
    together: Edges
    split: Split
    neighbors: np.ndarray
    similarity: np.ndarray
    search: NeighborsInfo

    @property
    def is_test(self) -> np.ndarray:
        """True for test prompts, shape (prompts,)."""
        return self.split.is_test

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """Split -> its prompts; a split without prompts is left out."""
        found = {name: np.flatnonzero(self.is_test == flag) for name, flag in (("train", False), ("test", True))}
        return {name: prompts for name, prompts in found.items() if len(prompts)}


@dataclass(frozen=True)
class _Corpus:
    """Rows that stay, and for their distinct prompts (in order of their ids) a vector and the pairs that are alike."""

    checked: Checked
    vectors: np.ndarray
    near: Edges

    @property
    def prompt_ids(self) -> list[str]:
        return self.checked.ids["prompt_id"].unique(maintain_order=True).to_list()


def embed_and_split(
    checked: Checked,
    recipe: Recipe,
    *,
    cache: Path,
    batch_size: int,
    say: Say,
    track: Track,
    previous: str | Path | None = None,
    for_groups: bool = True,
) -> tuple[Checked, Prompts]:
    """Stages embed, neighbours, judge and split; what judge and split leave out is gone from the first result.

    Rows that no group could contrast are left out, too, unless `for_groups` is False.

    Raises:
        EmbedderError, MissingExtra: the model cannot be loaded.
        DatasetError: `previous` is no dataset of ours.
        LogError: no prompt is left to train on.
    """
    before = previous_split(previous) if previous is not None else None
    vectors, embedder = _embed(checked, _first_rows(checked.ids), recipe, cache, batch_size, say, track)
    check_index(recipe.index, vectors.shape[1])
    near, cosine, in_corpus = _search(vectors, np.zeros(len(vectors), dtype=np.int64), recipe, cache, track)
    corpus = _judge(_Corpus(checked, vectors, near_duplicates(vectors, near, cosine, recipe.duplicate_score)), recipe)
    corpus, split, together = _split(corpus, recipe, before)
    if for_groups:
        without = _without_contrast if checked.mode == "paired" else _without_counterpart
        corpus, split, together = without(corpus, split, together, recipe)
    for code, number in corpus.checked.left_out_counts.items() - checked.left_out_counts.items():
        say(f"        {number:,} left out: {code}")
    neighbors, similarity, inside = _search(corpus.vectors, split.is_test.astype(np.int64), recipe, cache, track)
    search = _search_info(
        recipe.neighbors, in_corpus[0], {("train", "test")[block]: one for block, one in inside.items()}
    )
    _say_search(search, say)
    ids = corpus.prompt_ids
    of_row = corpus.checked.ids["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1
    prompts = Prompts(
        ids, of_row, corpus.vectors, embedder, corpus.near, together, split, neighbors, similarity, search
    )
    sizes = (f"{name} {counted(len(rows), 'prompts')}" for name, rows in prompts.splits.items())
    say(f"split   {', '.join(sizes)}")
    return corpus.checked, prompts


def blocks(ids: pl.DataFrame, row_is_test: np.ndarray, mix_languages: bool = False) -> np.ndarray:
    """Rows that may share a group: same split, same language (not known: the most common one); a number for each row."""
    if mix_languages:
        return row_is_test.astype(np.int64)
    known = ids["language"].drop_nulls().value_counts().sort("count", "language", descending=[True, False])["language"]
    language = ids["language"].fill_null(known[0] if len(known) else "").rank("dense").to_numpy().astype(np.int64)
    return row_is_test.astype(np.int64) * (int(language.max()) + 1) + language


def _judge(corpus: _Corpus, recipe: Recipe) -> _Corpus:
    """Leave out what only near-identical prompts show: contradictions, then duplicates in meaning where asked for."""

    def settle(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[LeftOut]]:
        rows, contradicted = resolve_near(rows, corpus.prompt_ids, corpus.near, recipe.conflicts)
        return rows, [contradicted]

    rows, reasons = judged(corpus.checked.ids, corpus.checked.mode, settle)
    for reason in reasons:
        corpus = _leave_out(corpus, rows, reason)[0]
    if recipe.duplicates != "semantic":
        return corpus
    edges = graph_edges(corpus.vectors, corpus.near, recipe.duplicate_score)
    stays = decide(edges, np.arange(edges.count)).stays
    rows, merged = _merge_prompts(corpus.checked.ids, corpus.prompt_ids, stays)
    return _leave_out(corpus, rows, merged)[0]


def _merge_prompts(rows: pl.DataFrame, prompt_ids: list[str], stays: np.ndarray) -> tuple[pl.DataFrame, LeftOut]:
    """Leave out the rows of prompts for which another one stays."""
    gone = np.flatnonzero(stays != np.arange(len(stays)))
    place = rows.group_by("prompt_id", maintain_order=True).agg(at=pl.format("{}:{}", "source", "source_row").first())[
        "at"
    ]
    into = pl.DataFrame(
        {"prompt_id": np.array(prompt_ids)[gone], "into": place.gather(stays[gone])},
        schema_overrides={"prompt_id": pl.String},
    )
    merged = rows.join(into, on="prompt_id", maintain_order="left")
    sentences = merged.select(
        pl.format("{}:{}: merged into {}, whose prompt means the same", "source", "source_row", "into")
    )
    reason = LeftOut("semantic_duplicate", merged["position"].to_list(), sentences.to_series().to_list())
    return rows.join(into, on="prompt_id", how="anti", maintain_order="left"), reason


def _split(corpus: _Corpus, recipe: Recipe, before: tuple[set[str], set[str]] | None) -> tuple[_Corpus, Split, Edges]:
    """Hold out test prompts; the third result holds the pairs of prompts that must stand in one split."""
    turns = turn_edges(_prompts(corpus.checked, _first_rows(corpus.checked.ids)))
    together = (np.concatenate([corpus.near[0], turns[0]]), np.concatenate([corpus.near[1], turns[1]]))
    ids = corpus.prompt_ids
    split = hold_out(ids, recipe.test_fraction, together, before)
    bridging = pl.Series(np.array(ids)[split.bridging], dtype=pl.String)
    rows = corpus.checked.ids
    bridges = pl.col("prompt_id").is_in(bridging.implode())
    sentence = (
        "the prompt belongs to train and to test prompts of the previous build: drop it, or build without --previous"
    )
    corpus, kept = _leave_out(corpus, rows.filter(~bridges), left_out(rows.filter(bridges), "bridges_splits", sentence))
    split = _of_prompts(split, kept)
    if split.is_test.all():
        raise LogError(
            f"all {len(ids):,} prompts would be test prompts, none is left to train on: "
            "lower --test-fraction or raise --duplicate-score"
        )
    return corpus, split, _among(kept, together)


def _without_contrast(corpus: _Corpus, split: Split, together: Edges, recipe: Recipe) -> tuple[_Corpus, Split, Edges]:
    """Leave out rows that no group could train: all that may share a group with them is contradicted, as they are."""
    rows = corpus.checked.ids
    known = judgements(rows, corpus.checked.ties, near_prompts(corpus.prompt_ids, corpus.near))
    if not known.contradicted.any():
        return corpus, split, together
    block = blocks(
        rows, split.is_test[rows["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1], recipe.mix_languages
    )
    lost = [members for number in np.unique(block) if fully_masked(members := np.flatnonzero(block == number), known)]
    gone = np.isin(np.arange(len(rows)), np.concatenate([np.empty(0, dtype=np.int64), *lost]))
    gone |= known.contradicted & (recipe.group_size == 1)
    sentence = "contradicted, and so is every row it could share a group with: use --conflicts drop or majority"
    corpus, kept = _leave_out(corpus, rows.filter(~gone), left_out(rows.filter(gone), "no_contrast", sentence))
    return corpus, _of_prompts(split, kept), _among(kept, together)


def _without_counterpart(
    corpus: _Corpus, split: Split, together: Edges, recipe: Recipe
) -> tuple[_Corpus, Split, Edges]:
    """Leave out responses that no group could contrast, or has a place for.

    Raises:
        LogError: a split has nothing to contrast.
    """
    rows, splits = corpus.checked.ids, np.unique(split.is_test)
    of_row = rows["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1
    block = blocks(rows, split.is_test[of_row], recipe.mix_languages)
    gone = no_counterpart(rows, block, corpus.vectors, recipe, corpus.checked.mode)
    for flag in splits:
        of_split = split.is_test[of_row] == flag
        if gone[of_split].all():
            raise LogError(_no_contrast(rows.filter(of_split), "test" if flag else "train", corpus.checked.mode))
    sentence = "no group has another response that it could be contrasted with: add judged responses to related prompts"
    corpus, kept = _leave_out(corpus, rows.filter(~gone), left_out(rows.filter(gone), "no_counterpart", sentence))
    return corpus, _of_prompts(split, kept), _among(kept, together)


def _no_contrast(rows: pl.DataFrame, split: str, mode: str) -> str:
    liked = int(rows["label"].sum() or 0)
    holds = f"{liked:,} liked and {len(rows) - liked:,} disliked" if mode == "unpaired" else f"{len(rows):,} judged"
    advice = "set --test-fraction to 0, or raise it" if split == "test" else "add logs, or lower --test-fraction"
    return f"the {split} split holds {holds} responses, none of which can be contrasted with another: {advice}"


def _leave_out(corpus: _Corpus, rows: pl.DataFrame, reason: LeftOut) -> tuple[_Corpus, np.ndarray]:
    """The corpus with these rows only, and which of its prompts stay."""
    kept = pl.Series(corpus.prompt_ids, dtype=pl.String).is_in(rows["prompt_id"].unique().implode()).to_numpy()
    checked = replace(corpus.checked, ids=rows, left_out=[*corpus.checked.left_out, reason])
    if rows.is_empty():
        raise LogError(f"no row is left: the last {len(reason.position):,} are left out as {reason.code}")
    return _Corpus(checked, np.ascontiguousarray(corpus.vectors[kept]), _among(kept, corpus.near)), kept


def _of_prompts(split: Split, kept: np.ndarray) -> Split:
    return replace(split, is_test=split.is_test[kept], bridging=split.bridging[kept])


def _among(kept: np.ndarray, edges: Edges) -> Edges:
    """The pairs of prompts that both stay, numbered anew."""
    number = np.cumsum(kept) - 1
    both = kept[edges[0]] & kept[edges[1]]
    return number[edges[0][both]], number[edges[1][both]]


def _first_rows(ids: pl.DataFrame) -> np.ndarray:
    """Position of the first row of each prompt, by prompt."""
    return ids.group_by("prompt_id", maintain_order=True).agg(pl.col("position").first())["position"].to_numpy()


def _prompts(checked: Checked, first_row: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    """The messages of each prompt."""
    column = checked.rows.select(["prompt"])
    for start in range(0, len(first_row), 1000):
        yield from take_rows(column, first_row[start : start + 1000])["prompt"].to_pylist()


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
    texts = [render_prompt(prompt, recipe.embed_text) for prompt in _prompts(checked, first_row)]
    folder = cache / "vectors" / cache_key(embedder, recipe.prompt_prefix)
    vectors, fresh = embed_texts(texts, embedder, folder, batch_size=batch_size, progress=partial(track, "embed"))
    say(f"embed   {counted(len(texts), 'prompts')} with {embedder.info.name}, {fresh:,} of them new")
    return vectors, embedder.info


def _search(
    vectors: np.ndarray, block: np.ndarray, recipe: Recipe, cache: Path, track: Track
) -> tuple[np.ndarray, np.ndarray, dict[int, SearchInfo]]:
    """Nearest prompts inside each block, out of the stage store where they are there, and how they were searched."""
    inputs = {
        "vectors": array_hash(vectors, block),
        "k": recipe.neighbors,
        "index": recipe.index,
        "min_recall": recipe.min_recall,
        "seed": recipe.seed,
    }
    parts = cache / "search" / stage_key("neighbors", inputs)  # outlives a kill, and is removed once all is stored

    def make(folder: Path) -> None:
        parts.mkdir(parents=True, exist_ok=True)
        found = search_within(
            vectors,
            block,
            recipe.neighbors,
            index=recipe.index,
            min_recall=recipe.min_recall,
            seed=recipe.seed,
            folder=parts,
            progress=partial(track, "neighbours"),
        )
        np.save(folder / "neighbors.npy", found.neighbors)
        np.save(folder / "similarity.npy", found.similarity)
        searches = {number: info.model_dump() for number, info in found.searches.items()}
        (folder / "searches.json").write_text(json.dumps(searches))

    folder = stored_stage(cache, "neighbors", inputs, make)
    shutil.rmtree(parts, ignore_errors=True)
    searches = json.loads((folder / "searches.json").read_text())
    arrays = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("neighbors", "similarity"))
    return *arrays, {int(number): SearchInfo.model_validate(info) for number, info in searches.items()}  # type: ignore[return-value]


def _search_info(k: int, corpus: SearchInfo, splits: dict[str, SearchInfo]) -> NeighborsInfo:
    everywhere = [corpus, *splits.values()]
    recall = min(search.recall for search in everywhere)
    return NeighborsInfo(k=k, index=corpus.index, recall=recall, corpus=corpus, splits=splits)


def _say_search(search: NeighborsInfo, say: Say) -> None:
    """A line on each search that was not exact, or on there being none."""
    assert search.corpus is not None
    if all(one.exact for one in (search.corpus, *search.splits.values())):
        say(f"search  exact ({search.index}), the {search.k} nearest of each prompt")
    for name, one in {"all": search.corpus, **search.splits}.items():
        if not one.exact:
            low, high = one.interval
            say(
                f"search  {name}: {one.index}, nprobe {one.nprobe} of {one.nlist}, recall {one.recall:.3f} "
                f"({low:.3f} to {high:.3f}), of isolated prompts {one.recall_isolated:.2f}"
            )
