"""Pairs out of responses that were judged by themselves."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data.check import row_ids
from rpo_data.pairing import pair_responses, paired_rows
from rpo_data.pairs import collect_rows
from rpo_data.read import Record
from rpo_data.row_table import Kept, open_rows, rows_schema, rows_table
from rpo_data.rows import identities
from rpo_data.shapes import Response
from rpo_data.sources import find_sources


def response(position, prompt="p", text=None, **judgement):
    """One row of identities; the text decides the id."""
    empty = {"label": None, "score": None, "rank": None, "annotator": None, "source": "a", "source_row": position}
    return {"position": position, "prompt_id": prompt, "chosen_id": text or f"t{position}"} | empty | judgement


SCHEMA = {
    "position": pl.UInt32, "prompt_id": pl.String, "chosen_id": pl.String, "label": pl.Boolean, "score": pl.Float64,
    "rank": pl.Int64, "annotator": pl.String, "source": pl.String, "source_row": pl.Int64,
}  # fmt: skip


def made(rule, *responses):
    pairs, reasons = pair_responses(pl.DataFrame(responses, schema=SCHEMA), rule)
    return pairs.rows(), {reason.code: sorted(reason.position) for reason in reasons if reason.position}


def test_the_best_meets_the_worst():
    rows = [response(n, score=score) for n, score in enumerate([2, 9, 5, 1, 5])]
    assert made("best_worst", *rows) == ([(1, 3)], {"not_paired": [0, 2, 4]})


def test_all_pairs_leave_out_equal_ones():
    rows = [response(n, score=score) for n, score in enumerate([2, 9, 2])]
    assert made("all", *rows) == ([(1, 0), (1, 2)], {})


def test_rank_one_is_best_and_ranks_of_two_records_do_not_compare():
    rows = [response(0, rank=2, source_row=1), response(1, rank=1, source_row=1), response(2, rank=3, source_row=2)]
    assert made("all", *rows) == ([(1, 0)], {"no_pair": [2]})


@pytest.mark.parametrize("other", [{"annotator": "x"}, {"source": "b"}, {"prompt": "q"}])
def test_scores_of_other_scales_do_not_compare(other):
    assert made("all", response(0, score=1), response(1, score=2, **other)) == ([], {"no_pair": [0, 1]})


def test_equal_scores_are_a_tie_and_the_same_text_is_no_pair():
    assert made("best_worst", response(0, score=1), response(1, score=1)) == ([], {"tie": [0, 1]})
    same = [response(0, text="t", score=1), response(1, text="t", score=2)]
    assert made("best_worst", *same) == ([], {"no_pair": [0, 1]})
    assert made("all", *same) == ([], {"no_pair": [0, 1]})


def test_liked_and_disliked_in_turn():
    rows = [response(0, label=True), response(1, label=False), response(2, label=True, annotator="x")]
    rows += [response(3, label=False, source="b"), response(4, label=False)]
    assert made("best_worst", *rows) == ([(0, 1), (2, 3)], {"not_paired": [4]})


def test_a_response_liked_and_disliked_is_a_conflict():
    rows = [response(0, text="t", label=True), response(1, text="t", label=False), response(2, label=False)]
    assert made("best_worst", *rows) == ([], {"conflict": [0, 1], "no_pair": [2]})


@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.sampled_from("abcd"), st.integers(0, 3), st.sampled_from("st")), max_size=12
    ),
    st.sampled_from(["best_worst", "all"]),
    st.randoms(),
)
def test_every_response_is_used_or_left_out_once_and_order_does_not_matter(drawn, rule, random):
    rows = [
        response(n, prompt=p, text=text, score=score, source=source) for n, (p, text, score, source) in enumerate(drawn)
    ]
    pairs, reasons = made(rule, *rows)
    used = {position for pair in pairs for position in pair}
    unused = sorted(position for positions in reasons.values() for position in positions)
    assert used | set(unused) == set(range(len(rows)))
    assert not used & set(unused)
    for win, loss in pairs:
        assert rows[win]["score"] > rows[loss]["score"]
        assert rows[win]["chosen_id"] != rows[loss]["chosen_id"]
        assert (rows[win]["prompt_id"], rows[win]["source"]) == (rows[loss]["prompt_id"], rows[loss]["source"])
    shuffled = random.sample(rows, len(rows))
    assert made(rule, *shuffled) == (pairs, reasons)


TURNS = [("user", "why?"), ("assistant", "good"), ("assistant", "bad")]


def test_rows_of_made_pairs_equal_those_of_a_log_of_pairs(write_lines, tmp_path):
    pair = {"prompt": "why?", "chosen": "good", "rejected": "bad", "score_chosen": 9, "score_rejected": 1}
    path = write_lines("a.jsonl", [pair])
    collect_rows(find_sources([path]), tmp_path)
    (expected,) = open_rows(tmp_path).to_pylist()
    prompt, good, bad = ([{"role": role, "content": text}] for role, text in TURNS)
    kept = [
        Kept(
            Record(1, {}), Response(prompt=prompt, completion=side, score=score), row_ids(prompt, side, None), None, ""
        )
        for side, score in ((bad, 1.0), (good, 9.0))
    ]
    rows = rows_table("a.jsonl", kept, rows_schema(with_vectors=False))
    pairs, _ = pair_responses(identities(rows), "best_worst")
    assert paired_rows(rows, pairs).to_pylist() == [expected]
