"""From edges to decisions: clusters as SciPy finds them, the lowest rank stays, any threshold without a search."""

import os
import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rpo_data import duplicates as module
from rpo_data.duplicates import STABLE, Edges, decide, exact_edges, fold, graph_edges
from rpo_data.embed import unit_vectors
from rpo_data.errors import RecipeError
from rpo_data.minhash import near_texts
from rpo_data.neighbors import exact_neighbors, near_duplicates


def make_edges(count, triples, threshold=0.5):
    """Edges from (row, row, score)."""
    triples = sorted((min(a, b), max(a, b), score) for a, b, score in triples)
    columns = zip(*triples, strict=True) if triples else ([], [], [])
    first, second, score = (np.array(column) for column in columns)
    return Edges(count, first.astype(np.int64), second.astype(np.int64), score.astype(np.float64), threshold)


CHAIN = make_edges(6, [(0, 1, 0.9), (1, 2, 0.7), (2, 3, 0.8), (4, 5, 0.5)])
"""0 -.9- 1 -.7- 2 -.8- 3, and 4 -.5- 5."""


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 14))
    pair = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda ends: ends[0] < ends[1])
    pairs = draw(st.lists(pair, unique=True, max_size=25)) if count > 1 else []
    scores = draw(st.lists(st.integers(5, 10), min_size=len(pairs), max_size=len(pairs)))
    edges = make_edges(count, [(a, b, score / 10) for (a, b), score in zip(pairs, scores, strict=True)])
    return edges, np.array(draw(st.permutations(range(count))))


@pytest.mark.parametrize(
    ("threshold", "stays", "score", "ratio"),
    [
        (0.5, [3, 3, 3, 3, 5, 5], [0.7, 0.7, 0.8, 1, 0.5, 1], 4 / 6),
        (0.75, [1, 1, 3, 3, 4, 5], [0.9, 1, 0.8, 1, 1, 1], 2 / 6),
        (0.9, [1, 1, 2, 3, 4, 5], [0.9, 1, 1, 1, 1, 1], 1 / 6),
        (1.0, [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1], 0.0),
    ],
)
def test_worked_example(threshold, stays, score, ratio):
    """Ranks fall with the row number, so the last row of a cluster stays; row 0 falls to 3 over the weakest link, 0.7."""
    found = decide(CHAIN, np.array([5, 4, 3, 2, 1, 0])).rethreshold(threshold)
    assert found.stays.tolist() == stays
    assert found.score.tolist() == score
    assert found.duplicate_ratio == ratio
    assert found.kept.tolist() == sorted(set(stays))
    assert found.dropped.tolist() == [row for row in range(6) if stays[row] != row]
    assert found.threshold == threshold


@given(graphs(), st.integers(5, 10))
def test_clusters_are_scipys_and_the_lowest_rank_stays(graph, tenths):
    edges, rank = graph
    threshold = tenths / 10
    found = decide(edges, rank).rethreshold(threshold)
    near = edges.score >= threshold
    ends = (edges.first[near], edges.second[near])
    _, cluster = connected_components(coo_array((np.ones(near.sum()), ends), shape=(edges.count,) * 2), directed=False)
    for row in range(edges.count):
        members = np.flatnonzero(cluster == cluster[row])
        assert found.stays[row] == members[rank[members].argmin()]
    assert sorted([*found.kept, *found.dropped]) == list(range(edges.count))


@given(graphs())
def test_a_row_falls_to_its_row_up_to_its_score_and_no_further(graph):
    edges, rank = graph
    found = decide(edges, rank)
    for row in found.dropped:
        assert found.rethreshold(found.score[row]).stays[row] == found.stays[row]
        if found.score[row] < 1:
            assert found.rethreshold(found.score[row] + 0.05).stays[row] != found.stays[row]


@given(graphs(), st.integers(5, 10))
def test_rethreshold_is_a_fresh_decision(graph, tenths):
    edges, rank = graph
    later = decide(edges, rank).rethreshold(tenths / 10)
    fresh = decide(edges.rethreshold(tenths / 10), rank)
    assert later.stays.tolist() == fresh.stays.tolist()
    assert later.score.tolist() == fresh.score.tolist()


@given(graphs(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(graph, random):
    edges, rank = graph
    new_place = list(range(edges.count))
    random.shuffle(new_place)
    place = np.array(new_place)
    triples = [(place[a], place[b], s) for a, b, s in zip(edges.first, edges.second, edges.score, strict=True)]
    moved_rank = np.empty_like(rank)
    moved_rank[place] = rank
    found, moved = decide(edges, rank), decide(make_edges(edges.count, triples), moved_rank)
    assert moved.stays[place].tolist() == place[found.stays].tolist()
    assert moved.score[place].tolist() == found.score.tolist()


def test_equal_ranks_stand_in_the_order_of_rows():
    assert decide(make_edges(3, [(0, 2, 0.9)]), np.zeros(3, dtype=np.int64)).stays.tolist() == [0, 1, 0]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_edges_keep_every_row(count):
    found = decide(make_edges(count, []), np.arange(count))
    assert found.kept.tolist() == list(range(count))
    assert found.dropped.tolist() == []
    assert found.duplicate_ratio == 0.0


@pytest.mark.parametrize("threshold", [0.49, 1.5, float("nan")])
def test_thresholds_that_were_not_searched_are_refused(threshold):
    with pytest.raises(RecipeError, match="search again"):
        decide(CHAIN, np.arange(6)).rethreshold(threshold)
    with pytest.raises(RecipeError, match="search again"):
        CHAIN.rethreshold(threshold)


def test_a_higher_threshold_can_be_taken_back_down_to_the_searched_one():
    found = decide(CHAIN, np.arange(6))
    assert found.rethreshold(0.9).rethreshold(0.5).stays.tolist() == found.stays.tolist()


def test_one_rank_a_row():
    with pytest.raises(ValueError, match="5 ranks for 6 rows"):
        decide(CHAIN, np.arange(5))


ROWS = pl.DataFrame(
    [
        ("Hi", "yes", "no"),
        (" hi ", "YES", "no\n"),  # as row 0
        ("Hi", "no", "yes"),  # swapped: not the same row
        ("Hi", "yes n", "o"),  # cut elsewhere
        ("Ｈｉ", "y\u200bes", "no"),  # a zero-width space is no blank
        ("ＨＩ", "yes", "no"),  # NFKC: as row 0
        ("H i", "yes", "no"),
        ("é", "a  b\t\tc", "x"),
        ("e\u0301", "a b\u2028c", "x"),  # as row 7
        (None, "", "x"),
        ("", " ", "x"),  # as row 9
    ],
    schema={"prompt": pl.String, "chosen": pl.String, "rejected": pl.String},
    orient="row",
)


def test_exact_duplicates_by_hand():
    edges = exact_edges(ROWS)
    assert list(zip(edges.first.tolist(), edges.second.tolist(), strict=True)) == [(0, 1), (0, 5), (7, 8), (9, 10)]
    assert edges.score.tolist() == [1.0] * 4
    assert decide(edges, -np.arange(11)).stays.tolist() == [5, 5, 2, 3, 4, 5, 6, 8, 8, 10, 10]


def test_exact_duplicates_of_some_columns():
    assert exact_edges(ROWS, ("rejected",)).second.tolist() == [1, 4, 5, 6, 8, 9, 10]


def test_exact_duplicates_of_no_rows():
    edges = exact_edges(ROWS.head(0))
    assert (edges.count, edges.first.tolist(), edges.score.tolist()) == (0, [], [])


texts = st.text(st.sampled_from(" \t\u00a0aAbÉé①ﬁ猫İß"), max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), max_size=12))
def test_exact_duplicates_equal_python(rows):
    def plain(text):
        return " ".join(unicodedata.normalize("NFKC", text).lower().split())

    frame = pl.DataFrame(rows, schema={"chosen": pl.String, "rejected": pl.String}, orient="row")
    found = decide(exact_edges(frame, ("chosen", "rejected")), np.arange(len(rows)))
    keys = [tuple(map(plain, row)) for row in rows]
    assert found.stays.tolist() == [keys.index(key) for key in keys]


def test_threads_and_parts_change_no_exact_duplicate(monkeypatch):
    rows = pl.concat([ROWS] * 30)
    expected = exact_edges(rows)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(module, "CHUNK", 7)
    assert exact_edges(rows).second.tobytes() == expected.second.tobytes()
    assert rows.equals(pl.concat([ROWS] * 30))


def test_characters_that_skip_nfkc_are_stable_in_each_others_company():
    singles = pl.Series([chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000])
    stable = singles.filter(singles.str.contains(f"^(?s:[{STABLE}])$")).to_list()
    assert len(stable) > 20000
    assert [c for c in stable if unicodedata.normalize("NFKC", c) != c] == []
    assert [c for c in stable if unicodedata.combining(c)] == []


def test_fold_by_hand():
    given_ = pl.Series(["ÀÉ", "ﬁ Ⅳ", "a\u2028b\u00a0c", "Ünï’s", None, "猫 CAT"])
    assert fold(given_).to_list() == ["àé", "fi iv", "a b c", "ünï’s", "", "猫 cat"]
    assert given_.to_list()[1] == "ﬁ Ⅳ"


def test_semantic_duplicates_come_from_the_graph_with_their_cosines():
    """Angles 0, 5, 40 and 48 degrees: pairs at 5 and 8 degrees."""
    degrees = np.radians([0, 5, 40, 48])
    vectors = unit_vectors(np.stack([np.cos(degrees), np.sin(degrees)], axis=1))
    pairs = near_duplicates(vectors, *exact_neighbors(vectors, 2), 0.95)
    edges = graph_edges(vectors, pairs, 0.95)
    assert (edges.first.tolist(), edges.second.tolist()) == ([0, 2], [1, 3])
    np.testing.assert_allclose(edges.score, np.cos(np.radians([5, 8])), atol=1e-6)
    assert decide(edges, np.array([1, 0, 2, 3])).stays.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("threshold", [0.8, 0.9, 0.97])
def test_another_threshold_of_the_graph_is_what_the_graph_would_give(threshold):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16))
    vectors = unit_vectors(np.repeat(centres, 6, axis=0) + 0.25 * rng.normal(size=(360, 16)))
    graph = exact_neighbors(vectors, 4)
    later = graph_edges(vectors, near_duplicates(vectors, *graph, 0.8), 0.8).rethreshold(threshold)
    fresh = graph_edges(vectors, near_duplicates(vectors, *graph, threshold), threshold)
    assert len(fresh.first) > 20
    assert later.first.tobytes() == fresh.first.tobytes()
    assert later.second.tobytes() == fresh.second.tobytes()
    assert later.score.tobytes() == fresh.score.tobytes()


def test_a_last_bit_undoes_nothing_that_the_graph_found():
    """The graph's cosines are float32: they may lie above the threshold where float64 lies below, or above 1."""
    vectors = np.array([[1.0, 0.0], [0.96, 0.28], [1.0000001, 0.0]], dtype=np.float32)
    pairs = (np.array([1, 2]), np.array([0, 0]))
    threshold = 0.96 + 1e-6
    edges = graph_edges(vectors, pairs, threshold)
    assert edges.score.tolist() == [threshold, 1.0]
    assert edges.rethreshold(threshold).second.tolist() == [1, 2]


def test_a_graph_without_rows_has_no_edges():
    none = np.arange(0)
    assert graph_edges(np.empty((0, 4), np.float32), (none, none), 0.9).first.tolist() == []


def test_both_kinds_of_edges_are_decided_alike():
    long = "a question about the weather in the north of the country and what to wear there in spring"
    edges = near_texts([long, "something else altogether", f"{long} please", long.upper()], 0.7)
    found = decide(edges, np.array([3, 0, 1, 2]))
    assert found.stays.tolist() == [2, 1, 2, 2]
    # "please" adds one shingle
    shingles = len(set(zip(long.split(), long.split()[1:], strict=False)))
    assert found.score.tolist() == [shingles / (shingles + 1), 1, 1, shingles / (shingles + 1)]
