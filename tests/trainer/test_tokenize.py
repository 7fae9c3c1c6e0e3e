import logging

import pytest
from transformers import AutoTokenizer

from rpo_data.errors import TrainingError
from rpo_data.trainer.tokenize import TokenCounts, cut_row, row_tokens, tokenize_pairs

SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def chat(tiny_models):
    return AutoTokenizer.from_pretrained(tiny_models["qwen2"])


@pytest.fixture
def plain(tiny_models):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    tokenizer.chat_template = None
    return tokenizer


def test_prompt_ends_where_the_answer_begins(chat, make):
    prompt, answers = row_tokens(make.pair_row(0, "apple bread?", "yes cloud", "no"), SIDES, chat)
    assert chat.decode(prompt) == "<|im_start|>user\napple bread?<|im_end|>\n<|im_start|>assistant\n"
    assert [chat.decode(answer) for answer in answers] == ["yes cloud<|im_end|>\n", "no<|im_end|>\n"]


def test_a_token_over_the_border_belongs_to_the_response(chat, make):
    # a template that ends the prompt in "A:" while the answer's own rendering goes on in the same token run
    chat = AutoTokenizer.from_pretrained(chat.name_or_path)
    chat.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: th{% endif %}"
    )
    opening = chat("user: appleassistant: th")["input_ids"]
    prompt, answers = row_tokens(make.pair_row(0, "apple", "the", "thin"), SIDES, chat)
    assert prompt == opening[: len(prompt)]
    for answer, text in zip(answers, ("the", "thin"), strict=True):
        assert prompt + answer == chat(f"user: appleassistant: {text}")["input_ids"]


def test_plain_text_where_there_is_no_template(plain, make):
    prompt, (chosen, rejected) = row_tokens(make.pair_row(0, "apple?", "yes", "no"), SIDES, plain)
    assert plain.decode(prompt) == "\n\nHuman: apple?\n\nAssistant:"
    assert plain.decode(chosen) == " yes<|im_end|>"
    assert chosen[-1] == rejected[-1] == plain.eos_token_id


def test_null_keys_never_reach_the_template(chat, make):
    chat = AutoTokenizer.from_pretrained(chat.name_or_path)
    chat.chat_template = (
        "{% for m in messages %}{% if 'tool_calls' in m %}[{{ m.tool_calls[0].function.name }}]{% endif %}"
        "{% if 'name' in m %}({{ m.name }}){% endif %}{{ m.role }}: {{ m.get('content', '') }}|{% endfor %}"
    )
    row = make.pair_row(0, "apple?", "yes", "no")
    assert chat.decode(row_tokens(row, SIDES, chat)[0]) == "user: apple?|"
    call = [{"type": "function", "function": {"name": "lookup", "arguments": {}}}]
    row["chosen"] = [make.message("assistant", None, tool_calls=call)]
    data = make.dataset({"train": [row]}, {"train": make.paired_groups("train", [[[0]]])})
    prompt, (chosen, _) = row_tokens(data.pairs["train"][0], SIDES, chat)  # after the way through Arrow
    assert "[lookup]" in chat.decode(prompt + chosen)


def test_a_refusing_template_is_one_sentence(chat, make):
    chat = AutoTokenizer.from_pretrained(chat.name_or_path)
    chat.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(TrainingError, match=r"row 0{31}7: .*roles must alternate.*leave the row out"):
        row_tokens(make.pair_row(7, "a", "b", "c"), SIDES, chat)
    with pytest.raises(TrainingError, match=r"row 7e: .*leave the row out"):
        row_tokens({"response_id": "7e", "prompt": [], "completion": []}, ("completion",), chat)


@pytest.mark.parametrize("prompt", [0, 1, 3, 8, 40])
@pytest.mark.parametrize("chosen", [1, 5, 30])
@pytest.mark.parametrize("rejected", [1, 6, 29])
@pytest.mark.parametrize("limit", [4, 8, 13, 100])
def test_cutting_keeps_its_promises(prompt, chosen, rejected, limit):
    before = list(range(prompt)), [list(range(100, 100 + chosen)), list(range(200, 200 + rejected))]
    counts = TokenCounts()
    after = cut_row(*before, limit, None, counts)
    kept, answers = after
    assert kept == before[0][prompt - len(kept) :]  # the end stays
    assert all(answers)
    for answer, whole in zip(answers, before[1], strict=True):
        assert answer == whole[: len(answer)]
        assert len(kept) + len(answer) <= limit
    assert len(kept) >= min(prompt, limit / 4)
    if prompt + max(chosen, rejected) <= limit:
        assert after == before
    assert counts.prompts_cut == (len(kept) < prompt)
    assert counts.responses_cut == (len(answers[0]) < chosen) + (len(answers[1]) < rejected)


def test_the_bos_token_survives_a_cut():
    assert cut_row([1, 5, 6, 7, 8], [[9, 9], [9, 8]], 5, 1, TokenCounts())[0] == [1, 7, 8]


def test_cuts_are_counted_and_told(chat, make, caplog):
    rows = [
        make.pair_row(0, "apple bread?", "yes", "no"),
        make.pair_row(1, "apple bread? " * 20, "yes", "no"),
        make.pair_row(2, "apple?", "yes yes " * 30, "yes yes " * 30 + "no"),  # the same once cut
    ]
    with caplog.at_level(logging.WARNING, logger="rpo_data.trainer.tokenize"):
        counts = tokenize_pairs(rows, chat, 40).counts
    assert counts == TokenCounts(rows=3, prompts_cut=2, responses_cut=2, identical=1, empty=0)
    assert "3 pairs, cut to max_length 40: 2 prompts, 2 responses" in caplog.text
    assert "1 identical" in caplog.text


def test_equal_sequences_are_stored_once(chat, make):
    rows = [make.pair_row(0, "apple?", "yes", "no"), make.pair_row(1, "apple?", "yes", "never")]
    pairs = tokenize_pairs(rows, chat)
    assert pairs.chosen.tolist() == [0, 0]
    assert pairs.rejected.tolist() == [1, 2]
    assert len(pairs.sequences) == 3
    assert chat.decode(pairs.sequences[2]).endswith("never<|im_end|>\n")
