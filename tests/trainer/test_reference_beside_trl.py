"""What TRL 1.16.0's cache of reference log-probs does, beside our store; real DPOTrainers, and real forwards counted.

Its key is the fingerprint of the tokenised rows and the weights. Where max_length is set and the start of a sequence is
kept (its default), a filter whose closure holds the whole DPOConfig goes into that fingerprint: every setting counts.
Where not (max_length None, or keep_end), no setting counts at all.
"""

import functools
from importlib.metadata import version

import numpy as np
import pytest
from datasets import load_from_disk
from transformers import AutoTokenizer
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from rpo_data.trainer import RPOTrainer

trl = pytest.importorskip("trl")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.skipif(not version("trl").startswith("1.16."), reason="says what TRL 1.16 does"),
]


@pytest.fixture
def forwards(monkeypatch):
    """Sequences that went through a model, ours or TRL's."""
    counted, forward = [], Qwen2Model.forward

    @functools.wraps(forward)
    def count(self, input_ids=None, *args, **kwargs):
        counted.append(len(input_ids))
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(Qwen2Model, "forward", count)
    return counted


@pytest.fixture
def pairs(make):
    """Four pairs, the first two of them long."""
    rows = make.echo_pairs(4, seed=3)
    for row in rows[:2]:
        row["prompt"][0]["content"] *= 4
        row["chosen"][0]["content"] *= 6
    return make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2, 3]]])})


@pytest.fixture
def run_trl(tiny_models, pairs, forwards, tmp_path):
    """Forwards of a new DPOTrainer with these settings, and the reference log-probs of chosen that it trains with."""
    rows = pairs.pairs["train"].select_columns(["prompt", "chosen", "rejected"])

    def run(data="rows", **settings):
        if isinstance(data, str):  # a folder, so that datasets keeps its cache beside the rows
            if not (tmp_path / data).is_dir():
                rows.save_to_disk(str(tmp_path / data))
            data = load_from_disk(str(tmp_path / data))
        defaults = {"output_dir": str(tmp_path / "trl"), "use_cpu": True, "bf16": False, "report_to": "none"}
        args = trl.DPOConfig(**defaults | settings, precompute_ref_log_probs=True)
        tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
        forwards.clear()
        trainer = trl.DPOTrainer(str(tiny_models["qwen2"]), args=args, train_dataset=data, processing_class=tokenizer)
        return sum(forwards), np.array(trainer.train_dataset["ref_chosen_logps"])

    return run


@pytest.fixture
def run_ours(tiny_models, pairs, forwards, config, monkeypatch):
    """The same of a new RPOTrainer, one sequence a row; without its trial of layouts, which reads a first group each time."""
    monkeypatch.setattr("rpo_data.trainer.trainer.fit_layout", lambda collator, *_: collator)

    def run(**settings):
        forwards.clear()
        trainer = RPOTrainer(tiny_models["qwen2"], config(**settings), pairs)
        return sum(forwards), trainer.train_dataset.ref_logps[trainer.train_dataset.pairs.chosen]

    return run


@pytest.mark.parametrize("change", [{"learning_rate": 1e-4}, {"output_dir": "elsewhere"}, {"beta": 0.5}])
def test_a_setting_without_a_say_in_log_probs(change, run_trl, run_ours, tmp_path):
    change = {name: str(tmp_path / value) if name == "output_dir" else value for name, value in change.items()}
    computed, first = run_trl()
    assert computed == 8
    assert run_trl()[0] == 0  # its cache does work
    computed, again = run_trl(**change)
    assert computed == 8
    assert again.tolist() == first.tolist()  # for nothing
    computed, first = run_ours()
    assert computed == 8
    computed, again = run_ours(**change)
    assert computed == 0
    assert again.tolist() == first.tolist()


def test_a_changed_truncation(run_trl, run_ours, tmp_path):
    limits = {"max_length": None}, {"max_length": 32, "truncation_mode": "keep_end"}
    computed, whole = run_trl(**limits[0])
    assert computed == 8
    computed, cut = run_trl(**limits[1])
    assert computed == 0
    assert cut.tolist() == whole.tolist()  # the log-probs of texts that it no longer trains on
    computed, right = run_trl("another folder", **limits[1])
    assert computed == 8
    assert (np.abs(cut - right) > 1e-3).tolist() == [True, True, False, False]

    computed, ours = run_ours(max_length=None)
    assert computed == 8
    assert ours == pytest.approx(whole, abs=1e-3)  # the same tokens, the same model, the same numbers
    computed, cut = run_ours(max_length=32)
    assert computed == 4  # the long pairs
    assert (np.abs(cut - ours) > 1e-3).tolist() == [True, True, False, False]
    assert run_ours(max_length=32, cache_dir=str(tmp_path / "elsewhere"))[1] == pytest.approx(cut, abs=1e-4)


def test_a_changed_ld_alpha(run_trl):
    """Ours has no ld_alpha: all settings of the loss leave log-probs alone (test_reference.py)."""
    computed, plain = run_trl(max_length=None)
    assert computed == 8
    computed, weighted = run_trl(max_length=None, ld_alpha=0.5)
    assert computed == 0
    assert weighted.tolist() == plain.tolist()
    computed, right = run_trl("another folder", max_length=None, ld_alpha=0.5)
    assert computed == 8
    assert np.abs(weighted - right).max() > 1


def test_rows_in_memory(run_trl, run_ours, pairs):
    rows = pairs.pairs["train"].select_columns(["prompt", "chosen", "rejected"])
    assert rows.cache_files == []  # in memory, as ours are
    assert [run_trl(rows)[0] for _ in range(2)] == [8, 8]
    assert [run_trl(rows, max_length=None)[0] for _ in range(2)] == [8, 8]
    assert [run_ours()[0] for _ in range(2)] == [8, 0]
