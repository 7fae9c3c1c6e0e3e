"""OpenAI preference fine-tuning rows (records after its guide "Direct preference optimization")."""

import pytest
from shape_records import RECORDS, WEATHER_CALL, assistant, system, user

from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, read_rows

TEXTS, TOOLS = RECORDS["openai"]


def read(data):
    return read_rows(data, get_shape("openai"))


def test_texts():
    assert claiming_shapes(TEXTS) == ["openai"]
    assert read(TEXTS) == [
        Pair(
            prompt=[system("Be kind."), user("How cold is it?")],
            chosen=[assistant("It is 10 degrees.")],
            rejected=[assistant("Cold.")],
        )
    ]


def test_tool_calls_stay_and_a_text_part_is_its_text():
    assert claiming_shapes(TOOLS) == ["openai"]
    assert read(TOOLS) == [
        Pair(
            prompt=[user("Rome?")],
            chosen=[
                {"role": "assistant", "tool_calls": [WEATHER_CALL | {"id": "c1"}]},
                {"role": "tool", "content": "20", "tool_call_id": "c1"},
                assistant("20 degrees."),
            ],
            rejected=[assistant("Warm, I guess.")],
        )
    ]


def test_a_developer_message_is_a_system_message():
    data = TEXTS | {"input": {"messages": [{"role": "developer", "content": "Be kind."}, user("Hi")]}}
    assert read(data)[0].prompt == [system("Be kind."), user("Hi")]


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
TWO_PARTS = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"input": "Hi"}, "wrong_type", "'input' is a text, where an object with 'messages' is needed"),
        ({"input": None}, "missing_value", "'input' is null"),
        ({"input": {}}, "missing_column", "no column 'messages'"),
        ({"input": {"messages": {}}}, "wrong_type", "'input.messages' is a object"),
        ({"input": {"messages": [IMAGE]}}, "wrong_type", "has a list as content"),
        ({"input": {"messages": [TWO_PARTS]}}, "wrong_type", "has a list as content"),
        ({"input": {"messages": [{"role": "oracle", "content": "x"}]}}, "wrong_type", "has the role 'oracle'"),
        ({"preferred_output": "Cold."}, "wrong_type", "'preferred_output' is a text"),
        ({"preferred_output": []}, "wrong_type", "'preferred_output' has nothing where the answer should begin"),
        ({"non_preferred_output": [user("Hi")]}, "wrong_type", "'non_preferred_output' has a user message where"),
        ({"non_preferred_output": None}, "missing_value", "'non_preferred_output' is null"),
    ],
)
def test_records_that_do_not_fit_say_why(change, code, words):
    with pytest.raises(ShapeError) as error:
        read(TEXTS | change)
    assert error.value.code == code
    assert words in str(error.value)
