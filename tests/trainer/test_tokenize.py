import logging

import pytest
from transformers import AutoTokenizer

from rpo_data.errors import TrainingError
from rpo_data.trainer.tokenize import PairTokens, TokenCounts, cut_pair, pair_tokens, tokenize_pairs


@pytest.fixture(scope="module")
def chat(tiny_models):
    return AutoTokenizer.from_pretrained(tiny_models["qwen2"])


@pytest.fixture
def plain(tiny_models):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    tokenizer.chat_template = None
    return tokenizer


def test_prompt_ends_where_the_answer_begins(chat, make):
    pair = pair_tokens(make.pair_row(0, "apple bread?", "yes cloud", "no"), chat)
    assert chat.decode(pair.prompt) == "<|im_start|>user\napple bread?<|im_end|>\n<|im_start|>assistant\n"
    assert chat.decode(pair.chosen) == "yes cloud<|im_end|>\n"
    assert chat.decode(pair.rejected) == "no<|im_end|>\n"


def test_a_token_over_the_border_belongs_to_the_response(chat, make):
    # a template that ends the prompt in "A:" while the answer's own rendering goes on in the same token run
    chat = AutoTokenizer.from_pretrained(chat.name_or_path)
    chat.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: th{% endif %}"
    )
    opening = chat("user: appleassistant: th")["input_ids"]
    pair = pair_tokens(make.pair_row(0, "apple", "the", "thin"), chat)
    assert pair.prompt == opening[: len(pair.prompt)]
    for answer, text in ((pair.chosen, "the"), (pair.rejected, "thin")):
        assert pair.prompt + answer == chat(f"user: appleassistant: {text}")["input_ids"]


def test_plain_text_where_there_is_no_template(plain, make):
    pair = pair_tokens(make.pair_row(0, "apple?", "yes", "no"), plain)
    assert plain.decode(pair.prompt) == "\n\nHuman: apple?\n\nAssistant:"
    assert plain.decode(pair.chosen) == " yes<|im_end|>"
    assert pair.chosen[-1] == pair.rejected[-1] == plain.eos_token_id


def test_null_keys_never_reach_the_template(chat, make):
    chat = AutoTokenizer.from_pretrained(chat.name_or_path)
    chat.chat_template = (
        "{% for m in messages %}{% if 'tool_calls' in m %}[{{ m.tool_calls[0].function.name }}]{% endif %}"
        "{% if 'name' in m %}({{ m.name }}){% endif %}{{ m.role }}: {{ m.get('content', '') }}|{% endfor %}"
    )
    row = make.pair_row(0, "apple?", "yes", "no")
    assert chat.decode(pair_tokens(row, chat).prompt) == "user: apple?|"
    call = [{"type": "function", "function": {"name": "lookup", "arguments": {}}}]
    row["chosen"] = [make.message("assistant", None, tool_calls=call)]
    data = make.dataset({"train": [row]}, {"train": make.paired_groups("train", [[[0]]])})
    stored = pair_tokens(data.pairs["train"][0], chat)  # after the way through Arrow
    assert "[lookup]" in chat.decode(stored.prompt + stored.chosen)


def test_a_refusing_template_is_one_sentence(chat, make):
    chat = AutoTokenizer.from_pretrained(chat.name_or_path)
    chat.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(TrainingError, match=r"pair 0{31}7: .*roles must alternate.*leave the pair out"):
        pair_tokens(make.pair_row(7, "a", "b", "c"), chat)


@pytest.mark.parametrize("prompt", [0, 1, 3, 8, 40])
@pytest.mark.parametrize("chosen", [1, 5, 30])
@pytest.mark.parametrize("rejected", [1, 6, 29])
@pytest.mark.parametrize("limit", [4, 8, 13, 100])
def test_cutting_keeps_its_promises(prompt, chosen, rejected, limit):
    pair = PairTokens(list(range(prompt)), list(range(100, 100 + chosen)), list(range(200, 200 + rejected)))
    counts = TokenCounts()
    cut = cut_pair(pair, limit, None, counts)
    assert cut.prompt == pair.prompt[prompt - len(cut.prompt) :]  # the end stays
    assert cut.chosen == pair.chosen[: len(cut.chosen)]
    assert cut.rejected == pair.rejected[: len(cut.rejected)]
    assert cut.chosen
    assert cut.rejected
    assert max(len(cut.prompt) + len(answer) for answer in (cut.chosen, cut.rejected)) <= limit
    assert len(cut.prompt) >= min(prompt, limit / 4)
    if prompt + max(chosen, rejected) <= limit:
        assert cut == pair
    assert counts.prompts_cut == (len(cut.prompt) < prompt)
    assert counts.responses_cut == (len(cut.chosen) < chosen) + (len(cut.rejected) < rejected)


def test_the_bos_token_survives_a_cut():
    cut = cut_pair(PairTokens([1, 5, 6, 7, 8], [9, 9], [9, 8]), 5, 1, TokenCounts())
    assert cut.prompt == [1, 7, 8]


def test_cuts_are_counted_and_told(chat, make, caplog):
    rows = [
        make.pair_row(0, "apple bread?", "yes", "no"),
        make.pair_row(1, "apple bread? " * 20, "yes", "no"),
        make.pair_row(2, "apple?", "yes yes " * 30, "yes yes " * 30 + "no"),  # the same once cut
    ]
    with caplog.at_level(logging.WARNING, logger="rpo_data.trainer.tokenize"):
        counts = tokenize_pairs(rows, chat, 40).counts
    assert counts == TokenCounts(pairs=3, prompts_cut=2, responses_cut=2, identical=1, empty=0)
    assert "3 pairs, cut to max_length 40: 2 prompts, 2 responses" in caplog.text
    assert "1 identical" in caplog.text


def test_equal_sequences_are_stored_once(chat, make):
    rows = [make.pair_row(0, "apple?", "yes", "no"), make.pair_row(1, "apple?", "yes", "never")]
    pairs = tokenize_pairs(rows, chat)
    assert pairs.chosen.tolist() == [0, 0]
    assert pairs.rejected.tolist() == [1, 2]
    assert len(pairs.sequences) == 3
    assert chat.decode(pairs.sequences[2]).endswith("never<|im_end|>\n")
