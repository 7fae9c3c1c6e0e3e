"""No damage to a record gives a traceback or a wrong judgement: it gives right rows, or a ShapeError that says why."""

import copy

import pytest
from comparison_records import COMPARISON_RECORDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shape_oracles import agrees
from shape_records import RECORDS

from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, read_rows, shapes

ALL = RECORDS | COMPARISON_RECORDS
CODES = {
    "missing_column", "missing_value", "wrong_type", "no_turn_marker", "not_a_number", "no_judgement", "unknown_judgement",
}  # fmt: skip
WORDS = [
    "", " ", "0", "1", "2", "-1", "true", "False", "null", "NaN", "tie", "model_a", "model_b", "a-is-better", "thumbs_up",
    "bad", "user", "assistant", "system", "human", "gpt", "observation", "function_call", "prompter", "\n\nHuman: a",
    "\n\nHuman: a\n\nAssistant: b", '{"name": "f"}', '["a", "b"]', "\ud800", "\x00",
]  # fmt: skip
KEYS = ["role", "content", "from", "value", "text", "rank", "replies", "messages", "tool_calls", "system", "parentId"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 3, 10**400, 0.0, -0.0, 1.5, float("nan"), float("inf")]),
    st.sampled_from(WORDS),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


def places(record):
    """Every (container, key) of a record, outer ones first."""
    found, waiting = [], [record]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], (dict, list)) and len(found) < 400:
                waiting.append(container[key])
    return found


def damage(draw, record):
    """Change one thing about a record, in place."""
    there = places(record)
    operation = draw(st.sampled_from(["replace", "delete", "swap", "repeat", "cut", "wrap", "add"]))
    if not there or operation == "add":
        record[draw(st.sampled_from([*KEYS, "chosen", "rejected", "label", "weight", "annotator", "prompt"]))] = draw(
            VALUES
        )
        return
    container, key = there[draw(st.integers(0, len(there) - 1))]
    value = container[key]
    if operation == "replace":
        container[key] = draw(VALUES)
    elif operation == "delete":
        del container[key]
    elif operation == "swap":
        other, place = there[draw(st.integers(0, len(there) - 1))]
        container[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
    elif operation == "repeat" and isinstance(value, list):
        value += copy.deepcopy(value)
    elif operation == "cut" and isinstance(value, (list, str)):
        container[key] = value[: draw(st.integers(0, len(value)))]
    else:
        container[key] = draw(st.sampled_from([[value], {"content": value}, {"role": "user", "content": value}]))


@st.composite
def damaged(draw, name):
    record = copy.deepcopy(draw(st.sampled_from(ALL[name])))
    for _ in range(draw(st.integers(1, 4))):
        damage(draw, record)
    return record


def read(name, record):
    """The rows, or the code of the refusal."""
    try:
        return read_rows(record, get_shape(name))
    except ShapeError as error:
        return error.code


@pytest.mark.parametrize("name", sorted(ALL))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_damaged_record_is_read_right_or_refused(name, data):
    record = data.draw(damaged(name))
    before = copy.deepcopy(record)
    assert set(claiming_shapes(record)) <= set(shapes())
    rows = read(name, record)
    assert repr(record) == repr(before), "the reader changed the record"
    if isinstance(rows, str):
        assert rows in CODES
        return
    assert rows
    for row in rows:
        if isinstance(row, Pair) and not row.prompts_equal:
            continue  # no row in the end: the checks reject it as prompts_differ
        assert agrees(name, record, row)
        if isinstance(row, Pair):
            assert row.strength is None or not row.strength < 0


@pytest.mark.parametrize("kind", ["list", "object"])
@pytest.mark.parametrize("name", sorted(ALL))
def test_a_value_that_nests_deeper_than_python_calls_is_no_traceback(name, kind):
    """At every place of every record, in turn."""
    deep = None
    for _ in range(3000):
        deep = [deep] if kind == "list" else {"replies": [deep], "role": "user"}
    for number, original in enumerate(ALL[name]):
        for place in range(len(places(original))):
            record = copy.deepcopy(original)
            container, key = places(record)[place]
            container[key] = deep
            try:
                claiming_shapes(record)
                read(name, record)
            except Exception as error:
                pytest.fail(f"record {number} with a deep value at '{key}': {type(error).__name__}", pytrace=False)
