"""LLaMA-Factory KTO rows (records after data/README.md, "KTO Dataset")."""

import gzip
import json

import pytest
from shape_records import RECORDS, assistant, human, system, user

from rpo_data.shapes import Response, ShapeError, claiming_shapes, get_shape, map_columns, read_rows

ALPACA, HISTORY, SHAREGPT, OPENAI = RECORDS["kto"]


def read(data):
    return read_rows(data, get_shape("kto"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ALPACA, Response(prompt=[user("Add.\n1, 2")], completion=[assistant("3")], label=True)),
        (
            HISTORY,
            Response(
                prompt=[system("Be right."), user("Hi"), assistant("Hello"), user("Add.")],
                completion=[assistant("4")],
                label=False,
            ),
        ),
        (
            SHAREGPT,
            Response(prompt=[user("Hi"), assistant("Hello"), user("Bye")], completion=[assistant("Stay")], label=False),
        ),
        (
            OPENAI,
            Response(prompt=[system("Be right."), user("2+2?")], completion=[assistant("4")], label=True),
        ),
    ],
    ids=["alpaca", "history", "sharegpt", "openai"],
)
def test_rows(data, expected):
    assert claiming_shapes(data) == ["kto"]
    assert read(data) == [expected]


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (ALPACA | {"kto_tag": None}, "no_judgement", "'kto_tag' is null"),
        (ALPACA | {"kto_tag": 1}, "unknown_judgement", "'kto_tag' is 1, where true or false is needed"),
        (ALPACA | {"kto_tag": 10**5000}, "unknown_judgement", "'kto_tag' is a number, where true or false is needed"),
        (ALPACA | {"output": None}, "missing_value", "'output' is null"),
        (ALPACA | {"output": ["3"]}, "wrong_type", "'output' is a list"),
        (SHAREGPT | {"conversations": []}, "wrong_type", "'conversations' does not end with an assistant message"),
        (SHAREGPT | {"conversations": [human("Hi")]}, "wrong_type", "does not end with an assistant message"),
        (SHAREGPT | {"conversations": None}, "missing_value", "'conversations' is null"),
        ({"kto_tag": True}, "missing_column", "no column 'conversations'"),
        ({"instruction": "x", "output": "y"}, "missing_column", "no column 'kto_tag'"),
    ],
    ids=range(10),
)
def test_records_that_do_not_fit_say_why(data, code, words):
    with pytest.raises(ShapeError) as error:
        read(data)
    assert error.value.code == code
    assert words in str(error.value)


def test_a_file_that_calls_the_verdict_otherwise(shared_data):
    """kto-mix-test has 546 liked and 546 disliked answers, and calls the verdict `tag`."""
    with gzip.open(shared_data / "llama_factory" / "kto-mix-test.json.gz", "rt", encoding="utf-8") as file:
        records = json.load(file)
    assert {tuple(claiming_shapes(record)) for record in records} == {()}
    labels = []
    for record in records:
        data = map_columns(record, {"kto_tag": "tag"})
        assert claiming_shapes(data) == ["kto"]
        (row,) = read(data)
        assert (row.prompt, row.completion) == ([user(record["instruction"])], [assistant(record["output"])])
        assert row.label is record["tag"]
        labels.append(row.label)
    assert (labels.count(True), labels.count(False)) == (546, 546)
