"""Cells that the data contradicts are masked, each for the reason a person would give."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_rows import any_lines, canonical

from rpo_data.cells import cells_of
from rpo_data.conflicts import near_prompts
from rpo_data.contrasts import fully_masked, judgements
from rpo_data.contrasts import group_masks as masks_of
from rpo_data.embed import unit_vectors


def rows(*triples, scores=None, sources=None, annotators=None):
    prompts, chosen, rejected = zip(*triples, strict=True)
    scores = scores or [(None, None)] * len(triples)
    return pl.DataFrame(
        {
            "prompt_id": prompts,
            "chosen_id": chosen,
            "rejected_id": rejected,
            "score_chosen": pl.Series([s[0] for s in scores], dtype=pl.Float64),
            "score_rejected": pl.Series([s[1] for s in scores], dtype=pl.Float64),
            "source": sources or ["log"] * len(triples),
            "source_row": range(len(triples)),
            "annotator": pl.Series(annotators or [None] * len(triples), dtype=pl.String),
        }
    )


def masked(frame, prompt_of_row):
    """The masked cells of one group of all rows, and how many there are for each reason."""
    vectors, group = unit_vectors(np.eye(max(prompt_of_row) + 1)), np.arange(len(frame))
    found = cells_of([group], [group], vectors, np.array(prompt_of_row), judgements(frame))
    mask = (found.reason > 0).reshape(len(group), len(group))
    assert mask.sum() == sum(found.masked.values())
    return {tuple(map(int, cell)) for cell in np.argwhere(mask)}, found.masked


def group_masks(group, known):
    return masks_of(group, group, known)


def test_the_same_text_on_both_sides_is_masked_across_prompts():
    frame = rows(("p", "yes", "no"), ("q", "maybe", "yes"), ("r", "x", "y"))
    assert masked(frame, [0, 1, 2]) == (
        {(0, 1)},
        {"same_response": 1, "judged_other": 0, "judged_equal": 0, "scored_other": 0},
    )


def test_a_cycle_of_judgements_is_masked():
    """A > B, B > C, C > A. Win A (row 0) against loss C (row 1): the logs say C > A. Likewise around, and each own cell."""
    frame = rows(("p", "A", "B"), ("p", "B", "C"), ("p", "C", "A"))
    places, reasons = masked(frame, [0, 0, 0])
    assert reasons == {"same_response": 3, "judged_other": 6, "judged_equal": 0, "scored_other": 0}
    assert places == {(i, j) for i in range(3) for j in range(3)}


def test_a_chain_is_not():
    """A > B, B > C: win A against loss C agrees, win B against loss B is the same text."""
    assert masked(rows(("p", "A", "B"), ("p", "B", "C")), [0, 0])[0] == {(1, 0)}


def test_a_judgement_in_a_cycle_is_masked_wherever_its_two_responses_meet():
    """A > B, B > C, C > A as before; A > X and Y > B make a cell of A against B, which is in the cycle."""
    frame = rows(("p", "A", "B"), ("p", "B", "C"), ("p", "C", "A"), ("p", "A", "X"), ("p", "Y", "B"))
    known = judgements(frame)
    assert known.contradicted.tolist() == [True, True, True, False, False]
    assert group_masks(np.array([3, 4]), known)["judged_other"].tolist() == [[False, True], [False, False]]


def test_a_pair_judged_both_ways_has_its_own_cell_masked():
    """A > B, B > A and C > D: own cells of the first two; their crossed cells have one text on both sides."""
    frame = rows(("p", "A", "B"), ("p", "B", "A"), ("p", "C", "D"))
    places, reasons = masked(frame, [0, 0, 0])
    assert places == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert reasons == {"same_response": 2, "judged_other": 2, "judged_equal": 0, "scored_other": 0}


def test_a_group_without_a_cell_that_counts_is_known():
    frame = rows(("p", "A", "B"), ("p", "B", "A"), ("p", "C", "D"))
    known = judgements(frame)
    groups = ([0], [1], [0, 1], [2], [0, 2])
    assert [fully_masked(np.array(group), known) for group in groups] == [True, True, True, False, False]


def test_contradicted_rows_make_a_group_that_counts_where_they_meet_each_other():
    """Own cells are masked; A of p against D of q is not known the other way."""
    frame = rows(("p", "A", "B"), ("p", "B", "A"), ("q", "C", "D"), ("q", "D", "C"))
    known = judgements(frame)
    assert known.contradicted.all()
    assert not fully_masked(np.array([0, 2]), known)


def test_many_contradicted_rows_are_decided_as_few_are():
    """100,000 contradicted rows of 50,000 prompts: a table of all their cells would not fit in memory."""
    frame = rows(*((str(n), *pair) for n in range(50_000) for pair in (("A", "B"), ("B", "A"))))
    assert not fully_masked(np.arange(len(frame)), judgements(frame))
    frame = rows(*[("p", "A", "B"), ("p", "B", "A")] * 100)
    assert fully_masked(np.arange(200), judgements(frame))


def test_two_responses_judged_equal_are_masked_but_a_judgement_is_not():
    """Win A against loss D is a tie and masked, whichever side the tie names first; A > B is a judgement, and stays."""
    frame = rows(("p", "A", "B"), ("p", "C", "D"), ("q", "A", "D"))
    for tie in (("p", "A", "D"), ("p", "D", "A")):
        known = judgements(frame, ties=rows(tie, ("p", "A", "B")))
        masks = group_masks(np.arange(3), known)
        assert np.argwhere(masks["judged_equal"]).tolist() == [[0, 1]]
        assert not masks["judged_other"].any()
        assert not known.contradicted.any()


def test_judgements_at_a_near_identical_prompt_count_for_its_cells_too():
    """p: A > B; q near p: B > A and A > C; r is far. Own cells of p's and q's; win A at q against loss B at p is one more."""
    frame = rows(("p", "A", "B"), ("q", "A", "C"), ("q", "B", "A"), ("r", "B", "A"))
    near = near_prompts(["p", "q", "r"], (np.array([0]), np.array([1])))
    masks = group_masks(np.arange(4), judgements(frame, near=near))
    assert np.argwhere(masks["judged_other"]).tolist() == [[0, 0], [1, 0], [2, 2]]
    assert judgements(frame).contradicted.tolist() == [False] * 4
    assert judgements(frame, near=near).contradicted.tolist() == [True, False, True, False]


def test_a_cell_of_two_near_identical_prompts_needs_only_one_of_them_to_know_both_responses():
    """p: A > B, B > C; q near p: D > A, where B is unknown. Win B of p against loss A of q: p says A > B."""
    frame = rows(("p", "A", "B"), ("p", "B", "C"), ("q", "D", "A"))
    masks = group_masks(np.arange(3), judgements(frame, near=near_prompts(["p", "q"], (np.array([0]), np.array([1])))))
    assert np.argwhere(masks["judged_other"]).tolist() == [[1, 2]]


def expected_reason(win: dict, loss: dict, told: list[dict], near: set[str]) -> str | None:
    """Why a cell is masked, in plain Python; scores aside."""
    prompts, better, worse = {win["prompt_id"], loss["prompt_id"]}, win["chosen_id"], loss["rejected_id"]
    orders = {(r["prompt_id"], r["chosen_id"], r["rejected_id"]) for r in told if r["kind"] == "pair"}
    ties = {(r["prompt_id"], frozenset([r["chosen_id"], r["rejected_id"]])) for r in told if r["kind"] == "tie"}
    if better == worse:
        return "same_response"
    beside = prompts | {q for q in "pqr" if near & {*(p + q for p in prompts), *(q + p for p in prompts)}}
    if len(prompts) == 2:  # a cell of two near-identical prompts; of far ones nothing is known
        beside = prompts if near & {"".join(sorted(prompts))} else set()
    if any((p, worse, better) in orders for p in beside):
        return "judged_other"
    if len(prompts) == 2:
        return None
    (prompt,) = prompts
    both_ways = {(p, a, b) for p, a, b in orders if (p, b, a) in orders}
    one_way = orders - both_ways
    if (prompt, better, worse) in one_way:
        reached = {worse}
        for _ in range(4):
            reached |= {b for p, a, b in one_way if p == prompt and a in reached}
        return "judged_other" if better in reached else None
    if (prompt, better, worse) not in orders and (prompt, frozenset([better, worse])) in ties:
        return "judged_equal"
    return None


@settings(deadline=None)
@given(told=any_lines(), near=st.sets(st.sampled_from(["pq", "qr", "pr"]), max_size=2))
def test_masks_are_those_of_a_plain_search(told, near):
    frame = canonical(told)
    pairs, ties = frame.filter(frame["kind"] == "pair"), frame.filter(frame["kind"] == "tie")
    indices = tuple(np.array(["pqr".index(pair[side]) for pair in sorted(near)], dtype=np.int64) for side in (0, 1))
    known = judgements(pairs, ties, near_prompts(["p", "q", "r"], indices))
    masks = group_masks(np.arange(len(pairs)), known)
    lines = pairs.to_dicts()
    for i, win in enumerate(lines):
        for j, loss in enumerate(lines):
            found = [reason for reason, mask in masks.items() if mask[i, j]]
            expected = expected_reason(win, loss, told, near)
            assert found == ([expected] if expected else []), (win, loss)
    assert known.contradicted.tolist() == masks["judged_other"].diagonal().tolist()
    anywhere = np.logical_or.reduce(list(masks.values()))
    assert not (anywhere.any(axis=0) | anywhere.any(axis=1))[~known.maskable].any()


def test_judgements_on_another_prompt_say_nothing():
    frame = rows(("p", "A", "B"), ("q", "B2", "A2"), ("r", "B", "A"))
    assert masked(frame, [0, 1, 2])[1]["judged_other"] == 0


def test_known_scores_the_other_way_are_masked_for_one_prompt_source_and_annotator():
    """Row 0: 5 > 1; row 1: 9 > 7. Win 0 (5) against loss 1 (7) is the wrong way round."""
    triples = (("p", "A", "B"), ("p", "C", "D"))
    scores = [(5.0, 1.0), (9.0, 7.0)]
    assert masked(rows(*triples, scores=scores), [0, 0]) == (
        {(0, 1)},
        {"same_response": 0, "judged_other": 0, "judged_equal": 0, "scored_other": 1},
    )
    assert masked(rows(*triples, scores=[(5.0, 1.0), (9.0, None)]), [0, 0])[0] == set()
    assert masked(rows(*triples, scores=[(7.0, 1.0), (9.0, 7.0)]), [0, 0])[0] == set()
    assert masked(rows(*triples, scores=scores, sources=["a", "b"]), [0, 0])[0] == set()
    assert masked(rows(*triples, scores=scores, annotators=["a", "b"]), [0, 0])[0] == set()
    other_prompt = (("p", "A", "B"), ("q", "C", "D"))
    assert masked(rows(*other_prompt, scores=scores), [0, 1])[0] == set()


def test_similarity_is_exactly_one_for_the_same_prompt():
    vectors, group = unit_vectors(np.array([[1.0, 2.0, 3.0], [3.0, -1.0, 0.5]])), np.arange(3)
    known = judgements(rows(("p", "A", "B"), ("p", "C", "D"), ("q", "E", "F")))
    similarity = cells_of([group], [group], vectors, np.array([0, 0, 1]), known).similarity.reshape(3, 3)
    assert similarity.dtype == np.float32
    assert similarity[:2, :2].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    cosine = (3 - 2 + 1.5) / np.sqrt(14) / np.sqrt(10.25)
    np.testing.assert_allclose(similarity[2, :2], cosine, atol=1e-6)
