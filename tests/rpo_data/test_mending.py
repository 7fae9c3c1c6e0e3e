"""Groups that hold no cell that counts are mended: by swaps, and where these do not help by seating all rows anew."""

import numpy as np
import polars as pl
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests_support import response_rows

from rpo_data.cells import fully_masked_groups
from rpo_data.contrasts import judgements
from rpo_data.errors import LogError
from rpo_data.mending import _seat, _swap, roles, unmasked
from rpo_data.response_masks import known_labels, known_scores, partners
from rpo_data.utility import Material


def material_of(rows, known, kind=0):
    count = len(rows)
    return Material(
        vectors=np.eye(count, dtype=np.float32),
        prompt=rows["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1,
        block=np.zeros(count, dtype=np.int64),
        kind=np.broadcast_to(np.asarray(kind, dtype=np.int8), count).copy(),
        neighbors=np.empty((count, 0), dtype=np.int64),
        known=known,
    )


def in_groups(sizes):
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def whole(groups):
    return sorted(np.concatenate(groups).tolist())


def test_ranks_of_four_records_dealt_out_like_cards_come_together():
    """Group g holds the answers of rank g of four records: no two of them compare, until swaps bring pairs together."""
    ranks = [
        (f"{p}", f"{p}{rank}", None, {"rank": rank + 1, "source_row": int(p)}) for p in "0123" for rank in range(4)
    ]
    rows = response_rows(*ranks)
    material = material_of(rows, known_scores(rows))
    dealt = [np.arange(rank, 16, 4) for rank in range(4)]
    assert len(fully_masked_groups(*roles(dealt, material), material.known)) == 4
    mended = unmasked(dealt, material)
    assert len(fully_masked_groups(*roles(mended, material), material.known)) == 0
    assert [len(group) for group in mended] == [4] * 4
    assert whole(mended) == list(range(16))


def test_a_scored_row_alone_joins_the_nearest_group():
    rows = response_rows(*(("p" + str(n), f"t{n}", float(n)) for n in range(5)))
    material = material_of(rows, known_scores(rows))
    material.vectors[:] = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0.6, 0.8]]) @ np.eye(2, 5)
    assert [group.tolist() for group in unmasked(in_groups([2, 2, 1]), material)] == [[0, 1], [2, 3, 4]]


def test_too_few_pairs_for_so_many_groups_is_an_error():
    rows = response_rows(*((f"p{n}", f"t{n}", 5.0 if n == 0 else 1.0) for n in range(4)))
    with pytest.raises(
        LogError, match="a group holds only rows that cannot be contrasted with each other: raise group_"
    ):
        unmasked(in_groups([2, 2]), material_of(rows, known_scores(rows)))


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("abcd"), st.booleans()), max_size=14, unique=True))
def test_seating_anew_gives_every_group_a_cell_that_counts_and_keeps_the_sizes(drawn):
    rows = response_rows(*sorted(drawn))
    known = known_labels(rows) if drawn else None
    pairs = int((partners(known, np.zeros(len(rows), dtype=np.int64)) >= 0).sum()) // 2 if drawn else 0
    if not pairs:
        return
    material = material_of(rows, known, np.where(known.liked, 1, 2))
    sides = [np.flatnonzero(known.liked == liked) for liked in (True, False)]
    groups = [np.concatenate(parts) for parts in zip(*(np.array_split(side, pairs) for side in sides), strict=True)]
    before = [(known.liked[group].sum(), len(group)) for group in groups]
    _seat(groups, material)
    assert [(known.liked[group].sum(), len(group)) for group in groups] == before
    assert whole(groups) == list(range(len(rows)))
    assert len(fully_masked_groups(*roles(groups, material), known)) == 0


def first_swap(one, other, material):
    """The plain search: the first two rows of one kind whose swap helps one group and does not spoil the other."""

    def masked(group):
        return len(fully_masked_groups(*roles([group], material), material.known)) > 0

    hopeless = masked(other)
    for i, j in np.ndindex(len(one), len(other)):
        if material.kind[one[i]] == material.kind[other[j]]:
            here, there = one.copy(), other.copy()
            here[i], there[j] = other[j], one[i]
            if not masked(here) and (hopeless or not masked(there)):
                return here, there
    return None


@settings(max_examples=120)
@given(
    st.sampled_from(["labels", "scores", "pairs"]),
    st.lists(
        st.tuples(st.sampled_from("pqr"), st.sampled_from("abc"), st.booleans(), st.integers(0, 1)),
        min_size=2,
        max_size=9,
        unique=True,
    ),
    st.integers(1, 8),
)
def test_the_swap_is_the_first_that_helps(mode, drawn, width):
    if mode == "pairs":
        told = [(f"{prompt}", text, "abc"["abc".index(text) - 1 - later]) for prompt, text, _, later in sorted(drawn)]
        rows = pl.DataFrame(told, schema=["prompt_id", "chosen_id", "rejected_id"], orient="row").with_columns(
            source=pl.lit("log"), annotator=pl.lit(None, pl.String), source_row=1,
            score_chosen=pl.lit(None, pl.Float64), score_rejected=pl.lit(None, pl.Float64),
        )  # fmt: skip
        material = material_of(rows, judgements(rows))
    elif mode == "labels":
        rows = response_rows(*((prompt, text, liked) for prompt, text, liked, _ in sorted(drawn)))
        known = known_labels(rows)
        material = material_of(rows, known, np.where(known.liked, 1, 2))
    else:
        rows = response_rows(
            *((prompt, text, float(liked), {"source_row": place}) for prompt, text, liked, place in sorted(drawn))
        )
        material = material_of(rows, known_scores(rows))
    one, other = np.split(np.arange(len(rows)), [min(width, len(rows) - 1)])
    if not len(fully_masked_groups(*roles([one], material), material.known)):
        return
    wanted, done = first_swap(one, other, material), _swap(one, other, material)
    event(f"{mode}, {'helps' if done else 'does not help'}")
    assert done == (wanted is not None)
    if wanted is not None:
        assert [one.tolist(), other.tolist()] == [group.tolist() for group in wanted]
