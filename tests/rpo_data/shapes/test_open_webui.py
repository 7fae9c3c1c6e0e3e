"""The feedback export of Open WebUI (records after backend/open_webui/models/feedbacks.py)."""

import copy

import pytest
from shape_records import OPEN_WEBUI_CHAT, RECORDS, assistant, open_webui, system, user

from rpo_data.shapes import Response, ShapeError, claiming_shapes, get_shape, read_rows

FIRST, LAST = RECORDS["open_webui"]


def read(data):
    return read_rows(data, get_shape("open_webui"))


def test_the_rated_message_is_the_answer_and_its_parents_are_the_prompt():
    assert claiming_shapes(FIRST) == claiming_shapes(LAST) == ["open_webui"]
    assert read(FIRST) == [
        Response(prompt=[system("Be short."), user("2+2?")], completion=[assistant("5")], label=False, annotator="u7")
    ]
    assert read(LAST) == [
        Response(
            prompt=[system("Be short."), user("2+2?"), assistant("4"), user("Sure?")],
            completion=[assistant("Yes.")],
            label=True,
            annotator="u7",
        )
    ]


def damaged(**parents):
    chat = copy.deepcopy(OPEN_WEBUI_CHAT)
    for message, parent in parents.items():
        chat["history"]["messages"][message]["parentId"] = parent
    return chat


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (open_webui("m2", None), "no_judgement", "'rating' is empty"),
        (open_webui("m2", 0), "unknown_judgement", "'rating' is 0"),
        (open_webui("m2", 5), "unknown_judgement", "'rating' is 5"),
        (open_webui("m1", 1), "wrong_type", "does not end with an assistant message"),
        (open_webui("m9", 1), "wrong_type", "does not lead from the rated message to the first one"),
        (open_webui(None, 1), "missing_value", "'message_id' is null"),
        (open_webui("m5", 1, damaged(m1="m5")), "wrong_type", "does not lead from the rated message"),
        (open_webui("m5", 1, damaged(m4=["m3"])), "wrong_type", "does not lead from the rated message"),
        (open_webui("m5", 1, damaged(m4="gone")), "wrong_type", "does not lead from the rated message"),
        (open_webui("m5", 1, {}), "missing_column", "no column 'history'"),
        (open_webui("m5", 1, None), "missing_value", "'chat' is null"),
        (FIRST | {"snapshot": {}}, "missing_column", "no column 'chat'"),
        (FIRST | {"snapshot": None}, "missing_value", "'snapshot' is null"),
        (FIRST | {"data": 1}, "wrong_type", "'data' is a number"),
    ],
    ids=range(14),
)
def test_records_that_do_not_fit_say_why(data, code, words):
    with pytest.raises(ShapeError) as error:
        read(data)
    assert error.value.code == code
    assert words in str(error.value)
