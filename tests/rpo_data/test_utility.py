"""What two rows earn by sharing a group: by hand, and against plain Python."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data.contrasts import group_masks, judgements
from rpo_data.embed import unit_vectors
from rpo_data.utility import ONE, Band, Material, utility

NOBODY = np.empty((99, 0), dtype=np.int32)


def material(vectors, prompt=None, kind=None, neighbors=None, known=None):
    prompt = np.arange(len(vectors)) if prompt is None else np.array(prompt)
    kind = np.zeros(len(prompt), dtype=np.int8) if kind is None else np.array(kind, dtype=np.int8)
    neighbors = np.empty((len(vectors), 0), dtype=np.int64) if neighbors is None else np.array(neighbors)
    return Material(unit_vectors(np.array(vectors, dtype=float)), prompt, prompt * 0, kind, neighbors, known)


def earned(of, rows=None, band=Band(), partners=NOBODY):  # noqa: B008
    rows = np.arange(len(of.prompt)) if rows is None else np.array(rows)
    found = utility(rows, of, band, partners)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, found.T)
    assert not found.diagonal().any()
    return found / ONE


THREE = [[1, 0], [0.8, 0.6], [-1, 0]]
"""Cosines: 0.8 of the first two, -1 and -0.8 of these with the third."""


def test_the_cosine_inside_the_band():
    np.testing.assert_allclose(earned(material(THREE))[0], [0, 0.8, 0], atol=1e-4)
    np.testing.assert_allclose(earned(material(THREE), band=Band(min_score=-1.0))[0], [0, 0.8, -1], atol=1e-4)
    np.testing.assert_allclose(earned(material(THREE), band=Band(min_score=0.9))[0], [0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(earned(material(THREE), band=Band(max_score=0.7))[0], [0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(earned(material(THREE), band=Band(0.8, 0.8))[0], [0, 0.8, 0], atol=1e-4)


def test_rows_of_one_prompt_earn_one_whatever_the_band():
    of = material(THREE, prompt=[0, 0, 1, 2])
    np.testing.assert_allclose(earned(of, band=Band(max_score=0.5))[0], [0, 1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(earned(of, rows=[1, 2])[0], [0, 0.8], atol=1e-4)


def test_only_a_win_and_a_loss_earn():
    of = material([[1, 0]] * 4, kind=[1, 1, 2, 2])
    assert earned(of).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_every_earlier_view_together_costs_one():
    partners = np.array([[0, 1, 0, 1], [0, 1, 0, 1], [2, -1, 2, -1]], dtype=np.int32)
    np.testing.assert_allclose(earned(material(THREE), partners=partners)[0], [0, 0.8 - 2, 0], atol=1e-4)


def test_ranks_count_in_either_list():
    """Prompt 0 lists 1, 2; prompt 1 lists 2, 0; prompt 2 lists 0, 1. Rank 0 are the pairs 0-1, 1-2, 2-0."""
    of = material([[1, 0]] * 3, neighbors=[[1, 2], [2, 0], [0, 1]])
    assert not earned(of, band=Band(range_min=1)).any()
    of = material([[1, 0]] * 4, neighbors=[[1, 2], [0, 3], [3, 0], [2, 1]])
    assert np.argwhere(np.triu(earned(of, band=Band(range_min=1, range_max=2)))).tolist() == [[0, 2], [1, 3]]
    assert np.argwhere(np.triu(earned(of, band=Band(range_max=1)))).tolist() == [[0, 1], [2, 3]]


def test_without_a_last_rank_what_no_list_holds_earns_too():
    of = material([[1, 0]] * 4, neighbors=[[1, 2], [0, 3], [3, 0], [2, 1]])
    wanted = [[0, 2], [0, 3], [1, 2], [1, 3]]  # all but the first neighbours 0-1 and 2-3
    assert np.argwhere(np.triu(earned(of, band=Band(range_min=1)))).tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.sampled_from("pq"), st.sampled_from("ABC"), st.sampled_from("ABC")]), min_size=2, max_size=9
    )
)
def test_each_masked_cell_takes_away_half(triples):
    triples = sorted({triple for triple in triples if triple[1] != triple[2]})
    if len(triples) < 2:
        return
    prompts, chosen, rejected = zip(*triples, strict=True)
    frame = pl.DataFrame({"prompt_id": prompts, "chosen_id": chosen, "rejected_id": rejected}).with_columns(
        source=pl.lit("log"), annotator=pl.lit(None, pl.String), source_row=1,
        score_chosen=pl.lit(None, pl.Float64), score_rejected=pl.lit(None, pl.Float64),
    )  # fmt: skip
    known = judgements(frame)
    number = {prompt: place for place, prompt in enumerate(sorted(set(prompts)))}
    of = material([[1, 0]] * len(number), prompt=[number[p] for p in prompts], known=known)
    rows = np.arange(len(triples))
    mask = np.logical_or.reduce(list(group_masks(rows, rows, known).values()))
    expected = 1 - (mask.astype(float) + mask.T) / 2
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(earned(of), expected, atol=1e-3)
