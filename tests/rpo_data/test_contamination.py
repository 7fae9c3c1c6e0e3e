import json
import random
import re
import string

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data.contamination import (
    MAX_TEXTS,
    MIN_WORDS,
    NGRAM,
    TEXT_COLUMNS,
    embedding_overlap,
    evaluation_texts,
    index_ngrams,
    ngram_overlap,
)
from rpo_data.errors import LogError

ALPHABET = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliet",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
]


def overlap(texts: list[str | None], evaluation: list[str]) -> list[tuple[int | None, float]]:
    found = ngram_overlap(pl.Series(texts, dtype=pl.String), index_ngrams(pl.Series(evaluation, dtype=pl.String)))
    assert found.schema == {"evaluation": pl.Int64, "share": pl.Float64}
    return found.rows()


def test_share_of_the_evaluation_texts_runs():
    text = " ".join(ALPHABET)  # 16 words: 4 runs of 13
    assert overlap([text, " ".join(ALPHABET[:13]), " ".join(ALPHABET[1:15]), " ".join(ALPHABET[:12])], [text]) == [
        (0, 1.0),
        (0, 0.25),
        (0, 0.5),
        (None, 0.0),
    ]


def test_case_punctuation_and_blanks_do_not_count():
    text = " ".join(ALPHABET[:13])
    assert overlap(["so: " + text.upper().replace(" ", ",\n—") + "!", text.replace("alpha", "alphas")], [text]) == [
        (0, 1.0),
        (None, 0.0),
    ]
    assert overlap(["ÉTÉ Ärger " + text], ["été, ärger; " + text]) == [(0, 1.0)]


@pytest.mark.parametrize("words", range(MIN_WORDS - 1, NGRAM + 1))
def test_short_evaluation_texts_have_to_be_there_whole(words):
    text = " ".join(ALPHABET[:words])
    inside, part = f"please {text} now", " ".join(ALPHABET[: words - 1])
    expected = (0, 1.0) if words >= MIN_WORDS else (None, 0.0)
    assert overlap([inside, text, part], [text]) == [expected, expected, (None, 0.0)]


def test_the_text_with_the_larger_share_then_the_first():
    short, long = " ".join(ALPHABET[:13]), " ".join(ALPHABET)
    assert overlap([long, short], [long, short]) == [(0, 1.0), (1, 1.0)]
    assert overlap([short], ["nothing of the sort is written in here at all", short + " x", "y " + short]) == [(1, 0.5)]
    assert overlap([short], [short.upper(), short]) == [(0, 1.0)]  # equal texts: the first


def test_characters_are_words_where_no_blanks_are_set():
    assert overlap(["请问：从北京到上海的火车几点开？谢谢", "北京到上海"], ["从北京到上海的火车几点开"]) == [
        (0, 1.0),
        (None, 0.0),
    ]
    assert overlap(["กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"], ["กรุงเทพมหานครเป็นเมืองหลวง"]) == [(0, 1.0)]


def test_runs_of_many_evaluation_texts_are_a_template():
    template = " ".join(ALPHABET)
    few = [f"{template} {word}" for word in ALPHABET[:MAX_TEXTS]]
    many = [f"{template} {word}" for word in ALPHABET[: MAX_TEXTS + 1]]
    assert overlap([template], few) == [(0, 4 / 5)]
    assert overlap([template], many) == [(None, 0.0)]
    assert overlap([many[3]], many) == [(3, 1.0)]  # its one run that is not of the template
    assert overlap([template], [template] * 50) == [(0, 1.0)]  # equal texts are one


def test_nothing_to_compare():
    assert overlap([None, "", "?!"], ["", "one two", "three"]) == [(None, 0.0)] * 3
    assert overlap([], [" ".join(ALPHABET)]) == []
    assert overlap([" ".join(ALPHABET)], []) == [(None, 0.0)]


def test_same_answer_in_any_order_and_company(sample_rows):
    texts = pl.Series([row["chosen"] for row in sample_rows] * 5)
    evaluation = index_ngrams(texts[:300].str.slice(10, 400))
    found = ngram_overlap(texts, evaluation)
    assert found["evaluation"].is_not_null().sum() >= 1500
    assert ngram_overlap(texts.reverse(), evaluation).reverse().equals(found)
    assert ngram_overlap(texts[4001:4009], evaluation).equals(found[4001:4009])


def slow_runs(text: str, size: int) -> list[tuple[str, ...]]:
    words = re.findall(r"[a-zé0-9]+", text.lower())
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


def slow_overlap(text: str, evaluation: list[str]) -> tuple[int | None, float]:
    best: tuple[int | None, float] = (None, 0.0)
    for number, other in enumerate(evaluation):
        size = min(NGRAM, len(slow_runs(other, 1)))
        wanted = set(slow_runs(other, size)) if size >= MIN_WORDS else set()
        share = len(wanted & set(slow_runs(text, size))) / len(wanted) if wanted else 0.0
        if share > best[1]:
            best = (number, share)
    return best


WORDY = st.lists(st.sampled_from(["a", "B", "cé", "7", "-", ".", "a-B"]), max_size=40).map(" ".join)


@given(st.lists(WORDY, min_size=1, max_size=4), st.lists(WORDY, min_size=1, max_size=MAX_TEXTS))
def test_equals_the_slow_count(texts, evaluation):
    assert overlap(texts, evaluation) == [slow_overlap(text, evaluation) for text in texts]


def test_any_text_is_read():
    letters = string.printable + "ß\u0130\u0301中\U0001f600\U0010ffff\x00ﬁ"
    texts = ["".join(random.Random(seed).choices(letters, k=200)) for seed in range(200)]
    rows = overlap(texts, texts)
    assert [evaluation for evaluation, share in rows if share == 1.0] == list(range(200))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": " Why? ", "text": "no"}, "Why?"),
        ({"prompt": "", "question": "Why?"}, "Why?"),
        ({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "Why?"}]}, "Why?"),
        ({"prompt": ["Why?", "And now?"]}, "Why?\nAnd now?"),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, "Add.\n1, 2"),
        ({"instruction": "Add.", "input": ""}, "Add."),
        ({"input": "1, 2"}, "1, 2"),
        ({"problem": "x?", "solution": "y"}, "x?"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": "c"},
                ]
            },
            "a\nc",
        ),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a"),
        ({"category": "math", "turns": ["a", "b"]}, "a\nb"),
    ],
    ids=json.dumps,
)
def test_text_of_an_evaluation_record(record, expected):
    assert evaluation_texts([record]) == [expected]


def test_record_without_text_is_refused_by_name():
    with pytest.raises(LogError, match=r"evaluation record 2 .* only the columns body, id: rename .* to prompt"):
        evaluation_texts([{"text": "ok"}, {"body": "Why?", "id": 7}])
    with pytest.raises(LogError, match=f"none of the columns {', '.join(TEXT_COLUMNS)}, only the columns prompt"):
        evaluation_texts([{"prompt": None}])


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_nearest_evaluation_text_by_hand():
    evaluation = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    vectors = np.array([[0.6, 0.8], [1, 0], [-1, 0], [0.8, 0.6]], dtype=np.float32)
    nearest, cosine = embedding_overlap(vectors, evaluation, 0.8)
    assert nearest.tolist() == [1, 0, -1, 0]
    assert cosine.tolist() == [np.float32(0.8), 1, 0, np.float32(0.8)]


@pytest.mark.parametrize("score", [-1.0, 0.5, 0.8])
def test_nearest_equals_the_whole_matrix(score):
    vectors, evaluation = unit(9000, 1), unit(5000, 2)
    nearest, cosine = embedding_overlap(vectors, evaluation, score)
    for rows in np.array_split(np.arange(9000), 9):
        exact = vectors[rows].astype(np.float64) @ evaluation.astype(np.float64).T
        best = exact.max(axis=1)
        assert np.array_equal(nearest[rows] >= 0, best >= score)
        hit = best >= score
        np.testing.assert_allclose(exact[hit, nearest[rows][hit]], best[hit], atol=1e-7)
        np.testing.assert_allclose(cosine[rows], np.where(hit, best, 0), atol=1e-7)
    assert (nearest >= 0).sum() > 0


def test_nearest_of_nothing():
    assert [part.tolist() for part in embedding_overlap(unit(2, 1), unit(0, 1), 0.5)] == [[-1, -1], [0, 0]]
    assert [part.tolist() for part in embedding_overlap(unit(0, 1), unit(2, 1), 0.5)] == [[], []]
