"""PandaLM's test set: three annotators a record (rows of WeOpenML/PandaLM, Apache-2.0)."""

import gzip
import json
from collections import Counter

import pytest
from comparison_records import COMPARISON_RECORDS, read, refusal, rows_of

from rpo_data.shapes import Pair, ShapeError
from rpo_data.shapes.base import assistant, user

RECORD = COMPARISON_RECORDS["pandalm"][0]


def judged(prompt, chosen, rejected, *annotators, tie=()):
    return [
        Pair(
            prompt=[user(prompt)],
            chosen=[assistant(chosen)],
            rejected=[assistant(rejected)],
            annotator=annotator,
            tie=annotator in tie,
        )
        for annotator in annotators
    ]


def test_each_annotator_has_a_row():
    names = ("annotator1", "annotator2", "annotator3")
    sound, ringing = "This sound is a positive sound.", "The sound this makes is a high-pitched ringing."
    title = "Give the news title a category.\n\nThe #Banksy Exhibit in Cambridge, MA is absolutely terrific."
    group = "Suggest some names for a friendly group in telegram."
    first, second, third = rows_of("pandalm")
    assert first == judged("What sound does this make?\n\n好", sound, ringing, *names, tie=("annotator2",))
    assert second == judged(group, "Group Name: Friends", "#FriendlyGroup", *names)
    assert third[:2] == judged(title, "Arts & Culture", "Politics", "label_0", "label_1")
    assert third[2:] == judged(title, "Politics", "Arts & Culture", "label_2", tie=("label_2",))


def test_who_did_not_judge_has_no_row():
    rows = read("pandalm", RECORD | {"annotator2": None, "annotator3": ""})
    assert [row.annotator for row in rows] == ["annotator1"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"annotator2": 3}, "unknown_judgement"),
        ({"annotator1": None, "annotator2": None, "annotator3": float("nan")}, "no_judgement"),
        ({"response1": True}, "wrong_type"),
        ({"input": None}, "missing_value"),
    ],
    ids=range(4),
)
def test_records_that_are_refused(change, code):
    assert refusal("pandalm", RECORD | change)[0] == code


def test_the_whole_file(shared_data):
    """Six of its responses were turned from the word True into a boolean; these are no texts any more."""
    with gzip.open(shared_data / "pandalm" / "testset-v1.json.gz", "rt", encoding="utf-8") as file:
        records = json.load(file)
    rows, refused = [], []
    for record in records:
        try:
            rows += [(record, row) for row in read("pandalm", record)]
        except ShapeError as error:
            refused.append((record["idx"], error.code))
    broken = [record["idx"] for record in records if bool in map(type, (record["response1"], record["response2"]))]
    assert refused == [(index, "wrong_type") for index in broken]
    assert (len(records), len(broken), len(rows)) == (999, 6, 3 * 993)
    assert Counter(row.annotator for _, row in rows) == {"annotator1": 993, "annotator2": 993, "annotator3": 993}
    for record, row in rows:
        value = record[row.annotator]
        assert row.tie == (value == 0)
        assert row.chosen == [assistant(record["response2" if value == 2 else "response1"])]
