"""Thumbs of application logs (values as the publishers that the module names document them)."""

import gzip
import json

import pytest
from shape_records import RECORDS, assistant, system, user

from rpo_data.shapes import Response, ShapeError, claiming_shapes, get_shape, map_columns, read_rows

LABEL = RECORDS["thumbs"][0]
CHAT = [user("2+2?"), assistant("4")]


def read(data):
    return read_rows(data, get_shape("thumbs"))


def expected(answer, label, *before):
    return [Response(prompt=[*before, user("2+2?")], completion=[assistant(answer)], label=label)]


@pytest.mark.parametrize(
    ("data", "rows"),
    list(
        zip(
            RECORDS["thumbs"],
            [
                expected("5", False, system("Be right.")),
                expected("4", True),
                expected("5", False),
                expected("4", True),
                expected("4", True),
            ],
            strict=True,
        )
    ),
    ids=["label", "liked", "rating", "feedback", "rating and comment"],
)
def test_rows(data, rows):
    assert claiming_shapes(data) == ["thumbs"]
    assert read(data) == rows


@pytest.mark.parametrize("column", ["label", "liked", "rating", "feedback"])
@pytest.mark.parametrize(
    ("up", "down"),
    [
        (True, False),
        ("True", "false"),
        ("thumbs_up", "thumbs_down"),
        ("THUMBS_UP", "THUMBS_DOWN"),
        ("like", "dislike"),
        ("positive", "negative"),
        ("GOOD", "BAD"),
    ],
    ids=str,
)
def test_documented_verdicts(column, up, down):
    assert read({"messages": CHAT, column: up}) == expected("4", True)
    assert read({"messages": CHAT, column: down}) == expected("4", False)


@pytest.mark.parametrize(("up", "down"), [(1, -1), (1.0, -1.0), ("1", "-1")], ids=str)
def test_numbers_are_thumbs_in_feedback_only(up, down):
    """One star of five is a rating of 1, too."""
    assert read({"messages": CHAT, "feedback": up}) == expected("4", True)
    assert read({"messages": CHAT, "feedback": down}) == expected("4", False)
    for column in ("label", "liked", "rating"):
        data = {"messages": CHAT, column: up}
        assert claiming_shapes(data) == []
        with pytest.raises(ShapeError, match="map it with --columns feedback=") as error:
            read(data)
        assert error.value.code == "unknown_judgement"


def test_a_nested_verdict_is_mapped():
    """Dify gives the verdict of a message as `feedback.rating`."""
    data = {"messages": CHAT, "feedback": {"rating": "dislike"}}
    assert claiming_shapes(data) == []
    assert read(map_columns(data, {"feedback": "feedback.rating"})) == expected("4", False)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"label": None}, "no_judgement", "nobody has voted"),
        ({"label": float("nan")}, "no_judgement", "nobody has voted"),
        ({"label": " "}, "no_judgement", "nobody has voted"),
        ({"label": "RATING_UNSPECIFIED"}, "no_judgement", "nobody has voted"),
        ({"label": "meh"}, "unknown_judgement", "'label' is 'meh', which is no thumb up or down"),
        ({"label": [True]}, "unknown_judgement", "'label' is a list, which is no thumb up or down"),
        ({"label": None, "feedback": 0}, "unknown_judgement", "'feedback' is 0, which is no thumb up or down"),
        ({"label": True, "rating": "bad"}, "unknown_judgement", "label and rating say the opposite of each other"),
        ({"messages": None}, "missing_value", "'messages' is null"),
        ({"messages": [*CHAT, user("Thanks")]}, "wrong_type", "does not end with an assistant message"),
    ],
    ids=range(10),
)
def test_records_that_do_not_fit_say_why(change, code, words):
    data = LABEL | change
    assert claiming_shapes(data) == (["thumbs"] if "rating" in change else [])
    with pytest.raises(ShapeError) as error:
        read(data)
    assert error.value.code == code
    assert words in str(error.value)


def test_a_conversation_without_any_verdict():
    with pytest.raises(ShapeError, match="no column 'label'") as error:
        read({"messages": CHAT})
    assert error.value.code == "missing_column"


def test_the_whole_demo_file(shared_data):
    """kto_en_demo has 150 liked and 150 disliked conversations."""
    with gzip.open(shared_data / "llama_factory" / "kto_en_demo.json.gz", "rt", encoding="utf-8") as file:
        records = json.load(file)
    labels = []
    for record in records:
        assert claiming_shapes(record) == ["thumbs"]
        (row,) = read(record)
        said = [{"role": m["role"], "content": m["content"]} for m in record["messages"]]
        assert (row.prompt + row.completion, len(row.completion)) == (said, 1)
        assert row.label is record["label"]
        labels.append(row.label)
    assert (labels.count(True), labels.count(False)) == (150, 150)
