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
    assert run(bad, "--off", "nonsense").returncode == 1
    assert run("nowhere.jsonl").returncode == 1


def test_every_code_is_a_rule_and_stands_on_the_page():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "lint.md").read_text()
    for code, rule in RULES.items():
        assert f"| `{code}` | {rule.severity} | {rule.reason}" in page
