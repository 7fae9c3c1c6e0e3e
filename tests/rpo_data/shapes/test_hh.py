"""HH dialogues are split as their publisher writes them."""

import pytest
from shape_records import RECORDS, assistant, user

from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, read_rows, split_dialogue

HH = RECORDS["hh"][0]


def read(data):
    return read_rows(data, get_shape("hh"))


def test_each_side_is_split_at_its_last_assistant_marker():
    assert claiming_shapes(HH) == ["hh"]
    assert read(HH) == [
        Pair(
            prompt=[user("Hi"), assistant("Hello"), user("Bye")],
            chosen=[assistant("See you")],
            rejected=[assistant("No\nAssistant: stay")],
        )
    ]


def test_sides_are_split_each_at_its_own_marker():
    """A response that looks like one more exchange moves that side's last marker: the prompts then differ."""
    data = HH | {"rejected": HH["chosen"] + "\n\nHuman: More\n\nAssistant: Sure"}
    (row,) = read(data)
    assert not row.prompts_equal
    assert row.rejected == [assistant("Sure")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Human: Hi\n\nAssistant: Hello", "does not start"),
        ("\n\nAssistant: Hello", "does not start"),
        ("\n\nHuman: Hi", "does not end"),
        ("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye", "does not end"),
    ],
)
def test_dialogues_that_are_none(text, message):
    with pytest.raises(ShapeError, match=message) as error:
        split_dialogue(text)
    assert error.value.code == "no_turn_marker"


def test_the_whole_published_test_split(shared_data):
    """14 dialogues part before the last answer, and 8 answers are empty (counted with split() and rfind() alone)."""
    import gzip
    import json

    lines = []
    for name in ("helpful", "harmless-base"):
        with gzip.open(shared_data / "hh_rlhf" / f"{name}.test.jsonl.gz", "rt", encoding="utf-8") as file:
            lines += [json.loads(line) for line in file]
    rows = [row for line in lines for row in read(line)]
    assert len(rows) == len(lines) == 4664
    assert sum(not row.prompts_equal for row in rows) == 14
    assert sum(not row.chosen[0]["content"] for row in rows) + sum(not row.rejected[0]["content"] for row in rows) == 8
    marker = "\n\nAssistant:"
    for line, row in zip(lines, rows, strict=True):
        assert line["chosen"][line["chosen"].rfind(marker) + len(marker) :].strip() == row.chosen[0]["content"]
        assert line["rejected"][line["rejected"].rfind(marker) + len(marker) :].strip() == row.rejected[0]["content"]
        assert len(row.prompt) + 1 == len(line["chosen"].replace("\n\nHuman:", marker).split(marker)) - 1
