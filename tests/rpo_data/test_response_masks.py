"""Masks and counterparts of responses: worked out by hand, then against a plain search through all cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import response_rows as responses

from rpo_data.contrasts import Known
from rpo_data.embed import unit_vectors
from rpo_data.response_masks import (
    known_labels,
    known_scores,
    left_over_labels,
    no_counterpart,
    partners,
    without_counterpart,
)
from rpo_data.schemas.recipe import Recipe


def cells(known: Known, wins=None, losses=None):
    """Reason -> cells (win, loss) masked for it, of all rows against all where no sides are given."""
    every = np.arange(len(known.maskable))
    masks = known.masks(every if wins is None else np.array(wins), every if losses is None else np.array(losses))
    return {reason: set(map(tuple, np.argwhere(mask).tolist())) for reason, mask in masks.items() if mask.any()}


def test_the_same_text_liked_here_and_disliked_there_is_masked():
    """Wins 0 and 1 against losses 2 and 3: "a" of p meets "a" of q."""
    known = known_labels(responses(("p", "a", True), ("p", "b", True), ("q", "a", False), ("q", "c", False)))
    assert cells(known, [0, 1], [2, 3]) == {"same_response": {(0, 0)}}
    assert known.maskable.tolist() == [True, False, True, False]


def test_two_responses_that_are_both_liked_and_disliked_contradict_each_other():
    """p: a and b both ways, c liked, d disliked. a against b is contradicted; a against d and c against b are not."""
    rows = [("p", text, label) for text, label in (("a", False), ("a", True), ("b", False), ("b", True))]
    known = known_labels(responses(*rows, ("p", "c", True), ("p", "d", False)))
    found = cells(known, [1, 3, 4], [0, 2, 5])
    assert found == {"same_response": {(0, 0), (1, 1)}, "judged_other": {(0, 1), (1, 0)}}


def test_own_cells_are_those_of_one_prompt():
    known = known_labels(responses(("p", "a", True), ("q", "b", True), ("q", "c", False)))
    assert known.own(np.array([0, 1]), np.array([2])).tolist() == [[False], [True]]


def test_a_higher_score_beats_a_lower_one_on_its_own_scale():
    """Scores 5, 3, 3 of log and 9 of another: 5 beats both 3s, of two prompts; 9 compares with none."""
    known = known_scores(responses(("p", "a", 5.0), ("p", "b", 3.0), ("q", "c", 3.0), ("q", "d", 9.0, {"source": "x"})))
    found = cells(known)
    assert found["same_response"] == {(n, n) for n in range(4)}
    assert found["not_comparable"] == {(3, n) for n in range(3)} | {(n, 3) for n in range(3)}
    assert found["not_better"] == {(1, 0), (1, 2), (2, 0), (2, 1)}
    mixed = cells(known_scores(responses(*ROWS_OF_TWO_SCALES), mix_scales=True))
    assert "not_comparable" not in mixed
    assert (1, 0) not in mixed["not_better"]


ROWS_OF_TWO_SCALES = [("p", "a", 5.0), ("q", "b", 9.0, {"source": "x"}), ("r", "c", 1.0, {"annotator": "y"})]


def test_ranks_compare_inside_one_record():
    ranked = [
        ("p", "a", None, {"rank": 1, "source_row": 7}),
        ("p", "b", None, {"rank": 2, "source_row": 7}),
        ("q", "c", None, {"rank": 3, "source_row": 8}),
    ]
    found = cells(known_scores(responses(*ranked)))
    assert found["not_better"] == {(1, 0)}
    assert found["not_comparable"] == {(0, 2), (1, 2), (2, 0), (2, 1)}
    mixed = cells(known_scores(responses(*ranked), mix_scales=True))
    assert mixed["not_better"] == {(1, 0), (2, 0), (2, 1)}


@pytest.mark.parametrize(
    ("margins", "counted"),
    [
        ((0, 0), {(0, 1), (0, 2), (1, 2)}),
        ((0.1, 0), {(0, 1), (0, 2), (1, 2)}),  # 0.3 - 0.2 reaches 0.1
        ((0.2, 0), {(0, 2)}),
        ((0, 0.4), {(0, 2), (1, 2)}),  # 0.2 of 0.3, 0.1 of 0.2; 0.1 of 0.3 is too little
        ((0, 0.6), {(0, 2)}),
        ((1.0, 0.9), set()),
    ],
)
def test_margins(margins, counted):
    known = known_scores(responses(("p", "a", 0.3), ("q", "b", 0.2), ("r", "c", 0.1)), *margins)
    every = {(i, j) for i in range(3) for j in range(3)}
    assert every - set().union(*cells(known).values()) == counted
    lone = without_counterpart(known, np.zeros(3, dtype=np.int64))
    assert lone.tolist() == [not any(row in cell for cell in counted) for row in range(3)]


def test_scores_of_two_annotators_that_order_two_responses_differently_mask_both():
    """x: a 5 > b 1. y: b 4 > a 2, and c 1 below both. Only cells of a against b are contradicted."""
    rows = [
        ("p", "a", 5.0, "x"),
        ("p", "a", 2.0, "y"),
        ("p", "b", 1.0, "x"),
        ("p", "b", 4.0, "y"),
        ("p", "c", 1.0, "y"),
    ]
    found = cells(known_scores(responses(*((p, t, s, {"annotator": who}) for p, t, s, who in rows))))
    assert found["judged_other"] == {(0, 2), (3, 1)}


def test_mixed_scales_follow_the_known_order_of_one_prompt():
    """log: a 3 > b 1. x: b 9. Mixed, b 9 would beat a 3, but the log knows better."""
    rows = responses(("p", "a", 3.0), ("p", "b", 1.0), ("p", "b", 9.0, {"source": "x"}))
    assert cells(known_scores(rows, mix_scales=True))["judged_other"] == {(2, 0)}


def test_what_has_no_counterpart_in_its_block():
    """Block 0: a liked and a disliked text. Block 1: two liked ones. Block 2: one text, liked and disliked."""
    labels = [
        ("p", "a", True),
        ("p", "b", False),
        ("q", "a", True),
        ("q", "b", True),
        ("r", "c", True),
        ("s", "c", False),
    ]
    known = known_labels(responses(*labels))
    assert without_counterpart(known, np.array([0, 0, 1, 1, 2, 2])).tolist() == [False, False, True, True, True, True]


def test_what_no_group_has_a_place_for_is_least_like_the_rare_label():
    """One liked row, groups of three at most: two of the disliked stay, the nearest and, of two equal ones, the first."""
    vectors = unit_vectors(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]]))
    rows = responses(("a", "liked", True), *((prompt, prompt, False) for prompt in "bcde"))
    known, block = known_labels(rows), np.zeros(5, dtype=np.int64)
    assert left_over_labels(known, block, vectors, 2, 3).tolist() == [False, False, True, False, True]
    recipe = Recipe(mode="unpaired", max_group=3, group_size=2)
    assert no_counterpart(rows, block, vectors, recipe, "unpaired").tolist() == [False, False, True, False, True]


def test_scored_rows_that_would_leave_groups_without_a_cell_that_counts():
    """One 5 among 1s: one pair, so one group of 3: of the 1s two stay, and it is those whose prompts are near."""
    vectors = unit_vectors(np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.8, 0.2]]))
    rows = responses(("a", "good", 5.0), *((prompt, prompt, 1.0) for prompt in "bcd"))
    gone = no_counterpart(rows, np.zeros(4, dtype=np.int64), vectors, Recipe(mode="scored", group_size=3), "scored")
    assert len(rows) - gone.sum() == 3
    assert not gone[0]


TEXTS = st.sampled_from("abc")
PROMPTS = st.sampled_from("pqr")


def most_pairs(rows, free):
    """The largest number of rows that can be paired off along cells that count, by trying all ways."""
    if len(rows) < 2:
        return 0
    first, rest = rows[0], rows[1:]
    ways = [
        1 + most_pairs([r for r in rest if r != other], free)
        for other in rest
        if {(first, other), (other, first)} & free
    ]
    return max([most_pairs(rest, free), *ways])


@given(
    st.lists(st.tuples(PROMPTS, st.sampled_from([0.0, 1.0, 1.5, 4.0]), st.sampled_from("xy")), max_size=8),
    st.sampled_from([(0.0, 0.0), (1.0, 0.0), (0.0, 0.7)]),
)
def test_as_many_scored_rows_are_paired_off_as_can_be(drawn, margins):
    """Different texts: then the count is the largest there is."""
    rows = responses(*((p, f"t{n}", score, {"annotator": who}) for n, (p, score, who) in enumerate(sorted(drawn))))
    known = known_scores(rows, *margins)
    found = partners(known, np.zeros(len(rows), dtype=np.int64))
    masked = set().union(*cells(known).values()) if len(rows) else set()
    free = {(i, j) for i in range(len(rows)) for j in range(len(rows))} - masked
    paired = [(row, int(other)) for row, other in enumerate(found) if other >= 0]
    assert all(found[other] == row and {(row, other), (other, row)} & free for row, other in paired)
    assert len(paired) // 2 == most_pairs(list(range(len(rows))), free)


@given(st.lists(st.tuples(PROMPTS, TEXTS, st.booleans()), max_size=10, unique=True))
def test_liked_rows_are_paired_off_with_disliked_ones_of_other_texts(drawn):
    known = known_labels(responses(*sorted(drawn)))
    found = partners(known, np.zeros(len(drawn), dtype=np.int64))
    masks = cells(known) if drawn else {}
    for row, other in enumerate(found):
        if other >= 0:
            assert found[other] == row
            assert known.liked[row] != known.liked[other]
            assert not any((row, int(other)) in masked for masked in masks.values())


def plain_reason(rows, i, j, margins, mix):
    """Why a cell of scored rows is masked, in plain Python."""
    win, loss = rows[i], rows[j]
    value = {n: row["score"] if row["score"] is not None else -row["rank"] for n, row in enumerate(rows)}

    def strict(row):
        return (row["source"], row["annotator"], None if row["score"] is not None else row["source_row"])

    if win["chosen_id"] == loss["chosen_id"]:
        return "same_response"
    alike = (win["score"] is None) == (loss["score"] is None) if mix else strict(win) == strict(loss)
    if not alike:
        return "not_comparable"
    gap = value[i] - value[j]
    if gap <= 0 or gap < margins[0] - 1e-9 or gap < margins[1] * abs(value[i]) - 1e-9:
        return "not_better"
    for m, one in enumerate(rows):
        for n, other in enumerate(rows):
            here = {one["prompt_id"], other["prompt_id"], win["prompt_id"], loss["prompt_id"]}
            turned = (one["chosen_id"], other["chosen_id"]) == (loss["chosen_id"], win["chosen_id"])
            if len(here) == 1 and turned and strict(one) == strict(other) and value[m] > value[n]:
                return "judged_other"
    return None


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            PROMPTS, TEXTS, st.sampled_from([0.0, 1.0, 2.5, None]), st.integers(1, 3), st.sampled_from(["x", None])
        ),
        max_size=9,
    ),
    st.sampled_from([(0.0, 0.0), (1.0, 0.0), (0.0, 0.5)]),
    st.booleans(),
    st.lists(st.integers(0, 1), min_size=9, max_size=9),
)
def test_masks_and_counterparts_of_scores_are_those_of_a_plain_search(drawn, margins, mix, drawn_block):
    rows = responses(
        *(
            (
                prompt,
                text,
                score,
                {"rank": None if score is not None else rank, "annotator": who, "source_row": rank % 2},
            )
            for prompt, text, score, rank, who in sorted(drawn, key=str)
        )
    )
    known = known_scores(rows, *margins, mix)
    lines, block = rows.to_dicts(), np.array(drawn_block[: len(rows)], dtype=np.int64)
    found = cells(known) if len(rows) else {}
    reasons = {(i, j): plain_reason(lines, i, j, margins, mix) for i in range(len(rows)) for j in range(len(rows))}
    for cell, reason in reasons.items():
        assert [name for name, masked in found.items() if cell in masked] == ([reason] if reason else [])
    free = {cell for cell, reason in reasons.items() if reason is None and block[cell[0]] == block[cell[1]]}
    expected = [not any(row in cell for cell in free) for row in range(len(rows))]
    assert without_counterpart(known, block).tolist() == expected


@settings(max_examples=200)
@given(
    st.lists(st.tuples(PROMPTS, TEXTS, st.booleans()), max_size=10),
    st.lists(st.integers(0, 1), min_size=10, max_size=10),
)
def test_counterparts_of_labels_are_those_of_a_plain_search(drawn, drawn_block):
    rows = responses(*sorted(drawn))
    known, block = known_labels(rows), np.array(drawn_block[: len(rows)], dtype=np.int64)
    told = {(prompt, text, label) for prompt, text, label in drawn}

    def both(row):
        return {(row["prompt_id"], row["chosen_id"], label) for label in (True, False)} <= told

    expected = []
    for i, one in enumerate(rows.to_dicts()):
        counts = [
            block[i] == block[j]
            and one["label"] != other["label"]
            and one["chosen_id"] != other["chosen_id"]
            and not (one["prompt_id"] == other["prompt_id"] and both(one) and both(other))
            for j, other in enumerate(rows.to_dicts())
        ]
        expected.append(not any(counts))
    assert without_counterpart(known, block).tolist() == expected
