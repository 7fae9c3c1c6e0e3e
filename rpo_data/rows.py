"""Decide about whole rows: merge exact duplicates, leave out contradictions, hold out a test split.

These work on identities alone (`identities`), never on texts, so that a million rows fit in memory.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_IDENTITY = [
    "pair_id", "prompt_id", "chosen_id", "rejected_id", "annotator", "language", "source", "source_row",
    "score_chosen", "score_rejected",
]  # fmt: skip


@dataclass(frozen=True)
class LeftOut:
    """Rows left out for one reason: `position` in the table of checked rows and the sentence for each."""

    code: str
    position: list[int]
    sentence: list[str]


def identities(rows: pa.Table) -> pl.DataFrame:
    """Ids, scores and place of each row, with its `position` in the table, in canonical order (content, then place)."""
    frame = pl.from_arrow(rows.select(_IDENTITY))
    assert isinstance(frame, pl.DataFrame)
    unscored = pl.col("score_chosen").is_null()
    place = ["prompt_id", "pair_id", "annotator", unscored, "source", "source_row", "position"]
    return frame.with_row_index("position").sort(place, nulls_last=False)


def merge_duplicates(rows: pl.DataFrame) -> tuple[pl.DataFrame, LeftOut]:
    """Of rows with the same texts and annotator, keep one: with scores if any has, then by source, then line."""
    key = ["pair_id", "annotator"]
    first = rows.group_by(key, maintain_order=True).first()
    first = first.select(*key, first_source="source", first_row="source_row", first_position="position")
    joined = rows.join(first, on=key, how="left", nulls_equal=True, maintain_order="left")
    stays = joined["position"] == joined["first_position"]
    merged = joined.filter(~stays)
    sentences = [
        f"{row['source']}:{row['source_row']}: merged into {row['first_source']}:{row['first_row']}, the same row"
        for row in merged.iter_rows(named=True)
    ]
    return rows.filter(stays), LeftOut("duplicate", merged["position"].to_list(), sentences)


def drop_conflicts(rows: pl.DataFrame) -> tuple[pl.DataFrame, LeftOut]:
    """Leave out both rows where the same two responses to the same prompt are judged both ways."""
    other = rows.select(
        "prompt_id", chosen_id="rejected_id", rejected_id="chosen_id", other_source="source", other_row="source_row"
    ).unique(["prompt_id", "chosen_id", "rejected_id"], keep="first", maintain_order=True)
    key = ["prompt_id", "chosen_id", "rejected_id"]
    joined = rows.join(other, on=key, how="left", maintain_order="left")
    conflict = joined["other_row"].is_not_null()
    sentences = [
        f"{row['source']}:{row['source_row']}: {row['other_source']}:{row['other_row']} judges the same two responses "
        "the other way: keep one of them"
        for row in joined.filter(conflict).iter_rows(named=True)
    ]
    return rows.filter(~conflict), LeftOut("conflict", rows.filter(conflict)["position"].to_list(), sentences)


def hold_out(
    prompt_ids: list[str],
    test_fraction: float,
    duplicates: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, int]:
    """Decide by content hash which prompts are test prompts; near-duplicates of a test prompt go with it.

    A prompt that is test stays test when logs are added: its own hash does not change, and a cluster of near-duplicates
    only grows.

    Args:
        prompt_ids: content hashes, hex.
        test_fraction: share of the hash space that is test.
        duplicates: pairs of prompts that stay together, two int64 arrays of one length.

    Returns:
        True where the prompt is test, shape (prompts,); and how many of these only a near-duplicate brought there.
    """
    count = len(prompt_ids)
    own = np.array([int(prompt_id[:13], 16) / 16**13 < test_fraction for prompt_id in prompt_ids], dtype=bool)
    graph = coo_array((np.ones(len(duplicates[0]), dtype=bool), duplicates), shape=(count, count))
    _, cluster = connected_components(graph, directed=False)
    test = np.isin(cluster, cluster[own])
    return test, int(test.sum() - own.sum())
