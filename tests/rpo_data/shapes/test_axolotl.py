"""Axolotl DPO rows with prompt columns of their own (records after docs/rlhf.qmd, "DPO")."""

import pytest
from shape_records import RECORDS, assistant, system, user

from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, read_rows

INTEL, BARE, ICR, PROMPT_PAIRS = RECORDS["axolotl"]
ULTRA = {
    "system": "Be short.",
    "prompt": "Hi",
    "chosen": [user("Hi"), assistant("Hello"), user("2+2?"), assistant("4")],
    "rejected": [user("Hi"), assistant("Hello"), user("2+2?"), assistant("5")],
}
ARGILLA = {"system": "Be short.", "instruction": "2+2?", "chosen_response": "4", "rejected_response": "5"}
FOUR, FIVE = [assistant("4")], [assistant("5")]


def read(data):
    return read_rows(data, get_shape("axolotl"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (INTEL, Pair(prompt=[system("Be short."), user("2+2?")], chosen=FOUR, rejected=FIVE)),
        (BARE, Pair(prompt=[user("2+2?")], chosen=FOUR, rejected=FIVE)),
        (ICR, Pair(prompt=[user("2+2?")], chosen=FOUR, rejected=[assistant("Four")], tie=True)),
        (PROMPT_PAIRS, Pair(prompt=[system("Be short."), user("2+2?")], chosen=FOUR, rejected=FIVE)),
        (
            ULTRA,
            Pair(
                prompt=[system("Be short."), user("Hi"), assistant("Hello"), user("2+2?")], chosen=FOUR, rejected=FIVE
            ),
        ),
        (ARGILLA, Pair(prompt=[system("Be short."), user("2+2?")], chosen=FOUR, rejected=FIVE)),
    ],
    ids=["intel", "intel without system", "icr", "prompt_pairs", "ultra", "argilla"],
)
def test_rows(data, expected):
    # where both claim a record it is refused, so that no system prompt is lost
    assert [name for name in claiming_shapes(data) if name != "ultrafeedback_binarized"] == ["axolotl"]
    assert read(data) == [expected]


def test_bare_answers_beside_a_prompt_and_a_system_text():
    data = {"system": "Be short.", "prompt": "2+2?", "chosen": FOUR, "rejected": FIVE}
    assert read(data) == [Pair(prompt=[system("Be short."), user("2+2?")], chosen=FOUR, rejected=FIVE)]


@pytest.mark.parametrize(
    "data",
    [
        INTEL | {"input": "2+2?"},
        INTEL | {"messages": [user("2+2?")]},
        INTEL | {"chosen": ["4"]},
        INTEL | {"question": 1},
        INTEL | {"question": None},
    ],
    ids=range(5),
)
def test_what_is_not_of_this_shape(data):
    assert "axolotl" not in claiming_shapes(data)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (INTEL | {"input": "x"}, "wrong_type", "has both 'question' and 'input'"),
        ({"chosen": "4", "rejected": "5"}, "missing_column", "no column 'question'"),
        (INTEL | {"question": None}, "missing_value", "'question' is null"),
        (INTEL | {"question": 1}, "wrong_type", "'question' is a number"),
        (INTEL | {"chosen": None}, "missing_value", "'chosen' is null"),
        (INTEL | {"rejected": 5}, "wrong_type", "should be texts or both lists"),
        (INTEL | {"system": 5}, "wrong_type", "'system' is a number"),
        (ULTRA | {"chosen": []}, "wrong_type", "'chosen' is an empty list, where the answer should stand"),
        (ULTRA | {"rejected": "5"}, "wrong_type", "'rejected' is a text"),
        (ULTRA | {"rejected": [user("3+3?"), *FIVE]}, "wrong_type", "'rejected' starts with a user message that is"),
        (ARGILLA | {"rejected_response": None}, "missing_value", "'rejected_response' is null"),
    ],
    ids=range(11),
)
def test_records_that_do_not_fit_say_why(data, code, words):
    with pytest.raises(ShapeError) as error:
        read(data)
    assert error.value.code == code
    assert words in str(error.value)
