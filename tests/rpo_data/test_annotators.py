"""Several annotators of one item: each rule on judgements that can be counted on one hand, then on any."""

import gzip
import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_rows import any_lines, canonical, codes, hashed_row, judged, lines_of, said

from rpo_data.annotators import merge_annotators

RULES = ["majority", "unanimous"]


def test_keep_merges_nothing():
    rows = judged("p A > B by ann", "p A > B by bob", "p B > A by eve")
    kept, left_out = merge_annotators(rows, "keep")
    assert kept.equals(rows)
    assert left_out == []


@pytest.mark.parametrize("rule", RULES)
def test_one_judgement_of_an_item_stays_as_it_is(rule):
    rows = judged("p A > B by ann", "p B > C by bob", "q A > B", "q C = D")
    kept, left_out = merge_annotators(rows, rule)
    assert kept.equals(rows)
    assert not any(reason.position for reason in left_out)


@pytest.mark.parametrize("rule", RULES)
def test_those_who_agree_become_the_first_of_them(rule):
    rows = judged("p A > B by eve", "p A > B by ann", "p A > B by bob")
    kept, left_out = merge_annotators(rows, rule)
    assert kept["annotator"].to_list() == ["ann"]
    assert lines_of(rows, left_out) == (
        [2],
        {
            1: ("duplicate", "log:1: merged into log:2, 3 of 3 votes agree"),
            3: ("duplicate", "log:3: merged into log:2, 3 of 3 votes agree"),
        },
    )


def test_the_majority_stays_and_the_others_are_outvoted():
    rows = judged("p B > A by ann", "p A > B by bob", "p A = B by dan", "p A > B by eve")
    kept, left_out = merge_annotators(rows, "majority")
    assert said(kept) == ["p A > B"]
    assert lines_of(rows, left_out) == (
        [2],
        {
            1: ("outvoted", "log:1: outvoted: this judgement has 1 of 4 votes, that of log:2 has 2"),
            3: ("outvoted", "log:3: outvoted: this judgement has 1 of 4 votes, that of log:2 has 2"),
            4: ("duplicate", "log:4: merged into log:2, 2 of 4 votes agree"),
        },
    )


def test_a_tie_can_be_the_majority_whichever_response_it_names_first():
    rows = judged("p B = A by ann", "p A = B by bob", "p A > B by eve")
    kept, left_out = merge_annotators(rows, "majority")
    assert said(kept) == ["p A = B"]
    assert codes(rows, left_out) == {1: "duplicate", 3: "outvoted"}


@pytest.mark.parametrize(
    "lines",
    [
        ("p A > B by ann", "p B > A by bob"),
        ("p A > B by ann", "p A = B by bob"),
        ("p A > B", "p A > B", "p A = B", "p B = A", "p B > A"),
    ],
)
def test_without_a_strict_majority_the_item_is_left_out(lines):
    rows = judged(*lines)
    kept, left_out = merge_annotators(rows, "majority")
    assert kept.is_empty()
    assert set(codes(rows, left_out).values()) == {"no_majority"}
    votes = len(lines)
    assert lines_of(rows, left_out)[1][1][1] == (
        f"log:1: no majority: this judgement has {1 + (votes == 5)} of {votes} votes, and none has more than every other"
    )


def test_unanimous_leaves_out_the_whole_item_where_one_vote_differs():
    rows = judged("p A > B by ann", "p A > B by bob", "p A = B by eve", "q A > B by ann", "q A > B by eve")
    kept, left_out = merge_annotators(rows, "unanimous")
    assert said(kept) == ["q A > B"]
    assert codes(rows, left_out) == {1: "not_unanimous", 2: "not_unanimous", 3: "not_unanimous", 5: "duplicate"}
    assert lines_of(rows, left_out)[1][3][1] == "log:3: not unanimous: this judgement has 1 of 3 votes"


def test_an_annotator_who_repeats_himself_has_one_vote():
    rows = judged("p A > B by ann", "p A > B by ann", "p A > B by ann", "p B > A by bob", "p B > A by eve")
    kept, left_out = merge_annotators(rows, "majority")
    assert said(kept) == ["p B > A"]
    assert codes(rows, left_out) == {1: "outvoted", 2: "outvoted", 3: "outvoted", 5: "duplicate"}


def test_an_annotator_who_contradicts_himself_has_a_vote_each_way():
    rows = judged("p A > B by ann", "p B > A by ann")
    assert codes(rows, merge_annotators(rows, "majority")[1]) == {1: "no_majority", 2: "no_majority"}
    rows = judged("p A > B by ann", "p B > A by ann", "p B > A by bob")
    assert said(merge_annotators(rows, "majority")[0]) == ["p B > A"]
    assert set(codes(rows, merge_annotators(rows, "unanimous")[1]).values()) == {"not_unanimous"}


def test_rows_without_annotator_have_a_vote_each():
    rows = judged("p A > B", "p A > B", "p B > A by ann")
    assert said(merge_annotators(rows, "majority")[0]) == ["p A > B"]


def expected_sides(rows: list[dict], rule: str) -> dict:
    """Item -> the side that stays or None, by counting in plain Python."""
    votes: dict = defaultdict(lambda: defaultdict(set))
    for number, row in enumerate(rows):
        item = (row["prompt_id"], *sorted([row["chosen_id"], row["rejected_id"]]))
        side = "tie" if row["kind"] == "tie" else row["chosen_id"]
        votes[item][side].add(row["annotator"] or number)
    result = {}
    for item, sides in votes.items():
        counts = sorted(((len(who), side) for side, who in sides.items()), reverse=True)
        clear = len(counts) == 1 or (rule == "majority" and counts[0][0] > counts[1][0])
        result[item] = counts[0][1] if clear else None
    return result


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None)
@given(rows=any_lines(), order=st.randoms(use_true_random=False))
def test_any_judgements_are_merged_as_counting_says_in_any_order(rule, rows, order):
    frame = canonical(rows)
    kept, left_out = merge_annotators(frame, rule)
    stay, gone = lines_of(frame, left_out)
    assert sorted(kept["source_row"]) == stay
    sides = {
        (r["prompt_id"], *sorted([r["chosen_id"], r["rejected_id"]])): "tie" if r["kind"] == "tie" else r["chosen_id"]
        for r in kept.to_dicts()
    }
    assert len(sides) == len(kept)  # one row an item
    assert sides == {item: side for item, side in expected_sides(rows, rule).items() if side}
    again, nothing = merge_annotators(kept, rule)
    assert again.equals(kept)
    assert not any(reason.position for reason in nothing)

    shuffled = list(rows)
    order.shuffle(shuffled)
    frame = canonical(shuffled)
    other, left_out = merge_annotators(frame, rule)
    assert lines_of(frame, left_out) == (stay, gone)
    assert other.drop("position").equals(kept.drop("position"))


def test_real_annotators_are_merged_as_counting_says(shared_data):
    """Tulu human evaluation: 1,150 rows by 16 annotators, 376 of them ties."""
    with gzip.open(
        shared_data / "tulu_human_eval" / "eval_annotations_tulu_1.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        records = [json.loads(line) for line in file]
    rows = []
    for number, record in enumerate(records, 1):
        sides = [record["completion_a"], record["completion_b"]]
        if sides[0].strip() == sides[1].strip():
            continue  # 39 ties of one text with itself
        sides = sides[::-1] if record["preference"].startswith("b-") else sides
        kind = "tie" if record["preference"] == "tie" else "pair"
        rows.append(hashed_row(record["prompt"], *sides, kind, record["evaluator"], "tulu", number))
    frame = canonical(rows)
    assert (len(frame), (frame["kind"] == "tie").sum()) == (1150 - 39, 376 - 39)
    for rule in RULES:
        kept, left_out = merge_annotators(frame, rule)
        expected = expected_sides(rows, rule)
        assert len(kept) == sum(side is not None for side in expected.values())
        undecided = {
            (r["prompt_id"], *sorted([r["chosen_id"], r["rejected_id"]])) for r in rows_of(frame, left_out[-1])
        }
        assert undecided == {item for item, side in expected.items() if side is None}


def rows_of(frame, reason) -> list[dict]:
    return frame.filter(frame["position"].is_in(reason.position)).to_dicts()
