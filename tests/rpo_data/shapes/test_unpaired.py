"""TRL unpaired preference rows (records after TRL, "Dataset formats and types", and Axolotl, docs/rlhf.qmd, "KTO")."""

import pytest
from shape_records import RECORDS, assistant, system, user

from rpo_data.shapes import Response, ShapeError, claiming_shapes, get_shape, read_rows

TEXTS, MESSAGES, SYSTEM = RECORDS["unpaired"]


def read(data):
    return read_rows(data, get_shape("unpaired"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TEXTS, Response(prompt=[user("The sky is")], completion=[assistant(" blue.")], label=True)),
        (
            MESSAGES,
            Response(prompt=[user("What color is the sky?")], completion=[assistant("It is green.")], label=False),
        ),
        (SYSTEM, Response(prompt=[system("Be right."), user("2+2?")], completion=[assistant("5")], label=False)),
    ],
    ids=["texts", "messages", "system"],
)
def test_rows(data, expected):
    assert claiming_shapes(data) == ["unpaired"]
    assert read(data) == [expected]


def test_a_completion_that_repeats_the_prompt_loses_it():
    assert read(MESSAGES | {"completion": MESSAGES["prompt"] + MESSAGES["completion"]}) == read(MESSAGES)


def test_weight_annotator_and_language_are_carried():
    (row,) = read(TEXTS | {"weight": "2", "annotator": "ann", "language": "en"})
    assert (row.weight, row.annotator, row.language) == (2.0, "ann", "en")


@pytest.mark.parametrize("label", [1, 0, "yes", 1.0, [True], {}], ids=repr)
def test_a_label_that_is_no_boolean_is_not_guessed(label):
    data = TEXTS | {"label": label}
    assert claiming_shapes(data) == []
    with pytest.raises(ShapeError, match="where true or false is needed") as error:
        read(data)
    assert error.value.code == "unknown_judgement"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"label": None}, "no_judgement", "'label' is null"),
        ({"label": float("nan")}, "not_a_number", "'label' is the number nan"),
        ({"completion": None}, "missing_value", "'completion' is null"),
        ({"completion": [assistant("x")]}, "wrong_type", "'prompt' is a text and 'completion' a list"),
        ({"prompt": {}, "completion": 1}, "wrong_type", "'prompt' is a object and 'completion' a number"),
        ({"prompt": [user("a")], "completion": []}, "wrong_type", "'completion' has nothing where"),
        ({"prompt": [user("a")], "completion": [user("b")]}, "wrong_type", "'completion' has a user message where"),
        ({"system": ["x"]}, "wrong_type", "'system' is a list"),
    ],
)
def test_records_that_do_not_fit_say_why(change, code, words):
    with pytest.raises(ShapeError) as error:
        read(TEXTS | change)
    assert error.value.code == code
    assert words in str(error.value)


def test_a_missing_column():
    with pytest.raises(ShapeError, match="no column 'label'") as error:
        read({"prompt": "a", "completion": "b"})
    assert error.value.code == "missing_column"
