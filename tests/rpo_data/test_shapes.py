"""Shapes are told apart and turned into pairs exactly as their publishers define them."""

import pytest

from rpo_data.shapes import ShapeError, detect_shape, split_dialogue, to_candidate


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: See you",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: No\nAssistant: stay",
}


def convert(data):
    return to_candidate(data, detect_shape(data) or "preference")


def test_hh_is_split_at_the_last_assistant_marker():
    candidate = convert(HH)
    assert detect_shape(HH) == "hh"
    assert candidate.prompt == [user("Hi"), assistant("Hello"), user("Bye")]
    assert candidate.chosen == [assistant("See you")]
    assert candidate.rejected == [assistant("No\nAssistant: stay")]
    assert candidate.prompts_equal


def test_hh_sides_are_split_each_at_its_own_marker():
    """A response that looks like one more exchange moves that side's last marker: the prompts then differ."""
    data = HH | {"rejected": HH["chosen"] + "\n\nHuman: More\n\nAssistant: Sure"}
    assert not convert(data).prompts_equal


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


def test_trl_standard_with_explicit_prompt_keeps_texts_as_they_are():
    candidate = convert({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."})
    assert candidate.prompt == [user("The sky is")]
    assert (candidate.chosen, candidate.rejected) == ([assistant(" blue.")], [assistant(" green.")])


def test_trl_standard_with_implicit_prompt_tears_no_word():
    """TRL's own extract_prompt gives the prompt "Q: hi A: ye" here."""
    candidate = convert({"chosen": "Q: hi A: yellow", "rejected": "Q: hi A: yes"})
    assert candidate.prompt == [user("Q: hi A:")]
    assert (candidate.chosen, candidate.rejected) == ([assistant("yellow")], [assistant("yes")])


def test_implicit_prompt_where_one_text_is_the_start_of_the_other():
    candidate = convert({"chosen": "say it now", "rejected": "say it"})
    assert candidate.prompt == [user("say")]
    assert (candidate.chosen, candidate.rejected) == ([assistant("it now")], [assistant("it")])


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "implicit"])
def test_trl_conversational(explicit):
    prompt = [{"role": "system", "content": "Be short."}, user("2+2?")]
    if explicit:
        data = {"prompt": prompt, "chosen": [assistant("4")], "rejected": [assistant("5")]}
    else:
        data = {"chosen": [*prompt, assistant("4")], "rejected": [*prompt, assistant("5")]}
    candidate = convert(data)
    assert candidate.prompt == prompt
    assert (candidate.chosen, candidate.rejected) == ([assistant("4")], [assistant("5")])
    assert candidate.prompts_equal


def test_implicit_conversations_that_part_before_the_last_answer():
    data = {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")]}
    assert not convert(data).prompts_equal


def test_equal_conversations_keep_a_response_to_compare():
    data = {"chosen": [user("a"), assistant("x")], "rejected": [user("a"), assistant("x")]}
    assert convert(data).chosen == [assistant("x")]


def test_tool_calls_and_names_stay():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
    reply = {"role": "tool", "content": "1", "tool_call_id": "7", "name": "f", "unknown": 0}
    candidate = convert({"prompt": [user("a"), call, reply], "chosen": [assistant("b")], "rejected": [assistant("c")]})
    assert candidate.prompt == [
        user("a"),
        {"role": "assistant", "tool_calls": call["tool_calls"]},
        {"role": "tool", "content": "1", "tool_call_id": "7", "name": "f"},
    ]


def test_scores_annotator_and_language_are_carried():
    data = {"prompt": "p", "chosen": "c", "rejected": "r", "score_chosen": 9, "score_rejected": "2.5", "language": "en"}
    assert convert(data | {"annotator": 7}).extras == {
        "score_chosen": 9.0,
        "score_rejected": 2.5,
        "annotator": "7",
        "language": "en",
    }
    assert convert(data | {"score_rejected": ""}).extras == {"score_chosen": 9.0, "language": "en"}


NAN = float("nan")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"prompt": "p", "chosen": "c"}, "missing_column", "'rejected' (it has: prompt, chosen)"),
        ({"prompt": "p", "chosen": "c", "rejected": None}, "missing_value", "'rejected' is null"),
        ({"prompt": None, "chosen": "c", "rejected": "r"}, "missing_value", "'prompt' is null"),
        ({"prompt": "p", "chosen": NAN, "rejected": "r"}, "not_a_number", "'chosen' is the number nan"),
        ({"prompt": "p", "chosen": 3.5, "rejected": "r"}, "wrong_type", "'chosen' is the number 3.5"),
        ({"prompt": "p", "chosen": 3, "rejected": "r"}, "wrong_type", "'chosen' is a number"),
        ({"prompt": 1, "chosen": "c", "rejected": "r"}, "wrong_type", "'prompt' is a number"),
        ({"prompt": "p", "chosen": [user("a")], "rejected": "r"}, "wrong_type", "'rejected' is a text"),
        ({"chosen": ["a"], "rejected": ["b"]}, "wrong_type", "message 1 of 'chosen'"),
        ({"chosen": [{"role": "user", "content": ["a"]}], "rejected": []}, "wrong_type", "has a list as content"),
        ({"prompt": "p", "chosen": "c", "rejected": "r", "score_chosen": "high"}, "wrong_type", "'score_chosen' is"),
    ],
)
def test_records_that_do_not_fit_say_why(data, code, words):
    with pytest.raises(ShapeError) as error:
        convert(data)
    assert error.value.code == code
    assert words in str(error.value)
