"""Reading and checking together: each fault has its reason, the rest counts, and the numbers balance."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from tests_support import pair

from rpo_data.pairs import Reading, collect_rows
from rpo_data.row_table import open_rejects, open_rows, take_rows
from rpo_data.schemas.frames import MAX_CHARACTERS
from rpo_data.schemas.rules import RULES
from rpo_data.sources import find_sources


def collect(folder, *logs, **settings):
    folder.mkdir(exist_ok=True)
    counts = collect_rows(
        find_sources(logs),
        folder,
        Reading(**{k: v for k, v in settings.items() if k != "limit"}),
        limit=settings.get("limit"),
    )
    return counts, open_rows(folder), open_rejects(folder).to_pylist()


@pytest.mark.parametrize(
    ("record", "code", "sentence"),
    [
        (pair(1, chosen="  "), "empty_response", "chosen is empty"),
        (pair(1, rejected=""), "empty_response", "rejected is empty"),
        (pair(1, prompt=" \n"), "empty_prompt", "the prompt is empty"),
        (pair(1, chosen="same", rejected=" same "), "identical_responses", "the same text"),
        (pair(1, score_chosen=float("nan")), "not_a_number", "score_chosen is nan: write null"),
        (pair(1, score_rejected=float("inf")), "not_a_number", "score_rejected is inf"),
        (
            pair(1, prompt="x" * 5_000_000),
            "too_long",
            f"5,000,000 characters, more than the limit of {MAX_CHARACTERS:,}",
        ),
        (pair(1, rejected="x" * (MAX_CHARACTERS + 1)), "too_long", "1,000,001 characters"),
        (pair(1, chosen="half \ud800"), "lone_surrogate", "surrogate pair"),
        (pair(1, annotator="\udfff"), "lone_surrogate", "surrogate pair"),
        ({"prompt": "p", "chosen": "c"}, "missing_column", "no column 'rejected'"),
    ],
)
def test_each_fault_gives_its_reason_and_the_rest_counts(record, code, sentence, write_lines, tmp_path):
    path = write_lines("logs.jsonl", [pair(0), record, pair(2)])
    (count,), rows, (reject,) = collect(tmp_path / "out", path)
    assert (count.read, count.used, count.rejected) == (3, 2, 1)
    assert rows["source_row"].to_pylist() == [1, 3]
    assert (reject["code"], reject["file"], reject["line"]) == (code, "logs.jsonl", 2)
    assert reject["message"].startswith("logs.jsonl:2: ")
    assert sentence in reject["message"]
    assert json.loads(reject["raw"]).keys() == record.keys()
    assert code in RULES


def test_a_row_that_fails_several_checks_is_left_out_once_under_the_first(write_lines, tmp_path):
    path = write_lines("logs.jsonl", [pair(0, prompt="", chosen="", rejected="")])
    _, _, rejects = collect(tmp_path / "out", path)
    assert [reject["code"] for reject in rejects] == ["empty_prompt"]


def test_the_shape_is_found_behind_broken_first_lines(tmp_path):
    path = tmp_path / "hh.jsonl"
    dialogue = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    path.write_text("nonsense\n{}\n" + json.dumps(dialogue) + "\n" + json.dumps({"chosen": "x", "rejected": "y"}))
    (count,), rows, rejects = collect(tmp_path / "out", path)
    assert rows["prompt"][0].as_py()[0]["content"] == "a"
    assert [reject["code"] for reject in rejects] == ["broken_json", "missing_column", "no_turn_marker"]
    assert count.read == 4


def test_rows_of_two_shapes_in_one_file_are_each_read_as_what_they_are(tmp_path, write_lines):
    dialogue = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    for name, records in (("one", [pair(0), dialogue]), ("two", [dialogue, pair(0)])):
        _, rows, _ = collect(tmp_path / name, write_lines(f"{name}.jsonl", records))
        assert {row[-1]["content"] for row in rows["prompt"].to_pylist()} == {"question 0?", "a"}


MESSAGES = [{"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (pair(0, score_chosen=10**400), "wrong_type"),
        ({"prompt": [MESSAGES[0] | {"name": 5}], "chosen": MESSAGES, "rejected": MESSAGES}, "wrong_type"),
        ({"prompt": [{"role": "user", "content": 5, "tool_calls": [1]}], "chosen": [], "rejected": []}, "wrong_type"),
        ({"ch\ud800": "a", "rejected": "b"}, "missing_column"),
        ({"prompt": MESSAGES, "chosen": MESSAGES, "rejected": [{"role": "assistant", "content": "x"}]}, "wrong_type"),
    ],
)
def test_odd_values_are_rejected_and_nothing_breaks(record, code, write_lines, tmp_path):
    _, rows, (reject,) = collect(tmp_path / "out", write_lines("logs.jsonl", [record, pair(1)]))
    assert rows.num_rows == 1
    assert reject["code"] == code


def test_sides_that_repeat_the_conversation_lose_the_prompt(write_lines, tmp_path):
    sides = {side: [*MESSAGES, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    _, rows, _ = collect(tmp_path / "out", write_lines("logs.jsonl", [{"prompt": MESSAGES} | sides]))
    assert [message["content"] for message in rows["chosen"].to_pylist()[0]] == ["chosen"]


def test_rows_are_taken_from_many_batches_in_any_order():
    part = pa.table({"n": pa.array(range(10)), "text": ["x" * 1000] * 10})
    table = pa.concat_tables([part] * 5)
    positions = np.array([49, 0, 13, 13, 7, 40])
    assert take_rows(table, positions)["n"].to_pylist() == [9, 0, 3, 3, 7, 0]
    assert take_rows(table, positions[:0]).num_rows == 0


def test_a_named_shape_is_used(write_lines, tmp_path):
    path = write_lines("logs.jsonl", [pair(0)])
    _, _, rejects = collect(tmp_path / "out", path, shape="hh")
    assert rejects[0]["code"] == "no_turn_marker"


def test_limit_counts_records_over_all_files(write_lines, tmp_path):
    one = write_lines("a.jsonl", [pair(n) for n in range(3)])
    two = write_lines("b.jsonl", [pair(n) for n in range(3, 6)])
    counts, rows, _ = collect(tmp_path / "out", one, two, limit=4)
    assert [count.read for count in counts] == [3, 1]
    assert rows.num_rows == 4


def test_ids_depend_on_content_alone(write_lines, tmp_path):
    standard = write_lines("a.jsonl", [{"prompt": "p", "chosen": "c", "rejected": "r"}])
    messages = [{"role": "user", "content": "p"}]
    sides = {side: [{"role": "assistant", "content": side[0]}] for side in ("chosen", "rejected")}
    conversational = write_lines("b.jsonl", [{"prompt": messages} | sides])
    _, rows, _ = collect(tmp_path / "out", standard, conversational)
    assert rows["pair_id"][0] == rows["pair_id"][1]
    assert rows["prompt_id"][0] == rows["prompt_id"][1]
    assert len({*rows["pair_id"].to_pylist(), *rows["prompt_id"].to_pylist(), *rows["chosen_id"].to_pylist()}) == 3


def test_tool_calls_come_back_as_they_were(write_lines, tmp_path):
    call = [{"type": "function", "function": {"name": "f", "arguments": {"x": [1, None], "ü": {}}}}]
    record = pair(
        0,
        prompt=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": call},
            {"role": "tool", "content": "1", "name": "f"},
        ],
    )
    record |= {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    _, rows, _ = collect(tmp_path / "out", write_lines("a.jsonl", [record]))
    assert json.loads(rows["prompt"][0].as_py()[1]["tool_calls"]) == call


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (None, "no list of numbers"),
        ("text", "no list of numbers"),
        ([[1.0]], "no list of numbers"),
        ([1.0, 2.0, 3.0], "has 3 numbers where others have 2"),
        ([0.0, 0.0], "all zero"),
        ([float("nan"), 1.0], "NaN"),
        ([1e300, 1.0], "infinite"),
        ([1e-300, 0.0], "all zero"),
    ],
)
def test_vectors_of_the_user_are_checked(vector, words, write_lines, tmp_path):
    path = write_lines("a.jsonl", [pair(0, v=[1.0, 2.0]), pair(1, v=vector)])
    _, rows, (reject,) = collect(tmp_path / "out", path, vector_column="v")
    assert rows["vector"].to_pylist() == [[1.0, 2.0]]
    assert reject["code"] == "bad_vector"
    assert words in reject["message"]


def test_the_real_sample(sample, tmp_path):
    (count,), rows, rejects = collect(tmp_path / "out", sample)
    assert (count.read, count.used, count.rejected) == (1000, rows.num_rows, len(rejects))
    assert sorted(reject["code"] for reject in rejects) == ["empty_response"] * 2 + ["prompts_differ"] * 5
    assert rows["prompt"].to_pylist()[0][-1]["role"] == "user"


def test_the_full_hh_test_split(shared_data, tmp_path):
    counts, _, rejects = collect(tmp_path / "out", shared_data / "hh_rlhf")
    assert {count.name: (count.read, count.rejected) for count in counts} == {
        "harmless-base.test.jsonl.gz": (2312, 9),
        "helpful.test.jsonl.gz": (2352, 13),
    }
    codes = [reject["code"] for reject in rejects]
    assert (codes.count("prompts_differ"), codes.count("empty_response"), len(codes)) == (14, 8, 22)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    script = (
        "import sys; from pathlib import Path; from rpo_data.pairs import collect_rows; "
        "from rpo_data.sources import find_sources; out = Path(sys.argv[2]); out.mkdir(); "
        "collect_rows(find_sources([sys.argv[1]]), out); "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peaks, sizes = [], []
    for rows in (2_000, 30_000):
        path = tmp_path / f"{rows}.json"
        with path.open("w") as file:  # one line, one array: the hardest case
            file.write("[" + ",".join(json.dumps(pair(n, rejected="x" * 2000)) for n in range(rows)) + "]")
        sizes.append(path.stat().st_size / 1024)
        run = [sys.executable, "-c", script, str(path), str(tmp_path / f"out{rows}")]
        peaks.append(int(subprocess.run(run, capture_output=True, text=True, check=True).stdout))
    assert sizes[1] - sizes[0] > 50_000  # KiB
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 4
