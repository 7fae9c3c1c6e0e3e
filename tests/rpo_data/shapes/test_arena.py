"""Chatbot Arena: conversations of two models, and the file of 55,000 votes with JSON lists in texts."""

import pytest
from comparison_records import COMPARISON_RECORDS, read, refusal, rows_of

from rpo_data.shapes import Pair
from rpo_data.shapes.base import assistant, user

ONE, BENCH, FLAGS = COMPARISON_RECORDS["arena"]


def test_the_last_answer_of_each_side_is_compared():
    """The vote of the second record follows the first turn; in the third the sides part before the last answer."""
    assert rows_of("arena") == [
        [
            Pair(
                prompt=[user("What is OpenCL?")],
                chosen=[assistant("An open standard for parallel programs.")],
                rejected=[assistant("A kind of wine.")],
                annotator="arena_user_973",
                language="English",
            )
        ],
        [
            Pair(
                prompt=[user("Write.")],
                chosen=[assistant("No.")],
                rejected=[assistant("Why?")],
                tie=True,
                annotator="author_2",
            )
        ],
        [
            Pair(
                prompt=[user("Is it raining?"), assistant("Yes."), user("And tomorrow? 🌧")],
                chosen=[assistant("It will.")],
                rejected=[assistant("It won't.")],
                prompts_equal=False,
            )
        ],
    ]


def test_equal_histories_are_one_prompt():
    begin = [user("Hi"), assistant("Hello"), user("Bye")]
    record = {"conversation_a": [*begin, assistant("a")], "conversation_b": [*begin, assistant("b")], "winner": "tie"}
    assert read("arena", record) == [Pair(prompt=begin, chosen=[assistant("a")], rejected=[assistant("b")], tie=True)]


def test_the_second_turn_of_a_longer_conversation():
    (pair,) = read("arena", BENCH | {"turn": 2, "winner": "model_b"})
    assert pair.prompt == [user("Write."), assistant("Why?"), user("Again.")]
    assert (pair.chosen, pair.rejected) == ([assistant("Why, why?")], [assistant("Never.")])
    assert not pair.prompts_equal


@pytest.mark.parametrize(
    ("flags", "chosen", "tie"),
    [((1, 0, 0), "It will.", False), ((0, 1, 0), "It won't.", False), (("0", "0", "1"), "It will.", True)],
    ids=["a", "b", "tie"],
)
def test_one_flag_says_who_won(flags, chosen, tie):
    columns = ("winner_model_a", "winner_model_b", "winner_tie")
    (pair,) = read("arena", FLAGS | dict(zip(columns, flags, strict=True)))
    assert (pair.chosen, pair.tie) == ([assistant(chosen)], tie)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (ONE | {"winner": "model_c"}, "unknown_judgement"),
        (ONE | {"winner": None}, "no_judgement"),
        (ONE | {"turn": 2}, "wrong_type"),
        (ONE | {"turn": 0}, "wrong_type"),
        (ONE | {"turn": "last"}, "wrong_type"),
        (ONE | {"turn": None, "conversation_a": [user("Hi"), assistant("a"), user("b")]}, "wrong_type"),
        (ONE | {"conversation_b": []}, "wrong_type"),
        (ONE | {"conversation_b": None}, "missing_value"),
        (FLAGS | {"winner_model_b": 1}, "unknown_judgement"),
        (FLAGS | {"winner_model_a": 0}, "unknown_judgement"),
        (FLAGS | {"winner_model_a": 0.5}, "unknown_judgement"),
        (FLAGS | {"winner_tie": None}, "no_judgement"),
        (FLAGS | {"response_a": '["Yes."]'}, "wrong_type"),
        (FLAGS | {"response_a": '["Yes.", null]'}, "wrong_type"),
        (FLAGS | {"response_a": "Yes."}, "wrong_type"),
        (FLAGS | {"response_a": "[" * 100_000}, "wrong_type"),
        (FLAGS | {"prompt": "[]"}, "wrong_type"),
    ],
    ids=range(17),
)
def test_records_that_are_refused(record, code):
    assert refusal("arena", record)[0] == code
