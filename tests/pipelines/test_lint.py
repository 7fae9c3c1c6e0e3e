"""`lint`: the whole file, the right counts, the same by both lanes, and an exit status for machines."""

import gzip
import json
import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console
from tests_support import pair

from rpo_data import Recipe
from rpo_data.errors import RecipeError
from rpo_data.pipelines.lint import lint, print_findings
from rpo_data.schemas.findings import Findings
from rpo_data.schemas.rules import RULES

NO_LANGUAGE = ("mixed_languages",)


def found(report):
    return {finding.code: finding.count for finding in report.findings}


def rows(count, **more):
    return [pair(n, chosen=f"good words {n}", rejected=f"other words {n}") | more for n in range(count)]


def test_both_lanes_say_the_same_of_the_real_sample(sample):
    fast, exact = (lint(sample, off=NO_LANGUAGE, exact=exact) for exact in (False, True))
    assert fast.bias == exact.bias
    assert {f.code: (f.count, f.severity) for f in fast.findings} == {
        f.code: (f.count, f.severity) for f in exact.findings
    }
    assert (fast.records, fast.rows, fast.files) == (exact.records, exact.rows, exact.files)
    assert found(fast)["prompts_differ"] == 5
    assert found(fast)["empty_response"] == 2


def test_the_full_hh_test_split(shared_data):
    report = lint(shared_data / "hh_rlhf", off=(*NO_LANGUAGE, "personal_data"))
    assert (found(report)["prompts_differ"], found(report)["empty_response"]) == (14, 8)
    assert report.records == 4664


def test_tulu_ties_and_contradictions(shared_data):
    report = lint(shared_data / "tulu_human_eval" / "eval_annotations_tulu_1.jsonl.gz", off=NO_LANGUAGE)
    assert (report.records, report.files[0].ties, report.files[0].annotators) == (1150, 376, 16)
    # 21 items on which two annotators contradict each other, and 2 on which one contradicts himself
    assert found(report)["conflict"] == 23
    assert report.verdict == "MAJOR"


def test_flipped_labels_are_found_all_and_only_they(shared_data):
    folder = shared_data / "ultrafeedback_noise"
    files = [folder / "train_clean.jsonl.gz", folder / "label_flip_20.jsonl.gz"]
    with gzip.open(files[1], "rt", encoding="utf-8") as lines:
        flipped = sum(json.loads(line)["metadata"]["noise"]["selected"] for line in lines)
    assert found(lint(files, off=NO_LANGUAGE))["conflict"] == flipped == 200


def test_each_fault_of_a_small_log(write_lines):
    flipped = {"prompt": "question 3?", "chosen": "other words 3", "rejected": "good words 3"}
    odd = [flipped, pair(1, chosen=""), {"prompt": "x"}, rows(6)[5], pair(50, chosen="mail anna.berg@mailhost.net now")]
    report = lint(write_lines("logs.jsonl", [*rows(30), *odd]), off=NO_LANGUAGE)
    codes = found(report)
    assert {code: codes[code] for code in ("conflict", "empty_response", "missing_column", "duplicate", "personal_data")} == {
        "conflict": 1, "empty_response": 1, "missing_column": 1, "duplicate": 1, "personal_data": 1,
    }  # fmt: skip
    (empty,) = [finding for finding in report.findings if finding.code == "empty_response"]
    assert (empty.examples[0].file, empty.examples[0].line) == ("logs.jsonl", 32)
    assert report.rows == 33


def test_a_line_that_is_no_utf8_costs_only_itself(write_lines):
    path = write_lines("logs.jsonl", rows(20))
    path.write_bytes(path.read_bytes() + b'{"prompt": "x\xff", "chosen": "a", "rejected": "b"}\n')
    fast, exact = (lint(path, off=NO_LANGUAGE, exact=lane) for lane in (False, True))
    assert found(fast)["invalid_utf8"] == found(exact)["invalid_utf8"] == 1
    assert (fast.records, fast.rows) == (exact.records, exact.rows) == (21, 20)


def test_a_cycle_and_a_type_that_changes(write_lines):
    circle = [pair(0, prompt="p", chosen=a, rejected=b) for a, b in (("a", "b"), ("b", "c"), ("c", "a"))]
    report = lint(write_lines("logs.jsonl", [*circle, pair(1, note=1), pair(2, note="x")]))
    assert found(report)["cycle"] == 1
    (changes,) = [finding for finding in report.findings if finding.code == "type_changes"]
    assert changes.examples[0].text == "column 'note' holds number 1, text 1"


@pytest.mark.parametrize(("factor", "severity"), [(1, None), (3, "MAJOR")], ids=["equal", "three-times"])
def test_length_bias(factor, severity, write_lines):
    records = [pair(n, chosen="x" * (100 * factor + n), rejected="y" * (101 + n)) for n in range(40)]
    report = lint(write_lines("logs.jsonl", records), off=NO_LANGUAGE)
    severities = {finding.code: finding.severity for finding in report.findings}
    assert severities.get("length_bias") == severity


def test_rules_can_be_switched_off(write_lines):
    path = write_lines("logs.jsonl", [*rows(10), pair(1, chosen="a\x01b")])
    assert "control_characters" in found(lint(path))
    assert "control_characters" not in found(lint(path, off=["control_characters"]))
    kept = lint(path, Recipe(ignore="control_characters"))
    assert ("control_characters" in found(kept), kept.rows) == (False, 11)


def test_near_and_semantic_duplicates(write_lines, tmp_path):
    words = " ".join(f"word{n}" for n in range(60))
    twins = [
        pair(0, prompt=words, chosen=words + " a", rejected=words + " b"),
        pair(0, prompt=words + " x", chosen=words + " a", rejected=words + " b"),
    ]
    path = write_lines("logs.jsonl", [*rows(5), *twins])
    assert found(lint(path, near=True, cache_dir=tmp_path))["near_duplicate"] == 1
    same_meaning = [
        pair(0, prompt="How do I bake bread?"),
        pair(1, prompt="How do I bake bread ?", chosen="another answer"),
    ]
    path = write_lines("more.jsonl", [*rows(5), *same_meaning])
    recipe = Recipe(embedder="static", duplicate_score=0.9)
    assert found(lint(path, recipe, semantic=True, cache_dir=tmp_path))["semantic_duplicate"] >= 1


def test_overlap_with_an_evaluation_set(write_lines):
    question = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    logs = write_lines("logs.jsonl", [*rows(5), pair(0, prompt=f"please: {question}")])
    test_set = write_lines("eval.jsonl", [{"question": question}])
    report = lint(logs, evaluation=[test_set])
    assert found(report)["contamination"] == 1
    assert report.verdict == "MAJOR"


def test_overlap_in_meaning_with_an_evaluation_set(write_lines, tmp_path):
    logs = write_lines("logs.jsonl", [*rows(5), pair(0, prompt="How do I bake bread?")])
    test_set = write_lines("eval.jsonl", [{"question": "How do I bake bread ?"}])
    recipe = Recipe(embedder="static", duplicate_score=0.95)
    report = lint(logs, recipe, semantic=True, evaluation=[test_set], cache_dir=tmp_path)
    assert found(report)["contamination"] == 1


def test_position_bias_where_a_shape_has_places(write_lines):
    record = {"input": "q", "output_1": "first answer", "output_2": "second answer", "label": 1}
    report = lint(write_lines("logs.jsonl", [record | {"input": f"q {n}"} for n in range(40)]), off=NO_LANGUAGE)
    assert (report.bias.first_wins.count, report.bias.first_wins.of) == (40, 40)
    assert "position_bias" in found(report)
    assert lint(write_lines("pairs.jsonl", rows(40)), off=NO_LANGUAGE).bias.first_wins is None


def test_texts_cannot_break_the_table(write_lines):
    path = write_lines("logs.jsonl", [*rows(3), pair(1, chosen="", prompt="[red]\x1b[31m[/nothing]")])
    out = Console(file=StringIO(), width=200)
    print_findings(out, lint(path))
    text = out.file.getvalue()
    assert "[red]" in text
    assert "\x1b[31m" not in text


def run(*arguments):
    command = [sys.executable, "-m", "rpo_data.pipelines.cli", "lint", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_exit_status_and_json(write_lines):
    clean, bad = write_lines("clean.jsonl", rows(40)), write_lines("bad.jsonl", [*rows(3), {"a": 1}])
    done = run(clean, "--json")
    assert done.returncode == 0, done.stderr
    assert Findings.model_validate_json(done.stdout).verdict in ("OK", "MINOR")
    assert run(bad).returncode == 3
    assert run(bad, "--off", "nonsense").returncode == 2
    assert run("nowhere.jsonl").returncode == 1


def test_every_code_is_a_rule_and_stands_on_the_page():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "lint.md").read_text()
    for code, rule in RULES.items():
        assert f"| `{code}` | {rule.severity} | {rule.reason}" in page


def test_contradictions_and_ties_of_responses_judged_one_by_one(write_lines):
    def vote(n, answer, liked):
        messages = [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": answer}]
        return {"messages": messages, "liked": liked}

    records = [vote(n, answer, answer == "good") for n in range(20) for answer in ("good", "bad")]
    records += [vote(n, "the same", liked) for n in (30, 31) for liked in (True, False)]
    records += [vote(40, "alone", True)]
    logs = write_lines("logs.jsonl", records)
    codes = found(lint(logs, off=NO_LANGUAGE))  # mode auto makes no pairs of them
    assert (codes["conflict"], codes.get("no_pair")) == (4, None)
    codes = found(lint(logs, Recipe(mode="paired"), off=NO_LANGUAGE))
    assert (codes["conflict"], codes["no_pair"]) == (4, 1)
    codes = found(lint(logs, Recipe(mode="scored"), off=NO_LANGUAGE))
    assert codes["no_score"] == 45
    likes = write_lines("likes.jsonl", [vote(n, "good", True) for n in range(9)])
    assert "no_counterpart" not in found(lint(likes, Recipe(embedder="static"), semantic=True, off=NO_LANGUAGE))


def test_an_answer_without_a_rank_is_a_finding(write_lines):
    answers = [{"answer": f"answer {n}", "rank": rank, "model": "m"} for n, rank in enumerate([None, 1, 2])]
    record = {"prompt": "\n\nHuman: q?\n\nAssistant: ", "answers": answers}
    report = lint(write_lines("logs.jsonl", [record]), off=NO_LANGUAGE)
    assert (report.rows, found(report)["no_judgement"], report.files[0].scored) == (2, 1, 2)


def test_scores_that_say_the_other_way(write_lines):
    path = write_lines("logs.jsonl", [*rows(5), *rows(2, score_chosen=1.0, score_rejected=9.0)])
    (disagree,) = [one for one in lint(path, off=NO_LANGUAGE).findings if one.code == "scores_disagree"]
    assert (disagree.count, [example.line for example in disagree.examples]) == (2, [6, 7])


def test_nothing_that_can_be_used_is_still_a_report(write_lines, tmp_path):
    path = write_lines("logs.jsonl", [{"a": 1}] * 3)
    report = lint(path, near=True, cache_dir=tmp_path)
    assert (found(report)["unknown_shape"], report.verdict) == (3, "MAJOR")


def test_near_duplicates_are_a_share_of_all_rows(write_lines, tmp_path):
    words = " ".join(f"word{n}" for n in range(60))
    texts = [f"{topic} {words} {topic}" for topic in ("red", "green", "blue")]
    records = [
        pair(0, prompt=text + end, chosen=text + " a", rejected=text + " b") for text in texts for end in ("", " x")
    ]
    (near,) = [
        one
        for one in lint(write_lines("logs.jsonl", records), near=True, cache_dir=tmp_path).findings
        if one.code == "near_duplicate"
    ]
    assert (near.count, near.share) == (3, 0.5)


def test_a_mapping_that_names_no_column_is_an_error(write_lines, tmp_path):
    path = write_lines("logs.jsonl", rows(5))
    with pytest.raises(
        RecipeError, match="no record has the column 'promt' of --columns prompt=promt; did you mean 'prompt'"
    ):
        lint(path, Recipe(columns="prompt=promt"))


def test_a_key_given_twice_is_rejected(tmp_path):
    path = tmp_path / "logs.jsonl"
    path.write_text('{"prompt": "q", "chosen": "a", "chosen": "b", "rejected": "c"}\n' + json.dumps(pair(1)) + "\n")
    report = lint(path, off=NO_LANGUAGE)
    (twice,) = [one for one in report.findings if one.code == "duplicate_column"]
    assert twice.examples[0].message == "logs.jsonl:1: the key 'chosen' stands twice in one object: keep one of them"
    assert report.rows == 1


def test_the_table_says_what_is_wrong_with_a_record(write_lines):
    path = write_lines("logs.jsonl", [*rows(3), {"prompt": "x" * 200, "chosen": "a"}])
    out = Console(file=StringIO(), width=300)
    print_findings(out, lint(path))
    assert "logs.jsonl:4: has no column 'rejected' (it has: prompt, chosen): name the columns" in out.file.getvalue()
