"""Several annotators of one item: keep them all, or merge them by a stated rule.

An item is a prompt with two responses in whichever order; a side is one of the three judgements of it: the first
response is the better one, the second is, or they are equal. Every annotator has one vote on each side he took, every
row without an annotator one of its own.
"""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from rpo_data.rows import LeftOut

Rule = Literal["keep", "majority", "unanimous"]

ITEM = ["prompt_id", "first_id", "second_id"]
VOTES = {"first_votes": 1, "second_votes": -1, "tie_votes": 0}
"""Column of the votes of each side."""
PLACE = pl.format("{}:{}", "source", "source_row")


def is_vote(judgement: Sequence[str]) -> pl.Expr:
    """True in the rows that count as a vote, given the columns that name a judgement: an annotator's first such row."""
    return pl.col("annotator").is_null() | pl.struct(*judgement, "annotator").is_first_distinct()


def with_sides(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the item (`first_id` before `second_id`) and `side`: 1 the first is better, -1 the second, 0 judged equal."""
    first_is_better = pl.when(pl.col("chosen_id") < pl.col("rejected_id")).then(1).otherwise(-1)
    return rows.with_columns(
        first_id=pl.min_horizontal("chosen_id", "rejected_id"),
        second_id=pl.max_horizontal("chosen_id", "rejected_id"),
        side=pl.when(pl.col("kind") == "tie").then(0).otherwise(first_is_better).cast(pl.Int8),
    )


def with_votes(rows: pl.DataFrame) -> pl.DataFrame:
    """Add to rows with sides the votes on each side of their item, and `own_votes`, those on the row's own side."""
    rows = rows.with_columns(vote=is_vote([*ITEM, "side"]))
    votes = {name: (pl.col("vote") & (pl.col("side") == side)).sum().over(ITEM) for name, side in VOTES.items()}
    own = (
        pl.when(pl.col("side") == 1)
        .then("first_votes")
        .when(pl.col("side") == -1)
        .then("second_votes")
        .otherwise("tie_votes")
    )
    return rows.with_columns(**votes).with_columns(own_votes=own).drop("vote")


def merge_annotators(rows: pl.DataFrame, rule: Rule) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Make one row of each item that has several, by a rule.

    keep        nothing is merged.
    majority    the side with strictly the most votes stays; where two sides share the most, the item is left out.
    unanimous   an item stays where all votes agree.

    Of the rows that agree the canonically first one stays as it is, with its own annotator and scores.

    Args:
        rows: judged rows in canonical order, ties among them (`kind`).
        rule: one of the three.

    Returns:
        The rows that stay, and those left out: duplicate (merged into the one that stays), then outvoted and
        no_majority, or not_unanimous.
    """
    if rule == "keep":
        return rows, []
    judged = with_sides(rows)
    judged = with_votes(judged.filter(pl.len().over(ITEM) > 1))
    most = pl.max_horizontal(*VOTES)
    leaders = pl.sum_horizontal(pl.col(name) == most for name in VOTES)
    judged = judged.with_columns(all_votes=pl.sum_horizontal(*VOTES), place=PLACE)
    decided = leaders == 1 if rule == "majority" else pl.col("all_votes") == most
    judged = judged.with_columns(decided=decided, wins=decided & (pl.col("own_votes") == most))
    kept = {name: pl.col(name).filter(pl.col("wins")).first().over(ITEM) for name in ("place", "position")}
    judged = judged.with_columns(kept_place=kept["place"], kept_position=kept["position"], most=most)
    undecided = "no_majority" if rule == "majority" else "not_unanimous"
    judged = judged.filter((pl.col("position") != pl.col("kept_position")).fill_null(True)).with_columns(
        code=pl.when(~pl.col("decided"))
        .then(pl.lit(undecided))
        .otherwise(pl.when(pl.col("wins")).then(pl.lit("duplicate")).otherwise(pl.lit("outvoted")))
    )
    codes = ["duplicate", "outvoted", undecided] if rule == "majority" else ["duplicate", undecided]
    left_out = [_left_out(code, judged.filter(pl.col("code") == code)) for code in codes]
    return rows.join(judged, on="position", how="anti", maintain_order="left"), left_out


def _left_out(code: str, rows: pl.DataFrame) -> LeftOut:
    sentence = {
        "duplicate": pl.format(
            "{}: merged into {}, {} of {} votes agree", "place", "kept_place", "own_votes", "all_votes"
        ),
        "outvoted": pl.format(
            "{}: outvoted: this judgement has {} of {} votes, that of {} has {}",
            "place", "own_votes", "all_votes", "kept_place", "most",
        ),
        "no_majority": pl.format(
            "{}: no majority: this judgement has {} of {} votes, and none has more than every other",
            "place", "own_votes", "all_votes",
        ),
        "not_unanimous": pl.format(
            "{}: not unanimous: this judgement has {} of {} votes", "place", "own_votes", "all_votes"
        ),
    }[code]  # fmt: skip
    return LeftOut(code, rows["position"].to_list(), rows.select(sentence).to_series().to_list())
