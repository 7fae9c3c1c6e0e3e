"""Judgements that contradict each other: four kinds, each with a function that finds it, and one policy.

conflict          one prompt, the same two responses, judged both ways.
cycle             A > B > C > A among the responses of one prompt.
near_conflict     two near-identical prompts, the same two responses, judged the other way.
text_both_sides   one text, chosen here and rejected there. This one is reported only: under one prompt it is a ranking
                  (A > B and C > A), across prompts both may be right.

The policy: `drop` leaves out every row of a contradiction; `majority` keeps the side with strictly more votes;
`keep-and-mask` keeps all rows, and contrasts.py masks the cells that are contradicted. Judged equal contradicts nothing,
but it votes: a judgement stays by majority where it has more votes than the opposite one and more than "equal".
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rpo_data.annotators import ITEM, PLACE, VOTES, is_vote, with_sides, with_votes
from rpo_data.rows import LeftOut

Policy = Literal["drop", "majority", "keep-and-mask"]

_EDGE = ["prompt_id", "chosen_id", "rejected_id"]
_IS_PAIR = (pl.col("kind") == "pair") & (pl.col("chosen_id") != pl.col("rejected_id"))


def find_contradictions(rows: pl.DataFrame, near: pl.DataFrame | None = None) -> dict[str, pl.DataFrame]:
    """All four kinds, one row a finding; every table has `rows` (how many are part of it) and `example` (a sentence).

    Args:
        rows: judged rows in canonical order.
        near: near-identical prompts as `near_prompts` gives them; without them near_conflict is not looked for.
    """
    found = {"conflict": find_conflicts(rows), "cycle": find_cycles(rows)}
    if near is not None:
        found["near_conflict"] = find_near_conflicts(rows, near)
    return found | {"text_both_sides": find_text_both_sides(rows)}


def resolve(rows: pl.DataFrame, policy: Policy) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Deal with what is judged both ways, then with the cycles among the rest.

    By majority a cycle loses its judgements with the fewest votes, until it is none; where all have the same number of
    votes, all go.

    Args:
        rows: judged rows in canonical order.
        policy: one of the three.

    Returns:
        The rows that stay, and those left out under the codes conflict and cycle.
    """
    if policy == "keep-and-mask":
        return rows, []
    rows, conflicts = _resolve_conflicts(rows, policy)
    rows, cycles = _resolve_cycles(rows, policy)
    return rows, [conflicts, cycles]


def resolve_near(
    rows: pl.DataFrame, prompt_ids: Sequence[str], duplicates: tuple[np.ndarray, np.ndarray], policy: Policy
) -> tuple[pl.DataFrame, LeftOut]:
    """Deal with judgements that a near-identical prompt's contradict.

    By majority the votes are summed over the prompt and its near-identical ones. "Near-identical" is not transitive, so two
    opposite judgements may both win among their own neighbours: then both go.

    Args:
        rows: judged rows in canonical order.
        prompt_ids: content hashes, hex.
        duplicates: pairs of near-identical prompts, two int64 arrays of indices into `prompt_ids`.
        policy: one of the three.
    """
    if policy == "keep-and-mask":
        return rows, LeftOut("near_conflict", [], [])
    near = near_prompts(prompt_ids, duplicates)
    against = _near_contradictions(rows, near)
    if policy == "majority":
        winners = _near_winners(rows, against, near)
        of_other = winners.select(near_id="prompt_id", chosen_id="rejected_id", rejected_id="chosen_id")
        won = against.join(winners, on=_EDGE, how="semi")
        beaten = won.join(of_other, on=["near_id", "chosen_id", "rejected_id"], how="semi")
        against = against.join(winners.join(beaten, on=_EDGE, how="anti"), on=_EDGE, how="anti", maintain_order="left")
    reason = "{}: {} judges the same two responses to a near-identical prompt the other way: keep one of them"
    gone = against.unique(_EDGE, keep="first", maintain_order=True).select(*_EDGE, "other_place")
    return _leave_out(rows, "near_conflict", _saying(rows, gone), pl.format(reason, PLACE, "other_place"))


def find_conflicts(rows: pl.DataFrame) -> pl.DataFrame:
    """Items judged both ways, ties aside.

    Returns:
        prompt_id, first_id, second_id; first_votes, second_votes, tie_votes; `annotators`, how many different ones are
        known of the rows that contradict (1: one person contradicts himself); rows; example.
    """
    return (
        _contested(rows)
        .group_by(ITEM, maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in VOTES),
            annotators=pl.col("annotator").drop_nulls().n_unique(),
            rows=pl.len(),
            example=pl.format(
                "{} and {} judge the same two responses both ways", _first_place(side=1), _first_place(side=-1)
            ),
        )
    )


def find_cycles(rows: pl.DataFrame) -> pl.DataFrame:
    """Knots of cycles: responses of one prompt each of which is judged better, over some others, than itself.

    Returns:
        prompt_id; responses (how many); rows; example.
    """
    edges = edges_in_cycles(rows)
    return (
        _saying(rows, edges)
        .group_by("component", maintain_order=True)
        .agg(
            pl.col("prompt_id").first(),
            responses=pl.col("chosen_id").n_unique(),
            rows=pl.len(),
            example=pl.format(
                "{} and {} are two of the judgements that go round in a circle",
                PLACE.first(),
                pl.col("next_place").first(),
            ),
        )
        .drop("component")
    )


def find_near_conflicts(rows: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Pairs of near-identical prompts that judge the same two responses the other way.

    Returns:
        prompt_id, near_id; chosen_id, rejected_id (as the first judges them); rows; example.
    """
    against = _near_contradictions(rows, near).filter(pl.col("prompt_id") < pl.col("near_id"))
    return against.select(
        "prompt_id",
        "near_id",
        "chosen_id",
        "rejected_id",
        rows=pl.col("rows") + pl.col("other_rows"),
        example=pl.format(
            "{} and {} judge the same two responses to near-identical prompts both ways", "place", "other_place"
        ),
    )


def find_text_both_sides(rows: pl.DataFrame) -> pl.DataFrame:
    """Response texts that are chosen in one row and rejected in another.

    Returns:
        response_id; chosen_rows, rejected_rows; across_prompts (the two are under different prompts somewhere); rows;
        example.
    """
    pairs = rows.filter(_IS_PAIR)
    chosen = pairs.select("prompt_id", PLACE.alias("place"), response_id="chosen_id", side=pl.lit(1, pl.Int8))
    rejected = pairs.select("prompt_id", PLACE.alias("place"), response_id="rejected_id", side=pl.lit(-1, pl.Int8))
    both = [
        chosen.join(rejected, on="response_id", how="semi", maintain_order="left"),
        rejected.join(chosen, on="response_id", how="semi", maintain_order="left"),
    ]
    places = (pl.col("place").filter(pl.col("side") == side).first() for side in (1, -1))
    return (
        pl.concat(both)
        .group_by("response_id", maintain_order=True)
        .agg(
            chosen_rows=(pl.col("side") == 1).sum(),
            rejected_rows=(pl.col("side") == -1).sum(),
            across_prompts=pl.col("prompt_id").n_unique() > 1,
            rows=pl.len(),
            example=pl.format("{} chooses the text that {} rejects", *places),
        )
    )


def near_prompts(prompt_ids: Sequence[str], duplicates: tuple[np.ndarray, np.ndarray]) -> pl.DataFrame:
    """Pairs of near-identical prompts, each in both orders once: prompt_id, near_id."""
    one, other = (np.concatenate(sides) for sides in (duplicates, duplicates[::-1]))
    pairs = pl.DataFrame({"prompt_id": one, "near_id": other}).filter(pl.col("prompt_id") != pl.col("near_id"))
    names = pl.Series(prompt_ids, dtype=pl.String)
    pairs = pairs.unique().sort("prompt_id", "near_id")
    return pl.DataFrame({column.name: names.gather(column) for column in pairs})


def edges_in_cycles(rows: pl.DataFrame) -> pl.DataFrame:
    """Judgements that are part of a cycle, what is judged both ways set aside.

    Returns:
        prompt_id, chosen_id, rejected_id, one row for each different judgement; votes; component (equal where cycles
        share a response), next_place (a row that rates the rejected response above another of the component).
    """
    edges = _edges(rows)
    opposite = edges.select("prompt_id", chosen_id="rejected_id", rejected_id="chosen_id")
    one_way = edges.join(opposite, on=_EDGE, how="anti", maintain_order="left")
    return _inside_components(one_way)


def _edges(rows: pl.DataFrame) -> pl.DataFrame:
    """Different judgements of prompts that have three or more rows: fewer cannot make a cycle."""
    pairs = rows.filter(_IS_PAIR).filter(pl.len().over("prompt_id") > 2)
    return (
        pairs.with_columns(vote=is_vote(_EDGE), place=PLACE)
        .group_by(_EDGE, maintain_order=True)
        .agg(votes=pl.col("vote").sum(), place=pl.col("place").first())
    )


def _inside_components(edges: pl.DataFrame) -> pl.DataFrame:
    """The edges whose two responses are in one strongly connected component, so that each is part of a cycle."""
    ends = [edges.select("prompt_id", response=side) for side in ("chosen_id", "rejected_id")]
    node = pl.concat(ends).select(pl.struct(pl.all()).rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    start, end = node[: len(edges)], node[len(edges) :]
    count = int(node.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(edges), dtype=bool), (start, end)), shape=(count, count))
    _, component = connected_components(graph, directed=True, connection="strong")
    inside = pl.Series(component[start] == component[end])
    edges = edges.with_columns(component=pl.Series(component[start], dtype=pl.Int64)).filter(inside)
    following = edges.group_by("component", "chosen_id", maintain_order=True).agg(next_place=pl.col("place").first())
    return edges.drop("next_place", strict=False).join(
        following, left_on=["component", "rejected_id"], right_on=["component", "chosen_id"], maintain_order="left"
    )


def _contested(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that another one contradicts, with item, side and votes (those of ties counted too)."""
    opposite = rows.filter(_IS_PAIR).select("prompt_id", chosen_id="rejected_id", rejected_id="chosen_id")
    contested = rows.filter(_IS_PAIR).join(opposite, on=_EDGE, how="semi")
    items = with_sides(contested).select(ITEM).unique()
    of_items = rows.join(contested.select("prompt_id").unique(), on="prompt_id", how="semi", maintain_order="left")
    judged = with_sides(of_items).join(items, on=ITEM, how="semi", maintain_order="left")
    return with_votes(judged).filter(_IS_PAIR)


def _first_place(side: int) -> pl.Expr:
    return PLACE.filter(pl.col("side") == side).first()


def _resolve_conflicts(rows: pl.DataFrame, policy: Policy) -> tuple[pl.DataFrame, LeftOut]:
    first, second = _first_place(side=1).over(ITEM), _first_place(side=-1).over(ITEM)
    is_first = pl.col("side") == 1
    gone = _contested(rows).with_columns(
        other_place=pl.when(is_first).then(second).otherwise(first),
        other_votes=pl.when(is_first).then("second_votes").otherwise("first_votes"),
    )
    reason = pl.format("{}: {} judges the same two responses the other way: keep one of them", PLACE, "other_place")
    if policy == "majority":
        gone = gone.filter(pl.col("own_votes") <= pl.max_horizontal("other_votes", "tie_votes"))
        reason = pl.format(
            "{}: {} judges the same two responses the other way, and of the votes {} are for this, {} for that, {} for a tie",
            PLACE, "other_place", "own_votes", "other_votes", "tie_votes",
        )  # fmt: skip
    return _leave_out(rows, "conflict", gone, reason)


def _resolve_cycles(rows: pl.DataFrame, policy: Policy) -> tuple[pl.DataFrame, LeftOut]:
    inside = edges_in_cycles(rows)
    gone = [inside.clear()]
    while len(inside):
        weakest = pl.col("votes") == pl.col("votes").min().over("component")
        inside = inside.with_columns(falls=weakest if policy == "majority" else pl.lit(True))
        gone.append(inside.filter("falls").drop("falls"))
        inside = _inside_components(inside.filter(~pl.col("falls")).drop("falls"))
    reason = "{}: this judgement and others, the next in {}, make a circle A > B > … > A: leave one of them out"
    return _leave_out(rows, "cycle", _saying(rows, pl.concat(gone)), pl.format(reason, PLACE, "next_place"))


def _saying(rows: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """The rows that say one of these judgements, with the columns that stand beside it."""
    return rows.filter(_IS_PAIR).join(edges, on=_EDGE, maintain_order="left")


def _leave_out(rows: pl.DataFrame, code: str, gone: pl.DataFrame, sentence: pl.Expr) -> tuple[pl.DataFrame, LeftOut]:
    stay = rows.join(gone, on="position", how="anti", maintain_order="left")
    return stay, LeftOut(code, gone["position"].to_list(), gone.select(sentence).to_series().to_list())


def _near_contradictions(rows: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Judgements with each near-identical prompt (near_id) that judges the other way; place and number of rows of both."""
    pairs = rows.filter(_IS_PAIR)
    turned = pairs.select(chosen_id="rejected_id", rejected_id="chosen_id")
    pairs = pairs.join(turned, on=["chosen_id", "rejected_id"], how="semi", maintain_order="left")
    edges = pairs.group_by(_EDGE, maintain_order=True).agg(place=PLACE.first(), rows=pl.len())
    opposite = edges.select(
        near_id="prompt_id", chosen_id="rejected_id", rejected_id="chosen_id", other_place="place", other_rows="rows"
    )
    near = near.join(edges, on="prompt_id", how="semi").join(opposite, on="near_id", how="semi")
    return (
        edges.join(near, on="prompt_id")
        .join(opposite, on=["near_id", "chosen_id", "rejected_id"])
        .sort(*_EDGE, "near_id")
    )


def _near_winners(rows: pl.DataFrame, against: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Judgements of `against` with strictly the most votes among their prompt and its near-identical ones."""
    edges = against.select(_EDGE).unique()
    sided = with_sides(edges.with_columns(kind=pl.lit("pair")))
    itself = sided.select("prompt_id", near_id="prompt_id").unique()
    around = pl.concat([near.join(itself, on="prompt_id", how="semi"), itself])
    responses = sided.select("first_id", "second_id").unique()
    judged = with_sides(rows.join(around, left_on="prompt_id", right_on="near_id", how="semi"))
    judged = judged.join(responses, on=["first_id", "second_id"], how="semi")
    votes = with_votes(judged).select(*ITEM, *VOTES).unique()
    totals = (
        sided.join(around, on="prompt_id")
        .join(votes.rename({"prompt_id": "near_id"}), on=["near_id", "first_id", "second_id"])
        .group_by(*_EDGE, "side")
        .agg(pl.col(*VOTES).sum())
    )
    is_first = pl.col("side") == 1
    own = pl.when(is_first).then("first_votes").otherwise("second_votes")
    other = pl.when(is_first).then("second_votes").otherwise("first_votes")
    return totals.filter(own > pl.max_horizontal(other, "tie_votes")).select(_EDGE)
