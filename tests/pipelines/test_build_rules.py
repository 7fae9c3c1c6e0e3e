"""What the recipe's rules do to a whole build: votes, contradictions, pairings, weights, redaction and kept splits."""

import json

import numpy as np
import polars as pl
import pytest
from tests_support import pair

from rpo_data import Recipe, RpoDataError, build

FAST = {"embedder": "static", "test_fraction": 0.0, "group_size": 4}


def flipped(number):
    return {"prompt": f"question {number}?", "chosen": f"bad {number}", "rejected": f"good answer {number}"}


@pytest.fixture
def built(write_lines, tmp_path, cache_dir):
    def make(records, name="logs.jsonl", previous=None, **recipe):
        path = write_lines(name, records)
        out = tmp_path / f"out-{name}"
        data = build(path, out, Recipe(**FAST | recipe), cache_dir=cache_dir, previous=previous)
        for source in data.manifest.sources:
            assert source.records_read == source.records_used + source.records_rejected
            assert source.rows_made == source.rows_kept + source.rows_rejected + source.rows_merged
        return data

    return make


def masked_cells(data):
    return data.manifest.quality.masked_cells


def test_contradictions_are_dropped_outvoted_or_masked(built):
    records = [*(pair(n) for n in range(12)), pair(3, annotator="x"), flipped(3)]
    assert built(records).manifest.left_out == {"conflict": 3}
    voted = built(records, conflicts="majority")
    assert voted.manifest.left_out == {"conflict": 1}
    kept = built(records, conflicts="keep-and-mask")
    assert kept.manifest.left_out == {}
    assert masked_cells(kept)["judged_other"] >= 3
    for group in kept.groups["train"]:
        weights = np.array(group["weight"])
        assert (weights > 0).any()
        for place, row in enumerate(group["win_rows"]):
            contradicted = kept.pairs["train"][row]["prompt"][0]["content"] == "question 3?"
            assert (weights[place, place] == 0) == contradicted


def test_logs_that_only_contradict_themselves_cannot_be_kept(built):
    with pytest.raises(RpoDataError, match="no_contrast"):
        built([pair(1), flipped(1)], conflicts="keep-and-mask")


def test_annotators_are_merged_by_vote(built):
    records = [pair(n, annotator=who) for n in range(8) for who in "abc"]
    records[0] = flipped(0) | {"annotator": "a"}
    assert built(records, conflicts="keep-and-mask").manifest.splits["train"].pairs == 24
    majority = built(records, annotators="majority")
    assert majority.manifest.splits["train"].pairs == 8
    assert majority.manifest.left_out == {"duplicate": 15, "outvoted": 1}
    assert built(records, annotators="unanimous").manifest.left_out == {"duplicate": 14, "not_unanimous": 3}


def test_scored_responses_form_pairs_and_ties_are_told(built):
    def scored(number, text, helpfulness):
        rest = dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 1)
        return {"prompt": f"question {number}?", "response": text, "helpfulness": helpfulness} | rest

    records = [scored(n, f"answer {place}", place) for n in range(6) for place in range(3)]
    records += [scored(7, "one", 2), scored(7, "two", 2), scored(8, "alone", 4)]
    data = built(records)
    assert data.manifest.splits["train"].pairs == 6
    assert data.manifest.left_out == {"no_pair": 1, "not_paired": 6, "tie": 2}
    row = data.pairs["train"][0]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("answer 2", "answer 0")
    assert (row["score_chosen"], row["score_rejected"]) == (2.0, 0.0)
    assert built(records, pairing="all").manifest.splits["train"].pairs == 18


def test_labels_without_a_counterpart_are_an_error_that_says_so(built):
    records = [{"prompt": f"q {n}", "completion": "a", "label": True} for n in range(5)]
    with pytest.raises(RpoDataError, match=r"no pair can be made of 5 records.*build with --mode unpaired"):
        built(records, mode="paired")
    with pytest.raises(RpoDataError, match=r"all 5 responses of logs.jsonl that can be used are liked"):
        built(records)


def test_weights_of_the_logs_are_carried_with_mean_1(built):
    data = built([*(pair(n, weight=3) for n in range(4)), *(pair(n) for n in range(4, 8)), pair(9, weight=-1)])
    weights = {row["prompt"][0]["content"]: row["weight"] for row in data.pairs["train"]}
    assert weights["question 0?"] == pytest.approx(1.5)
    assert weights["question 7?"] == pytest.approx(0.5)
    assert data.manifest.left_out == {"bad_weight": 1}


def test_personal_data_is_redacted_on_request(built):
    records = [*(pair(n) for n in range(4)), pair(5, chosen="write to anna.berg@mailhost.net")]
    texts = [row["chosen"][0]["content"] for row in built(records, redact=True).pairs["train"]]
    assert "write to [EMAIL]" in texts


def test_nearly_equal_rows_are_merged_but_never_with_their_opposite(built):
    words = " ".join(f"word{n}" for n in range(60))
    first = {"prompt": words, "chosen": f"{words} yes", "rejected": f"{words} no thanks"}
    second = first | {"prompt": f"{words} x"}
    records = [*(pair(n) for n in range(4)), first, second]
    assert built(records, duplicates="near").manifest.left_out == {"near_duplicate": 1}
    unlike = first | {"chosen": "green apples grow here", "rejected": "we sail at noon tomorrow"}
    swapped = unlike | {"prompt": f"{words} y", "chosen": unlike["rejected"], "rejected": unlike["chosen"]}
    assert (
        "near_duplicate" not in built([*records[:4], unlike, swapped], "b.jsonl", duplicates="near").manifest.left_out
    )


def test_a_split_is_kept_when_logs_are_added(built):
    first = built([pair(n) for n in range(60)], test_fraction=0.2, duplicate_score=1.001)
    more = [pair(n) for n in range(120)]
    second = built(more, "more.jsonl", previous=first.path, test_fraction=0.5, duplicate_score=1.001)
    for split in ("train", "test"):
        assert set(first.neighbors[split]["prompt_id"][:]) <= set(second.neighbors[split]["prompt_id"][:])
    assert second.manifest.previous is not None


def test_turns_of_one_dialogue_stay_in_one_split(built):
    turns = [{"role": "user", "content": "hello there"}]
    records = []
    for number in range(30):
        records.append({"prompt": list(turns), "chosen": [answer(f"a{number}")], "rejected": [answer(f"b{number}")]})
        turns += [answer(f"a{number}"), {"role": "user", "content": f"and then {number}?"}]
    records += [pair(n) for n in range(200)]
    data = built(records, test_fraction=0.1, duplicate_score=1.001)
    splits = [
        split for split, rows in data.pairs.items() for row in rows if row["prompt"][0]["content"] == "hello there"
    ]
    assert len(splits) == 30
    assert len(set(splits)) == 1
    assert any("belong together" in warning for warning in data.manifest.warnings)


def test_rows_that_overlap_with_an_evaluation_set_are_left_out(write_lines, tmp_path, cache_dir):
    question = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    logs = write_lines("logs.jsonl", [*(pair(n) for n in range(5)), pair(9, prompt=f"please: {question}")])
    test_set = write_lines("eval.jsonl", [{"question": question}])
    data = build(logs, tmp_path / "out", Recipe(**FAST), cache_dir=cache_dir, evaluation=[test_set])
    assert data.manifest.left_out == {"contamination": 1}


def answer(text):
    return {"role": "assistant", "content": text}


def test_a_file_that_two_shapes_claim_is_refused_with_both_names(built):
    both = {
        "instruction": "i", "input": "a", "response1": "x", "response2": "y", "annotator1": 1, "annotator2": 1,
        "annotator3": 1, "output_1": "x", "output_2": "y", "label": 1, "idx": 0, "motivation_app": "m", "cmp_key": "k",
    }  # fmt: skip
    with pytest.raises(
        RpoDataError, match=r"could be read as (llmbar or as pandalm|pandalm or as llmbar): say which with --format"
    ):
        built([both])
    assert built([both | {"input": f"a{n}"} for n in range(4)], format="pandalm").manifest.splits["train"].pairs == 12


def test_mapped_columns_and_nested_scores(built):
    records = [{"q": f"question {n}", "best": f"good {n}", "worst": f"bad {n}", "meta": {"s": n}} for n in range(4)]
    data = built(records, columns="prompt=q,chosen=best,rejected=worst,score_chosen=meta.s")
    assert sorted(row["score_chosen"] for row in data.pairs["train"]) == [0, 1, 2, 3]


def test_rejected_records_can_be_mended_and_read_again(tmp_path, write_lines, cache_dir):
    path = tmp_path / "logs.jsonl"
    path.write_text("".join(json.dumps(pair(n)) + "\n" for n in range(6)) + json.dumps(pair(9))[:-1] + "\n")
    first = build(path, tmp_path / "out", Recipe(**FAST), cache_dir=cache_dir)
    broken = pl.read_parquet(first.path / "rejects.parquet").filter(pl.col("code") == "broken_json")
    mended = tmp_path / "mended.jsonl"
    mended.write_text("".join(line + "}\n" for line in broken["raw"]))
    second = build([path, mended], tmp_path / "out", Recipe(**FAST), cache_dir=cache_dir)
    assert second.manifest.splits["train"].pairs == 7
