"""Cells that the data contradicts are masked, each for the reason a person would give."""

import numpy as np
import polars as pl

from rpo_data.contrasts import group_cells, group_similarity, judgements
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
            "annotator": pl.Series(annotators or [None] * len(triples), dtype=pl.String),
        }
    )


def cells(frame, prompt_of_row):
    vectors = unit_vectors(np.eye(max(prompt_of_row) + 1))
    return group_cells(np.arange(len(frame)), vectors, np.array(prompt_of_row), judgements(frame))


def masked(frame, prompt_of_row):
    found = cells(frame, prompt_of_row)
    assert not found.mask.diagonal().any()
    assert found.mask.sum() == sum(found.masked.values())
    return {tuple(map(int, cell)) for cell in np.argwhere(found.mask)}, found.masked


def test_the_same_text_on_both_sides_is_masked_across_prompts():
    frame = rows(("p", "yes", "no"), ("q", "maybe", "yes"), ("r", "x", "y"))
    assert masked(frame, [0, 1, 2]) == ({(0, 1)}, {"same_response": 1, "judged_other": 0, "scored_other": 0})


def test_a_cycle_of_judgements_is_masked():
    """A > B, B > C, C > A. Win A (row 0) against loss C (row 1): the logs say C > A. Likewise around."""
    frame = rows(("p", "A", "B"), ("p", "B", "C"), ("p", "C", "A"))
    places, reasons = masked(frame, [0, 0, 0])
    assert reasons == {"same_response": 3, "judged_other": 3, "scored_other": 0}
    assert places == {(i, j) for i in range(3) for j in range(3) if i != j}


def test_a_chain_is_not():
    """A > B, B > C: win A against loss C agrees, win B against loss B is the same text."""
    assert masked(rows(("p", "A", "B"), ("p", "B", "C")), [0, 0])[0] == {(1, 0)}


def test_judgements_on_another_prompt_say_nothing():
    frame = rows(("p", "A", "B"), ("q", "B2", "A2"), ("r", "B", "A"))
    assert masked(frame, [0, 1, 2])[1]["judged_other"] == 0


def test_known_scores_the_other_way_are_masked_for_one_prompt_source_and_annotator():
    """Row 0: 5 > 1; row 1: 9 > 7. Win 0 (5) against loss 1 (7) is the wrong way round."""
    triples = (("p", "A", "B"), ("p", "C", "D"))
    scores = [(5.0, 1.0), (9.0, 7.0)]
    assert masked(rows(*triples, scores=scores), [0, 0]) == (
        {(0, 1)},
        {"same_response": 0, "judged_other": 0, "scored_other": 1},
    )
    assert masked(rows(*triples, scores=[(5.0, 1.0), (9.0, None)]), [0, 0])[0] == set()
    assert masked(rows(*triples, scores=[(7.0, 1.0), (9.0, 7.0)]), [0, 0])[0] == set()
    assert masked(rows(*triples, scores=scores, sources=["a", "b"]), [0, 0])[0] == set()
    assert masked(rows(*triples, scores=scores, annotators=["a", "b"]), [0, 0])[0] == set()
    other_prompt = (("p", "A", "B"), ("q", "C", "D"))
    assert masked(rows(*other_prompt, scores=scores), [0, 1])[0] == set()


def test_similarity_is_exactly_one_for_the_same_prompt():
    vectors = unit_vectors(np.array([[1.0, 2.0, 3.0], [3.0, -1.0, 0.5]]))
    similarity = group_similarity(vectors, np.array([0, 0, 1]))
    assert similarity.dtype == np.float32
    assert similarity[:2, :2].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    cosine = (3 - 2 + 1.5) / np.sqrt(14) / np.sqrt(10.25)
    np.testing.assert_allclose(similarity[2, :2], cosine, atol=1e-6)
