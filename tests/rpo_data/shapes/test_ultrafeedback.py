"""UltraFeedback: ratings become one score a response; binarized pairs keep the scores of their sides."""

import pytest
from comparison_records import COMPARISON_RECORDS, read, refusal, rows_of

from rpo_data.shapes import Pair, Response
from rpo_data.shapes.base import assistant, user

RAW = COMPARISON_RECORDS["ultrafeedback"][0]
H4 = COMPARISON_RECORDS["ultrafeedback_binarized"][0]


def test_each_rated_completion_has_the_mean_of_its_ratings():
    """The third completion of the first record was not rated; `fine-grained_score` stands for the mean where given."""
    prime, chat = [user("Name a prime.")], [user("Translate 'chat'.")]
    assert rows_of("ultrafeedback") == [
        [
            Response(prompt=prime, completion=[assistant("Two.")], score=4.5),
            Response(prompt=prime, completion=[assistant("Nine.")], score=1.5),
            Response(prompt=prime, completion=[assistant("Prime?")]),  # left to the checks
        ],
        [
            Response(prompt=chat, completion=[assistant("Cat.")], score=4.75),
            Response(prompt=chat, completion=[assistant("Dog.")], score=1.25),
        ],
    ]


def completions(*entries):
    return RAW | {"completions": list(entries)}


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (completions({"response": "a", "overall_score": 9.0}), "no_judgement"),
        (completions({"response": "a", "annotations": {}}), "no_judgement"),
        (completions(), "no_judgement"),
        (completions({"response": "a", "annotations": {"honesty": {"Rating": "good"}}}), "wrong_type"),
        (completions({"response": "a", "annotations": {"honesty": 5}}), "wrong_type"),
        (completions({"response": "a", "annotations": [5]}), "wrong_type"),
        (completions({"response": "a", "fine-grained_score": float("inf")}), "not_a_number"),
        (completions({"response": None, "fine-grained_score": 3}), "missing_value"),
        (completions({"fine-grained_score": 3}), "missing_column"),
        (completions("a"), "wrong_type"),
        (RAW | {"instruction": 3}, "wrong_type"),
    ],
    ids=range(11),
)
def test_raw_records_that_are_refused(record, code):
    assert refusal("ultrafeedback", record)[0] == code


def test_binarized_pairs_of_both_publishers():
    assert rows_of("ultrafeedback_binarized") == [
        [
            Pair(
                prompt=[user("how to boil an egg")],
                chosen=[assistant("Eight minutes in boiling water.")],
                rejected=[assistant("Eggs cannot be boiled.")],
                score_chosen=8.5,
                score_rejected=2.0,
            )
        ],
        [
            Pair(
                prompt=[user("Add 1 and 1.")],
                chosen=[assistant("2")],
                rejected=[assistant("Two")],
                tie=True,
                score_chosen=4.5,
                score_rejected=4.5,
            )
        ],
        [
            Pair(
                prompt=[user("Name a colour.")],
                chosen=[assistant("Red.")],
                rejected=[assistant("Four.")],
                score_chosen=5.0,
                score_rejected=1.5,
            )
        ],
    ]


def test_common_turns_behind_the_prompt_belong_to_it():
    system, more = {"role": "system", "content": "Be short."}, [user("Hi"), assistant("Hello"), user("Bye")]
    record = {
        "prompt": "Hi",
        "chosen": [system, *more, assistant("See you")],
        "rejected": [system, *more, assistant("?")],
    }
    assert read("ultrafeedback_binarized", record) == [
        Pair(prompt=[system, *more], chosen=[assistant("See you")], rejected=[assistant("?")])
    ]


def test_bare_answers_are_put_behind_the_prompt():
    record = {"prompt": "Hi", "chosen": [assistant("Hello")], "rejected": [assistant("What?")], "score_chosen": 2}
    assert read("ultrafeedback_binarized", record) == [
        Pair(prompt=[user("Hi")], chosen=[assistant("Hello")], rejected=[assistant("What?")], score_chosen=2.0)
    ]


def test_sides_that_part_before_the_last_answer():
    record = H4 | {"rejected": [*H4["chosen"], user("Sure?"), assistant("No.")]}
    assert not read("ultrafeedback_binarized", record)[0].prompts_equal


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (H4 | {"prompt": "another"}, "wrong_type"),
        (H4 | {"chosen": [3]}, "wrong_type"),
        (H4 | {"score_chosen": "high"}, "wrong_type"),
        (H4 | {"rejected": None}, "missing_value"),
        ({"instruction": "a", "chosen_response": "b", "rejected_response": None}, "missing_value"),
    ],
    ids=range(5),
)
def test_binarized_records_that_are_refused(record, code):
    assert refusal("ultrafeedback_binarized", record)[0] == code
