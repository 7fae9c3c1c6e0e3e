"""One judgement out of a column."""

import pytest

from rpo_data.shapes import ShapeError
from rpo_data.shapes.scales import level, member, members, ordered, rank, score, value_key, whole

NAN, INF = float("nan"), float("inf")
LEVELS = {"1": "first", "0": "tie", "-1": "second"}


@pytest.mark.parametrize("value", [-1, -1.0, "-1", " -1\n"], ids=["int", "float", "text", "blanks"])
def test_a_level_may_be_a_number_or_a_text(value):
    assert level({"winner": value}, "winner", LEVELS) == "second"


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        (None, "no_judgement", "'winner' is empty"),
        (NAN, "no_judgement", "'winner' is empty"),
        (" ", "no_judgement", "'winner' is empty"),
        (2, "unknown_judgement", "'winner' is 2, where one of 1, 0, -1 is needed"),
        (0.5, "unknown_judgement", "'winner' is 0.5,"),
        (INF, "unknown_judgement", "'winner' is a number,"),
        (10**400, "unknown_judgement", "'winner' is a number,"),
        ("A" * 99, "unknown_judgement", "'" + "A" * 40 + "',"),
        (True, "unknown_judgement", "'winner' is a boolean,"),
        ([1], "unknown_judgement", "'winner' is a list,"),
        ({"1": 1}, "unknown_judgement", "'winner' is a object,"),
    ],
    ids=range(11),
)
def test_levels_that_are_none(value, code, words):
    with pytest.raises(ShapeError) as error:
        level({"winner": value}, "winner", LEVELS)
    assert error.value.code == code
    assert words in str(error.value)


def test_a_column_that_is_not_there_is_missing():
    for reader in (lambda: level({"a": 1}, "winner", LEVELS), lambda: score({"a": 1}, "winner")):
        with pytest.raises(ShapeError, match=r"no column 'winner' \(it has: a\)") as error:
            reader()
        assert error.value.code == "missing_column"


def test_scores():
    assert [score({"s": value}, "s") for value in (3, -0.5, "4.25")] == [3.0, -0.5, 4.25]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "no_judgement"),
        (NAN, "no_judgement"),
        ("", "no_judgement"),
        (INF, "not_a_number"),
        ("nan", "not_a_number"),
        ("high", "wrong_type"),
        (True, "wrong_type"),
        ([3], "wrong_type"),
        ({}, "wrong_type"),
        (10**400, "wrong_type"),
    ],
    ids=range(10),
)
def test_scores_that_are_none(value, code):
    with pytest.raises(ShapeError) as error:
        score({"s": value}, "s")
    assert error.value.code == code


def test_ranks_count_from_one():
    assert [rank({"rank": value}, "rank", best=1) for value in (1, 2.0, "7")] == [1, 2, 7]
    assert [rank({"rank": value}, "rank", best=0) for value in (0, 1.0, "6")] == [1, 2, 7]
    assert [rank(data, "rank", best=0) for data in ({}, {"rank": None}, {"rank": NAN}, {"rank": ""})] == [None] * 4


@pytest.mark.parametrize("value", [0, -1, 1.5, "first", True, [1], INF, 10**400, "9" * 5000], ids=range(9))
def test_ranks_that_are_none(value):
    with pytest.raises(ShapeError, match="a whole number from 1 is needed") as error:
        rank({"rank": value}, "rank", best=1)
    assert error.value.code == "unknown_judgement"


def test_whole_numbers_and_keys():
    assert [whole(value) for value in (0, 3.0, "12", -1, 1.5, True, None, "", "9" * 5000)] == [0, 3, 12] + [None] * 6
    assert [value_key(value) for value in (7, 7.0, "7 ", 0.5, False, None, [], {}, NAN)][:4] == ["7", "7", "7", "0.5"]


def test_the_better_answer_comes_first_and_a_tie_keeps_the_order():
    assert [ordered(lead, "a", "b") for lead in (2, 0, -0.1)] == [("a", "b"), ("a", "b"), ("b", "a")]


def test_objects_inside_a_record():
    data = {"object": {"a": 1}, "list": [{"b": 2}], "text": "x", "mixed": [{}, 3], "null": None}
    assert (member(data, "object"), members(data, "list")) == ({"a": 1}, [{"b": 2}])
    refusals = [(member, "text"), (members, "object"), (members, "mixed"), (member, "null"), (members, "other")]
    codes = []
    for reader, column in refusals:
        with pytest.raises(ShapeError) as error:
            reader(data, column)
        codes.append(error.value.code)
    assert codes == ["wrong_type", "wrong_type", "wrong_type", "missing_value", "missing_column"]
