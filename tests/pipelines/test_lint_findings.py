"""What the findings show: each has example rows, and the rows are what the finding says."""

import pytest
from tests_support import pair

from rpo_data.pipelines.lint import lint

QUESTION = "Which of these two rivers is longer?"


def only(report, code):
    (found,) = [finding for finding in report.findings if finding.code == code]
    return found


def lines(finding):
    return [example.line for example in finding.examples]


def test_length_bias_shows_rows_in_which_the_longer_one_wins(write_lines):
    records = [pair(n, chosen="x" * (300 + n), rejected="y" * (100 + n)) for n in range(38)]
    records.insert(1, pair(90, chosen="x", rejected="y" * 50))
    found = only(lint(write_lines("logs.jsonl", records)), "length_bias")
    assert lines(found) == [1, 3, 4]
    assert {example.message for example in found.examples} == {"the longer one wins"}


@pytest.mark.parametrize(
    ("code", "marked"),
    [
        ("markdown", "- one\n- two"),
        ("refusals", "I'm sorry, but no."),
        ("prompt_echo", f"{QUESTION} The first."),
    ],
)
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_style_shows_rows_in_which_only_the_one_side_has_it(code, marked, side, write_lines):
    other = "rejected" if side == "chosen" else "chosen"
    records = [pair(n, prompt=QUESTION, **{side: f"{marked} {n}", other: f"plain {n}"}) for n in range(40)]
    records.insert(0, pair(0, prompt=QUESTION, chosen="plain words", rejected="other words"))
    records.insert(0, pair(0, prompt=QUESTION, chosen=marked + " a", rejected=marked + " b"))
    found = only(lint(write_lines("logs.jsonl", records)), code)
    assert lines(found) == [3, 4, 5]
    assert {example.message for example in found.examples} == {
        f"only the {'better' if side == 'chosen' else 'worse'} side has it"
    }


def test_style_of_labelled_responses(write_lines):
    records = [
        {"prompt": f"q {n}", "completion": "I cannot do that." if n % 2 else f"yes {n}", "label": not n % 2}
        for n in range(40)
    ]
    found = only(lint(write_lines("logs.jsonl", records)), "refusals")
    assert lines(found) == [2, 4, 6]


def test_label_imbalance_shows_the_rare_label(write_lines):
    records = [{"prompt": f"q {n}", "completion": f"a {n}", "label": n not in (4, 7)} for n in range(60)]
    found = only(lint(write_lines("logs.jsonl", records)), "label_imbalance")
    assert lines(found) == [5, 8]
    assert found.examples[0].message == "one of the few that are not liked"


def test_position_bias_shows_the_place_that_wins(write_lines):
    records = [{"input": f"q {n}", "output_1": "an answer", "output_2": "another", "label": 2} for n in range(40)]
    records[0]["label"] = 1
    found = only(lint(write_lines("logs.jsonl", records)), "position_bias")
    assert lines(found) == [2, 3, 4]
    assert found.examples[0].message == "the second one wins"


def test_source_bias_shows_rows_of_that_annotator(write_lines):
    records = [
        pair(n, chosen="x" * (90 if n % 2 else 50), rejected="y" * 70, annotator="anna" if n % 2 else "ben")
        for n in range(240)
    ]
    report = lint(write_lines("logs.jsonl", records))
    anna, ben = [finding for finding in report.findings if finding.code == "source_bias"]
    assert (lines(anna), anna.examples[0].message) == ([2, 4, 6], "the longer one wins")
    assert (lines(ben), ben.examples[0].message) == ([1, 3, 5], "the shorter one wins")


def test_a_text_on_both_sides_shows_both_places(write_lines):
    records = [pair(n, chosen=f"good {n}", rejected=f"bad {n}") for n in range(10)]
    records += [pair(20, chosen="bad 4", rejected="worse"), pair(21, chosen="best", rejected="good 1")]
    found = only(lint(write_lines("logs.jsonl", records)), "text_both_sides")
    assert [(example.line, example.message) for example in found.examples] == [
        (2, "the response chosen here is rejected in logs.jsonl:12"),
        (11, "the response chosen here is rejected in logs.jsonl:5"),
    ]


def test_mixed_languages_show_rows_of_the_others(write_lines):
    german = "Bitte erkläre mir, wie man ein gutes Brot backt und welches Mehl man dafür braucht."
    english = "Please explain to me how to bake a good loaf of bread and which flour I need."
    records = [pair(n, prompt=f"{german if n in (3, 9) else english} {n}") for n in range(20)]
    found = only(lint(write_lines("logs.jsonl", records)), "mixed_languages")
    assert lines(found) == [4, 10]
    assert found.details == {"de": 2, "en": 18}


def test_a_rule_that_is_off_is_not_looked_for(write_lines):
    path = write_lines("logs.jsonl", [pair(n, chosen="- a", rejected=f"b {n}") for n in range(40)])
    off = ("markdown", "refusals", "prompt_echo", "mixed_languages", "personal_data")
    report = lint(path, off=off)
    assert (report.bias.markdown, report.bias.refusals, report.bias.prompt_echo) == (None, None, None)
    assert report.files[0].languages == {}
    assert lint(path).bias.markdown is not None


def test_columns_of_two_types_stand_in_the_same_order_in_both_lanes(write_lines):
    records = [pair(n) for n in range(10)]
    records[1:1] = [{"rejected": 1, "prompt": 1, "chosen": 1}]
    path = write_lines("logs.jsonl", records)
    fast, exact = (only(lint(path, exact=lane), "type_changes") for lane in (False, True))
    assert fast == exact
    assert [example.text.split("'")[1] for example in fast.examples] == ["chosen", "prompt", "rejected"]


@pytest.mark.parametrize("examples", [0, 2])
def test_as_many_columns_of_two_types_are_shown_as_examples_are_asked_for(examples, write_lines):
    more = [{f"column {n}": value for n in range(5)} for value in (1, "x")]
    found = only(
        lint(write_lines("logs.jsonl", [pair(n) | more[n] for n in range(2)]), examples=examples), "type_changes"
    )
    assert (found.count, len(found.examples)) == (5, examples)
