"""TRL preference rows are read as TRL documents them."""

import pytest
from shape_records import RECORDS, assistant, system, user

from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, read_rows

STANDARD, EXPLICIT, IMPLICIT = RECORDS["preference"]
NAN = float("nan")


def read(data):
    (row,) = read_rows(data, get_shape("preference"))
    return row


def test_standard_with_explicit_prompt_keeps_texts_as_they_are():
    assert read(STANDARD) == Pair(
        prompt=[user("The sky is")], chosen=[assistant(" blue.")], rejected=[assistant(" green.")]
    )


def test_standard_with_implicit_prompt_tears_no_word():
    """TRL's own extract_prompt gives the prompt "Q: hi A: ye" here."""
    data = {"chosen": "Q: hi A: yellow", "rejected": "Q: hi A: yes"}
    assert claiming_shapes(data) == []
    assert read(data) == Pair(prompt=[user("Q: hi A:")], chosen=[assistant("yellow")], rejected=[assistant("yes")])


def test_implicit_prompt_where_one_text_is_the_start_of_the_other():
    row = read({"chosen": "say it now", "rejected": "say it"})
    assert row == Pair(prompt=[user("say")], chosen=[assistant("it now")], rejected=[assistant("it")])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"query": "what is it?"}, "has no column 'prompt', and 'query' could be it"),
        ({"Prompt": "what is it?", "note": "two words"}, "has no column 'prompt', and 'Prompt', 'note' could be it"),
    ],
    ids=["query", "Prompt"],
)
def test_a_common_start_is_no_prompt_where_the_question_stands_elsewhere(more, message):
    with pytest.raises(ShapeError, match=message) as error:
        read({"chosen": "The answer: yes", "rejected": "The answer: no", "source": "chat"} | more)
    assert error.value.code == "missing_column"


def test_no_common_start_is_no_prompt():
    with pytest.raises(ShapeError, match="have no common start"):
        read({"chosen": "yes", "rejected": "no"})


@pytest.mark.parametrize("data", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_conversational(data):
    prompt = [system("Be short."), user("2+2?")]
    assert read(data) == Pair(prompt=prompt, chosen=[assistant("4")], rejected=[assistant("5")])


def test_explicit_prompt_that_both_sides_repeat():
    data = EXPLICIT | {side: EXPLICIT["prompt"] + EXPLICIT[side] for side in ("chosen", "rejected")}
    assert read(data) == read(EXPLICIT)


def test_explicit_prompt_that_is_not_the_sides():
    with pytest.raises(ShapeError, match="'rejected' starts with a user message"):
        read(EXPLICIT | {"rejected": [user("3+3?"), assistant("6")]})


def test_implicit_conversations_that_part_before_the_last_answer():
    data = {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")]}
    assert not read(data).prompts_equal


def test_equal_conversations_keep_a_response_to_compare():
    data = {"chosen": [user("a"), assistant("x")], "rejected": [user("a"), assistant("x")]}
    assert read(data).chosen == [assistant("x")]


def test_tool_calls_and_names_stay():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
    reply = {"role": "tool", "content": "1", "tool_call_id": "7", "name": "f", "unknown": 0}
    row = read({"prompt": [user("a"), call, reply], "chosen": [assistant("b")], "rejected": [assistant("c")]})
    assert row.prompt == [
        user("a"),
        {"role": "assistant", "tool_calls": call["tool_calls"]},
        {"role": "tool", "content": "1", "tool_call_id": "7", "name": "f"},
    ]


def test_scores_annotator_language_and_weight_are_carried():
    data = STANDARD | {"score_chosen": 9, "score_rejected": "2.5", "language": "en", "annotator": 7, "weight": 0.5}
    row = read(data)
    assert (row.score_chosen, row.score_rejected, row.language, row.annotator, row.weight) == (9.0, 2.5, "en", "7", 0.5)
    bare = read(STANDARD | {"score_rejected": "", "annotator": True, "language": " "})
    assert bare == read(STANDARD)


def test_a_prompt_with_a_system_text_is_not_of_this_shape():
    assert claiming_shapes(STANDARD | {"system": "Be short."}) == ["axolotl"]
    assert claiming_shapes(STANDARD | {"system": None}) == ["preference"]


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"prompt": "p", "chosen": "c"}, "missing_column", "'rejected' (it has: prompt, chosen)"),
        ({"prompt": "p", "chosen": "c", "rejected": None}, "missing_value", "'rejected' is null"),
        ({"prompt": None, "chosen": "c", "rejected": "r"}, "missing_value", "'prompt' is null"),
        ({"prompt": "p", "chosen": NAN, "rejected": "r"}, "not_a_number", "'chosen' is the number nan"),
        ({"prompt": "p", "chosen": 3.5, "rejected": "r"}, "wrong_type", "'chosen' is a number"),
        ({"prompt": "p", "chosen": 3, "rejected": "r"}, "wrong_type", "'chosen' is a number"),
        ({"prompt": 1, "chosen": "c", "rejected": "r"}, "wrong_type", "'prompt' is a number"),
        ({"prompt": "p", "chosen": [user("a")], "rejected": "r"}, "wrong_type", "'rejected' is a text"),
        ({"chosen": ["a"], "rejected": ["b"]}, "wrong_type", "message 1 of 'chosen'"),
        ({"chosen": [{"role": "user", "content": ["a"]}], "rejected": []}, "wrong_type", "has a list as content"),
        (STANDARD | {"score_chosen": "high"}, "wrong_type", "'score_chosen' is high, not a number"),
        (STANDARD | {"score_chosen": [1]}, "wrong_type", "'score_chosen' is a list, not a number"),
        (STANDARD | {"weight": 10**5000}, "wrong_type", "'weight' is too large a number"),
    ],
)
def test_records_that_do_not_fit_say_why(data, code, words):
    with pytest.raises(ShapeError) as error:
        read(data)
    assert error.value.code == code
    assert words in str(error.value)
