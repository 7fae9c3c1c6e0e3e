"""The identities of rows, on which whole rows are decided: never on texts, so that a million rows fit in memory."""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

_IDENTITY = [
    "pair_id", "prompt_id", "chosen_id", "rejected_id", "annotator", "language", "source", "source_row",
    "score_chosen", "score_rejected", "kind", "label", "score", "rank", "weight",
]  # fmt: skip


JUDGEMENT = ("label", "score", "rank")
"""Columns that judge a response by itself."""


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
    place = ["prompt_id", "pair_id", "annotator", unscored, "source", "source_row", *JUDGEMENT, "position"]
    return frame.with_row_index("position").sort(place, nulls_last=False)


def left_out(rows: pl.DataFrame, code: str, sentence: str) -> LeftOut:
    """Rows of a frame of identities, left out for one reason; the sentence follows the place of each."""
    places = rows.select(pl.format("{}:{}: {}", "source", "source_row", pl.lit(sentence))).to_series()
    return LeftOut(code, rows["position"].to_list(), places.to_list())


def merge_duplicates(rows: pl.DataFrame) -> tuple[pl.DataFrame, LeftOut]:
    """Of rows with the same texts, judgement and annotator, keep one: with scores if any has, then by source, then line."""
    key = ["same", "kind", "annotator", "label", "score", "rank"]
    # in a tie it does not matter which of the two responses comes first
    texts = pl.concat_str(
        "prompt_id", pl.min_horizontal("chosen_id", "rejected_id"), pl.max_horizontal("chosen_id", "rejected_id")
    )
    rows = rows.with_columns(same=pl.when(pl.col("kind") == "tie").then(texts).otherwise("pair_id"))
    first = rows.group_by(key, maintain_order=True).first()
    first = first.select(*key, first_source="source", first_row="source_row", first_position="position")
    joined = rows.join(first, on=key, how="left", nulls_equal=True, maintain_order="left")
    stays = joined["position"] == joined["first_position"]
    merged = joined.filter(~stays)
    sentences = [
        f"{row['source']}:{row['source_row']}: merged into {row['first_source']}:{row['first_row']}, the same row"
        for row in merged.iter_rows(named=True)
    ]
    return rows.filter(stays).drop("same"), LeftOut("duplicate", merged["position"].to_list(), sentences)
