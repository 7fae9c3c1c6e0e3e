"""ms-swift preference rows (records after its documentation, "Custom Dataset")."""

import pytest
from shape_records import RECORDS, assistant, system, user

from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, read_rows

(SWIFT,) = RECORDS["swift"]


def read(data):
    return read_rows(data, get_shape("swift"))


def test_the_last_message_is_chosen():
    assert claiming_shapes(SWIFT) == ["swift"]
    assert read(SWIFT) == [
        Pair(
            prompt=[system("Be kind."), user("Weather tomorrow?")],
            chosen=[assistant("Sunny.")],
            rejected=[assistant("I don't know")],
        )
    ]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"messages": None}, "missing_value", "'messages' is null"),
        ({"messages": [user("Hi")]}, "wrong_type", "'messages' does not end with an assistant message"),
        ({"rejected_response": None}, "missing_value", "'rejected_response' is null"),
        ({"rejected_response": ["x"]}, "wrong_type", "'rejected_response' is a list"),
    ],
)
def test_records_that_do_not_fit_say_why(change, code, words):
    with pytest.raises(ShapeError) as error:
        read(SWIFT | change)
    assert error.value.code == code
    assert words in str(error.value)
