"""Near-duplicate texts: exact Jaccard, recall on planted copies, the same result in any order and for any threads."""

import os
import random

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data import minhash as module
from rpo_data.errors import RecipeError
from rpo_data.minhash import jaccard_pairs, near_texts

WORDS = [f"word{number}" for number in range(3000)]
COLUMNS = ("first", "second", "score")


def shingles(text):
    """By hand: two words in a row; short texts whole."""
    words = text.lower().split()
    return {tuple(words[i : i + 2]) for i in range(max(len(words) - 1, 1))} if words else set()


def jaccard(one, other):
    a, b = shingles(one), shingles(other)
    return len(a & b) / max(len(a | b), 1)


def edges_as_texts(edges, texts):
    return sorted(
        (*sorted((texts[a], texts[b])), score)
        for a, b, score in zip(edges.first, edges.second, edges.score, strict=True)
    )


def same(one, other):
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in COLUMNS)


def planted(count, copies, seed=0, words=100):
    """Distinct texts, then copies of the first ones with 2 to 5 % of the words replaced."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]
    for text in texts[:copies]:
        parts = text.split()
        for place in rng.sample(range(words), rng.randint(words // 50, words // 20)):
            parts[place] = rng.choice(WORDS)
        texts.append(" ".join(parts))
    return texts


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a b c d", "a b c e", 2 / 4),  # ab bc cd | ab bc ce
        ("a b c", "a b c", 1.0),
        ("a b c", "c b a", 0.0),
        ("a b a b a", "a b a", 1.0),  # ab ba, however often
        ("Hello  WORLD\n again", "hello world again", 1.0),
        ("ﬁne ①", "fine 1", 1.0),  # NFKC
        ("a\u00a0b\u2028c", "a b c", 1.0),
        ("ÄRGER ÜBER", "ärger über", 1.0),
        ("x", "x", 1.0),
        ("x", "y", 0.0),
        ("", "", 0.0),
        (" \n\t", "", 0.0),
        ("我喜欢猫", "我喜欢狗", 2 / 4),  # 我喜 喜欢 欢猫 | 我喜 喜欢 欢狗
        ("我 喜 欢", "我喜欢", 1.0),
        ("use猫here now", "use 猫 here now", 1.0),
        ("สวัสดี", "สวัสดี", 1.0),
        ("ありがとう", "ありがた", 2 / 5),  # あり りが がと とう | あり りが がた
    ],
    ids=range(17),
)
def test_jaccard_by_hand(one, other, expected):
    assert jaccard_pairs([one, other], np.array([0]), np.array([1])).tolist() == [expected]


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_jaccard_equals_python_sets(one, other):
    texts = [" ".join(one), " ".join(other)]
    assert jaccard_pairs(texts, np.array([0]), np.array([1])).tolist() == [jaccard(*texts)]


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_alike_to_itself_and_never_above_one(one, other):
    texts = [one, other, one]
    itself, across, back = jaccard_pairs(texts, np.array([0, 0, 1]), np.array([2, 1, 0]))
    assert itself in (0.0, 1.0)
    assert across == back <= 1.0


def estimate(one, other):
    """Share of the random orders in which two sets of shingles begin with the same one."""
    multiply, add = module._orders()
    first = np.empty((2, len(add)), np.uint32)
    for row, values in zip(first, (one, other), strict=True):
        module._first_of_orders(np.asarray(sorted(values), dtype=np.uint32), multiply, add, row)
    return float(np.mean(first[0] == first[1]))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 150), st.integers(0, 150), st.integers(0, 150))
def test_estimate_lies_near_the_exact_jaccard(seed, shared, alone, other_alone):
    """Five standard deviations of 128 coin throws, at most 0.23."""
    values = np.random.default_rng(seed).choice(2**32, shared + alone + other_alone, replace=False).tolist()
    one, other = values[: shared + alone], values[:shared] + values[shared + alone :]
    assert abs(estimate(one, other) - shared / len(values)) <= 5 * (0.25 / 128) ** 0.5 + 1e-9


def test_estimate_has_no_bias_and_the_spread_of_coin_throws():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(400):
        values = rng.choice(2**32, 120, replace=False).tolist()
        errors.append(estimate(values[:90], values[:60] + values[90:]) - 60 / 120)
    expected = (0.25 / 128) ** 0.5
    assert abs(np.mean(errors)) < 4 * expected / len(errors) ** 0.5
    assert 0.85 * expected < np.std(errors) < 1.15 * expected


@pytest.mark.parametrize(("shared", "lowest", "highest"), [(80, 0.81, 0.93), (100, 0.995, 1.0)])
def test_bands_find_the_share_the_docstring_states(shared, lowest, highest):
    """1 - (1 - J^4)^32 of 500 pairs: 0.873 at a Jaccard of 80 / 160, 0.9999 at 100 / 140."""
    texts = []
    for number in range(500):
        words = [f"{number}_{place}" for place in range(121)]
        texts += [" ".join(words), " ".join(words[: shared + 1] + [f"other{word}" for word in words[shared + 1 :]])]
    edges = near_texts(texts, 0.5)
    assert set(edges.score) == {shared / (240 - shared)}
    assert (edges.first % 2 == 0).all()
    assert (edges.second == edges.first + 1).all()
    assert lowest <= len(edges.first) / 500 <= highest


def test_planted_copies_are_found_and_nothing_else():
    texts = planted(2000, 300)
    edges = near_texts(texts, 0.7)
    found = set(zip(edges.first.tolist(), edges.second.tolist(), strict=True))
    assert found == {(i, 2000 + i) for i in range(300)}
    assert len(edges.first) == 300
    assert edges.score.tolist() == [jaccard(texts[a], texts[b]) for a, b in zip(edges.first, edges.second, strict=True)]
    assert edges.count == 2300


def test_texts_that_share_a_template_are_not_alike():
    rng = random.Random(1)
    frame = " ".join(rng.choices(WORDS, k=60))
    texts = [frame + " " + " ".join(rng.choices(WORDS, k=60)) for _ in range(300)]
    assert near_texts(texts, 0.6).first.tolist() == []


def test_order_of_texts_changes_nothing():
    texts = planted(500, 200) + planted(40, 40, seed=3, words=20)
    expected = edges_as_texts(near_texts(texts, 0.5), texts)
    assert len(expected) > 200
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, len(texts))
        assert edges_as_texts(near_texts(shuffled, 0.5), shuffled) == expected


def test_threads_and_parts_change_no_bit(monkeypatch):
    texts = planted(700, 200)
    expected = near_texts(texts, 0.5)
    assert len(expected.first) > 150
    for threads, chunk, pairs in ((1, 16384, 65536), (4, 7, 3), (3, 100, 50)):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        monkeypatch.setattr(module, "CHUNK", chunk)
        monkeypatch.setattr(module, "_PAIRS", pairs)
        assert same(near_texts(texts, 0.5), expected)


@pytest.mark.parametrize("threshold", [0.5, 0.62, 0.7, 0.9, 1.0])
def test_rethreshold_is_a_fresh_search(threshold):
    texts = planted(300, 150) + planted(30, 30, seed=5, words=30) + ["the same text again"] * 4
    assert same(near_texts(texts, 0.5).rethreshold(threshold), near_texts(texts, threshold))


def test_many_equal_texts_are_linked_to_the_first_only():
    edges = near_texts(["another text of some words"] + ["Same  text of many"] * 5000 + ["same text of many"])
    assert edges.first.tolist() == [1] * 5000
    assert edges.second.tolist() == list(range(2, 5002))
    assert set(edges.score) == {1.0}


def test_many_nearly_equal_texts_cost_few_edges_and_stay_together():
    """2,000 texts that differ in one word of 40 have 2 million pairs."""
    words = " ".join(WORDS[:39])
    texts = [f"n{number} {words}" for number in range(2000)]
    edges = near_texts(texts, 0.7)
    assert len(edges.first) <= 32 * 2000
    reached, todo = {0}, [0]
    beside = {}
    for a, b in zip(edges.first.tolist(), edges.second.tolist(), strict=True):
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    while todo:
        new = set(beside.get(todo.pop(), [])) - reached
        reached |= new
        todo += new
    assert len(reached) == 2000


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["x"], ["a b c", "d e f"], ["", " ", "\n"]], ids=range(6))
def test_nothing_found_is_empty(texts):
    edges = near_texts(texts)
    assert edges.count == len(texts)
    assert [getattr(edges, name).dtype for name in COLUMNS] == [np.int64, np.int64, np.float64]
    assert [len(getattr(edges, name)) for name in COLUMNS] == [0, 0, 0]


def test_lists_columns_and_arrow_arrays_give_the_same_and_stay_as_they_are():
    texts = [*planted(50, 20), "Ⅳ and a few words more", "iv and a few words more"]
    column = pl.Series("text", texts)
    expected = near_texts(texts)
    assert len(expected.first) == 21
    for given_ in (column, pa.array(texts), pa.chunked_array([texts[:30], texts[30:]]), column.slice(0)):
        assert same(near_texts(given_), expected)
    assert column.to_list() == texts


def test_null_is_an_empty_text():
    assert near_texts(pl.Series(["one two three", None, "one two three", None])).second.tolist() == [2]


@pytest.mark.parametrize("threshold", [0.49, 1.01, -1.0, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(RecipeError, match=r"not between 0\.5 and 1"):
        near_texts(["a"], threshold)
    with pytest.raises(RecipeError, match="search again"):
        near_texts(["a"], 0.5).rethreshold(threshold)


def test_real_dialogues_hold_no_false_pairs(sample_rows):
    texts = [f"{row['chosen']} {row['rejected']}" for row in sample_rows[:400]]
    edges = near_texts(texts, 0.5)
    assert edges.score.tolist() == [jaccard(texts[a], texts[b]) for a, b in zip(edges.first, edges.second, strict=True)]
    sets = [shingles(text) for text in texts]
    alike = sum(len(a & b) >= 0.6 * len(a | b) for i, a in enumerate(sets) for b in sets[:i])
    assert alike >= len(edges.rethreshold(0.6).first) >= 0.9 * alike
