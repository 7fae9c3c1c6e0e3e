"""HelpSteer 1 to 3: scored responses and graded comparisons."""

import pytest
from comparison_records import COMPARISON_RECORDS, read, refusal, rows_of

from rpo_data.shapes import Pair, Response, get_shape, map_columns, read_rows
from rpo_data.shapes.base import assistant, user

SCORED = COMPARISON_RECORDS["helpsteer"][0]
STRENGTH, OVERALL = COMPARISON_RECORDS["helpsteer_preference"][:2]


def test_helpfulness_is_the_score_and_each_annotator_has_a_row():
    dialogue = [user("Hi"), assistant("Hello!"), user("Who are you?")]
    assert rows_of("helpsteer") == [
        [Response(prompt=[user("c#")], completion=[assistant("C# is a programming language.")], score=3.0)],
        [
            Response(prompt=dialogue, completion=[assistant("A model.")], score=3.0, annotator="annotator1"),
            Response(prompt=dialogue, completion=[assistant("A model.")], score=3.0, annotator="annotator2"),
            Response(prompt=dialogue, completion=[assistant("A model.")], score=4.0, annotator="annotator3"),
        ],
    ]


def test_another_attribute_by_columns():
    mapped = map_columns(SCORED, {"helpfulness": "correctness"})
    assert [row.score for row in read_rows(mapped, get_shape("helpsteer"))] == [4.0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"helpfulness": None}, "no_judgement"),
        ({"helpfulness": []}, "no_judgement"),
        ({"helpfulness": [3, None]}, "no_judgement"),
        ({"helpfulness": "high"}, "wrong_type"),
        ({"helpfulness": [[3]]}, "wrong_type"),
        ({"response": 3}, "wrong_type"),
        ({"prompt": None}, "missing_value"),
    ],
    ids=range(7),
)
def test_scored_records_that_are_refused(change, code):
    assert refusal("helpsteer", SCORED | change)[0] == code


def test_comparisons_keep_their_strength():
    french = [user("Salut"), assistant("Bonjour !"), user("Quelle heure est-il ?")]
    assert rows_of("helpsteer_preference") == [
        [
            Pair(
                prompt=[user("Define signal.")],
                chosen=[assistant("A message from a sender to a receiver.")],
                rejected=[assistant("A form of energy.")],
                strength=1.0,
            )
        ],
        [
            Pair(
                prompt=french,
                chosen=[assistant("Midi.")],
                rejected=[assistant("Je ne sais pas.")],
                strength=2.0,
                language="french",
            )
        ],
        [
            Pair(
                prompt=[user("Say a number.")],
                chosen=[assistant("One.")],
                rejected=[assistant("Two.")],
                tie=True,
                strength=0.0,
                language="english",
            )
        ],
    ]


@pytest.mark.parametrize("value", range(-3, 4))
def test_every_level_of_the_scale(value):
    (pair,) = read("helpsteer_preference", STRENGTH | {"preference_strength": value})
    first, second = [assistant("A form of energy.")], [assistant("A message from a sender to a receiver.")]
    assert (pair.chosen, pair.rejected) == ((second, first) if value > 0 else (first, second))
    assert (pair.tie, pair.strength) == (value == 0, abs(value))


def test_a_context_may_be_one_text():
    (pair,) = read("helpsteer_preference", OVERALL | {"context": "Quelle heure ?"})
    assert pair.prompt == [user("Quelle heure ?")]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (STRENGTH | {"preference_strength": -100}, "unknown_judgement"),
        (STRENGTH | {"preference_strength": 1.5}, "unknown_judgement"),
        (STRENGTH | {"preference_strength": None}, "no_judgement"),
        (OVERALL | {"overall_preference": True}, "unknown_judgement"),
        (OVERALL | {"response1": None}, "missing_value"),
        (OVERALL | {"context": [{"role": "user"}]}, "wrong_type"),
        (OVERALL | {"context": None}, "missing_value"),
    ],
    ids=range(7),
)
def test_comparisons_that_are_refused(record, code):
    assert refusal("helpsteer_preference", record)[0] == code
