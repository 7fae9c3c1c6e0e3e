"""ShareGPT preference rows (records after LLaMA-Factory, data/README.md, and Axolotl, docs/rlhf.qmd)."""

import gzip
import json

import pytest
from shape_records import RECORDS, WEATHER_CALL, assistant, human, system, user

from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, read_rows

PLAIN, TOOLS, AXOLOTL, MIXED = RECORDS["sharegpt"]


def read(data):
    return read_rows(data, get_shape("sharegpt"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            PLAIN,
            Pair(
                prompt=[system("Be kind."), user("Hi"), assistant("Hello"), user("Bye")],
                chosen=[assistant("See you")],
                rejected=[assistant("Stay")],
            ),
        ),
        (
            TOOLS,
            Pair(
                prompt=[
                    system("Use tools."),
                    user("Rome?"),
                    {"role": "assistant", "tool_calls": [WEATHER_CALL]},
                    {"role": "tool", "content": "20"},
                ],
                chosen=[assistant("20 degrees.")],
                rejected=[{"role": "assistant", "tool_calls": [WEATHER_CALL]}],
            ),
        ),
        (
            AXOLOTL,
            Pair(prompt=[system("Be short."), user("2+2?")], chosen=[assistant("4")], rejected=[assistant("5")]),
        ),
        (MIXED, Pair(prompt=[user("2+2?")], chosen=[assistant("4")], rejected=[assistant("5")])),
    ],
    ids=["plain", "tools", "axolotl", "mixed"],
)
def test_rows(data, expected):
    assert claiming_shapes(data) == ["sharegpt"]
    assert read(data) == [expected]


def test_keys_that_a_table_filled_with_null_do_not_count():
    nulls = {"role": None, "content": None, "tool_calls": None}
    data = PLAIN | {"conversations": [turn | nulls for turn in PLAIN["conversations"]], "messages": None}
    assert read(data) == read(PLAIN)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"conversations": "Hi"}, "wrong_type", "'conversations' is a text, where a list of turns is needed"),
        ({"conversations": None}, "missing_value", "'conversations' is null"),
        ({"conversations": ["Hi"]}, "wrong_type", "turn 1 of 'conversations' is a text, where an object is needed"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "wrong_type", "has the role 'alien'"),
        ({"conversations": [{"from": "human"}]}, "wrong_type", "turn 1 of 'conversations' has a null as content"),
        (
            {"conversations": [human("a") | {"name": 7}]},
            "wrong_type",
            "turn 1 of 'conversations' has a number as 'name'",
        ),
        ({"conversations": [{"value": "x"}]}, "wrong_type", "turn 1 of 'conversations' has no role"),
        ({"chosen": None}, "missing_value", "'chosen' is null"),
        ({"chosen": 5}, "wrong_type", "'chosen' is a number"),
        ({"chosen": []}, "wrong_type", "'chosen' has nothing where the answer should begin"),
        ({"chosen": human("x")}, "wrong_type", "'chosen' has a user message where the answer should begin"),
        ({"rejected": [user("not asked"), assistant("x")]}, "wrong_type", "'rejected' has a user message where"),
        ({"rejected": {"from": "observation", "value": "x"}}, "wrong_type", "'rejected' has a tool message where"),
        ({"rejected": {"from": "function_call", "value": "weather()"}}, "wrong_type", "is no JSON object with a name"),
        ({"rejected": {"from": "function_call", "value": "[" * 5000}}, "wrong_type", "is no JSON object with a name"),
        ({"rejected": {"from": "function_call", "value": "[]"}}, "wrong_type", "is no JSON object with a name"),
        ({"system": 1}, "wrong_type", "'system' is a number"),
    ],
    ids=range(17),
)
def test_records_that_do_not_fit_say_why(change, code, words):
    with pytest.raises(ShapeError) as error:
        read(PLAIN | change)
    assert error.value.code == code
    assert words in str(error.value)


def test_what_other_shapes_read_is_not_claimed():
    whole = [user("2+2?"), assistant("4")], [user("2+2?"), assistant("5")]
    sides = dict(zip(("chosen", "rejected"), whole, strict=True))
    assert claiming_shapes({"messages": whole[0], **sides}) == ["preference"]
    assert claiming_shapes({"prompt": "2+2?", "messages": whole[0], **sides}) == ["ultrafeedback_binarized"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_whole_demo_file(shared_data, language):
    """300 rows; counted anew: turns of each conversation, and each answer as it stands in the file."""
    with gzip.open(shared_data / "llama_factory" / f"dpo_{language}_demo.json.gz", "rt", encoding="utf-8") as file:
        records = json.load(file)
    assert len(records) == 300
    for record in records:
        assert claiming_shapes(record) == ["sharegpt"]
        (row,) = read(record)
        assert [m["content"] for m in row.prompt] == [turn["value"] for turn in record["conversations"]]
        assert row.chosen == [assistant(record["chosen"]["value"])]
        assert row.rejected == [assistant(record["rejected"]["value"])]
        assert not row.tie
        assert row.prompt[-1]["role"] == "user"
