"""Make pairs of responses that were judged by themselves: liked or not, scored, or ranked.

No score is compared across sources or annotators, and no rank across records: their scales need not be the same.
"""

from typing import Literal

import polars as pl
import pyarrow as pa

from rpo_data.check import pair_id
from rpo_data.row_table import take_rows
from rpo_data.rows import LeftOut, left_out

Rule = Literal["best_worst", "all"]

_GROUP = ["family", "prompt_id", "scale", "judge"]


def pair_responses(responses: pl.DataFrame, rule: Rule) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Which responses form pairs.

    best_worst  one pair of each prompt: the best response with the worst; liked and disliked ones in turn, first with first
    all         every response with every worse one

    Args:
        responses: rows of `identities` of the kind response, in canonical order.
        rule: as above.

    Returns:
        A frame with `win` and `loss` (positions in the table of rows), by prompt; and the responses that stand in no pair:
        `conflict` (one text liked and disliked), `tie` (nothing better or worse), `no_pair` (alone), `not_paired` (in between).
    """
    judged, conflicts = _without_contradictions(_with_value(responses))
    family = pl.col("family") == "label"
    labelled, ordered = judged.filter(family), judged.filter(~family)
    by_rule = [_all_pairs(judged)] if rule == "all" else [_best_with_worst(ordered), _first_with_first(labelled)]
    pairs = pl.concat(by_rule)
    used = pl.concat([pairs["win"], pairs["loss"]]).unique()
    unused = judged.filter(~pl.col("position").is_in(used.implode()))
    same_value = pl.col("value").n_unique().over(_GROUP) == 1
    alone = pl.col("chosen_id").n_unique().over(_GROUP) == 1
    code = judged.select(
        "position",
        code=pl.when(alone)
        .then(pl.lit("no_pair"))
        .when(same_value)
        .then(pl.lit("tie"))
        .otherwise(pl.lit("not_paired")),
    )
    unused = unused.join(code, on="position", how="left", maintain_order="left")
    sentences = {
        "no_pair": "no other response to this prompt is judged on the same scale: nothing to contrast it with",
        "tie": "every response to this prompt is judged equal: none is better",
        "not_paired": f"stands in no pair under the rule {rule}: another pairing may use it",
    }
    rest = [left_out(unused.filter(pl.col("code") == name), name, sentence) for name, sentence in sentences.items()]
    return pairs.sort("win", "loss"), [conflicts, *rest]


def _with_value(responses: pl.DataFrame) -> pl.DataFrame:
    """Responses with one number that says how good they are (`value`), and what it may be compared within."""
    by_score, by_rank = pl.col("score").is_not_null(), pl.col("rank").is_not_null()
    nothing = pl.lit("")
    return responses.with_columns(
        family=pl.when(by_score).then(pl.lit("score")).when(by_rank).then(pl.lit("rank")).otherwise(pl.lit("label")),
        value=pl.when(by_score)
        .then("score")
        .when(by_rank)
        .then(-pl.col("rank"))
        .otherwise(pl.col("label").cast(pl.Int64))
        .cast(pl.Float64),
        scale=pl.when(by_score)
        .then("source")
        .when(by_rank)
        .then(pl.format("{}:{}", "source", "source_row"))
        .otherwise(nothing),
        judge=pl.when(by_score | by_rank).then(pl.col("annotator").fill_null("")).otherwise(nothing),
    ).sort(*_GROUP, pl.col("value") * -1, "chosen_id", "source", "source_row", "position")


def _without_contradictions(judged: pl.DataFrame) -> tuple[pl.DataFrame, LeftOut]:
    both = (pl.col("family") == "label") & (pl.col("value").n_unique().over([*_GROUP, "chosen_id"]) > 1)
    sentence = "the same response to the same prompt is liked here and disliked elsewhere: keep one of them"
    marked = judged.with_columns(both=both)
    return marked.filter(~pl.col("both")).drop("both"), left_out(marked.filter("both"), "conflict", sentence)


def _best_with_worst(judged: pl.DataFrame) -> pl.DataFrame:
    best = judged.group_by(_GROUP, maintain_order=True).agg(
        win=pl.col("position").first(), best_id=pl.col("chosen_id").first(), best=pl.col("value").first()
    )
    others = judged.join(best, on=_GROUP, maintain_order="left").filter(pl.col("chosen_id") != pl.col("best_id"))
    worst = others.group_by([*_GROUP, "win", "best"], maintain_order=True).agg(
        loss=pl.col("position").last(), worst=pl.col("value").last()
    )
    return worst.filter(pl.col("best") > pl.col("worst")).select("win", "loss")


def _first_with_first(judged: pl.DataFrame) -> pl.DataFrame:
    numbered = judged.unique([*_GROUP, "chosen_id"], keep="first", maintain_order=True).with_columns(
        place=pl.int_range(pl.len()).over([*_GROUP, "value"])
    )
    wins, losses = numbered.filter(pl.col("value") == 1), numbered.filter(pl.col("value") == 0)
    return wins.join(losses, on=[*_GROUP, "place"], maintain_order="left").select(win="position", loss="position_right")


def _all_pairs(judged: pl.DataFrame) -> pl.DataFrame:
    once = judged.unique([*_GROUP, "chosen_id", "value"], keep="first", maintain_order=True)
    both = once.join(once, on=_GROUP, maintain_order="left_right")
    better = (pl.col("value") > pl.col("value_right")) & (pl.col("chosen_id") != pl.col("chosen_id_right"))
    return both.filter(better).select(win="position", loss="position_right")


def paired_rows(rows: pa.Table, pairs: pl.DataFrame) -> pa.Table:
    """The rows of pairs made of responses, in the schema of the table of checked rows; place and language are the win's.

    Args:
        rows: the table of checked rows.
        pairs: `win` and `loss`, positions in it.
    """
    win, loss = (take_rows(rows, pairs[side].to_numpy()) for side in ("win", "loss"))
    narrow = pl.DataFrame(
        {name: pl.from_arrow(win[name]) for name in ("prompt_id", "chosen_id", "annotator", "weight", "score")}
    )
    other = pl.DataFrame({name: pl.from_arrow(loss[name]) for name in ("chosen_id", "annotator", "weight", "score")})
    joined = pl.concat([narrow, other.rename({name: f"{name}_right" for name in other.columns})], how="horizontal")
    made = joined.select(
        rejected_id="chosen_id_right",
        score_chosen="score",
        score_rejected="score_right",
        annotator=pl.when(pl.col("annotator") == pl.col("annotator_right")).then("annotator"),
        weight=(pl.col("weight") + pl.col("weight_right")) / 2,
        kind=pl.lit("pair"),
        label=pl.lit(None, pl.Boolean), score=pl.lit(None, pl.Float64), rank=pl.lit(None, pl.Int64),
    )  # fmt: skip
    hashes = joined.select("prompt_id", "chosen_id", "chosen_id_right").rows()
    new = made.with_columns(pl.Series("pair_id", map(pair_id, hashes), dtype=pl.String)).to_arrow()
    for field in rows.schema:
        if field.name in new.column_names:
            place = rows.schema.get_field_index(field.name)
            win = win.set_column(place, field, new[field.name].cast(field.type))
    place = rows.schema.get_field_index("rejected")
    return win.set_column(place, rows.schema.field("rejected"), loss["chosen"])
