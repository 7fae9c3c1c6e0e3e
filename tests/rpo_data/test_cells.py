"""Cells of many groups at once are those of each group by itself."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data.cells import cell_starts, cells_of, joined
from rpo_data.contrasts import MASK_REASONS, group_masks, judgements
from rpo_data.embed import unit_vectors


def known_of(count, seed):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "prompt_id": [f"p{n}" for n in np.sort(rng.integers(6, size=count))],
            "chosen_id": [f"r{n}" for n in rng.integers(8, size=count)],
            "rejected_id": [f"r{n}" for n in rng.integers(8, size=count)],
        }
    ).with_columns(
        source=pl.lit("log"), annotator=pl.lit(None, pl.String), source_row=1,
        score_chosen=pl.lit(None, pl.Float64), score_rejected=pl.lit(None, pl.Float64),
    )  # fmt: skip
    return judgements(frame), frame["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=12), st.integers(0, 99))
def test_groups_of_any_shapes(shapes, seed):
    known, prompts = known_of(20, seed)
    rng = np.random.default_rng(seed)
    vectors = unit_vectors(rng.normal(size=(6, 5)))
    wins, losses = ([rng.choice(20, size, replace=False) for size in sizes] for sizes in zip(*shapes, strict=True))
    found = cells_of(wins, losses, vectors, prompts, known)
    starts = cell_starts(found.shapes)
    for number, (one, other) in enumerate(zip(wins, losses, strict=True)):
        part = slice(starts[number], starts[number + 1])
        cosine = vectors[prompts[one]].astype(float) @ vectors[prompts[other]].astype(float).T
        np.testing.assert_allclose(found.similarity[part].reshape(cosine.shape), cosine, atol=1e-6)
        masks = group_masks(one, other, known)
        for place, reason in enumerate(MASK_REASONS, start=1):
            assert ((found.reason[part] == place) == masks[reason].ravel()).all()
        assert (found.own[part].reshape(cosine.shape) == (one[:, None] == other[None, :])).all()
    flags = rng.random(len(wins)) < 0.5
    some = found.of(flags)
    assert some.shapes.tolist() == found.shapes[flags].tolist()
    both = joined([some, found.of(~flags)])
    assert np.sort(both.similarity).tolist() == np.sort(found.similarity).tolist()
    assert sum(len(places.ravel()) for places in found.stacks()) == len(found.similarity)
