"""OpenAssistant trees: ranked replies at every depth (a tree of LAION-AI/Open-Assistant, Apache-2.0)."""

import gzip
import json
from copy import deepcopy

import pytest
from comparison_records import COMPARISON_RECORDS, read, refusal, rows_of

from rpo_data.shapes import Response, get_shape, read_rows
from rpo_data.shapes.base import assistant, user

REAL, TREE = COMPARISON_RECORDS["open_assistant"]


def test_ranked_replies_at_every_depth():
    """Spam and deleted replies are left out; an unranked one among ranked ones has no rank, and is left to the checks."""
    comb = [user("Who invented the honeycomb?")]
    start = "Honeycombs are a natural phenomenon. They are formed by bees using their specialized glands. "
    root = [user("Warum kann man nicht durch 0 teilen?")]
    deep = [*root, assistant("Weil kein Ergebnis passt."), user("And in English?")]
    theirs, store = f"{start}The bees use the honeycomb to store their honey and pollen.", "store honey and pollen."
    assert rows_of("open_assistant") == [
        [
            Response(prompt=comb, completion=[assistant(theirs)], rank=1, language="en"),
            Response(
                prompt=comb,
                completion=[assistant(f"{start}The bees use the honeycomb to {store}")],
                rank=2,
                language="en",
            ),
        ],
        [
            Response(prompt=root, completion=[assistant("Es geht nicht.")], rank=2, language="de"),
            Response(prompt=root, completion=[assistant("Weil kein Ergebnis passt.")], rank=1, language="de"),
            Response(prompt=deep, completion=[assistant("No result fits.")], rank=1, language="en"),
            Response(prompt=deep, completion=[assistant("Because.")], rank=3, language="en"),
            Response(prompt=deep, completion=[assistant("later")], language="en"),
        ],
    ]


def changed(**change):
    """The tree with other values in its root message."""
    return TREE | {"prompt": TREE["prompt"] | change}


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (changed(replies=[]), "no_judgement"),
        (changed(replies=None), "no_judgement"),
        (changed(replies=TREE["prompt"]["replies"][:2]), "no_judgement"),
        (changed(deleted=True), "no_judgement"),
        (changed(review_result=False), "no_judgement"),
        (TREE | {"tree_state": "growing"}, "no_judgement"),
        (changed(role="system"), "wrong_type"),
        (changed(deleted="no"), "wrong_type"),
        (changed(replies=["a"]), "wrong_type"),
        (changed(text=None), "missing_value"),
        (TREE | {"prompt": "Why?"}, "wrong_type"),
    ],
    ids=range(11),
)
def test_trees_that_are_refused(record, code):
    assert refusal("open_assistant", record)[0] == code


@pytest.mark.parametrize("value", [-1, 0.5, "best", True])
def test_ranks_that_are_none(value):
    record = deepcopy(TREE)
    record["prompt"]["replies"][0]["rank"] = value
    assert refusal("open_assistant", record)[0] == "unknown_judgement"


def test_a_deep_tree_needs_no_recursion():
    replies = [{"text": "a", "role": "assistant", "rank": 0}, {"text": "b", "role": "assistant", "rank": 1}]
    node = {"text": "end", "role": "prompter", "replies": replies}
    for place in range(3000):
        node = {"text": str(place), "role": ("assistant", "prompter")[place % 2], "replies": [node]}
    record = {"message_tree_id": "x", "prompt": node}
    rows = read_rows(record, get_shape("open_assistant"))
    assert [(row.rank, len(row.prompt)) for row in rows] == [(1, 3001), (2, 3001)]


def test_the_whole_file(shared_data):
    with gzip.open(shared_data / "open_assistant_trees" / "en_100_tree.jsonl.gz", "rt", encoding="utf-8") as file:
        trees = [json.loads(line) for line in file]
    rows = [row for tree in trees for row in read("open_assistant", tree)]

    def ranked(node):
        own = [reply["rank"] for reply in node["replies"] if reply.get("rank") is not None]
        return own + [place for reply in node["replies"] for place in ranked(reply)]

    expected = [place for tree in trees for place in ranked(tree["prompt"])]
    assert (len(trees), len(rows)) == (100, 642)
    assert sorted(row.rank - 1 for row in rows if row.rank is not None) == sorted(expected)
    assert {len(row.prompt) for row in rows} == {1, 3, 5}
