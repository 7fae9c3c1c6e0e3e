"""Rows for other trainers, against the rules of those trainers written out by hand."""

import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data.exports import LLAMAFACTORY, UNPAIRED, dataset_info, llamafactory_batch, unpaired_batch
from rpo_data.schemas.tables import PAIRS, RESPONSES


def message(role, content="text", **more):
    return {"role": role, "content": content, "name": None, "tool_calls": None, "tool_call_id": None} | more


def table(rows: list[dict], features) -> pa.Table:
    filled = [dict.fromkeys(features) | {"weight": 1.0, "flags": []} | row for row in rows]
    return Dataset.from_list(filled, features=features).with_format("arrow")[:]


def pair(number, prompt, chosen, rejected):
    return {"pair_id": str(number), "prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_a_pair_is_two_unpaired_rows():
    answers = [([message("assistant", f"+{n}")], [message("assistant", f"-{n}")]) for n in range(3)]
    made = unpaired_batch(table([pair(n, [message("user", str(n))], *sides) for n, sides in enumerate(answers)], PAIRS))
    rows = Dataset(made.cast(UNPAIRED.arrow_schema)).to_list()
    assert [row["pair_id"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert [row["completion"][0]["content"] for row in rows] == ["+0", "-0", "+1", "-1", "+2", "-2"]
    assert [row["prompt"][0]["content"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert [row["label"] for row in rows] == [True, False] * 3


def readable(messages, ranking: bool) -> bool:
    """What LLaMA-Factory's reader of the sharegpt format accepts: roles in turn after an optional system message."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for place, turn in enumerate(turns):
        if turn["role"] != ("user", "assistant")[place % 2]:
            return False
    return len(turns) % 2 == (1 if ranking else 0)


roles = st.sampled_from(["user", "assistant", "system", "tool"])
messages = st.builds(message, roles, st.sampled_from(["text", None]))
sides = st.lists(st.builds(message, roles, st.sampled_from(["text", None])), min_size=1, max_size=2)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(messages, min_size=1, max_size=5), sides, sides), min_size=1, max_size=4))
def test_llamafactory_gets_the_pairs_that_it_reads_and_no_other(rows):
    made = llamafactory_batch(table([pair(n, *row) for n, row in enumerate(rows)], PAIRS))
    expected = []
    for number, (prompt, chosen, rejected) in enumerate(rows):
        texts = all(m["content"] is not None for m in [*prompt, *chosen, *rejected])
        single = [[m["role"] for m in side] for side in (chosen, rejected)] == [["assistant"]] * 2
        if readable(prompt, ranking=True) and single and texts:
            expected.append(str(number))
    assert made["pair_id"].to_pylist() == expected
    assert made.schema.remove_metadata() == LLAMAFACTORY["paired"].arrow_schema.remove_metadata()


def test_llamafactory_rows_are_single_dicts_of_role_and_content():
    prompt = [message("system", "be kind"), message("user", "a?"), message("assistant", "a"), message("user", "b?")]
    (row,) = llamafactory_batch(
        table([pair(1, prompt, [message("assistant", "b")], [message("assistant", "c")])], PAIRS)
    ).to_pylist()
    assert row == {
        "pair_id": "1",
        "messages": [{"role": m["role"], "content": m["content"]} for m in prompt],
        "chosen": {"role": "assistant", "content": "b"},
        "rejected": {"role": "assistant", "content": "c"},
    }


def test_calls_of_tools_are_left_out():
    asked = message("assistant", "wait", tool_calls=[{"name": "f"}])
    prompt = [message("user"), asked, message("user")]
    assert llamafactory_batch(table([pair(1, prompt, [asked], [asked])], PAIRS)).num_rows == 0
    fine = [message("assistant")]
    assert llamafactory_batch(table([pair(1, prompt, fine, fine)], PAIRS)).num_rows == 0
    assert llamafactory_batch(table([pair(1, prompt[:1], [asked], fine)], PAIRS)).num_rows == 0


def test_liked_and_disliked_responses_end_their_dialogue():
    rows = [
        {
            "response_id": str(n),
            "prompt": [message("user")],
            "completion": [message("assistant", f"{n}")],
            "label": n == 1,
        }
        for n in range(2)
    ]
    made = llamafactory_batch(table(rows, RESPONSES)).to_pylist()
    assert [row["label"] for row in made] == [False, True]
    assert all(readable(row["messages"], ranking=False) for row in made)
    assert [row["messages"][-1]["content"] for row in made] == ["0", "1"]


@pytest.mark.parametrize(("mode", "kind"), [("paired", "ranking"), ("unpaired", "kto_tag")])
def test_dataset_info_names_columns_that_are_there(mode, kind):
    (name, entry), *more = dataset_info("me/data", mode).items()
    assert (name, more) == ("data", [])
    assert kind in entry or kind in entry["columns"]
    assert set(entry["columns"].values()) < set(LLAMAFACTORY[mode])
