"""The rows of the modes without pairs: liked and disliked responses (unpaired), scored or ranked ones (scored).

A pair of the logs becomes two responses: its chosen one is liked and its rejected one disliked, or each has its score.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data.check import pair_id
from rpo_data.row_table import no_messages, take_rows
from rpo_data.rows import LeftOut, identities, left_out, merge_duplicates
from rpo_data.schemas.recipe import Mode

_NEEDS = {
    "unpaired": ("no_label", "is neither liked nor disliked: label it, or build with --mode scored"),
    "scored": ("no_score", "has no score or rank: score it, or build with --mode unpaired"),
}


def find_mode(rows: pa.Table) -> Mode:
    """What `mode: auto` means for these checked rows: unpaired where every one is a labelled response, else paired."""
    labelled = rows.num_rows and not rows["label"].null_count and rows["kind"].unique().to_pylist() == ["response"]
    return "unpaired" if labelled else "paired"


def make_responses(
    rows: pa.Table, ids: pl.DataFrame, mode: Mode
) -> tuple[pa.Table, pl.DataFrame, np.ndarray, list[LeftOut]]:
    """Put the responses of pairs behind the rows, and leave out what this mode cannot use.

    Args:
        rows: the table of checked rows.
        ids: its rows that stay, as `identities` gives them.
        mode: unpaired or scored.

    Returns:
        The longer table; the identities of the responses, duplicates merged; the positions of the pairs that became
        responses; and what is left out: `tie`, `no_label` or `no_score`, `duplicate`.
    """
    is_tie, is_pair = pl.col("kind") == "tie", pl.col("kind") == "pair"
    usable = {
        "unpaired": is_pair | pl.col("label").is_not_null(),
        "scored": pl.when(is_pair)
        .then(pl.col("score_chosen").is_not_null() & pl.col("score_rejected").is_not_null())
        .otherwise(pl.col("score").is_not_null() | pl.col("rank").is_not_null()),
    }[mode]
    ties, rest = ids.filter(is_tie), ids.filter(~is_tie)
    used, unused = rest.filter(usable), rest.filter(~usable)
    pairs = np.sort(used.filter(is_pair)["position"].to_numpy().astype(np.int64))
    both = pa.concat_tables([rows, *(_side(take_rows(rows, pairs), side, mode) for side in ("chosen", "rejected"))])
    stays = used.filter(~is_pair)["position"].implode()
    is_new = pl.col("position") >= rows.num_rows
    made, merged = merge_duplicates(identities(both).filter(is_new | pl.col("position").is_in(stays)))
    code, sentence = _NEEDS[mode]
    reasons = [left_out(ties, "tie", "the two responses are judged equal: none of them is better")]
    return both, made, pairs, [*reasons, left_out(unused, code, sentence), merged]


def _side(pairs: pa.Table, side: str, mode: Mode) -> pa.Table:
    """One response of each pair, in the schema of the table of checked rows."""
    count, schema = pairs.num_rows, pairs.schema
    prompts, texts = (pairs[name].to_pylist() for name in ("prompt_id", f"{side}_id"))
    new = {
        "pair_id": pa.array([pair_id(hashes) for hashes in zip(prompts, texts, strict=True)], pa.string()),
        "chosen": pairs[side],
        "rejected": no_messages(count, schema.field("rejected").type),
        "chosen_id": pairs[f"{side}_id"],
        "rejected_id": pa.nulls(count, pa.string()),
        "kind": pa.repeat("response", count),
        "label": pa.repeat(side == "chosen", count) if mode == "unpaired" else pa.nulls(count, pa.bool_()),
        "score": pairs[f"score_{side}"],
        **{name: pa.nulls(count, pa.float64()) for name in ("score_chosen", "score_rejected", "strength")},
    }
    return pa.table([new.get(name, pairs[name]) for name in schema.names], schema=schema)


def judge_labels(
    ids: pl.DataFrame, decide: Callable[[pl.DataFrame], tuple[pl.DataFrame, list[LeftOut]]]
) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Let rules made for pairs decide on labels: who likes a response judges it better than none, who dislikes it, worse.

    Args:
        ids: labelled responses in canonical order.
        decide: `annotators.merge_annotators`, `conflicts.resolve` or the like, with its rule.
    """
    nothing = pl.lit("")
    judged = ids.with_columns(
        chosen_id=pl.when("label").then("chosen_id").otherwise(nothing),
        rejected_id=pl.when("label").then(nothing).otherwise("chosen_id"),
        kind=pl.lit("pair"),
    )
    stays, reasons = decide(judged)
    of_one = [
        replace(
            reason, sentence=[told.replace("the same two responses", "the same response") for told in reason.sentence]
        )
        for reason in reasons
    ]
    return ids.join(stays.select("position"), on="position", how="semi", maintain_order="left"), of_one
