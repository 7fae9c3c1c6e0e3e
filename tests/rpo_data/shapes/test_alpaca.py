"""Alpaca pairs and rankings (records after LLaMA-Factory, data/README.md, of today and of early 2024)."""

import gzip
import json

import pytest
from shape_records import RECORDS, assistant, system, user

from rpo_data.shapes import Pair, Response, ShapeError, claiming_shapes, get_shape, read_rows

INPUT, HISTORY = RECORDS["alpaca"]
THREE, TWO = RECORDS["alpaca_ranking"]


def read(data, shape="alpaca"):
    return read_rows(data, get_shape(shape))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            INPUT,
            Pair(prompt=[user("Add.\n1, 2")], chosen=[assistant("It is 3.")], rejected=[assistant("It is 4.")]),
        ),
        (
            HISTORY,
            Pair(
                prompt=[
                    system("Be short."),
                    user("1+2?"),
                    assistant("3"),
                    user("Twice?"),
                    assistant("6"),
                    user("And now?"),
                ],
                chosen=[assistant("6")],
                rejected=[assistant("7")],
            ),
        ),
    ],
    ids=["input", "history"],
)
def test_pairs(data, expected):
    assert claiming_shapes(data) == ["alpaca"]
    assert read(data) == [expected]


def test_rankings_are_best_first():
    assert claiming_shapes(THREE) == ["alpaca_ranking"]
    prompt = [user("Greet.")]
    assert read(THREE, "alpaca_ranking") == [
        Response(prompt=prompt, completion=[assistant("Good day!")], rank=1),
        Response(prompt=prompt, completion=[assistant("Hi.")], rank=2),
        Response(prompt=prompt, completion=[assistant("What?")], rank=3),
    ]
    assert claiming_shapes(TWO) == ["alpaca_ranking"]
    prompt = [user("Hi"), assistant("Hello"), user("Name a colour.")]
    assert read(TWO, "alpaca_ranking") == [
        Response(prompt=prompt, completion=[assistant("Blue.")], rank=1),
        Response(prompt=prompt, completion=[assistant("Cold.")], rank=2),
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "output": ["b"]},
        {"instruction": "a", "output": ["b", 1]},
        {"instruction": ["a"], "chosen": "b", "rejected": "c"},
    ],
    ids=range(4),
)
def test_what_holds_no_comparison_is_not_claimed(data):
    assert claiming_shapes(data) == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"instruction": None}, "missing_value", "'instruction' is null"),
        ({"instruction": 1}, "wrong_type", "'instruction' is a number"),
        ({"input": ["x"]}, "wrong_type", "'input' is a list"),
        ({"chosen": ["x"]}, "wrong_type", "'chosen' is a list"),
        ({"rejected": None}, "missing_value", "'rejected' is null"),
        ({"history": "x"}, "wrong_type", "'history' is a text, where a list of pairs is needed"),
        ({"history": [["a"]]}, "wrong_type", "item 1 of 'history' is no pair"),
        ({"history": [["a", "b"], ["c", None]]}, "wrong_type", "item 2 of 'history' is no pair"),
        ({"system": {}}, "wrong_type", "'system' is a object"),
    ],
)
def test_pairs_that_do_not_fit_say_why(change, code, words):
    with pytest.raises(ShapeError) as error:
        read(INPUT | change)
    assert error.value.code == code
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (None, "missing_value", "'output' is null"),
        ("b", "wrong_type", "'output' is a text, where a list of texts, best first, is needed"),
        ([], "no_judgement", "'output' ranks 0 of the two or more"),
        (["b"], "no_judgement", "'output' ranks 1 of the two or more"),
        (["b", None], "wrong_type", "answer 2 of 'output' is a null"),
    ],
)
def test_rankings_that_do_not_fit_say_why(output, code, words):
    with pytest.raises(ShapeError) as error:
        read(THREE | {"output": output}, "alpaca_ranking")
    assert error.value.code == code
    assert words in str(error.value)


def test_the_whole_ranking_file(shared_data):
    """775 records with 434 x 2, 263 x 3, 63 x 4, 12 x 5, 6, 8 and 10 answers, as the note beside the file counts them."""
    with gzip.open(shared_data / "llama_factory" / "oaast_rm_zh.json.gz", "rt", encoding="utf-8") as file:
        records = json.load(file)
    assert {tuple(claiming_shapes(record)) for record in records} == {("alpaca_ranking",)}
    rows = [read(record, "alpaca_ranking") for record in records]
    assert len(rows) == 775
    assert sum(map(len, rows)) == 434 * 2 + 263 * 3 + 63 * 4 + 12 * 5 + 6 + 8 + 10
    for record, ranked in zip(records, rows, strict=True):
        assert [row.completion[0]["content"] for row in ranked] == record["output"]
        assert [row.rank for row in ranked] == list(range(1, len(ranked) + 1))
        assert len(ranked[0].prompt) == 2 * len(record["history"]) + 1


def test_the_whole_rasbt_file(shared_data):
    path = shared_data / "rasbt_instruction_preference" / "instruction-data-with-preference.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        records = json.load(file)
    assert len(records) == 1100
    for record in records:
        assert claiming_shapes(record) == ["alpaca"]
        (row,) = read(record)
        question = record["instruction"] + ("\n" + record["input"] if record["input"] else "")
        assert row == Pair(
            prompt=[user(question)], chosen=[assistant(record["chosen"])], rejected=[assistant(record["rejected"])]
        )
