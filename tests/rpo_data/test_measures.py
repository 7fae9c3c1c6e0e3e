"""Rows as numbers: every column by hand on small frames, and repeated rows against a plain Python dictionary."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data.measures import FLAGS, exact_duplicates, last_question, measure

QUESTION = "Which of these two rivers is longer?"
COLUMNS = ["line", "kind", "prompt", "chosen", "rejected"]
SIDES = ["characters", "markdown", "refusal", "echo"]


def texts(*rows, **more) -> pl.DataFrame:
    """Rows of `COLUMNS`, and more columns."""
    schema = dict.fromkeys(COLUMNS, pl.String) | {"line": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(**{k: pl.Series(v) for k, v in more.items()})


def pairs(*responses, prompt="\n\nHuman: hi") -> pl.DataFrame:
    return texts(*((n, "pair", prompt, *sides) for n, sides in enumerate(responses, 1)))


def test_every_column_by_hand():
    frame = texts(
        (3, "pair", f"\n\nHuman: {QUESTION}", "你好😀", "**No** way"),
        (4, "tie", f"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: {QUESTION}", f"{QUESTION} The first.", "I can’t say"),
        (9, "response", "\n\nHuman: Hi", "- one\n- two", None),
        label=[None, None, True],
        annotator=["ann", None, "ben"],
        source=["a", "a", "b"],
    )
    found = measure(frame)
    assert found.drop("prompt_hash", "chosen_hash", "rejected_hash").to_dict(as_series=False) == {
        "line": [3, 4, 9],
        "kind": ["pair", "tie", "response"],
        "label": [None, None, True],
        "annotator": ["ann", None, "ben"],
        "source": ["a", "a", "b"],
        "chosen_characters": [3, len(QUESTION) + 11, 11],
        "chosen_markdown": [False, False, True],
        "chosen_refusal": [False, False, False],
        "chosen_echo": [False, True, False],
        "rejected_characters": [10, 11, None],
        "rejected_markdown": [True, False, None],
        "rejected_refusal": [False, True, None],
        "rejected_echo": [False, False, None],
    }
    assert found["rejected_hash"].is_null().to_list() == [False, False, True]


def test_hashes_are_equal_where_the_texts_are_whatever_the_side_or_batch():
    one = measure(pairs(("same", "other"), ("Same", "same")))
    other = measure(pairs(("other", "same ")).slice(0, 1))
    assert one["chosen_hash"][0] == one["rejected_hash"][1] != one["chosen_hash"][1]
    assert one["rejected_hash"][0] == other["chosen_hash"][0]
    assert other["rejected_hash"][0] != one["chosen_hash"][0]
    assert one["prompt_hash"].n_unique() == 1
    assert {one[f"{side}_hash"].dtype for side in ("prompt", "chosen", "rejected")} == {pl.UInt64}


def test_label_is_null_and_annotator_is_no_column_where_the_texts_have_none():
    found = measure(pairs(("a", "b")))
    assert found["label"].to_list() == [None]
    assert {"annotator", "source"}.isdisjoint(found.columns)


@pytest.mark.parametrize("flags", [(), ("markdown",), ("echo", "refusal"), FLAGS])
def test_flags_that_are_not_asked_for_have_no_column(flags):
    found = measure(pairs(("a", "b")), flags)
    wanted = {f"{side}_{flag}" for side in ("chosen", "rejected") for flag in flags}
    assert {column for column in found.columns if column.endswith(FLAGS)} == wanted


def test_no_rows_have_the_same_columns():
    assert measure(pairs()).schema == measure(pairs(("a", "b"))).schema


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- one", True), ("   * one", True), ("+ one", True), ("1. one", True), ("see:\n12) one", True), ("### Head", True),
        ("a **bold** word", True), ("x\n```\ncode", True), ("    - code", False), ("-one", False), ("1234. one", False),
        ("####### seven", False), ("2 ** 3 ** 4", False), ("a - b", False), ("#hashtag", False), ("inline ``` fence", False),
    ],
)  # fmt: skip
def test_markdown(text, expected):
    assert measure(pairs((text, "plain")))["chosen_markdown"].to_list() == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but no", True), ("I’m sorry, but no", True), ("AS AN AI model", True), ("i cannot", True),
        ("My apologies, but", True), ("Well, I cannot", False), ("I could not", False), ("I'm sorry to hear that", False),
        ("Yes.\nI cannot", False), ("", False),
    ],
)  # fmt: skip
def test_refusals_open_the_answer(text, expected):
    assert measure(pairs((text, "plain")))["chosen_refusal"].to_list() == [expected]


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        (QUESTION, QUESTION, True),
        (QUESTION, QUESTION.lower(), False),
        (QUESTION, "So: " + QUESTION, False),
        ("x" * 19, "x" * 30, False),
        ("é" * 20, "é" * 30, True),
        ("a.b*c" * 4, "aXbbc" * 4, False),
    ],
    ids=["whole", "case", "later", "short", "counted-in-characters", "no-pattern"],
)
def test_an_echo_opens_with_the_whole_last_question(question, answer, expected):
    found = measure(pairs((answer, "plain"), prompt=f"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: {question}"))
    assert (found["chosen_echo"][0], found["rejected_echo"][0]) == (expected, False)


def test_the_last_question_of_each_prompt():
    prompts = pl.Series(["\n\nHuman: a", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\nd", "\n\nSystem: s", "", None])
    assert last_question(prompts).to_list() == ["a", "c\nd", "\n\nSystem: s", "", None]


# -- rows that repeat ---------------------------------------------------------------------------------------------------

TEXT = st.sampled_from(["a", "A", "b", "a ", "é", "e\u0301", "\x00"])
ROW = st.tuples(st.sampled_from(["pair", "tie", "response"]), TEXT, TEXT, TEXT)
MORE = st.tuples(st.sampled_from([None, True, False]), st.sampled_from([None, "x", "y"]))


def duplicates_by_hand(keys) -> list[tuple[int, int]]:
    first: dict = {}
    return [(place, first[key]) for place, key in enumerate(keys) if first.setdefault(key, place) != place]


@given(st.lists(st.tuples(ROW, MORE), max_size=30), st.booleans())
def test_exact_duplicates_are_those_of_a_dictionary(rows, with_annotator):
    keys, columns = [], {"label": [], "annotator": []}
    for (kind, prompt, chosen, rejected), (label, annotator) in rows:
        rejected = None if kind == "response" else rejected
        keys.append((kind, prompt, chosen, rejected, label, annotator if with_annotator else None))
        columns["label"].append(label)
        columns["annotator"].append(annotator)
    frame = texts(*((n, *key[:4]) for n, key in enumerate(keys)))
    frame = frame.with_columns(label=pl.Series(columns["label"], dtype=pl.Boolean))
    if with_annotator:
        frame = frame.with_columns(annotator=pl.Series(columns["annotator"], dtype=pl.String))
    found = exact_duplicates(measure(frame, ()))
    assert found.schema == {"position": pl.Int64, "first_position": pl.Int64}
    assert found.rows() == duplicates_by_hand(keys)


def test_the_swapped_pair_and_the_tie_of_the_same_texts_are_no_duplicates():
    frame = texts((1, "pair", "p", "a", "b"), (2, "pair", "p", "b", "a"), (3, "tie", "p", "a", "b"))
    assert exact_duplicates(measure(frame)).is_empty()
